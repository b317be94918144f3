"""Shots and how they are written: the records from which a many-shot prompt is made (arXiv 2404.11018).

Read on in `selection.py` (which shots may stand in a prompt), `order.py` (in which order) and `manyshot.py` (the prompt itself).
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from posttrain.jsonl import read_objects
from posttrain.run import write_atomic
from posttrain.types import DataError, Problem

ShotSource: TypeAlias = Literal["human", "model", "question"]
Baseline: TypeAlias = Callable[[Sequence[Problem], Sequence[Problem]], list[float]]
"""Learn from the first (one or more, as shots), answer the second: what each answer is worth, from 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One example in a prompt. `answer` is empty in a shot that is a question alone (Unsupervised ICL)."""

    id: str
    """Unique in a pool: two answers to one problem are two shots."""
    question: str
    answer: str
    source: ShotSource
    problem: str = ""
    """Id of the problem that it answers; empty where that is the shot's own id."""
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
    list_divider: str = "\n\n"
    """Between the blocks and the listed questions of an unsupervised prompt."""
    preamble: str = ""
    """Before the first solved shot."""
    announce: str = ""
    """Block (a) of an unsupervised prompt: says that problems of this kind follow."""
    instruction: str = ""
    """Block (c) of an unsupervised prompt, and the whole of a zero-shot one: how to answer."""
    demonstrate: str = "Now follow problems with their solutions. Solve the last one in the same way:"
    """Stands for the instruction in block (c) where solved shots show how to answer."""


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


class PromptError(ValueError):
    """A prompt cannot be built as asked; the message names the numbers."""

    exit_code: ClassVar[int] = 2


def human_shots(problems: Iterable[Problem]) -> list[Shot]:
    """The problems with what a person wrote as their answer, empty where there is none."""
    return [_shot(problem, problem.solution, "human") for problem in problems]


def question_shots(problems: Iterable[Problem]) -> list[Shot]:
    """The problems without their answers (Unsupervised ICL)."""
    return [_shot(problem, "", "question") for problem in problems]


def write_shots(path: Path, shots: Iterable[Shot]) -> None:
    """Replace `path` by these shots, one a line, atomically."""
    write_atomic(path, "".join(json.dumps(dataclasses.asdict(shot), ensure_ascii=False) + "\n" for shot in shots))


def read_shots(path: Path) -> list[Shot]:
    """The shots as they were written; raises `DataError` naming file and line."""
    shots = []
    for where, fields in read_objects(path):
        try:
            shots.append(Shot(**fields))
        except TypeError as error:
            raise DataError(f"{where}: not a shot: {error}; expected a file made by `posttrain prompt reinforce`") from None
    return shots


def _shot(problem: Problem, answer: str, source: ShotSource) -> Shot:
    return Shot(
        id=problem.id,
        question=problem.question,
        answer=answer,
        source=source,
        level=problem.level,
        subject=problem.subject,
        provenance=f"solution of {problem.id}" if answer else f"question of {problem.id}",
    )
