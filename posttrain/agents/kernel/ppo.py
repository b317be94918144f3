"""The pieces of proximal policy optimisation (arXiv 1707.06347). Its advantages are `returns.lambda_return` less the values."""

import torch
from torch import Tensor


def drawn(logits_BA: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Actions from softmax(logits), with their log-probabilities, each [B]."""
    logp_BA = logits_BA.log_softmax(-1)
    action_B1 = torch.multinomial(logp_BA.exp(), 1, generator=draws)
    return action_B1[:, 0], logp_BA.gather(-1, action_B1)[:, 0]


def clipped_loss(logp: Tensor, old_logp: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-mean min(r A, clip(r, 1 - c, 1 + c) A), r = exp(logp - old_logp) (Eq. 7)."""
    ratio = (logp - old_logp).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def normalised(advantage: Tensor) -> Tensor:
    """Less its mean, over its standard deviation; a constant becomes 0."""
    return (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)


def entropy(logits: Tensor) -> Tensor:
    """-sum p log p of softmax(logits), [..., A] -> [...]."""
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)
