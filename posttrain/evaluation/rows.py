"""Which runs a report is about: folders on disk -> rows of a table, each a method with its seeds.

A word of the command line is `[NAME=]DIR[,DIR]`, as in `evaluation/report.py`: a run, an evaluation, or stages of one model. A study's
folder stands for its labelled runs in all their seeds. Words with the same name are seeds of one row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posttrain.complaint import nearest
from posttrain.config import ConfigError
from posttrain.evaluation.budget import Budget, budget_of, recorded
from posttrain.evaluation.entries import find_evaluation
from posttrain.evaluation.metrics import Summary
from posttrain.evaluation.seeds import Measured, measure, over_seeds
from posttrain.rollout.store import read_episodes
from posttrain.types import Episode

HOW = ("task", "split", "limit", "prompt", "attempts", "samples", "method", "first_attempts", "sampling")
"""Keys of a suite that change figures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One seed of a row on disk."""

    name: str
    seed: int
    folders: tuple[Path, ...]
    """Its runs in order of training; the last one is evaluated."""
    suite: str | None

    @property
    def evaluation(self) -> Path:
        return find_evaluation(self.folders[-1], self.suite)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A method: its figures over all seeds, and what it cost per seed."""

    name: str
    seeds: tuple[Measured, ...]
    summary: Summary
    budget: Budget
    """Mean over the seeds."""
    how: dict[str, Any]
    """How it was evaluated: the keys of `HOW`; empty where nothing was recorded."""


def sources(words: Sequence[str], suite: str | None) -> list[Source]:
    """What the words name, in their order; raises `ConfigError` where that is nothing, or one seed of a row twice."""
    found = [source for word in words for source in _named(word, suite)]
    seen: dict[tuple[str, int], Source] = {}
    for source in found:
        twin = seen.setdefault((source.name, source.seed), source)
        if twin is not source:
            raise ConfigError(
                f"{source.folders[-1]}: is {source.name!r} with seed {source.seed}, as {twin.folders[-1]} is; name them apart: NAME=DIR"
            )
    return found


def load_rows(found: Sequence[Source]) -> list[Row]:
    """One row per name, its seeds in ascending order. Raises `ConfigError`, `DataError`, `NothingScored`."""
    groups: dict[str, list[Source]] = {}
    for source in found:
        groups.setdefault(source.name, []).append(source)
    return [_row(name, sorted(group, key=lambda source: source.seed)) for name, group in groups.items()]


def study_sources(folder: Path, suite: str | None = None) -> Iterator[Source]:
    """The labelled runs of a study's folder, seed by seed within each; `suite` in place of what each was evaluated on.

    Those that are not evaluated yet are left out; `unfinished` names them.
    """
    study = recorded(folder)
    runs: dict[str, dict[str, Any]] = study["runs"]
    for name, run in runs.items():
        if not run.get("label"):
            continue
        names = [name]
        while (before := runs[names[0]].get("after")) is not None:
            names.insert(0, before)
        for seed in study["seeds"]:
            places = tuple(folder / f"seed{seed}" / each for each in names)
            own = Path(run.get("suite") or study["suite"]).stem
            chosen = suite if suite and (places[-1] / "eval" / suite).is_dir() else own
            if suite in (None, chosen) and _evaluated(places[-1], chosen):
                yield Source(name=run["label"], seed=seed, folders=places, suite=chosen)


def unfinished(folder: Path) -> list[str]:
    """The labelled runs of a study that are not evaluated yet, each with its seeds, in words; empty for what is no study."""
    study = recorded(folder) if recorded(folder).get("kind") == "study" else {"runs": {}}
    lacking = {}
    for name, run in study["runs"].items():
        suite = Path(run.get("suite") or study["suite"]).stem
        seeds = [str(seed) for seed in study["seeds"] if not _evaluated(folder / f"seed{seed}" / name, suite)]
        if run.get("label") and seeds:
            lacking[run["label"]] = seeds
    return [f"{label} (seed {', '.join(seeds)})" for label, seeds in lacking.items()]


def find_row(rows: Sequence[Row], name: str) -> Row:
    """The row called `name`; raises `ConfigError` with the nearest name."""
    names = [row.name for row in rows]
    if name not in names:
        raise ConfigError(f"--against: no row is called {name!r}; found {', '.join(map(repr, names))}{nearest(name, names)}")
    return rows[names.index(name)]


def _evaluated(run: Path, suite: str) -> bool:
    """Is the evaluation there to its end?"""
    return (run / "eval" / suite / "summary.json").is_file()


def _named(word: str, suite: str | None) -> list[Source]:
    name, equals, listed = word.rpartition("=")
    folders = tuple(Path(folder) for folder in listed.split(","))
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such run folder")
    if len(folders) == 1 and recorded(folders[0]).get("kind") == "study":
        if equals:
            raise ConfigError(f"{word}: a study's runs have names of their own; leave out {name}=")
        made = list(study_sources(folders[0], suite))
        if not made:
            which = f" on {suite!r}" if suite else ""
            raise ConfigError(
                f"{folders[0]}: none of this study's runs was evaluated{which}; posttrain train STUDY --resume goes on with it"
            )
        return made
    seed = recorded(folders[-1]).get("seed", 0)
    return [Source(name=name if equals else folders[-1].resolve().name, seed=seed, folders=folders, suite=suite)]


def _row(name: str, group: Sequence[Source]) -> Row:
    seeds = tuple(measure(_of_several_attempts(source.evaluation), source.seed) for source in group)
    if len({len(seed.summary.acc) for seed in seeds}) > 1:
        raise ConfigError(f"{name}: its seeds were evaluated with different numbers of attempts; choose a suite with --suite")
    budgets = [_budget(source) for source in group]
    how = recorded(group[0].evaluation)
    return Row(
        name=name,
        seeds=seeds,
        summary=over_seeds(seeds),
        budget=_mean(budgets),
        how={key: how[key] for key in HOW if key in how},
    )


def _of_several_attempts(evaluation: Path) -> list[Episode]:
    """The episodes; raises `ConfigError` where they are single attempts, of which a report has nothing to tell."""
    episodes = list(read_episodes(evaluation / "episodes.jsonl"))
    if any(len(episode.turns) < 2 for episode in episodes):
        raise ConfigError(f"{evaluation}: holds single attempts, and a report is about what a second one changes; try posttrain compare")
    return episodes


def _budget(source: Source) -> Budget:
    """Of its last run, or where nothing was trained there, of the model that was evaluated."""
    run = source.folders[-1]
    return budget_of(run if (run / "metrics.jsonl").is_file() else source.evaluation)


def _mean(budgets: Sequence[Budget]) -> Budget:
    total = sum(budgets, Budget())
    num = len(budgets)
    missing = tuple(dict.fromkeys(total.missing))
    return replace(
        total, samples=round(total.samples / num), tokens=round(total.tokens / num), updates=round(total.updates / num), missing=missing
    )
