"""What generated tasks share: splits by a hash of the problem, and demonstrations by people who slip.

A problem's key says what it is, whatever its order or wording; its hash decides the split, so that no problem stands in two.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from posttrain.config import config
from posttrain.types import DataError, Problem

BUCKETS = {"test": range(0, 8), "validation": range(8, 12), "train": range(12, 64)}  # of 64
REJECTED = 20_000  # draws in a row that are of another split or have several answers, before giving up
Answer = TypeVar("Answer")


def split_of(key: str) -> tuple[str, str]:
    """The split that the hash of a problem's key puts it in, and the hash for its id."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    bucket = int(digest, 16) % 64
    return next(split for split, buckets in BUCKETS.items() if bucket in buckets), digest


class Sizes(Protocol):
    """How many problems each split of a generated task has, and the seed of them all."""

    @property
    def train_size(self) -> int: ...
    @property
    def validation_size(self) -> int: ...
    @property
    def test_size(self) -> int: ...
    @property
    def data_seed(self) -> int: ...


class Posed(Protocol):
    @property
    def problem(self) -> Problem: ...


Generate: TypeAlias = Callable[[Any, str, random.Random], Iterator[Posed]]
"""(config, split, random numbers) -> endless puzzles of that split."""


def load(task: str, cfg: Sizes, split: str, generate: Generate, advice: str) -> list[Problem]:
    """The first so many different problems of a split; raises `DataError`, with `advice` where there seem to be fewer."""
    sizes = {"train": cfg.train_size, "validation": cfg.validation_size, "test": cfg.test_size}
    if split not in sizes:
        raise DataError(f"{task}: no split {split!r}; expected one of {', '.join(sizes)}")
    stream = generate(cfg, split, random.Random(f"{cfg.data_seed}/{split}"))
    found: dict[str, Problem] = {}
    repeats = 0
    while len(found) < sizes[split] and repeats < 1000 + 5 * len(found):
        problem = next(stream).problem
        repeats = repeats + 1 if problem.id in found else 0
        found.setdefault(problem.id, problem)
    if len(found) == sizes[split]:
        return list(found.values())
    raise DataError(f"{task}: only {len(found)} different problems of {sizes[split]} asked for in {split}; {advice}")


@config
class Slips:
    """How the people behind the demonstrations err. A slip is a wrong answer, the likelier the nearer its result is to the right one."""

    first: float = 0.35
    """Probability that the first attempt is a slip."""
    copy: float = 0.35
    """Probability that the second attempt repeats the first one, right or wrong."""
    correct: float = 0.35
    """Probability that the second attempt is right; in the remaining cases it is a new slip."""
    spread: float = 2.0
    """How far slips miss: a wrong answer whose result is off by d has weight exp(-d / spread)."""

    def __post_init__(self) -> None:
        if min(self.first, self.copy, self.correct) < 0 or self.first > 1 or self.copy + self.correct > 1:
            raise ValueError(f"expected probabilities with copy + correct <= 1, got {self.first}, {self.copy}, {self.correct}")
        if self.spread <= 0:
            raise ValueError(f"spread must be > 0, got {self.spread}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Demonstration:
    problem: Problem
    attempts: tuple[str, str]


def two_attempts(right: Answer, slip: Callable[[], Answer], slips: Slips, rng: random.Random) -> tuple[Answer, Answer]:
    """What someone who slips answers at first and again. The second is drawn without looking at whether the first is right."""
    first = slip() if rng.random() < slips.first else right
    draw = rng.random()
    if draw < slips.copy:
        return first, first
    return first, right if draw < slips.copy + slips.correct else slip()
