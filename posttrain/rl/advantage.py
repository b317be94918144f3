"""Baselines, per attempt: each column of [B, K] is compared with the same column of the same problem's other samples."""

import torch
from torch import Tensor


def leave_one_out(reward_BK: Tensor, group: int, scored_B: Tensor) -> Tensor:
    """A_i = r_i - mean of the other scored samples' r_j (RLOO, arXiv 2402.14740), [B, K] -> [B, K].

    Rows come `group` to a problem. Unscored rows get 0 and count for nobody; so does a row that has no scored companion.
    """
    num_rows, num_attempts = reward_BK.shape
    if group < 2 or num_rows % group:
        raise ValueError(f"leave-one-out needs groups of at least 2 samples that fill the batch; got {num_rows} rows in groups of {group}")
    scored_G = scored_B.view(-1, group, 1).to(reward_BK.dtype)
    reward_G = reward_BK.view(-1, group, num_attempts) * scored_G
    others_G = scored_G.sum(1, keepdim=True) - scored_G
    baseline_G = (reward_G.sum(1, keepdim=True) - reward_G) / others_G.clamp(min=1)
    advantage_G = (reward_G - baseline_G) * scored_G * (others_G > 0)
    return advantage_G.view(num_rows, num_attempts)


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
