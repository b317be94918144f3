"""Baselines, per attempt: each column of [B, K] is compared with the same column of the same problem's other samples.

`counts` says which entries take part, [B] for whole rows or [B, K]: not those that no grader scored, nor attempts given to the policy.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def leave_one_out(reward_BK: Tensor, group: int, counts: Tensor) -> Tensor:
    """A_i = r_i - mean of the other samples' r_j (RLOO, arXiv 2402.14740), [B, K] -> [B, K].

    Rows come `group` to a problem. Entries that do not count get 0 and are nobody's baseline; so does one that has no companion.
    """
    num_rows, num_attempts = reward_BK.shape
    if group < 2 or num_rows % group:
        raise ValueError(f"leave-one-out needs groups of at least 2 samples that fill the batch; got {num_rows} rows in groups of {group}")
    counts_G = _per_attempt(counts, reward_BK).view(-1, group, num_attempts)
    reward_G = reward_BK.view(-1, group, num_attempts) * counts_G
    others_G = counts_G.sum(1, keepdim=True) - counts_G
    baseline_G = (reward_G.sum(1, keepdim=True) - reward_G) / others_G.clamp(min=1)
    advantage_G = (reward_G - baseline_G) * counts_G * (others_G > 0)
    return advantage_G.view(num_rows, num_attempts)


def leave_one_out_by_outcome(shaped_BK: Tensor, reward_BK: Tensor, group: int, counts: Tensor) -> Tensor:
    """The same, but an attempt is compared only with samples whose earlier attempts were graded alike, [B, K] -> [B, K].

    What an attempt follows is part of its state, so a baseline may depend on it: the gradient stays unbiased, and a second attempt that
    keeps a wrong answer is no longer punished for the luck of others whose first attempt was right. Where a sample is alone with its
    outcome, the leave-one-out over the whole group stands in.
    """
    advantage_BK, counts_BK = leave_one_out(shaped_BK, group, counts), _per_attempt(counts, shaped_BK)
    for k in range(1, shaped_BK.shape[1]):
        before_G = reward_BK[:, :k].reshape(-1, group, k)
        alike_GG = (before_G[:, :, None] == before_G[:, None]).all(-1) & ~torch.eye(group, dtype=torch.bool)
        alike_GG = alike_GG * counts_BK[:, k].view(-1, 1, group)
        reward_G, num_G = shaped_BK[:, k].view(-1, group), alike_GG.sum(-1)
        own_B = (reward_G - (alike_GG @ reward_G[:, :, None])[:, :, 0] / num_G.clamp(min=1)).flatten()
        advantage_BK[:, k] = torch.where((num_G.flatten() > 0) & (counts_BK[:, k] > 0), own_B, advantage_BK[:, k])
    return advantage_BK


def standardise(advantage_BK: Tensor, reward_BK: Tensor, group: int, counts: Tensor) -> Tensor:
    """A_ik / (std of the group's r_k + 1e-4), as GRPO divides (arXiv 2402.03300, Eq. 4.1.2), per attempt, [B, K] -> [B, K].

    It undoes any factor on an attempt's reward: where a group's samples share one first attempt, alpha is without effect.
    """
    num_rows, num_attempts = reward_BK.shape
    counts_G = _per_attempt(counts, reward_BK).view(-1, group, num_attempts)
    reward_G, num_G = reward_BK.view(-1, group, num_attempts), counts_G.sum(1, keepdim=True)
    mean_G = (reward_G * counts_G).sum(1, keepdim=True) / num_G.clamp(min=1)
    std_G = (((reward_G - mean_G) * counts_G).square().sum(1, keepdim=True) / (num_G - 1).clamp(min=1)).sqrt()
    return (advantage_BK.view(-1, group, num_attempts) / (std_G + 1e-4)).view(num_rows, num_attempts)


def scaled_by_role(advantage_BK: Tensor, roles: Sequence[Sequence[int]], counts: Tensor) -> Tensor:
    """A_ik / (root mean square of A over all that counts in the role of attempt k + 1e-4), [B, K] -> [B, K] (arXiv 2506.10406).

    `roles` holds the attempts (from 0) of each role. Advantages over a baseline have mean 0, so this is their standard deviation.
    """
    counts_BK, scaled_BK = _per_attempt(counts, advantage_BK), advantage_BK.clone()
    for role in map(list, roles):
        square = (advantage_BK[:, role].square() * counts_BK[:, role]).sum() / counts_BK[:, role].sum().clamp(min=1)
        scaled_BK[:, role] /= square.sqrt() + 1e-4
    return scaled_BK


def informative_rows(advantage_BK: Tensor, group: int) -> Tensor:
    """How many rows stand in groups that carry any signal, per attempt: [K], at least 1.

    A group whose advantages are all 0 moves nothing; counting it would scale the others' gradient by the share of solved problems.
    """
    live_GK = (advantage_BK.view(-1, group, advantage_BK.shape[1]).abs().amax(1) > 0).to(torch.float32)
    return (live_GK.sum(0) * group).clamp(min=1.0)


def zero_variance_share(reward_BK: Tensor, group: int) -> list[float]:
    """The share of problems whose samples all earned the same at an attempt, per attempt: high means little to learn from."""
    grouped = reward_BK.view(-1, group, reward_BK.shape[1])
    return (grouped.amax(1) == grouped.amin(1)).float().mean(0).tolist()


def _per_attempt(counts: Tensor, like_BK: Tensor) -> Tensor:
    return counts.view(len(like_BK), -1).expand_as(like_BK).to(like_BK.dtype)
