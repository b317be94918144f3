"""A second grader's verdicts on an evaluation, kept beside its episodes, so that the page can show where two graders disagree.

second.jsonl: {"problem": "math/7", "sample": 0, "grader": "math-verify", "statuses": ["correct", "wrong"]}, a status per attempt
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from posttrain.config import ConfigError
from posttrain.grading.peer import opinions
from posttrain.run import read_jsonl, write_atomic
from posttrain.types import DataError, Episode, FinalAnswer

FILE = "second.jsonl"
Second: TypeAlias = Mapping[tuple[str, int], tuple[tuple[tuple[str, str], ...], ...]]
"""(problem, sample) -> per attempt, (grader, status) of every other grader."""


def grade_again(evaluation: Path, episodes: Sequence[Episode], peer: str) -> None:
    """Ask `peer` about every answer and keep what it says in the evaluation's folder; raises `ConfigError` where it cannot judge."""
    if any(not isinstance(episode.problem.reference, FinalAnswer) for episode in episodes):
        raise ConfigError(f"{evaluation}: --second {peer} reads final answers; these problems have test programs")
    ask = opinions(peer)
    said = iter(ask([(e.problem.reference.text, turn.answer) for e in episodes for turn in e.turns]))  # type: ignore[union-attr]
    names = {True: "correct", False: "wrong", None: "unscored"}
    rows = [
        {"problem": e.problem.id, "sample": e.sample, "grader": peer, "statuses": [names[next(said)] for _ in e.turns]} for e in episodes
    ]
    write_atomic(evaluation / FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_second(evaluation: Path) -> Second:
    """What is kept there; nothing where no second grader was asked. Raises `DataError` naming the line."""
    path, found = evaluation / FILE, {}
    for number, row in enumerate(read_jsonl(path) if path.is_file() else (), 1):
        try:
            found[row["problem"], row["sample"]] = tuple(((row["grader"], status),) for status in row["statuses"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: not a second verdict: {error!r}") from None
    return found
