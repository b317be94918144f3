"""The steps of a run one after the other: logged, saved, watched, and stopped cleanly. What a step does is the caller's.

The same start gives the same bits, whatever interrupted the run in between.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import torch
from tqdm import tqdm

from posttrain.evaluation.metrics import NothingScored
from posttrain.progress import progress_bar
from posttrain.prompting.chat import ChatFormat
from posttrain.rl import checkpoint
from posttrain.rl.guards import alarms
from posttrain.rl.policy import Policy
from posttrain.rl.ranks import ALONE, OtherRankError, Ranks
from posttrain.rl.recipe import Config
from posttrain.rl.tracking import tracking
from posttrain.rollout.problems import draw_problems
from posttrain.rollout.self_correct import FirstAttempts
from posttrain.rollout.store import write_episodes
from posttrain.run import INTERRUPTED, RunFolder, StopSignal
from posttrain.types import Engine, EngineError, Episode, Problem, Task

Figures: TypeAlias = dict[str, float]
History: TypeAlias = Sequence[dict[str, Any]]
Step: TypeAlias = Callable[[Sequence[Problem], int, History], tuple[list[Episode], Figures]]
"""(problems, step from 1, metrics of the steps before) -> the episodes of the step and its figures."""
Look: TypeAlias = Callable[[Sequence[Problem]], Figures]
Saving: TypeAlias = Callable[[int], contextlib.AbstractContextManager[None]]
"""Entered around the writing of the checkpoint after a step, by whoever keeps more than the policy."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message names step and cause, and the last checkpoint is intact."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """Everything that a step needs besides its problems."""

    policy: Policy
    engine: Engine
    task: Task
    chat: ChatFormat
    cfg: Config
    given: FirstAttempts = field(default_factory=lambda: MappingProxyType({}))
    """First attempts to start training episodes from, in place of the policy's own, and the chance of each episode to do so."""
    given_share: float = 0.0
    ranks: Ranks = ALONE


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """An opened run: what learns, on what, where it is written, and how many steps are done."""

    learner: Learner
    folder: RunFolder
    problems: Sequence[Problem]
    held_out: Sequence[Problem]
    start: int = 0


def nothing_more(step: int) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def run_steps(run: Run, step: Step, look: Look, saving: Saving = nothing_more) -> int:
    """Steps `run.start + 1` to the last, `look` at what is held out now and then; returns the exit code."""
    cfg, policy, ranks, folder, held_out = run.learner.cfg, run.learner.policy, run.learner.ranks, run.folder, run.held_out
    name = folder.path.name
    say = tqdm.write if ranks.first else _silence
    if ranks.num > 1:
        say(f"{name}: {ranks.num} ranks ({ranks.kind}, {policy.sharding.name})")
    history = [row for row in folder.metrics() if row["step"] > 0]
    told: set[str] = set()
    tracker, steps = cfg.tracker if ranks.first else "none", progress_bar(cfg.steps, name, "step", run.start, shown=ranks.first)
    with tracking(tracker, folder, cfg) as track, StopSignal() as sigterm, steps as bar:
        if run.start == 0 and held_out:
            with _faults_told(folder, 0, held_out):
                first = look(held_out)
                if ranks.first:
                    folder.log(0, first)
                track(0, first)
        for number in range(run.start + 1, cfg.steps + 1):
            last, drawn = number == cfg.steps, draw_problems(run.problems, cfg.problems_per_step, number, cfg.seed)
            with _faults_told(folder, number, drawn):
                episodes, figures = step(drawn, number, history)
                if held_out and (last or number % cfg.validation.every == 0):
                    figures |= look(held_out)
                history.append(figures)
                if ranks.first:
                    folder.log(number, figures)
                track(number, figures)
                stops = ranks.any(sigterm.came) and not last  # asked once: a signal from here on is for the next step, which then is saved
                if last or stops or number % cfg.checkpoint.every == 0:
                    gathered = policy.gather(keep=ranks.first)
                    with saving(number), ranks.together():
                        if ranks.first:
                            reward = _reward_since_checkpoint(history, number, cfg)
                            write_episodes(folder.path / "episodes" / f"step_{number:06d}.jsonl", episodes)
                            checkpoint.save(folder.path, policy, number, reward, cfg.checkpoint, gathered)
            for what, text in alarms(history, cfg.guards).items():
                if what not in told:
                    say(f"{name}: step {number}: WARNING: {text}")
                told.add(what)
            said = [f"{key[10:]} {value:.1%}" for key, value in figures.items() if key.startswith("train/acc_")]
            bar.set_postfix_str(" ".join([*said, *(f"[{what}]" for what in told)]), refresh=False)
            bar.update()
            if stops:
                say(f"{name}: stopped by SIGTERM after step {number}; its checkpoint is written, --resume goes on from there")
                return INTERRUPTED
    return 0


def _reward_since_checkpoint(history: Sequence[dict[str, Any]], step: int, cfg: Config) -> float | None:
    """None at a step that has a checkpoint only because of a signal: which one is best must not hang on that."""
    if step % cfg.checkpoint.every and step != cfg.steps:
        return None
    since = history[(step - 1) // cfg.checkpoint.every * cfg.checkpoint.every :]
    return sum(row["train/reward"] for row in since) / len(since)


@contextlib.contextmanager
def _faults_told(folder: RunFolder, step: int, problems: Sequence[Problem]) -> Iterator[None]:
    """What goes wrong inside is told with the step, its problems, and where the run can go on from."""
    try:
        yield
    except (TrainingError, FloatingPointError, EngineError, OtherRankError, NothingScored, OSError, torch.OutOfMemoryError) as error:
        names = ", ".join(problem.id for problem in problems[:4]) + (", ..." if len(problems) > 4 else "")
        good = checkpoint.latest(folder.path)
        stands = f"the last checkpoint is {good.path}, --resume goes on from it" if good else "there is no checkpoint yet"
        raise TrainingError(f"{folder.path}: step {step}, problems {names}: {error}; {stands}") from error


def _silence(text: str) -> None:
    pass
