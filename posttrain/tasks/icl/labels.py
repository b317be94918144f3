"""Labels that overturn a prior (arXiv 2404.11018, section 4.2) in a generated language: what is said of a thing has a tone.

    thing7 quality31 negative            the tone of "quality31" is fixed; a model trained on this language knows it
    thing7 quality31 neutral             flipped labels: the three rotated by one
    thing7 quality31 A                   abstract labels
    thing7 quality31 remark5 negative    with remarks: the annotator first says the word that "thing7" brings to mind

A question is a thing and a quality; the quality alone decides the tone. An annotator labels all items of a data set by one rule and
may slip (`noise`) in the pool; test items are labelled without slips, so a perfect reader of the shots reaches accuracy 1. Remarks
come from a map of things to words that each annotator draws afresh: text that only shots can teach and that the label does not need.
"""

import random
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Literal, TypeAlias

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.types import DataError, FinalAnswer, Problem

Scheme: TypeAlias = Literal["default", "flipped", "shuffled", "abstract", "own"]
TONES = ("negative", "neutral", "positive")
ABSTRACT = ("A", "B", "C")
DEFAULT, FLIPPED = (0, 1, 2), (1, 2, 0)
ORDERS = list(permutations(DEFAULT))
LAYOUT = Layout(question_label="", answer_label=" ", divider="\n")


@config
class Language:
    """The generated words, and the tone that each quality has in every data set of this language."""

    things: int = 48
    qualities: int = 96
    remarks: int = 16
    seed: int = 0
    """Seed of the qualities' tones: what a model trained on the language knows beforehand."""

    def __post_init__(self) -> None:
        if min(self.things, self.qualities, self.remarks) < 1:
            raise ValueError(f"expected at least one word of each kind, got {self.things}, {self.qualities} and {self.remarks}")


@config
class LabelsInContext:
    """What is said of a thing, labelled by one annotator's rule."""

    kind: Literal["labels"] = "labels"
    scheme: Scheme = "default"
    """The rule. "default": the tone itself; "flipped": rotated by one; "shuffled": the tones in one of the other four orders;
    "abstract": A, B and C for them in some order; "own": each quality a tone by the annotator's whim."""
    noise: float = 0.0
    """Probability that a label in the pool is one of the three drawn at random."""
    remarks: bool = False
    """Answers begin with a remark."""
    language: Language = Language()
    pool_size: int = 2048
    test_size: int = 250
    data_seed: int = 0
    """Seed of the items, of the annotator and of the slips."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must be a probability below 1, got {self.noise}")
        there_are = self.language.things * self.language.qualities
        if min(self.pool_size, self.test_size) < 1 or self.pool_size + self.test_size > there_are:
            raise ValueError(
                f"expected at least one item in pool and test and no more than there are: "
                f"asked for {self.pool_size} + {self.test_size}, {there_are} can be said"
            )


def make_icl(cfg: LabelsInContext) -> InContextTask:
    return InContextTask(
        name=f"labels-{cfg.scheme}",
        load=lambda split: load(cfg, split),
        layout=LAYOUT,
        score=lambda pairs: [float(label_in(text) == problem.final_answer) for problem, text in pairs],
        max_tokens=1 + cfg.remarks,
        stop=("\n",),
        choices=() if cfg.remarks else ABSTRACT if cfg.scheme == "abstract" else TONES,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotator:
    """One way to answer: a label for each quality, a remark for each thing."""

    labels: tuple[str, ...]
    names: tuple[str, ...]
    """The labels that are in use, from which slips are drawn."""
    remarks: tuple[int, ...] | None


@cache
def tones(language: Language) -> tuple[int, ...]:
    """The tone of each quality, the three as even as can be."""
    even = [i % len(TONES) for i in range(language.qualities)]
    random.Random(f"tones/{language.seed}").shuffle(even)
    return tuple(even)


def annotator(language: Language, scheme: Scheme, remarks: bool, rng: random.Random) -> Annotator:
    said = tuple(rng.randrange(language.remarks) for _ in range(language.things)) if remarks else None
    names = ABSTRACT if scheme == "abstract" else TONES
    order = rng.choice(_orders(scheme))
    rule = [rng.randrange(3) if scheme == "own" else order[tone] for tone in tones(language)]
    return Annotator(labels=tuple(names[i] for i in rule), names=names, remarks=said)


def _orders(scheme: Scheme) -> list[tuple[int, ...]]:
    """Which label each tone may get."""
    if scheme == "abstract":
        return ORDERS
    return (
        [order for order in ORDERS if order not in (DEFAULT, FLIPPED)]
        if scheme == "shuffled"
        else [FLIPPED if scheme == "flipped" else DEFAULT]
    )


def load(cfg: LabelsInContext, split: str) -> list[Problem]:
    """The split's items, all different; items and rule depend on `data_seed` alone, so that schemes are compared on the same items."""
    if split not in ("pool", "test"):
        raise DataError(f"labels: no split {split!r}; expected pool or test")
    items = list(product(range(cfg.language.things), range(cfg.language.qualities)))
    random.Random(f"items/{cfg.data_seed}").shuffle(items)
    rule = annotator(cfg.language, cfg.scheme, cfg.remarks, random.Random(f"annotator/{cfg.data_seed}"))
    if split == "test":
        return [problem(rule, thing, quality) for thing, quality in items[: cfg.test_size]]
    slips = random.Random(f"slips/{cfg.data_seed}")
    pool = items[cfg.test_size : cfg.test_size + cfg.pool_size]
    return [problem(rule, thing, quality, slip(rule, cfg.noise, slips)) for thing, quality in pool]


def slip(rule: Annotator, noise: float, rng: random.Random) -> str | None:
    """A label at random with probability `noise`, else none."""
    draw, label = rng.random(), rng.choice(rule.names)
    return label if draw < noise else None


def problem(rule: Annotator, thing: int, quality: int, slipped: str | None = None) -> Problem:
    """An item with its right label as reference; its `solution` is what the annotator wrote."""
    right = rule.labels[quality]
    remark = "" if rule.remarks is None else f"remark{rule.remarks[thing]} "
    question = f"thing{thing} quality{quality}"
    return Problem(
        id=f"labels-{thing}-{quality}", question=question, reference=FinalAnswer(text=right), solution=remark + (slipped or right)
    )


def label_in(text: str) -> str:
    """The last word of the first line that says something."""
    lines = text.strip().splitlines()
    return (lines[0].split() or [""])[-1] if lines else ""
