"""Families of small worlds to learn in-context learning from: every sequence is a fresh one, told by a row of its solved examples.

A new plane, a new annotator: what a sequence's answers follow can only be learnt from the answers before them, so a model trained on
many worlds learns to learn. Examples are written exactly as a prompt's shots are. Each draw depends on the generator it is given alone.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveFloat, PositiveInt

from posttrain.config import config
from posttrain.prompting.shots import Layout
from posttrain.tasks.icl import labels, linear, parity
from posttrain.tasks.icl.labels import Language, Scheme
from posttrain.tasks.icl.linear import LinearInContext
from posttrain.tasks.icl.parity import ParityInContext
from posttrain.types import Problem


@config
class LinearFamily:
    """Random planes in a few dimensions; the number of dimensions grows along the list in the course of training."""

    kind: Literal["linear"] = "linear"
    weight: PositiveFloat = 1.0
    """Share of the updates, relative to the other families'."""
    dimensions: tuple[PositiveInt, ...] = (2, 4)
    largest: int = 8
    signed: bool = True

    def world(self, dimensions: int) -> LinearInContext:
        return LinearInContext(dimensions=dimensions, largest=self.largest, signed=self.signed, named=True, per_class=1, test_per_class=1)


@config
class LabelsFamily:
    """Annotators of one language, most of whom label by tone."""

    kind: Literal["labels"] = "labels"
    weight: PositiveFloat = 1.0
    schemes: dict[Scheme, PositiveFloat] = Field(default={"default": 1.0})
    """How often each rule occurs, relative to the others: the prior that a prompt has to overturn."""
    noise: tuple[float, ...] = (0.0,)
    """Each sequence slips with one of these probabilities."""
    remarks: float = 0.5
    """Share of sequences with remarks."""
    language: Language = Language()


@config
class ParityFamily:
    """One row of bits a sequence: no context to learn from, the rule goes into the weights. Rows of the pool, in order, each once."""

    kind: Literal["parity"] = "parity"
    weight: PositiveFloat = 1.0
    rows: ParityInContext
    """Must hold as many rows in its pool as training asks for."""


Family: TypeAlias = Annotated[LinearFamily | LabelsFamily | ParityFamily, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Examples of one world, and how they are written."""

    examples: list[Problem]
    layout: Layout


def width(family: Family, grown: float, rng: random.Random) -> int:
    """A difficulty for one update: the number of dimensions, easy ones alone at first (`grown` = 0), all in the end (1)."""
    if not isinstance(family, LinearFamily):
        return 0
    known = 1 + int(grown * (len(family.dimensions) - 1) + 0.5)
    return rng.choice(family.dimensions[:known])


def tokens_per_example(family: Family, width: int) -> int:
    """At most; one token for each word and each line end."""
    if isinstance(family, LinearFamily):
        return width + 2
    return 5 if isinstance(family, LabelsFamily) else 2 * family.rows.bits + 5


def worlds(family: Family, width: int, rows: int, examples: int, seed: int, first: int = 0) -> list[World]:
    """`rows` fresh worlds of `examples` each; of a family that is read through in order, its rows from number `first` on."""
    if isinstance(family, ParityFamily):
        return [World(examples=[row], layout=parity.LAYOUT) for row in _pool(family.rows)[first : first + rows]]
    rng = random.Random(seed)
    if isinstance(family, LinearFamily):
        return [_plane(family.world(width), examples, rng) for _ in range(rows)]
    return [_annotations(family, examples, rng) for _ in range(rows)]


def _plane(world: LinearInContext, num: int, rng: random.Random) -> World:
    import numpy as np

    generator = np.random.default_rng(rng.getrandbits(63))
    points, foo = linear.draw(world, generator, per_class=(num + 1) // 2, repeats=True)
    order = generator.permutation(len(points))[:num]
    return World(examples=[linear.problem(world, points[i], bool(foo[i])) for i in order], layout=linear.COMPACT)


def _annotations(family: LabelsFamily, num: int, rng: random.Random) -> World:
    scheme = rng.choices(list(family.schemes), list(family.schemes.values()))[0]
    noise = rng.choice(family.noise)
    rule = labels.annotator(family.language, scheme, rng.random() < family.remarks, rng)
    things, qualities = _some(family.language.things, rng), _some(family.language.qualities, rng)
    drawn = [(rng.choice(things), rng.choice(qualities), labels.slip(rule, noise, rng)) for _ in range(num)]
    return World(examples=[labels.problem(rule, *item) for item in drawn], layout=labels.LAYOUT)


def _some(num: int, rng: random.Random) -> list[int]:
    """A choice of range(num), its size log-uniform: few words that come often are what matching is learnt from (arXiv 2205.05055)."""
    return rng.sample(range(num), round(num ** rng.random()))


_POOLS: dict[ParityInContext, list[Problem]] = {}


def _pool(rows: ParityInContext) -> Sequence[Problem]:
    if rows not in _POOLS:
        _POOLS[rows] = parity.load(rows, "pool")
    return _POOLS[rows]


def vocabulary(families: Sequence[Family]) -> list[str]:
    """Every word that the families write, at the beginning of a line or after a space, in a fixed order."""
    words: dict[str, None] = {"\n": None}
    for family in families:
        for word in _words_of(family):
            words |= {word: None, word[1:] if word.startswith(" ") else f" {word}": None}
    return list(words)


def _words_of(family: Family) -> list[str]:
    if isinstance(family, LinearFamily):
        axes = [axis if axis == linear.AXES[0] else f" {axis}" for axis in linear.AXES[: max(family.dimensions)]]
        return [*linear.LABELS, *(f"{axis}{number}" for axis in axes for number in range(1, family.largest + 1))]
    if isinstance(family, LabelsFamily):
        kinds = {"thing": family.language.things, " quality": family.language.qualities, " remark": family.language.remarks}
        return [*labels.TONES, *labels.ABSTRACT, *(f"{kind}{i}" for kind, num in kinds.items() for i in range(num))]
    return [" 0", " 1", *(label.strip() for label in (parity.LAYOUT.question_label, parity.LAYOUT.answer_label))]
