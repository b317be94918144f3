"""Generated programming problems: which one-line Python function passes these tests? Finding it is hard, checking it is easy.

    Write f(a, b, c, d) in one line.
    assert f(7, 2, 9, 4) == 5
    assert f(3, 8, 6, 1) == 2           ->  def f(a, b, c, d): return c - d

The language is one operation on two arguments: x + y, x - y, x * y, max(x, y), min(x, y). Every problem has exactly one function of the
language that passes the tests shown, and a few tests more that are not shown, so that a table of the shown results is no answer. Answers
are graded by running them (`grading/code.py`); nothing here reads a program. Splits and slips are as in `generated.py`.
"""

import itertools
import math
import operator
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.grading.code import LIMITS, SandboxChoice, grade_code, setting_of
from posttrain.prompting import revise
from posttrain.tasks import generated
from posttrain.tasks.generated import REJECTED, Demonstration, Slips, split_of, two_attempts
from posttrain.tasks.humaneval import answer
from posttrain.types import DataError, Message, Problem, Task, UnitTests

OPERATIONS: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul, "max": max, "min": min}
NAMES = "abcdef"
ASK = "Write f({names}) in one line.\n{tests}"


@config
class OnelinersTask:
    """Find the one-line function that passes the tests."""

    kind: Literal["oneliners"] = "oneliners"
    arguments: int = Field(default=4, ge=2, le=len(NAMES))
    """How many arguments the function has: the difficulty, as the programs to try grow like arguments ** 2."""
    largest: int = Field(default=12, ge=2, le=31)
    """Arguments of the tests are drawn from 1 to this."""
    shown: int = Field(default=2, ge=1)
    """Tests in the question."""
    hidden: int = Field(default=2, ge=0)
    """Tests beside them that a program must pass."""
    train_size: int = 20_000
    validation_size: int = 500
    test_size: int = 2_000
    data_seed: int = 0
    """Seed of the problems themselves; runs with other training seeds share it, and so share the test set."""
    cpu_s: float = Field(default=LIMITS.cpu_s, gt=0)
    """CPU time of one program with all its tests, seconds; who exceeds it is run twice, the second time alone."""
    sandbox: SandboxChoice = "auto"
    """What stands around a program; "unsafe" is resource limits and no isolation, for a machine that is itself thrown away."""


def make(cfg: OnelinersTask) -> Task:
    return Task(
        name="oneliners",
        load=lambda split: load(cfg, split),
        ask=lambda problem: [Message(role="user", content=problem.question)],
        revise=revise.ONELINER,
        grade=partial(grade_code, setting=setting_of(cfg.sandbox, cfg.cpu_s)),
        answer=answer,
    )


def load(cfg: OnelinersTask, split: str) -> list[Problem]:
    """The split's problems, the same for the same config."""
    return generated.load("oneliners", cfg, split, generate, "raise largest or arguments, or lower the split's size")


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """One operation on two arguments, by their positions."""

    operation: str
    left: int
    right: int

    def __call__(self, arguments: Sequence[int]) -> int:
        return OPERATIONS[self.operation](arguments[self.left], arguments[self.right])


@lru_cache
def language(arguments: int) -> tuple[Program, ...]:
    """Every program, each function once: where order does not matter, the earlier argument comes first."""
    pairs = [(op, *pair) for op in OPERATIONS for pair in itertools.permutations(range(arguments), 2) if op == "-" or pair[0] < pair[1]]
    return tuple(Program(operation=op, left=left, right=right) for op, left, right in pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Puzzle:
    """A problem with what it was made from: the arguments of its shown tests, and the one program that passes them."""

    problem: Problem
    shown: tuple[tuple[int, ...], ...]
    program: Program


def generate(cfg: OnelinersTask, split: str, rng: random.Random) -> Iterator[Puzzle]:
    """Endless puzzles of one split; repeats are possible. Raises `DataError` where there seem to be none."""
    programs = language(cfg.arguments)
    rejected = 0
    while rejected < REJECTED:
        rejected += 1
        program = rng.choice(programs)
        cases = [tuple(rng.randint(1, cfg.largest) for _ in range(cfg.arguments)) for _ in range(cfg.shown + cfg.hidden)]
        shown = cases[: cfg.shown]
        results = [program(arguments) for arguments in shown]
        found_in, digest = split_of(repr(sorted(zip(shown, results))))
        if found_in != split or sum([other(arguments) for arguments in shown] == results for other in programs) != 1:
            continue  # of another split, or another program would be right as well
        rejected = 0
        tests = [asserted(arguments, program(arguments)) for arguments in cases]
        problem = Problem(
            id=f"oneliner-{digest}",
            question=ASK.format(names=signature(cfg.arguments), tests="\n".join(tests[: cfg.shown])),
            reference=UnitTests(entry_point="f", code="\n".join(tests) + "\n"),
            subject=program.operation,
            solution=written(program, cfg.arguments),
        )
        yield Puzzle(problem=problem, shown=tuple(shown), program=program)
    raise DataError(f"oneliners: no problem of {split} with one answer in {REJECTED:,} draws; raise largest or shown")


def signature(arguments: int) -> str:
    return ", ".join(NAMES[:arguments])


def asserted(arguments: Sequence[int], result: int) -> str:
    return f"assert f({', '.join(map(str, arguments))}) == {result}"


def written(program: Program, arguments: int) -> str:
    left, right = NAMES[program.left], NAMES[program.right]
    spelt = f"{program.operation}({left}, {right})" if program.operation.isalpha() else f"{left} {program.operation} {right}"
    return f"def f({signature(arguments)}): return {spelt}"


def demonstrations(cfg: OnelinersTask, slips: Slips, rng: random.Random) -> Iterator[Demonstration]:
    """Endless pairs of attempts at training problems; a slip's distance is the mean over the shown tests."""
    for puzzle in generate(cfg, "train", rng):
        first, second = two_attempts(puzzle.program, partial(_slip, puzzle, cfg, slips, rng), slips, rng)
        yield Demonstration(problem=puzzle.problem, attempts=(written(first, cfg.arguments), written(second, cfg.arguments)))


def _slip(puzzle: Puzzle, cfg: OnelinersTask, slips: Slips, rng: random.Random) -> Program:
    wrong = [program for program in language(cfg.arguments) if program != puzzle.program]
    return rng.choices(wrong, [math.exp(-_distance(program, puzzle) / slips.spread) for program in wrong])[0]


def _distance(program: Program, puzzle: Puzzle) -> float:
    return sum(abs(program(arguments) - puzzle.program(arguments)) for arguments in puzzle.shown) / len(puzzle.shown)
