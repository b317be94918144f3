"""The problems to train on: a task's split less the questions that evaluation sets ask (`overlap.exact`)."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from posttrain.complaint import nearest
from posttrain.config import ConfigError, read_yaml
from posttrain.run import RunFolder, write_atomic
from posttrain.tasks import TaskConfig, make_task
from posttrain.tasks.check import splits_of, task_config
from posttrain.tasks.overlap import Overlap, exact
from posttrain.tasks.with_shots import WithShotsTask
from posttrain.types import DataError, Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """What is left to train on, what was dropped, and how many problems of which evaluation sets it was compared with."""

    problems: list[Problem]
    dropped: list[Overlap]
    against: dict[str, int]
    unnamed: bool = False
    """Nothing was compared, as the task reads files and names none for its test split."""

    def __str__(self) -> str:
        if not self.against:
            return f"{len(self.problems)} training problems, compared with no evaluation set: name one by `decontaminate`, or sources.test"
        sets = ", ".join(f"{name} ({size})" for name, size in self.against.items())
        total = len(self.problems) + len({overlap.train for overlap in self.dropped})
        return f"{total - len(self.problems)} of {total} training problems dropped, as these evaluation sets ask them: {sets}"


def training_set(cfg: TaskConfig, split: str, decontaminate: Sequence[str] | None) -> TrainingSet:
    """The split of the task without what the named evaluation sets ask, None standing for the task's own test split.

    Raises `ConfigError` on a name that is neither a split of the task nor a suite, `DataError` where nothing is left.
    """
    problems = make_task(cfg).load(split)
    sets = {name: evaluation_set(cfg, name) for name in _named(cfg, split, decontaminate)}
    dropped = [overlap for name, asked in sets.items() for overlap in exact(problems, asked, name)]
    gone = {overlap.train for overlap in dropped}
    if len(gone) == len(problems):
        raise DataError(f"all {len(problems)} problems of {split} are asked by {', '.join(sets)}: nothing is left; see `decontaminate`")
    unnamed = decontaminate is None and not sets and hasattr(_inner(cfg), "sources")
    kept = [problem for problem in problems if problem.id not in gone]
    return TrainingSet(problems=kept, dropped=dropped, against={name: len(asked) for name, asked in sets.items()}, unnamed=unnamed)


def evaluation_set(cfg: TaskConfig, name: str) -> list[Problem]:
    """The problems of a split of the task, or of the suite (or recipe) in a YAML file: those of its `split`, else of its test split."""
    if name.endswith((".yaml", ".yml")):
        said = read_yaml(name)[1]
        return make_task(task_config(name, ())).load(said.get("split", "test"))
    splits = splits_of(_inner(cfg))
    if name not in splits:
        raise ConfigError(f"found {name!r}, expected a suite's .yaml file or one of {', '.join(splits)}{nearest(name, splits)}")
    return make_task(cfg).load(name)


def note(folder: RunFolder, found: TrainingSet) -> None:
    """Say how many were dropped, and list them in RUN/dropped.jsonl; generated problems, and those of [], need no word."""
    if found.against or found.unnamed:
        tqdm.write(f"{folder.path.name}: {found}")
    if found.against:
        write_atomic(folder.path / "dropped.jsonl", "".join(map(to_line, found.dropped)))


def to_line(overlap: Overlap) -> str:
    return json.dumps(dataclasses.asdict(overlap), ensure_ascii=False) + "\n"


def _named(cfg: TaskConfig, split: str, decontaminate: Sequence[str] | None) -> Sequence[str]:
    """A generated task has no sources: its splits share no problem by construction, so that nothing need be looked at."""
    if decontaminate is not None:
        return decontaminate
    own = split != "test" and "test" in getattr(_inner(cfg), "sources", ())
    return ("test",) if own else ()


def _inner(cfg: TaskConfig) -> TaskConfig:
    return cfg.task if isinstance(cfg, WithShotsTask) else cfg
