"""What a report shows of one model, and where that comes from on disk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from posttrain.config import ConfigError
from posttrain.evaluation.budget import recorded
from posttrain.evaluation.page.tokens import Pieces, pieces_of
from posttrain.evaluation.second import Second, read_second
from posttrain.rollout.store import read_episodes
from posttrain.run import read_jsonl
from posttrain.types import Episode


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training run's log. A method with several stages is several runs, one after the other."""

    name: str
    metrics: Sequence[dict[str, Any]]
    """Rows of metrics.jsonl: `step`, `train/...` at every step, `val/...` at some."""
    guards: dict[str, float] = field(default_factory=dict)
    """The limits from which the run warns, as its recipe has them."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model in a report: its held-out episodes, the training that led to it (none for a base model), and how to make it again."""

    name: str
    episodes: Sequence[Episode]
    stages: tuple[Stage, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    """(what, value), printed as they stand: commit, command, seed, ..."""
    second: Second = field(default_factory=dict)
    pieces: Pieces | None = None
    """What its token ids say; None where its tokenizer was not found."""


def load_entry(name: str, folders: Sequence[Path], suite: str | None = None) -> Entry:
    """One model from its run folders in order of training; the evaluation is the last folder's. Raises `ConfigError` or `DataError`.

    A folder is a run (`metrics.jsonl`, `eval/<suite>/episodes.jsonl`) or one evaluation (`episodes.jsonl` in it). `suite` is needed
    only where the run was evaluated on several.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such run folder")
    logs = [_stage(folder) for folder in folders if (folder / "metrics.jsonl").is_file()]
    stages = [log for log in logs if any("train/acc_t1" in row for row in log.metrics)]  # supervised training makes no attempts
    evaluation = find_evaluation(folders[-1], suite)
    episodes = list(read_episodes(evaluation / "episodes.jsonl"))
    if not episodes:
        raise ConfigError(f"{evaluation / 'episodes.jsonl'}: holds no episode; run the evaluation first")
    return Entry(
        name=name,
        episodes=episodes,
        stages=tuple(stages),
        provenance=provenance_of(folders, evaluation),
        second=read_second(evaluation),
        pieces=pieces_of(str(recorded(evaluation).get("model", "")), folders[-1]),
    )


def trained_only(folder: Path) -> bool:
    """A run that was trained and kept episodes, and was not evaluated."""
    evaluated = (folder / "episodes.jsonl").is_file() or any(folder.glob("eval/*/episodes.jsonl"))
    return (folder / "metrics.jsonl").is_file() and not evaluated and any(folder.glob("episodes/step_*.jsonl"))


def load_training(name: str, folders: Sequence[Path]) -> Entry:
    """As `load_entry`, of a run that was not evaluated: the episodes of the last step that it kept. Raises `ConfigError` or `DataError`."""
    last = max((folders[-1] / "episodes").glob("step_*.jsonl"))
    episodes = list(read_episodes(last))
    if not episodes or len(episodes[0].turns) < 2:
        raise ConfigError(
            f"{last}: holds no second attempts; evaluate the run first: posttrain eval SUITE.yaml --model {folders[-1] / 'model'}"
        )
    stages = tuple(_stage(folder) for folder in folders)
    pieces = pieces_of(str(recorded(folders[-1]).get("model", "")), folders[-1])
    step = f"{last.stem.removeprefix('step_').lstrip('0')}, {len(episodes):,} training episodes"
    return Entry(
        name=name, episodes=episodes, stages=stages, provenance=(*provenance_of(folders, folders[-1]), ("step", step)), pieces=pieces
    )


def find_evaluation(folder: Path, suite: str | None) -> Path:
    """The folder that holds the episodes of `suite`, or of the only suite there is."""
    if (folder / "episodes.jsonl").is_file():
        return folder
    found = sorted(path.parent for path in folder.glob("eval/*/episodes.jsonl"))
    wanted = [path for path in found if suite in (None, path.name)]
    if len(wanted) == 1:
        return wanted[0]
    names = ", ".join(path.name for path in found)
    if not found:
        raise ConfigError(f"{folder}: holds no evaluation; expected {folder}/eval/<suite>/episodes.jsonl (made by posttrain eval)")
    if suite is None:
        raise ConfigError(f"{folder}: was evaluated on several suites; choose one of {names} with --suite")
    raise ConfigError(f"{folder}: was not evaluated on {suite!r}; found {names}")


def _stage(folder: Path) -> Stage:
    return Stage(name=folder.name, metrics=list(read_jsonl(folder / "metrics.jsonl")), guards=recorded(folder).get("guards", {}))


def provenance_of(folders: Sequence[Path], evaluation: Path) -> tuple[tuple[str, str], ...]:
    """(folder, commit, seed, start and command) of each folder that says."""
    facts: list[tuple[str, str]] = []
    for folder in dict.fromkeys((*folders, evaluation)):
        if (folder / "provenance.json").is_file():
            row = json.loads((folder / "provenance.json").read_text())
            recipe = folder / "config.yaml"
            seed = (yaml.safe_load(recipe.read_text()) or {}).get("seed") if recipe.is_file() else None
            parts = [f"commit {row.get('commit', 'unknown')}", f"seed {seed}" if seed is not None else "", row.get("started", "")]
            command = " ".join(map(str, row.get("command", ())))
            facts.append((folder.name, " · ".join(part for part in (*parts, command) if part)))
    return tuple(facts)
