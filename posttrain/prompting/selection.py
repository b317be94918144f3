"""Which shots may stand in a prompt: one rule after the other, each with a count of what it left out.

Two questions are the *same* where their letters and digits agree, as LaTeX has many spellings for one question; that also takes
"x^2 - 1" for "x^2 + 1", which errs on the safe side. They are *nearly* the same where they hold the same numbers in the same order and
their letters and digits are at least `near` alike (Indel similarity): the same words around other numbers are another problem.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from pydantic import Field
from rapidfuzz.distance import Indel
from scipy.spatial import distance

from posttrain.config import config
from posttrain.prompting.shots import PromptError, Shot
from posttrain.types import Problem

Rule: TypeAlias = Literal[
    "no answer", "in the test set", "nearly in the test set", "duplicate", "near-duplicate", "too long", "over the cap"
]
LISTED = 5
BLOCK = 512  # questions compared with all others at a time, which bounds the matrix
BINS = 64


@config
class Rules:
    """What keeps a shot out of the prompt."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Longest shot, in tokens, with its labels and divider; null for no cap."""
    per_problem: int = Field(default=1, ge=1)
    """Answers to one problem; more let easy problems, which are solved more often, crowd the prompt."""
    near: float | None = Field(default=0.95, gt=0, le=1)
    """How alike the letters and digits of two questions with the same numbers must be to count as one; null compares for sameness only."""
    leaks: Literal["refuse", "drop"] = "refuse"
    """What to do about shots whose question is, or nearly is, one of the test set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A shot that was left out, by which rule, and beside which shot or problem it fell."""

    shot: Shot
    rule: Rule
    beside: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The shots that passed every rule, in the order they came, and those that did not."""

    shots: list[Shot]
    dropped: list[Dropped]

    @property
    def counts(self) -> dict[Rule, int]:
        return dict(Counter(dropped.rule for dropped in self.dropped))

    def __str__(self) -> str:
        left_out = ", ".join(f"{count} {rule}" for rule, count in self.counts.items()) or "none"
        return f"{len(self.shots)} of {len(self.shots) + len(self.dropped)} shots; left out: {left_out}"


def select(
    shots: Iterable[Shot], rules: Rules, *, test: Sequence[Problem] = (), count: Callable[[Shot], int] | None = None, answered: bool = True
) -> Selection:
    """The shots that pass `rules`, the earlier one winning where two exclude each other.

    `count` tells a shot's length in tokens; `answered` is false for questions alone. Raises `PromptError` where a shot is in the test set
    and the rules refuse that, or where no shot is left.
    """
    kept, dropped = list(shots), list[Dropped]()
    if answered:
        kept = _without(kept, dropped, "no answer", {shot.id: "" for shot in kept if not shot.answer.strip()})
    leaks: dict[Rule, dict[str, str]] = {
        "in the test set": same_as(kept, test),
        "nearly in the test set": _near_to(kept, test, rules.near),
    }
    for rule, found in leaks.items():
        if found and rules.leaks == "refuse":
            raise _leak(rule, found, len(kept))
        kept = _without(kept, dropped, rule, found)
    kept = _without(kept, dropped, "duplicate", _repeated(kept))
    kept = _without(kept, dropped, "near-duplicate", _nearly_repeated(kept, rules.near))
    if rules.max_tokens is not None and count is not None:
        kept = _without(kept, dropped, "too long", {shot.id: "" for shot in kept if count(shot) > rules.max_tokens})
    kept = _without(kept, dropped, "over the cap", _over_cap(kept, rules.per_problem))
    selection = Selection(shots=kept, dropped=dropped)
    if not kept:
        raise PromptError(f"the pool is empty: {selection}")
    return selection


def listed(shots: Sequence[Shot], ids: Sequence[str], where: str) -> list[Shot]:
    """The shots with these ids, in this order; raises `PromptError` naming `where` the ids stand."""
    by_id = {shot.id: shot for shot in shots}
    if unknown := [name for name in ids if name not in by_id]:
        raise PromptError(f"{where}: {len(unknown)} of {len(ids)} ids are not in the pool of {len(shots)} shots, e.g. {unknown[0]!r}")
    if twice := [name for name, times in Counter(ids).items() if times > 1]:
        raise PromptError(f"{where}: {len(twice)} ids stand more than once, e.g. {twice[0]!r}")
    if not ids:
        raise PromptError(f"{where}: holds no ids; expected one a line")
    return [by_id[name] for name in ids]


def letters_and_digits(question: str) -> str:
    """What must agree for two questions to be the same. White space between two digits stays: it tells 1 23 from 12 3."""
    latex = re.sub(r"([_^]\d)(?=\d)", r"\1 ", question.lower())  # an index without braces is one digit: \log_82 is \log_8 2
    marked = re.sub(r"(?<=\d)\s+(?=\d)", "_", latex.replace("_", ""))
    return re.sub(r"\W", "", marked) or question  # signs alone are compared as they are


def numbers_of(question: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", re.sub(r"(?<=\d),(?=\d{3})", "", question)))


def same_as(mine: Sequence[Shot] | Sequence[Problem], test: Sequence[Problem]) -> dict[str, str]:
    """The ids of mine whose question is one of the test's, each with that problem's id."""
    asked = {letters_and_digits(problem.question): problem.id for problem in test}
    keys = ((each, letters_and_digits(each.question)) for each in mine) if asked else ()
    return {each.id: asked[key] for each, key in keys if key in asked}


def _near_to(shots: Sequence[Shot], test: Sequence[Problem], near: float | None) -> dict[str, str]:
    if near is None or not test:
        return {}
    texts = [problem.question for problem in test] + [shot.question for shot in shots]
    pairs = near_pairs(texts, near, lambda i, j: i < len(test) <= j)
    return {shots[j - len(test)].id: test[i].id for i, j in pairs}


def _repeated(shots: Sequence[Shot]) -> dict[str, str]:
    """Shots that ask what another problem asked before, or repeat an earlier answer to their own."""
    found: dict[str, str] = {}
    first: dict[str, Shot] = {}
    said: set[tuple[str, str]] = set()
    for shot in shots:
        before = first.setdefault(letters_and_digits(shot.question), shot)
        pair = (problem_of(shot), " ".join(shot.answer.split()))
        if problem_of(before) != problem_of(shot) or pair in said:
            found[shot.id] = before.id
        said.add(pair)
    return found


def _nearly_repeated(shots: Sequence[Shot], near: float | None) -> dict[str, str]:
    if near is None:
        return {}
    found: dict[str, str] = {}
    asked = list({problem_of(shot): shot for shot in reversed(shots)}.values())[::-1]
    gone: dict[str, str] = {}
    for i, j in near_pairs([shot.question for shot in asked], near, lambda i, j: True):
        if problem_of(asked[i]) not in gone:  # what is left out excludes nothing
            gone.setdefault(problem_of(asked[j]), asked[i].id)
    for shot in shots:
        if problem_of(shot) in gone:
            found[shot.id] = gone[problem_of(shot)]
    return found


def near_pairs(texts: Sequence[str], near: float, wanted: Callable[[int, int], bool]) -> Iterator[tuple[int, int]]:
    """Pairs i < j, in order of i, that hold the same numbers in the same order and whose letters and digits are at least `near` alike."""
    blocks: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        blocks[numbers_of(text)].append(i)
    pairs = []
    for block in (block for block in blocks.values() if len(block) > 1):
        pairs += [(block[a], block[b]) for a, b in _alike([letters_and_digits(texts[i]) for i in block], near)]
    return ((i, j) for i, j in sorted(pairs) if wanted(i, j))


def _alike(keys: Sequence[str], near: float) -> Iterator[tuple[int, int]]:
    """Pairs a < b with an Indel similarity of at least `near`.

    An insertion or deletion changes one count of one character, so the counts' L1 distance never exceeds the Indel distance. That leaves
    few pairs to be compared in full: 12,000 questions of one block take seconds instead of a minute and a half.
    """
    counts = np.stack([np.bincount(np.frombuffer(key.encode("utf-32-le"), np.uint32) % BINS, minlength=BINS) for key in keys])
    order = np.argsort(counts.sum(1), kind="stable")  # by length, so that what is too short to be alike need not be looked at
    lengths = counts.sum(1)[order]
    for start in range(0, len(keys), BLOCK):
        rows = order[start : start + BLOCK]
        longest = lengths[min(start + BLOCK, len(keys)) - 1] * (2 - near) / near
        columns = order[start : np.searchsorted(lengths, longest, side="right")]
        at_most = (1 - near) * (lengths[start : start + len(rows), None] + lengths[None, start : start + len(columns)])
        close = distance.cdist(counts[rows], counts[columns], "cityblock") <= at_most + 1e-6
        for a, b in zip(*np.nonzero(np.triu(close, 1))):
            i, j = sorted((int(rows[a]), int(columns[b])))
            if Indel.normalized_similarity(keys[i], keys[j]) >= near:
                yield i, j


def problem_of(shot: Shot) -> str:
    return shot.problem or shot.id


def _over_cap(shots: Sequence[Shot], per_problem: int) -> dict[str, str]:
    taken: Counter[str] = Counter()
    found = {}
    for shot in shots:
        taken[problem_of(shot)] += 1
        if taken[problem_of(shot)] > per_problem:
            found[shot.id] = problem_of(shot)
    return found


def _without(shots: list[Shot], dropped: list[Dropped], rule: Rule, found: dict[str, str]) -> list[Shot]:
    dropped += [Dropped(shot=shot, rule=rule, beside=found[shot.id]) for shot in shots if shot.id in found]
    return [shot for shot in shots if shot.id not in found]


def _leak(rule: Rule, found: dict[str, str], num_shots: int) -> PromptError:
    pairs = ", ".join(f"{shot} = {problem}" for shot, problem in list(found.items())[:LISTED])
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return PromptError(f"{len(found)} of {num_shots} shots are {rule}: {pairs}{more}; `leaks: drop` leaves such shots out")
