"""The log of an in-context run: one row per (arm, shots, seed, order, item), appended chunk by chunk, whole chunks only.

A chunk is its rows and, last, what it cost; it is written at once and flushed to disk. After a kill everything behind the last whole chunk
is cut off, so that going on makes each missing row once.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from posttrain.run import read_jsonl
from posttrain.types import DataError

NAME = "answers.jsonl"
KEYS = ("arm", "shots", "seed", "order", "item")


class Cell(NamedTuple):
    """One point of one curve before averaging: which prompts, how many shots, which draw of them, which order of these."""

    arm: str
    shots: int
    seed: int
    order: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one item in one cell. `score` is None where the grader failed, or where the prompt was too long to be sent."""

    arm: str
    shots: int
    seed: int
    order: int
    item: str
    subject: str = ""
    score: float | None = None
    text: str = ""
    finish: str = ""
    too_long: bool = False
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cached_tokens: int | None = None
    nll: float | None = None
    """Negative log-likelihood of the reference answer, nats over all its tokens."""
    nll_tokens: int = 0
    choices: dict[str, float] = field(default_factory=dict)
    """Probability of each choice, normalised over them."""
    baseline: bool = False
    """Another learner's answer to the same item from the same shots."""

    @property
    def cell(self) -> Cell:
        return Cell(self.arm, self.shots, self.seed, self.order)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the rows of one chunk took: time, and the tokens that the engine was shown and had cached, to answer and to score."""

    arm: str
    shots: int
    seed: int
    order: int
    items: int
    answer_s: float = 0.0
    answer_tokens: int = 0
    answer_cached: int = 0
    score_s: float = 0.0
    score_tokens: int = 0
    score_cached: int = 0


class Log:
    """The rows and costs of a run folder. Opening it cuts off what a kill left behind the last whole chunk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        if self.path.exists():
            os.truncate(self.path, _whole_chunks(self.path))
        self.rows, self.costs = read(self.path) if self.path.exists() else ([], [])
        self.done: dict[Cell, set[str]] = {}
        for row in self.rows:
            items = self.done.setdefault(row.cell, set())
            if row.item in items:
                raise DataError(f"{self.path}: item {row.item} stands twice in {row.cell}; was it written by two runs at once?")
            items.add(row.item)

    def append(self, rows: Sequence[Row], cost: Cost) -> None:
        lines = [json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) for row in rows]
        lines.append(json.dumps({"cost": asdict(cost)}, allow_nan=False))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows
        self.costs.append(cost)
        for row in rows:
            self.done.setdefault(row.cell, set()).add(row.item)


def read(path: Path) -> tuple[list[Row], list[Cost]]:
    """All rows and costs; raises `DataError` naming the line that is not one."""
    rows: list[Row] = []
    costs: list[Cost] = []
    for number, fields in enumerate(read_jsonl(path), 1):
        try:
            if "cost" in fields:
                costs.append(Cost(**fields["cost"]))
            else:
                rows.append(Row(**fields))
        except TypeError as error:
            raise DataError(f"{path}:{number}: not a row of an in-context run: {error}") from None
    return rows, costs


def _whole_chunks(path: Path) -> int:
    """How many bytes the whole chunks take: each ends with its cost."""
    end = place = 0
    with open(path, "rb") as file:
        for line in file:
            place += len(line)
            if line.startswith(b'{"cost"') and line.endswith(b"\n"):
                end = place
    return end


def _plain(row: Row) -> dict[str, Any]:
    """The row's fields, without those that are as they are by default."""
    blank = Row(arm="", shots=0, seed=0, order=0, item="")
    return {key: value for key, value in asdict(row).items() if key in KEYS or value != getattr(blank, key)}
