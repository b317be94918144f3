"""PAG (arXiv 2506.10406): attempt, verify, and revise only what was judged wrong; one policy in both roles, each turn paid for itself.

The step is `rl/score.py`'s with other episodes and another credit. An episode's columns are the attempt, the verdict on it and the
revision. The verdict earns 1 for being right about the attempt, the revision its reward and alpha (r3 - r1) on top, and no credit flows
between turns: if only the last one were paid, the verifier would collapse. Advantages are scaled within each role, as attempts and
verdicts are right at different rates. An attempt that was kept has no third turn: no tokens, no gradient, nobody's baseline.

Here the baseline is leave-one-out and the KL is in the reward, as for all methods here; the paper has PPO with a critic, and no KL.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from posttrain.config import config
from posttrain.evaluation import metrics
from posttrain.rl import recipe
from posttrain.rl.advantage import scaled_by_role
from posttrain.rl.loop import Figures, History, Learner, run_steps
from posttrain.rl.reward import shaped_reward
from posttrain.rl.score import Clock, credit, improve, open_run, push, sample
from posttrain.rollout.verify import attempts_of, verify_then_revise
from posttrain.types import Episode, Problem

ROLES = ((0, 2), (1,))  # who attempts, who verifies
COLUMNS = {"_t2": "_verdict", "_t3": "_t2"}  # the third turn is the second attempt


@config
class Config(recipe.Config):
    """Verify-then-revise RL. `weight` and `kl.coef` have three numbers: for the attempt, the verdict and the revision."""

    kind: Literal["pag"] = "pag"  # type: ignore[assignment]  # another kind than that of the recipe it extends
    weight: tuple[float, ...] = (1.0, 1.0, 1.0)
    """What the reward of each turn counts."""
    bonus: float = 1.0
    """alpha: how much the revision's progress over the attempt is worth."""

    def __post_init__(self) -> None:
        recipe.Config.__post_init__(self)
        if len(self.weight) != 3:
            raise ValueError(f"pag has three turns, the attempt, the verdict and the revision; weight has {len(self.weight)} numbers")
        if self.gamma or self.offline or self.shared_first or self.standardise or self.kl.target or self.bonus_to != "later":
            raise ValueError(
                "pag credits each turn by itself, per role: no gamma, offline, shared_first, standardise, kl.target or bonus_to"
            )


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train into the run folder `out`; returns the exit code. Errors are those of `rl/score.py`."""
    with open_run(cfg, out, resume) as run:
        return run_steps(run, partial(pag_step, run.learner), partial(validate, run.learner))


def pag_step(learner: Learner, problems: Sequence[Problem], step: int, history: History = ()) -> tuple[list[Episode], Figures]:
    """One update on all turns that were sampled. Returns the episodes, of three turns each, and the step's figures."""
    clock, cfg = Clock(), learner.cfg
    push(learner)
    clock.lap("push_s")
    episodes = sample(learner, problems, samples=cfg.samples, seed=cfg.seed, step=step, by=verify_then_revise)
    clock.lap("rollout_s")
    figures = improve(learner, episodes, pag_credit, history)
    named = {key[:-3] + COLUMNS.get(key[-3:], key[-3:]): value for key, value in figures.items()}
    return episodes, {**told(episodes, "train/"), **named, **clock.laps}


def validate(learner: Learner, held_out: Sequence[Problem]) -> Figures:
    """The figures of the current policy on held-out problems; the seeds of the draws are the same at every look."""
    push(learner)
    cfg = learner.cfg
    return told(sample(learner, held_out, samples=cfg.validation.samples, seed=cfg.seed + 1, step=0, by=verify_then_revise), "val/")


def pag_credit(reward_BK: Tensor, penalty_BK: Tensor, counts_BK: Tensor, cfg: recipe.Config) -> Tensor:
    """The advantage of each turn, [B, 3]: `credit` of its own reward, scaled within its role."""
    own_BK = credit(revision_reward(reward_BK, cfg.bonus), penalty_BK, counts_BK, replace(cfg, bonus=0.0))
    return scaled_by_role(own_BK, ROLES, counts_BK)


def revision_reward(reward_BK: Tensor, alpha: float) -> Tensor:
    """r3 <- r3 + alpha (r3 - r1), the others unchanged, [B, 3] -> [B, 3]."""
    first, last = shaped_reward(reward_BK[:, [0, 2]], (1.0, 1.0), alpha).unbind(1)
    return torch.stack([first, reward_BK[:, 1], last], dim=1)


def told(episodes: Sequence[Episode], prefix: str) -> Figures:
    """What a step's episodes say: of the two attempts, how often the verdict is right, and how often one is asked to revise."""
    scored = [episode for episode in episodes if all(turn.verdict.scored for turn in episode.turns)]
    row = metrics.training_row([attempts_of(episode) for episode in episodes], prefix)
    right, revised = sum(e.turns[1].verdict.correct for e in scored), sum(not e.turns[2].given for e in episodes)
    return {**row, f"{prefix}verifier_acc": right / len(scored), f"{prefix}revised": revised / len(episodes)}
