"""Diversity of a set of policies as distances between their successor features, at a bounded price (arXiv 2205.13521).

psi_i = E_{d_i}[phi(s, a)] is what policy i meets on average. Every policy is driven from its nearest neighbour j* at distance l_i,

    Diversity = sum_i 1/2 l_i^2                                repulsive:        r_i = phi . (psi_i - psi_j*)
    Diversity = sum_i 1/2 l_i^2 - 1/5 l_i^5 / l_0^3            van der Waals:    r_i = (1 - (l_i / l_0)^3) phi . (psi_i - psi_j*)

the reward being the gradient of the policy's own term, its neighbour held still; the second is at rest where l_i = l_0. What a policy may
pay for it is told by a multiplier: sigmoid(mu_i) is the share of its task's reward in what it maximises. Axes N policies, D features;
leading ones are sets side by side.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Nearest(NamedTuple):
    """Of every policy the other one whose features are closest."""

    distance: Tensor
    """l, [..., N]"""
    neighbour: Tensor
    """j*, [..., N]"""
    difference: Tensor
    """psi_i - psi_j*, [..., N, D]"""


def nearest(psi_ND: Tensor) -> Nearest:
    """Each policy's nearest neighbour; raises `ValueError` where there is none."""
    num = psi_ND.shape[-2]
    if num < 2:
        raise ValueError(f"need at least two policies to be different, got {num}")
    difference_NND = psi_ND[..., :, None, :] - psi_ND[..., None, :, :]
    square_NN = difference_NND.square().sum(-1)
    itself_NN = torch.eye(num, dtype=torch.bool, device=psi_ND.device)
    square_N, index_N = square_NN.masked_fill(itself_NN, torch.inf).min(-1)
    picked = index_N[..., None, None].expand(*index_N.shape, 1, psi_ND.shape[-1])
    return Nearest(square_N.sqrt(), index_N, difference_NND.gather(-2, picked)[..., 0, :])


def force(distance: Tensor, rest: float | None) -> Tensor:
    """How strongly a policy is driven from its neighbour: 1, or with a distance of rest l_0 van der Waals' 1 - (l / l_0)^3."""
    return torch.ones_like(distance) if rest is None else 1 - (distance / rest) ** 3


def discrimination_reward(logits: Tensor, policy: Tensor) -> Tensor:
    """log q(z | s) - log p(z) for an even p: how well it can be told who is there (DIAYN, arXiv 1802.06070), [..., N], [...] -> [...]."""
    return logits.log_softmax(-1).gather(-1, policy[..., None])[..., 0] + torch.log(torch.tensor(float(logits.shape[-1])))


def task_share(multiplier_N: Tensor) -> Tensor:
    """sigmoid(mu), the share of the task in what each policy maximises; the first one's is 1, as it says what the best return is."""
    share_N = multiplier_N.sigmoid()
    return torch.cat([torch.ones_like(share_N[..., :1]), share_N[..., 1:]], -1)


def stepped_multipliers(multiplier_N: Tensor, value_N: Tensor, alpha: float, rate: float, largest: float) -> Tensor:
    """One step down the gradient of sum_{i > 1} sigmoid(mu_i) (v_i - alpha v_1), within +-`largest`, beyond which the sigmoid is flat.

    A policy below alpha times the first one's value gets a larger share of its task, one above a smaller share.
    """
    share_N = multiplier_N.sigmoid()
    slack_N = value_N - alpha * value_N[..., :1]
    stepped_N = (multiplier_N - rate * share_N * (1 - share_N) * slack_N).clamp(-largest, largest)
    return torch.cat([multiplier_N[..., :1], stepped_N[..., 1:]], -1)


def running(average: Tensor, sample: Tensor, decay: float) -> Tensor:
    """decay * average + (1 - decay) * sample; where there is no average yet, which NaN says, the sample."""
    return torch.where(average.isnan(), sample, decay * average + (1 - decay) * sample)


def places(obs: Tensor, side: int) -> Tensor:
    """How close the first two numbers are to each of side x side places, [..., D] -> [..., side^2]: Gaussian bumps that sum to 1."""
    line = torch.linspace(-1, 1, side, device=obs.device)
    width = 0.5 * (line[1] - line[0])
    x, y = (-((obs[..., axis, None] - line) / width).square() / 2 for axis in (0, 1))
    return (x[..., :, None] + y[..., None, :]).flatten(-2).softmax(-1)
