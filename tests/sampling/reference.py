"""What an engine must agree with: one plain forward pass per row, no cache, no padding."""

import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from posttrain.types import Completion, TokenIds

FAMILIES = ("qwen2", "llama", "gemma")


def load(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def with_lora(model: torch.nn.Module, *, seed: int = 0, **options) -> torch.nn.Module:
    """`model` under an adapter whose B matrices are not zero, so that it changes what the model says."""
    from peft import LoraConfig, get_peft_model

    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], "init_lora_weights": False} | options
    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))


def some_prompts(num_ids: int, lengths: tuple[int, ...] = (5, 40, 5, 17, 90, 41, 12)) -> list[TokenIds]:
    draw = random.Random(0)
    return [tuple(draw.randrange(num_ids - 8) for _ in range(length)) for length in lengths]  # the last ids are special ones


def forward_logprobs(model: torch.nn.Module, prompt: TokenIds, ids: TokenIds, temperature: float = 1.0) -> list[float]:
    """log p of each of `ids` after `prompt`, under softmax(logits / temperature), the plain softmax for temperature 0."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    logp = (logits.float() / (temperature or 1.0)).log_softmax(-1)
    return logp.gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()


def worst_gap(model: torch.nn.Module, prompts: list[TokenIds], completions: list[Completion], temperature: float = 1.0) -> float:
    """The largest difference between an engine's log-probabilities and a plain forward pass, over all sampled tokens."""
    gaps = [0.0]
    for prompt, completion in zip(prompts, completions, strict=True):
        truth = forward_logprobs(model, prompt, completion.ids, temperature)
        gaps += [abs(a - b) for a, b in zip(completion.logprobs, truth, strict=True)]
    return max(gaps)
