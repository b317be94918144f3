"""ThinkTwice (arXiv 2604.01591): a step on solving, then a step on refining one of the answers just given, with the same plain reward.

The cheap rival of SCoRe: no stages, no bonus, no pin. Both halves are `rl/score.py`'s step with other numbers: solving has one attempt;
refining has two, of which the first is given, the same for all samples of a problem, and carries no gradient.
"""

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

from posttrain.config import config
from posttrain.rl import recipe
from posttrain.rl.loop import Figures, History, Learner, run_steps
from posttrain.rl.score import open_run, score_step, validate
from posttrain.run import seed_for
from posttrain.types import Episode, Problem


@config
class Config(recipe.Config):
    """Alternating solve and refine steps: two updates a step, from `samples` answers and as many refinements of each problem."""

    kind: Literal["think_twice"] = "think_twice"  # type: ignore[assignment]  # another kind than that of the recipe it extends

    def __post_init__(self) -> None:
        recipe.Config.__post_init__(self)
        if self.weight != (1.0, 1.0) or self.bonus or self.gamma or self.offline or self.shared_first or self.kl.target:
            raise ValueError("think_twice pays solving and refining alike: no weight, bonus, gamma, offline, shared_first or kl.target")


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train into the run folder `out`; returns the exit code. Errors are those of `rl/score.py`."""
    with open_run(cfg, out, resume) as run:
        return run_steps(run, partial(think_twice_step, run.learner), partial(validate, run.learner))


def think_twice_step(learner: Learner, problems: Sequence[Problem], step: int, history: History = ()) -> tuple[list[Episode], Figures]:
    """Two updates: on `samples` answers to each problem, then on as many refinements of one of them. The figures are of the second."""
    first, second = learner.cfg.kl.coef
    solver = replace(learner, cfg=_half(learner.cfg, (1.0,), (first,)))
    refiner = replace(learner, cfg=_half(learner.cfg, (0.0, 1.0), (0.0, second)))
    solved, solving = score_step(solver, problems, step)
    picked = {problem.id: [_one_of(solved, problem, step, learner.cfg.seed)] for problem in problems}
    refined, refining = score_step(replace(refiner, given=picked, given_share=1.0), problems, step)
    spent = {key: solving[key] + refining[key] for key in solving if key in ("train/samples", "train/tokens") or key.endswith("_s")}
    own = {key: solving[key] for key in ("train/acc_t1", "train/kl_t1", "train/gap_t1", "train/zero_variance_t1")}
    return refined, {**refining, **own, **spent, "train/reward": solving["train/reward"] + refining["train/reward"], "train/updates": 2.0}


def _half(cfg: recipe.Config, weight: tuple[float, ...], coef: tuple[float, ...]) -> recipe.Config:
    """The recipe of one kind of step."""
    common = {field.name: getattr(cfg, field.name) for field in fields(recipe.Config)}
    return recipe.Config(**common | {"kind": "score", "weight": weight, "kl": replace(cfg.kl, coef=coef)})


def _one_of(solved: Sequence[Episode], problem: Problem, step: int, seed: int) -> str:
    """The answer that is refined: a seeded draw from the problem's samples."""
    texts = [episode.turns[0].text for episode in solved if episode.problem.id == problem.id]
    return random.Random(seed_for(seed, step, problem.id, "refine")).choice(texts)
