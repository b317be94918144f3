"""Attention heads that begin life looking back: head h of a layer attends to the token h + 1 places before.

Learning in context is learning to match: the token that asks for a label has to find the tokens before that label. In a model trained from
nothing the matching cannot be learnt before some head has brought those tokens and their label together, and finding such heads by
chance is most of the training time (the plateau before an induction head forms, arXiv 2209.11895). Rotary embeddings and the biases of
Qwen2's queries and keys can write "look h + 1 back" down exactly: with q and k constant, their product depends on the distance alone.
All of it stays trainable.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

FREQUENCIES = 3  # the fastest rotations: enough to tell neighbours apart, and not to see one again thousands of tokens away
QUIET = 0.1  # factor on the content part of queries and keys


def look_back(model: "Qwen2ForCausalLM", sharpness: float) -> None:
    """Set the biases of layer 0 so that head h prefers the token h + 1 back by about `sharpness` nats for each frequency."""
    import torch

    shape = model.config
    size, half = shape.hidden_size // shape.num_attention_heads, shape.hidden_size // shape.num_attention_heads // 2
    frequency = shape.rope_parameters["rope_theta"] ** (-torch.arange(half)[:FREQUENCIES] / half)
    length = (sharpness * size**0.5) ** 0.5  # q.k / sqrt(size) = sharpness * sum of cos(frequency * (distance - h - 1))
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        for head in range(shape.num_attention_heads):
            rows = slice(head * size, (head + 1) * size)
            query, key = torch.zeros(2, size)
            key[:FREQUENCIES] = length
            query[:FREQUENCIES] = length * torch.cos(-frequency * (head + 1))
            query[half : half + FREQUENCIES] = length * torch.sin(-frequency * (head + 1))
            attention.q_proj.bias[rows], attention.k_proj.bias[rows] = query, key
        attention.q_proj.weight *= QUIET
        attention.k_proj.weight *= QUIET
