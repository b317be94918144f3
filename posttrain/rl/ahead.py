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

from posttrain.evaluation import metrics
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
        self._next: Future[list[Episode]] | None = None
        if run.start and run.start < run.learner.cfg.steps:
            kept = _file(run, run.start + 1)
            if not kept.exists():
                raise CheckpointError(f"{kept}: the episodes sampled ahead of the last checkpoint are gone; start anew under another --out")
            self._next = self._thread.submit(lambda: list(read_episodes(kept)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def step(self, problems: Sequence[Problem], step: int, history: History = ()) -> tuple[list[Episode], Figures]:
        """Wait for this step's episodes, have the next ones sampled by the policy as it is, and move it."""
        clock, learner, begun = score.Clock(), self._run.learner, self._next
        self._next = None
        episodes = begun.result() if begun else []
        clock.lap("rollout_s")
        score.push(learner)
        clock.lap("push_s")
        if not begun:
            episodes = self._sampled(problems, step)
            clock.lap("rollout_s")
        if step < learner.cfg.steps:
            drawn = draw_problems(self._run.problems, learner.cfg.problems_per_step, step + 1, learner.cfg.seed)
            self._next = self._thread.submit(self._sampled, drawn, step + 1)
        figures = score.improve(learner, episodes, score.credit, history)
        told = metrics.training_row([e for e in episodes if not e.turns[0].given] or episodes, "train/")
        known = {key: value for key, value in figures.items() if not key.startswith("train/cached")}
        return episodes, {**told, **known, **clock.laps}

    def look(self, held_out: Sequence[Problem]) -> Figures:
        """`score.validate`, once the engine is free: its weights must not change while it samples."""
        self._wait()
        return score.validate(self._run.learner, held_out)

    @contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Around the checkpoint after `step`: what it goes on from is there before it, and what an earlier one needs until it stands."""
        going_on = _file(self._run, step + 1)
        if self._next:
            write_episodes(going_on, self._next.result())
        yield
        for file in going_on.parent.glob("ahead_*.jsonl"):
            if file != going_on:
                file.unlink()

    def _wait(self) -> None:
        if self._next:
            self._next.exception()

    def _sampled(self, problems: Sequence[Problem], step: int) -> list[Episode]:
        """Episodes as they are read from a file again: without what an engine's cache served."""
        learner = self._run.learner
        episodes = score.sample(learner, problems, samples=learner.cfg.samples, seed=learner.cfg.seed, step=step)
        return [_uncached(episode) for episode in episodes]


def _uncached(episode: Episode) -> Episode:
    turns = (replace(turn, completion=replace(turn.completion, num_cached=None)) for turn in episode.turns)
    return replace(episode, turns=tuple(turns))


def _file(run: Run, step: int) -> Path:
    return run.folder.path / "episodes" / f"ahead_{step:06d}.jsonl"
