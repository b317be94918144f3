"""Shots and how they are written: the records from which a many-shot prompt is made (arXiv 2404.11018)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from posttrain.types import Problem

ShotSource: TypeAlias = Literal["human", "model", "question"]
Baseline: TypeAlias = Callable[[Sequence[Problem], Sequence[Problem]], list[float]]
"""Learn from the first (one or more, as shots), answer the second: what each answer is worth, from 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One example in a prompt. `answer` is empty in a shot that is a question alone (Unsupervised ICL)."""

    id: str
    question: str
    answer: str
    source: ShotSource
    level: str = ""
    subject: str = ""
    provenance: str = ""
    """Where the answer came from: a data file and row, or a run folder, its step and sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What stands around questions and answers. A solved shot reads `question_label + question + answer_label + answer + divider`."""

    question_label: str = "Problem:\n"
    answer_label: str = "\nSolution:\n"
    divider: str = "\n\n----------\n\n"
    preamble: str = ""
    """Before the first shot."""
    announce: str = ""
    """Block (a) of an unsupervised prompt: says that problems of this kind follow."""
    instruction: str = ""
    """Block (c) of an unsupervised prompt, and the whole of a zero-shot one: how to answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InContextTask:
    """A data set for in-context learning: a pool to take shots from, items to test on, and what an answer is worth."""

    name: str
    load: Callable[[str], list[Problem]]
    """"pool" or "test" -> problems; a pool's `solution` is the answer as a person wrote it. "few_shot" is the benchmark's own usual
    prompt, where it has one. Raises `DataError`, also for a split that the task has not."""
    layout: Layout
    score: Callable[[Sequence[tuple[Problem, str]]], list[float | None]]
    """What each text is worth, from 0 to 1; None where the grader itself failed."""
    metric: str = "accuracy"
    corpus: Callable[[Sequence[tuple[Problem, str]]], float] | None = None
    """The figure over all items together where the field reports one (chrF2++), in the metric's own unit."""
    figures: Callable[[Sequence[tuple[Problem, str]]], dict[str, float]] | None = None
    """Further figures over all items together, by name (the share of plans that are shortest)."""
    choices: tuple[str, ...] = ()
    """The answers there are, where the set is closed: an engine that scores gives each its probability, normalised over the set."""
    weigh: Callable[[Sequence[tuple[Problem, Mapping[str, float]]]], dict[str, float]] | None = None
    """Figures over all items from the probabilities of the choices, by name (best of four by P(yes))."""
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    """An answer ends before the first of these."""
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    """What other learners make of the same shots and items, by the name that tables and legends give them."""
