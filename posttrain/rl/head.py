"""Log-probabilities of chosen tokens from hidden states, without the logits of all tokens: the largest tensor of a step is never made.

At 151,936 ids the float32 logits of 4,096 tokens are 2.3 GiB, their gradient as much again. Here a few rows of logits exist at a time, in
the forward pass and, computed once more, in the backward pass; what is kept between them is one number per token.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}  # numbers: the more, the better a GPU's matrix units are used


def chosen_logprobs(hidden_ND: Tensor, weight_VD: Tensor, token_N: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(hidden @ weight^T / temperature) at `token_N`, [N] in float32; computes in autocast's type where that is on."""
    kind = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_ND.dtype
    return _Chosen.apply(hidden_ND, weight_VD, token_N, temperature, dtype)


class _Chosen(torch.autograd.Function):
    """d logp / d logits = (1[chosen] - p) / temperature, p from the log-sum-exp that the forward pass leaves."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, token_N: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
        chosen_N, total_N = (hidden_ND.new_empty(len(token_N), dtype=torch.float32) for _ in range(2))
        for rows, logits_CV in _logits(hidden_ND, weight_VD.to(dtype), temperature):
            chosen_N[rows] = logits_CV.gather(1, token_N[rows, None])[:, 0]
            highest_C = logits_CV.amax(1)
            total_N[rows] = logits_CV.sub_(highest_C[:, None]).exp_().sum(1).log_().add_(highest_C)
        ctx.save_for_backward(hidden_ND, weight_VD, token_N, total_N)
        ctx.temperature, ctx.dtype = temperature, dtype
        return chosen_N - total_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, token_N, total_N = ctx.saved_tensors
        weight = weight_VD.to(ctx.dtype)
        hidden_grad, weight_grad = (
            torch.zeros_like(tensor) if wanted else None for tensor, wanted in zip((hidden_ND, weight_VD), ctx.needs_input_grad)
        )
        grad_N = grad_N / ctx.temperature
        for rows, logits_CV in _logits(hidden_ND, weight, ctx.temperature):
            slope_CV = logits_CV.sub_(total_N[rows, None]).exp_().mul_(-grad_N[rows, None])
            slope_CV = slope_CV.scatter_add_(1, token_N[rows, None], grad_N[rows, None]).to(ctx.dtype)
            if hidden_grad is not None:
                hidden_grad[rows] = (slope_CV @ weight).to(hidden_grad.dtype)
            if weight_grad is not None:
                _add_product(weight_grad, slope_CV.T, hidden_ND[rows].to(ctx.dtype))
        return hidden_grad, weight_grad, None, None, None


def _logits(hidden_ND: Tensor, weight_VD: Tensor, temperature: float) -> Iterator[tuple[slice, Tensor]]:
    """(rows, their logits [C, V] in float32) piece by piece, all in one buffer, which the caller may overwrite until the next piece.

    With a buffer for each piece the allocator's heap would grow by one each time: what is left of the last is just too small for the next.
    """
    num = max(1, LOGITS_AT_ONCE[hidden_ND.device.type] // len(weight_VD))
    buffer = weight_VD.new_empty(min(num, len(hidden_ND)), len(weight_VD))
    wide = buffer if buffer.dtype == torch.float32 else torch.empty_like(buffer, dtype=torch.float32)
    for start in range(0, len(hidden_ND), num):
        rows = slice(start, min(start + num, len(hidden_ND)))
        size = rows.stop - rows.start
        torch.mm(hidden_ND[rows].to(weight_VD.dtype), weight_VD.T, out=buffer[:size])
        logits_CV = wide[:size] if wide is buffer else wide[:size].copy_(buffer[:size])
        yield rows, logits_CV if temperature == 1 else logits_CV.div_(temperature)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, summed in the type of `total`: rounding each chunk's product to bfloat16 first would bias the sum."""
    if a.dtype != total.dtype and a.is_cuda:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))


@torch.no_grad()
def plain_head(model: "PreTrainedModel") -> Tensor | None:
    """The weight [V, D] that makes logits of the last hidden state, None where they are anything else than hidden @ weight^T.

    Found out by running the model on two tokens: what reaches the head must be the last hidden state, and what leaves it, here numbers put
    in its place, must be the logits bit by bit. So a scale, a cap, a bias or an adapter on the head shows, whatever the model calls it.
    """
    core = without_adapter(model)
    head = core.get_output_embeddings()
    if type(head) is not nn.Linear or getattr(head, "bias", None) is not None:
        return None
    ids_12 = torch.tensor([[0, 1]], device=head.weight.device)
    met: dict[str, Tensor] = {}

    def exchange(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        met["hidden"], met["logits"] = args[0], torch.linspace(-50, 50, output.numel()).view_as(output).to(output)
        return met["logits"]

    hook = head.register_forward_hook(exchange)
    try:
        logits = core(input_ids=ids_12, use_cache=False).logits
    finally:
        hook.remove()
    hidden = core.base_model(input_ids=ids_12, use_cache=False).last_hidden_state
    same = torch.equal(logits, met["logits"]) and torch.allclose(hidden, met["hidden"], rtol=1e-3, atol=1e-4)
    return head.weight if same else None


def without_adapter(model: "PreTrainedModel") -> "PreTrainedModel":
    """The causal model itself; an adapter's layers stay in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
