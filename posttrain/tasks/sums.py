"""Generated problems: which two numbers of a list add up to a target? Finding the pair is hard, checking one is easy.

    Which two of 4 17 9 12 3 26 add up to 21?        ->  \\boxed{ 9 + 12 }

Every problem has exactly one pair. Splits are disjoint by construction: a hash of the problem (its numbers as a set, and its target)
decides the split, so the same problem in another order or wording cannot stand in two. `demonstrations` are two attempts with human-like
slips, for training a base model that has something to correct. Nothing in a problem or an instruction tells whether an attempt was right.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from posttrain.config import config
from posttrain.prompting import revise
from posttrain.types import DataError, FinalAnswer, Message, Problem, Task, Verdict

BUCKETS = {"test": range(0, 8), "validation": range(8, 12), "train": range(12, 64)}  # of 64
IN_WORDS = "Which two of {numbers} add up to {target}?"
IN_SYMBOLS = "x, y in {{ {numbers} }}, x + y = {target}: x + y?"
ANSWER_FORM = "\\boxed{{ {x} + {y} }}"
ANSWER = re.compile(r"\\boxed\{\s*(\d{1,4})\s*\+\s*(\d{1,4})\s*\}")


@config
class SumsTask:
    """Pick two numbers of a list that add up to a target."""

    kind: Literal["sums"] = "sums"
    numbers: int = 8
    """How many numbers stand in a list: the difficulty, as the pairs to try grow with its square."""
    largest: int = 30
    """Numbers are drawn from 1 to this, without repeats."""
    train_size: int = 20_000
    validation_size: int = 500
    test_size: int = 2_000
    data_seed: int = 0
    """Seed of the problems themselves; runs with other training seeds share it, and so share the test set."""

    def __post_init__(self) -> None:
        if not 3 <= self.numbers <= self.largest:
            raise ValueError(f"numbers must lie between 3 and largest = {self.largest}, got {self.numbers}")
        if self.largest > 999:
            raise ValueError(f"largest must be at most 999, got {self.largest}")


def make(cfg: SumsTask) -> Task:
    return Task(
        name="sums",
        load=lambda split: load(cfg, split),
        ask=lambda problem: [Message(role="user", content=problem.question)],
        revise=revise.SUMS,
        grade=lambda pairs: [grade(problem, text) for problem, text in pairs],
        answer=final_pair,
    )


def load(cfg: SumsTask, split: str) -> list[Problem]:
    """The split's problems, the same for the same config."""
    sizes = {"train": cfg.train_size, "validation": cfg.validation_size, "test": cfg.test_size}
    if split not in sizes:
        raise DataError(f"sums: no split {split!r}; expected one of {', '.join(sizes)}")
    stream = generate(cfg, split, random.Random(f"{cfg.data_seed}/{split}"))
    found: dict[str, Problem] = {}
    for _ in range(50 * sizes[split] + 1000):
        if len(found) == sizes[split]:
            return list(found.values())
        problem = next(stream)
        found.setdefault(problem.id, problem)
    raise DataError(f"sums: only {len(found)} different problems of {sizes[split]} asked for in {split}; raise largest or numbers")


def generate(cfg: SumsTask, split: str, rng: random.Random) -> Iterator[Problem]:
    """Endless problems of one split; repeats are possible."""
    while True:
        numbers = rng.sample(range(1, cfg.largest + 1), cfg.numbers)
        pair = sorted(rng.sample(numbers, 2))
        target = sum(pair)
        if sum(target - n in numbers for n in numbers if 2 * n != target) != 2:
            continue  # another pair would be right as well
        key = f"{sorted(numbers)}={target}"
        digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        if int(digest, 16) % 64 not in BUCKETS[split]:
            continue
        template = IN_WORDS if rng.random() < 0.5 else IN_SYMBOLS
        yield Problem(
            id=f"sums-{digest}",
            question=template.format(numbers=" ".join(map(str, numbers)), target=target),
            reference=FinalAnswer(text=written(pair)),
            level=str(cfg.numbers),
            subject="words" if template is IN_WORDS else "symbols",
        )


def written(pair: Sequence[int]) -> str:
    return ANSWER_FORM.format(x=pair[0], y=pair[1])


def final_pair(text: str) -> str | None:
    """The last boxed pair, smaller number first, as "9+12"; None where there is none."""
    found = ANSWER.findall(text)
    return "+".join(map(str, sorted(map(int, found[-1])))) if found else None


def grade(problem: Problem, text: str) -> Verdict:
    """Is the last boxed pair the reference's pair, in either order?"""
    answer = final_pair(text)
    if answer is None:
        return Verdict(status="no_answer", why="no boxed pair of numbers")
    assert isinstance(problem.reference, FinalAnswer)
    right = answer == final_pair(problem.reference.text)
    return Verdict(status="correct" if right else "wrong", why="same pair" if right else "another pair")


@config
class Slips:
    """How the people behind the demonstrations err; each is a probability."""

    first: float = 0.35
    """The first attempt is a slip: two numbers of the list picked at random."""
    copy: float = 0.35
    """The second attempt repeats the first one, right or wrong."""
    correct: float = 0.35
    """The second attempt is right; in the remaining cases it is a new slip."""

    def __post_init__(self) -> None:
        if min(self.first, self.copy, self.correct) < 0 or self.first > 1 or self.copy + self.correct > 1:
            raise ValueError(f"expected probabilities with copy + correct <= 1, got {self.first}, {self.copy}, {self.correct}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Demonstration:
    problem: Problem
    attempts: tuple[str, str]


def demonstrations(cfg: SumsTask, slips: Slips, rng: random.Random) -> Iterator[Demonstration]:
    """Endless pairs of attempts at training problems, with slips. Whether the second is right does not depend on the first's text."""
    for problem in generate(cfg, "train", rng):
        numbers = [int(n) for n in re.findall(r"\d+", problem.question)]
        target = sum(map(int, ANSWER.findall(problem.reference.text)[0]))
        numbers.remove(target)
        right = problem.reference.text
        first = written(sorted(rng.sample(numbers, 2))) if rng.random() < slips.first else right
        draw = rng.random()
        if draw < slips.copy:
            second = first
        else:
            second = right if draw < slips.copy + slips.correct else written(sorted(rng.sample(numbers, 2)))
        yield Demonstration(problem=problem, attempts=(first, second))
