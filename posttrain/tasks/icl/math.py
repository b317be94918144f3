r"""MATH shots, tested on MATH-500 or, as transfer, on GSM8K (arXiv 2404.11018); graded by algebra.

The usual few-shot prompt is Minerva's four problems (arXiv 2206.14858), which are problems of MATH's training set and are looked up there.
"""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.grading.batch import grade_math
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.tasks import gsm8k, math
from posttrain.tasks.gsm8k import Gsm8kTask
from posttrain.tasks.math import MathTask
from posttrain.tasks.source import Source
from posttrain.types import DataError, Problem

POOL: Source = "hub:nlile/hendrycks-MATH-benchmark:train"
MINERVA = (
    r"Find the domain of the expression $\frac{\sqrt{x-2}}{\sqrt{5-x}}$",
    r"If $\det \mathbf{A} = 2$ and $\det \mathbf{B} = 12,$ then find",
    "Terrell usually lifts two 20-pound weights 12 times.",
    r"If the system of equations \begin{align*} 6x-4y&=a,\\ 6y-9x &=b. \end{align*}has a solution",
)
LAYOUT = Layout(
    announce="You will be provided Problems similar to the ones below:",
    instruction=(
        "Solve the following problem. Think step by step, write only the solution, and end it with the final answer in \\boxed{}."
    ),
)


@config
class MathInContext:
    """MATH-500 behind shots from the rest of MATH."""

    kind: Literal["math"] = "math"
    sources: dict[str, Source] = Field(default_factory=lambda: {"pool": POOL, "test": "hub:HuggingFaceH4/MATH-500:test"})
    """`pool` and `test`, each in MATH's layout: a .jsonl file, hub:org/name[:config]:split, or a list of these."""
    few_shot: tuple[str, ...] = MINERVA
    """How the questions of the usual few-shot prompt begin; they are looked up in the pool."""
    test_items: int | None = Field(default=None, ge=1)
    """Only the first so many test problems; null for all."""


@config
class Gsm8kTransfer:
    """GSM8K behind shots from MATH: does what the shots teach carry over?"""

    kind: Literal["gsm8k_transfer"] = "gsm8k_transfer"
    sources: dict[str, Source] = Field(default_factory=lambda: {"pool": POOL, "test": "hub:openai/gsm8k:main:test"})
    """`pool` in MATH's layout, `test` in GSM8K's."""
    few_shot: tuple[str, ...] = MINERVA
    """How the questions of the usual few-shot prompt begin; they are looked up in the pool."""
    test_items: int | None = Field(default=500, ge=1)
    """Only the first so many test problems, 500 in the paper; null for all."""


def make_icl(cfg: MathInContext | Gsm8kTransfer) -> InContextTask:
    return InContextTask(
        name=cfg.kind,
        load=lambda split: load(cfg, split),
        layout=LAYOUT,
        score=score,
        max_tokens=1024,
        stop=("\n----------", "\nProblem:"),
    )


def load(cfg: MathInContext | Gsm8kTransfer, split: str) -> list[Problem]:
    if split == "test" and isinstance(cfg, Gsm8kTransfer):
        return gsm8k.read(Gsm8kTask(sources=cfg.sources, limit=cfg.test_items), split).problems
    if split == "few_shot":
        return _beginning_with(cfg.few_shot, math.read(MathTask(sources=cfg.sources), "pool").problems)
    return math.read(MathTask(sources=cfg.sources, limit=cfg.test_items if split == "test" else None), split).problems


def score(pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
    """1.0 for a final answer equal to the reference, None where the grader failed or cannot read the reference."""
    return [float(verdict.correct) if verdict.scored else None for verdict in grade_math(pairs)]


def _beginning_with(starts: Sequence[str], pool: Sequence[Problem]) -> list[Problem]:
    """The first problem of the pool for each of these; copies of MATH differ in white space, so it does not count."""
    asked = [(_squeezed(problem.question), problem) for problem in pool]
    found: list[Problem] = []
    for start in starts:
        problem = next((problem for question, problem in asked if question.startswith(_squeezed(start))), None)
        if problem is None:
            raise DataError(
                f"the few-shot prompt's problem {start!r} is not in the pool of {len(pool)}; set task.few_shot to questions of it"
            )
        found.append(problem)
    return found


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)
