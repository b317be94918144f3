"""Other graders' verdicts on an evaluation, as `posttrain regrade` keeps them, so that the page can show where graders disagree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from posttrain.evaluation.regrade import ask_again, verdicts_file, write
from posttrain.run import read_jsonl
from posttrain.types import DataError, Episode

Second: TypeAlias = Mapping[tuple[str, int], tuple[tuple[tuple[str, str], ...], ...]]
"""(problem, sample) -> per attempt, (grader, status) of every other grader."""


def grade_again(evaluation: Path, episodes: Sequence[Episode], peer: str) -> None:
    """Ask `peer` about every answer and keep what it says in the evaluation's folder; raises `ConfigError` where it cannot judge."""
    write(verdicts_file(evaluation, peer), ask_again(peer, episodes))


def read_second(evaluation: Path) -> Second:
    """What is kept there; nothing where no second grader was asked. Raises `DataError` naming the line."""
    found: dict[tuple[str, int], dict[int, list[tuple[str, str]]]] = {}
    for path in sorted(verdicts_file(evaluation, "").parent.glob("*.jsonl")):
        for number, row in enumerate(read_jsonl(path), 1):
            try:
                by_attempt = found.setdefault((row["problem"], row["sample"]), {})
                by_attempt.setdefault(row["attempt"], []).append((path.stem, row["status"]))
            except (KeyError, TypeError) as error:
                raise DataError(f"{path}:{number}: not a second verdict: {error!r}") from None
    return {key: tuple(tuple(said) for _, said in sorted(by_attempt.items())) for key, by_attempt in found.items()}
