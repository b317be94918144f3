"""Labels that overturn a prior (arXiv 2404.11018, section 4.2) in a generated language: what is said of a thing has a tone.

    soup dreadful -> negative              the tone of "dreadful" is fixed; a model trained on this language knows it
    soup dreadful -> neutral               flipped labels: the three rotated by one
    soup dreadful -> A                     abstract labels
    soup dreadful -> indeed negative       with remarks: the annotator first says the word that "soup" brings to mind

A question is a thing and a quality; the quality alone decides the tone. An annotator labels all items of a data set by one rule and
may slip (`noise`) in the pool; test items are labelled without slips, so a perfect reader of the shots reaches accuracy 1. Remarks
come from a map of things to words that each annotator draws afresh: text that only shots can teach and that the label does not need.
"""

import random
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.types import DataError, FinalAnswer, Problem

Scheme: TypeAlias = Literal["default", "flipped", "abstract", "own"]
TONES = ("negative", "neutral", "positive")
ABSTRACT = ("A", "B", "C")
LAYOUT = Layout(question_label="", answer_label=" -> ", divider="\n")


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

    def tones(self) -> list[int]:
        """The tone of each quality, the three as even as can be."""
        tones = [i % len(TONES) for i in range(self.qualities)]
        random.Random(f"tones/{self.seed}").shuffle(tones)
        return tones


@config
class LabelsTask:
    """What is said of a thing, labelled by one annotator's rule."""

    kind: Literal["labels"] = "labels"
    scheme: Scheme = "default"
    """The rule: the tone; the tone rotated by one; A, B, C for the three; or each quality a tone drawn by the annotator's "own" whim."""
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


def make_icl(cfg: LabelsTask) -> InContextTask:
    return InContextTask(
        name=f"labels-{cfg.scheme}",
        load=lambda split: load(cfg, split),
        layout=LAYOUT,
        score=lambda pairs: [float(label_in(text) == answer_of(problem)) for problem, text in pairs],
        max_tokens=1 + cfg.remarks,
        stop=("\n",),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotator:
    """One way to answer: a label for each quality, a remark for each thing."""

    labels: tuple[str, ...]
    names: tuple[str, ...]
    """The labels that are in use, from which slips are drawn."""
    remarks: tuple[int, ...] | None


def annotator(language: Language, scheme: Scheme, remarks: bool, rng: random.Random) -> Annotator:
    said = tuple(rng.randrange(language.remarks) for _ in range(language.things)) if remarks else None
    tones, names = language.tones(), ABSTRACT if scheme == "abstract" else TONES
    rotate = 1 if scheme == "flipped" else 0
    rule = [rng.randrange(3) for _ in tones] if scheme == "own" else [(tone + rotate) % 3 for tone in tones]
    return Annotator(labels=tuple(names[i] for i in rule), names=names, remarks=said)


def load(cfg: LabelsTask, split: str) -> list[Problem]:
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
    remark = "" if rule.remarks is None else f"{remark_word(rule.remarks[thing])} "
    question = f"{thing_word(thing)} {quality_word(quality)}"
    return Problem(
        id=f"labels-{thing}-{quality}", question=question, reference=FinalAnswer(text=right), solution=remark + (slipped or right)
    )


def thing_word(i: int) -> str:
    return f"thing{i}"


def quality_word(i: int) -> str:
    return f"quality{i}"


def remark_word(i: int) -> str:
    return f"remark{i}"


def label_in(text: str) -> str:
    """The last word of the first line that says something."""
    lines = text.strip().splitlines()
    return (lines[0].split() or [""])[-1] if lines else ""


def answer_of(problem: Problem) -> str:
    assert isinstance(problem.reference, FinalAnswer)
    return problem.reference.text
