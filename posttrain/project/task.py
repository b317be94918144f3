"""The task: numbers in, the same numbers in ascending order out. Make it yours: only the names and what they return have to stay.

`posttrain data check task.py` says whether it holds together; `pytest` tries what matters about the grader.
"""

import hashlib
import random
import re
from collections.abc import Iterator

from posttrain.types import FinalAnswer, Message, Problem, Verdict

SIZES = {"train": 4000, "validation": 200, "test": 1000}
revise = "There may be an error in the answer above. Correct it if there is one and write the answer again."


def load(split: str) -> list[Problem]:
    """The problems of a split, the same at every call. None may stand in two splits: here a hash of the numbers decides."""
    rng, found = random.Random(f"problems/{split}"), {}
    while len(found) < SIZES[split]:
        problem, home = draw(rng)
        if home == split:
            found[problem.id] = problem
    return list(found.values())


def ask(problem: Problem) -> list[Message]:
    """What the model reads before its first attempt."""
    return [Message(role="user", content=f"Sort {problem.question}")]


def answer(text: str) -> str | None:
    """The final answer of a text, None where it has none; two attempts with the same one count as unchanged."""
    found = re.findall(r"Sorted:((?: \d+)+)", text)
    return found[-1].strip() if found else None


def grade(problem: Problem, text: str) -> Verdict:
    """One answer. Whatever the model wrote, say what it is and do not raise: a grader that fails leaves the answer unscored."""
    found = answer(text)
    if found is None:
        return Verdict(status="no_answer", why="no line that begins with Sorted:")
    right = found == problem.reference.text
    return Verdict(status="correct" if right else "wrong", why=f"read {found!r}")


def demonstrations(rng: random.Random) -> Iterator[tuple[Problem, str, str]]:
    """Endless (problem, first attempt, second attempt) of people who slip: for base.yaml alone, where no model is there to begin with."""
    while True:
        problem, home = draw(rng)
        if home == "train":
            first = slip(problem, rng) if rng.random() < 0.4 else problem.solution
            second = rng.choice([first, problem.solution, slip(problem, rng)])  # drawn without a look at whether the first is right
            yield problem, first, second


def draw(rng: random.Random) -> tuple[Problem, str]:
    """A problem and the split that it belongs to."""
    numbers = rng.sample(range(1, 31), 5)
    ordered = " ".join(map(str, sorted(numbers)))
    bucket = hashlib.sha256(ordered.encode()).digest()[0]
    home = "test" if bucket < 32 else "validation" if bucket < 48 else "train"
    asked = " ".join(map(str, numbers))
    return Problem(id=asked, question=asked, reference=FinalAnswer(text=ordered), solution=f"Sorted: {ordered}"), home


def slip(problem: Problem, rng: random.Random) -> str:
    """The answer with two neighbours exchanged."""
    numbers = problem.reference.text.split()
    i = rng.randrange(len(numbers) - 1)
    numbers[i], numbers[i + 1] = numbers[i + 1], numbers[i]
    return f"Sorted: {' '.join(numbers)}"
