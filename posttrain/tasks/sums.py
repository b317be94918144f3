"""Generated problems: which numbers of a list add up to a target? Finding them is hard, checking them is easy.

    Which three of 4 11 9 12 3 7 2 add up to 16?        ->  \\boxed{ 2 + 3 + 11 }

Every problem has exactly one answer. Splits are disjoint by construction: a hash of the problem (its numbers as a set, and its target)
decides the split, so the same problem in another order or wording cannot stand in two. `demonstrations` are two attempts with human-like
slips, for training a base model that has something to correct. Nothing in a problem or an instruction tells whether an attempt was right.
"""

import itertools
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from posttrain.config import config
from posttrain.jsonl import read_objects
from posttrain.prompting import revise
from posttrain.tasks import generated
from posttrain.tasks.generated import REJECTED, Demonstration, Slips, split_of, two_attempts
from posttrain.types import DataError, FinalAnswer, Message, Problem, Task, Verdict

COUNT = {2: "two", 3: "three"}
NAMES = {2: "x + y", 3: "x + y + z"}
IN_WORDS = "Which {count} of {numbers} add up to {target}?"
IN_SYMBOLS = "{names} = ? from {{ {numbers} }}, sum = {target}"
POSED = tuple(  # the two forms, read back
    re.compile(form)
    for form in (
        r"Which (?P<count>two|three) of (?P<numbers>\d{1,3}(?: \d{1,3})*) add up to (?P<target>\d{1,4})\?",
        r"(?P<names>x \+ y(?: \+ z)?) = \? from \{ (?P<numbers>\d{1,3}(?: \d{1,3})*) \}, sum = (?P<target>\d{1,4})",
    )
)
BOXED = re.compile(r"\\boxed\{\s*(\d{1,4}(?:\s*\+\s*\d{1,4})+)\s*\}")


@config
class SumsTask:
    """Pick the numbers of a list that add up to a target."""

    kind: Literal["sums"] = "sums"
    pick: Literal[2, 3] = 3
    """How many numbers make up the sum."""
    numbers: int = 7
    """How many numbers stand in a list: the difficulty, as the choices to try grow like numbers ** pick."""
    largest: int = 15
    """Numbers are drawn from 1 to this, without repeats."""
    train_size: int = 20_000
    validation_size: int = 500
    test_size: int = 2_000
    data_seed: int = 0
    """Seed of the problems themselves; runs with other training seeds share it, and so share the test set."""
    train_file: Path | None = None
    """Problems to train on in place of generated ones: JSON Lines with a `question` each, such as `kind: proposer` writes."""

    def __post_init__(self) -> None:
        if not self.pick < self.numbers <= self.largest:
            raise ValueError(f"numbers must lie above pick = {self.pick} and within largest = {self.largest}, got {self.numbers}")
        if self.largest > 999:
            raise ValueError(f"largest must be at most 999, got {self.largest}")


def make(cfg: SumsTask) -> Task:
    return Task(
        name="sums",
        load=lambda split: load(cfg, split),
        ask=lambda problem: [Message(role="user", content=problem.question)],
        revise=revise.SUMS,
        verify=revise.VERIFY_SUMS,
        verdicts=(" 1", " 0"),  # numbers, as the small tokenizer has no word for either
        grade=lambda pairs: [grade(problem, text) for problem, text in pairs],
        answer=final_sum,
    )


def load(cfg: SumsTask, split: str) -> list[Problem]:
    """The split's problems, the same for the same config."""
    if split == "train" and cfg.train_file:
        return _read(cfg, cfg.train_file)
    return generated.load("sums", cfg, split, generate, "raise largest or lower the split's size")


@dataclass(frozen=True, kw_only=True, slots=True)
class Puzzle:
    """A problem with what it was made from."""

    problem: Problem
    numbers: tuple[int, ...]
    answer: tuple[int, ...]


def generate(cfg: SumsTask, split: str, rng: random.Random) -> Iterator[Puzzle]:
    """Endless puzzles of one split; repeats are possible. Raises `DataError` where there seem to be none."""
    rejected = 0
    while rejected < REJECTED:
        rejected += 1
        numbers = rng.sample(range(1, cfg.largest + 1), cfg.numbers)
        answer = tuple(sorted(rng.sample(numbers, cfg.pick)))
        target = sum(answer)
        found_in, digest = split_of(f"{sorted(numbers)}={target}")
        if found_in != split:
            continue
        if sum(sum(choice) == target for choice in itertools.combinations(numbers, cfg.pick)) != 1:
            continue  # another choice would be right as well
        rejected = 0
        form = IN_WORDS if rng.random() < 0.5 else IN_SYMBOLS
        problem = _problem(cfg, form, numbers, answer, digest)
        yield Puzzle(problem=problem, numbers=tuple(numbers), answer=answer)
    raise DataError(f"sums: no problem of {split} with one answer in {REJECTED:,} draws; raise largest or lower numbers")


def _problem(cfg: SumsTask, form: str, numbers: Sequence[int], answer: tuple[int, ...], digest: str) -> Problem:
    target = sum(answer)
    return Problem(
        id=f"sums-{digest}",
        question=form.format(count=COUNT[cfg.pick], names=NAMES[cfg.pick], numbers=" ".join(map(str, numbers)), target=target),
        reference=FinalAnswer(text=written(answer)),
        level=str(len(numbers)),
        subject="words" if form is IN_WORDS else "symbols",
        solution=f"{' + '.join(map(str, answer))} = {target}, {written(answer)}",
    )


def posed(cfg: SumsTask, text: str) -> Problem | str:
    """The problem that `text` poses, with its answer, or why it is none that may be trained on. Its list may be of any length."""
    forms = [(form, found) for form, pattern in zip((IN_WORDS, IN_SYMBOLS), POSED) if (found := pattern.fullmatch(text))]
    if not forms:
        return "not in the form of a problem"
    form, found = forms[0]
    said, numbers, target = found.groupdict(), list(map(int, found["numbers"].split())), int(found["target"])
    if COUNT[cfg.pick] != said.get("count", COUNT[cfg.pick]) or NAMES[cfg.pick] != said.get("names", NAMES[cfg.pick]):
        return f"does not ask for {COUNT[cfg.pick]} numbers"
    if len(set(numbers)) < len(numbers) or min(numbers) < 1 or max(numbers) > cfg.largest:
        return f"numbers repeat, or are not from 1 to {cfg.largest}"
    if len(numbers) <= cfg.pick:
        return "too few numbers"
    answers = [choice for choice in itertools.combinations(numbers, cfg.pick) if sum(choice) == target]
    if len(answers) != 1:
        return "no answer" if not answers else "several answers"
    split, digest = split_of(f"{sorted(numbers)}={target}")
    return _problem(cfg, form, numbers, tuple(sorted(answers[0])), digest) if split == "train" else f"belongs to the {split} set"


def _read(cfg: SumsTask, path: Path) -> list[Problem]:
    """The problems of a file; raises `DataError` naming the line of one that may not be trained on."""
    found: dict[str, Problem] = {}
    for where, row in read_objects(path):
        problem = posed(cfg, str(row.get("question")))
        if isinstance(problem, str):
            raise DataError(f"{where}: `question`: {problem}: {row.get('question')!r:.80}")
        if problem.id in found:
            raise DataError(f"{where}: asks what an earlier line asks: {problem.question!r:.80}")
        found[problem.id] = problem
    return list(found.values())


def written(choice: Sequence[int]) -> str:
    return f"\\boxed{{ {' + '.join(map(str, sorted(choice)))} }}"


def final_sum(text: str) -> str | None:
    """The last boxed sum, smallest number first, as "2+3+11"; None where there is none."""
    found = BOXED.findall(text)
    return "+".join(map(str, sorted(map(int, re.findall(r"\d+", found[-1]))))) if found else None


def grade(problem: Problem, text: str) -> Verdict:
    """Are the numbers of the last boxed sum the reference's, in any order?"""
    answer = final_sum(text)
    if answer is None:
        return Verdict(status="no_answer", why="no boxed sum")
    right = answer == final_sum(problem.final_answer)
    return Verdict(status="correct" if right else "wrong", why="the same numbers" if right else "other numbers")


def demonstrations(cfg: SumsTask, slips: Slips, rng: random.Random) -> Iterator[Demonstration]:
    """Endless pairs of attempts at training problems."""
    for puzzle in generate(cfg, "train", rng):
        first, second = two_attempts(puzzle.answer, partial(_slip, puzzle, slips, rng), slips, rng)
        yield Demonstration(problem=puzzle.problem, attempts=(written(first), written(second)))


def _slip(puzzle: Puzzle, slips: Slips, rng: random.Random) -> tuple[int, ...]:
    target = sum(puzzle.answer)
    choices = [c for c in itertools.combinations(puzzle.numbers, len(puzzle.answer)) if sum(c) != target]
    return rng.choices(choices, [math.exp(-abs(sum(c) - target) / slips.spread) for c in choices])[0]
