"""Which training questions an evaluation set asks as well: the whole question, or much of its wording. Pure functions over problems.

Whole: letters and digits agree (`letters_and_digits`, by which many-shot prompts refuse leaks too). That errs on the safe side: it takes
x - 1 for x + 1 and tan 22.5 for tan 225, so each finding says whether the signs agree as well.

Wording: the share of an evaluation question's word n-grams that occur in one training question, with n = 13 as in arXiv 2005.14165,
app. C. A word is a run of letters and digits, case folded. A question of fewer than n words has one n-gram, all its words.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from posttrain.prompting.selection import same_as
from posttrain.tasks.listing import asked_in
from posttrain.types import Problem

Words: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """One training problem beside one other."""

    kind: Literal["exact", "ngram", "duplicate"]
    """duplicate: an earlier problem of the training set itself asks it."""
    train: str
    other: str
    where: str
    """The set that `other` stands in."""
    share: float = 1.0
    """Of the n-grams of `other`, those that occur in `train`; 1 for the whole question."""
    signs_agree: bool = False
    """The questions are the same but for case, white space, dollars and braces; never claimed of n-grams."""


def exact(train: Sequence[Problem], asked: Sequence[Problem], where: str) -> list[Overlap]:
    """Every training problem whose question one of `asked` asks, with that one."""
    signed = {problem.id: _signed(problem.question) for problem in asked}
    found = same_as(train, asked)
    return [
        Overlap(kind="exact", train=p.id, other=found[p.id], where=where, signs_agree=_signed(p.question) == signed[found[p.id]])
        for p in train
        if p.id in found
    ]


def duplicates(train: Sequence[Problem], where: str) -> list[Overlap]:
    """Every training problem whose question stands earlier in the training set, with the first that asks it."""
    signed = {problem.id: _signed(problem.question) for problem in train}
    return [
        Overlap(kind="duplicate", train=again, other=first, where=where, signs_agree=signed[again] == signed[first])
        for first, *others in asked_in(train).values()
        for again in others
    ]


def by_ngrams(train: Sequence[Problem], asked: Sequence[Problem], where: str, n: int) -> list[Overlap]:
    """Every pair that shares an n-gram and not the whole question, the largest share first."""
    grams = {problem.id: set(ngrams(_words(problem.question), n)) for problem in asked}
    holders: dict[int, dict[Words, list[str]]] = defaultdict(lambda: defaultdict(list))  # size -> n-gram -> ids of who asks it
    for name, own in grams.items():
        for gram in own:
            holders[len(gram)][gram].append(name)
    whole = same_as(train, asked)
    found: list[Overlap] = []
    for problem in train:
        words = _words(problem.question)
        shared: dict[str, set[Words]] = defaultdict(set)
        for size, index in holders.items():
            for gram in zip(*(words[i:] for i in range(size))):
                for name in index.get(gram, ()):
                    shared[name].add(gram)
        for name, common in shared.items():
            if whole.get(problem.id) != name:
                found.append(Overlap(kind="ngram", train=problem.id, other=name, where=where, share=len(common) / len(grams[name])))
    return sorted(found, key=lambda overlap: -overlap.share)


def ngrams(words: Words, n: int) -> Iterator[Words]:
    """The n-grams of a question in order; where it has fewer than n words, all its words as one; of no words, none."""
    size = min(n, len(words))
    return zip(*(words[i:] for i in range(size)))


def _words(question: str) -> Words:
    return tuple(re.findall(r"[^\W_]+", question.lower()))


def _signed(question: str) -> str:
    return re.sub(r"[\s${}]", "", question.lower())
