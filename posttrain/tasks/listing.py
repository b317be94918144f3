"""What the checks of data sets say in the same way: long lists cut short, and questions that stand twice."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from posttrain.prompting.selection import letters_and_digits
from posttrain.types import Problem

LISTED = 20


def listed(what: str, items: Sequence[str]) -> Iterator[str]:
    """Nothing for no items; else how many there are and the first ones."""
    if items:
        yield f"  {len(items)} {what}"
        yield from (f"    {item}" for item in items[:LISTED])
        if len(items) > LISTED:
            yield f"    ... and {len(items) - LISTED} more"


def asked_in(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Question -> the ids of the problems that ask it; only letters and digits count, as LaTeX has many spellings for one question."""
    asked: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        asked[letters_and_digits(problem.question)].append(problem.id)
    return asked
