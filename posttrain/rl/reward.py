"""What each attempt is paid for. Rewards are [B, K]: one row per episode, one column per attempt, and no credit flows between columns."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from posttrain.types import Episode

BonusTo: TypeAlias = Literal["later", "earlier"]


def rewards(episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
    """(reward_BK, scored_B): 1 for a correct attempt, else 0; an episode with any unscored verdict is False in `scored_B`."""
    reward_BK = torch.tensor([[float(turn.verdict.correct) for turn in episode.turns] for episode in episodes])
    scored_B = torch.tensor([all(turn.verdict.scored for turn in episode.turns) for episode in episodes])
    return reward_BK, scored_B


def sampled_attempts(episodes: Sequence[Episode]) -> Tensor:
    """[B, K], True where the policy itself made the attempt: what it was given has no gradient and is nobody's baseline."""
    return torch.tensor([[not turn.given for turn in episode.turns] for episode in episodes])


def shaped_reward(reward_BK: Tensor, weight: Sequence[float], bonus: float, bonus_to: BonusTo = "later") -> Tensor:
    """r_k <- w_k (r_k + bonus * (r_k - r_{k-1})) for every attempt after the first; the first has no bonus. [B, K] -> [B, K].

    arXiv 2409.12917: Eq. 3 (Stage I) is weight (0, 1) without bonus; Eq. 4 with sec. 5.2 (Stage II) is weight (1, 1) and bonus
    alpha = 10; plain multi-turn RL (Eq. 2) is weight (1, 1) without bonus. With alpha = 10 a second attempt that fixes earns 11, that
    breaks -10. Credit each attempt with its own column only: summed over attempts, a right first attempt would be worth 1 - alpha.
    `bonus_to="earlier"` pays the progress to the attempt before it, which is then paid to fail: an ablation, not a method.
    """
    if reward_BK.ndim != 2 or reward_BK.shape[1] != len(weight):
        raise ValueError(f"need rewards [B, {len(weight)}], one column per attempt; got {list(reward_BK.shape)}")
    progress_BK = torch.zeros_like(reward_BK)
    paid = progress_BK[:, 1:] if bonus_to == "later" else progress_BK[:, :-1]
    paid += reward_BK[:, 1:] - reward_BK[:, :-1]
    return torch.tensor(weight) * (reward_BK + bonus * progress_BK)


def returns_to_go(shaped_BK: Tensor, gamma: float) -> Tensor:
    """R_k = r_k + gamma R_{k+1}, [B, K] -> [B, K]. SCoRe has gamma = 0: above it, a right first attempt forfeits the bonus to come."""
    return_BK = shaped_BK.clone()
    for k in reversed(range(shaped_BK.shape[1] - 1)):
        return_BK[:, k] += gamma * return_BK[:, k + 1]
    return return_BK
