"""SCoRe's step with its sampling a step ahead: while the policy is updated on one batch, the engine draws the next one.

A batch is then sampled by the policy before the last update; truncated importance weights (`rl/loss.py`) stand for the difference. It pays
where the engine computes elsewhere than the trainer: on other cores, another GPU, another machine. What was sampled ahead is written beside
each checkpoint, so a run that is killed goes on with the same bits.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from posttrain.rl import score
from posttrain.rl.checkpoint import CheckpointError
from posttrain.rl.loop import Figures, History, Run
from posttrain.rollout.problems import draw_problems
from posttrain.rollout.store import read_episodes, write_episodes
from posttrain.types import Episode, Problem


class Ahead:
    """The steps of a run, each on episodes that were begun during the step before; the first step's are its own policy's.

    At the end of `with`, whatever ends it, the thread that samples is done and the engine may be closed.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._thread = run, ThreadPoolExecutor(1)
        self._begun: Future[list[Episode]] | None = None
        """This rank's share of the next step's episodes, under way."""
        self._known: list[Episode] = []
        """All of them, once they are there."""
        if run.start and run.start < run.learner.cfg.steps:
            kept = _file(run, run.start + 1)
            if not kept.exists():
                raise CheckpointError(f"{kept}: the episodes sampled ahead of the last checkpoint are gone; start anew under another --out")
            self._known = list(read_episodes(kept))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def step(self, problems: Sequence[Problem], step: int, history: History = ()) -> tuple[list[Episode], Figures]:
        """Wait for this step's episodes, have the next ones sampled by the policy as it is, and move it."""
        clock, learner = score.Clock(), self._run.learner
        known = self._waited()
        clock.lap("rollout_s")
        score.push(learner)
        clock.lap("push_s")
        if not known:
            self._begin(problems, step)
            known = self._waited()
            clock.lap("rollout_s")
        self._known = []
        if step < learner.cfg.steps:
            self._begin(draw_problems(self._run.problems, learner.cfg.problems_per_step, step + 1, learner.cfg.seed), step + 1)
        figures = score.improve(learner, known, score.credit, history)
        kept = {key: value for key, value in figures.items() if not key.startswith("train/cached")}
        return known, {**score.accuracies(known), **kept, **clock.laps}

    def look(self, held_out: Sequence[Problem]) -> Figures:
        """`score.validate`, once the engine is free: its weights must not change while it samples."""
        self._waited()
        return score.validate(self._run.learner, held_out)

    @contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Around the checkpoint after `step`: what it goes on from is there before it, and what an earlier one needs until it stands."""
        going_on, known, ranks = _file(self._run, step + 1), self._waited(), self._run.learner.ranks
        with ranks.together():
            if known and ranks.first:
                write_episodes(going_on, known)
        yield
        with ranks.together():
            for file in going_on.parent.glob("ahead_*.jsonl") if ranks.first else ():
                if file != going_on:
                    file.unlink()

    def _begin(self, problems: Sequence[Problem], step: int) -> None:
        cfg = self._run.learner.cfg
        self._begun = self._thread.submit(score.sample_own, self._run.learner, problems, samples=cfg.samples, seed=cfg.seed, step=step)

    def _waited(self) -> list[Episode]:
        """The next step's episodes of all ranks, none where none were begun; without what an engine's cache served, which no file keeps."""
        if self._begun is not None:
            ranks, begun, self._begun = self._run.learner.ranks, self._begun, None
            with ranks.together():
                own = begun.result()
            self._known = ranks.gather([_uncached(episode) for episode in own])
        return self._known


def _uncached(episode: Episode) -> Episode:
    turns = (replace(turn, completion=replace(turn.completion, num_cached=None)) for turn in episode.turns)
    return replace(episode, turns=tuple(turns))


def _file(run: Run, step: int) -> Path:
    return run.folder.path / "episodes" / f"ahead_{step:06d}.jsonl"
