r"""MATH (Hendrycks et al. 2021, arXiv 2103.03874): competition problems whose answer is one expression, asked and graded in \boxed{}.

Rows have `problem` and `answer`, or `solution` with the answer in its last box; `level` ("Level 5" or 5), `type` or `subject`, and
`unique_id` where there is one. The default training split is the 12,000 problems that MATH-500 leaves, as in arXiv 2409.12917.
"""

from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.grading.answer import final_answer
from posttrain.grading.batch import grade_math
from posttrain.grading.math import spelling
from posttrain.prompting import revise
from posttrain.tasks.source import Row, Source, Split, read_split
from posttrain.types import FinalAnswer, Message, Problem, Task

ASK = (
    "You are an expert in mathematics. Solve the problem below. Think step by step, write only the solution, and end it with the "
    "final answer in \\boxed{{}}.\n\nProblem:\n{question}"
)


@config
class MathTask:
    """MATH and MATH-500."""

    kind: Literal["math"] = "math"
    sources: dict[str, Source] = Field(
        default={"train": "hub:nlile/hendrycks-MATH-benchmark:train", "test": "hub:HuggingFaceH4/MATH-500:test"}
    )
    """Split name -> a .jsonl or .jsonl.gz file, or hub:org/name[:config]:split, or a list of these that is read as one split."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many problems of each split; null for all."""


def make(cfg: MathTask) -> Task:
    return Task(
        name="math",
        load=lambda split: read(cfg, split).problems,
        ask=ask,
        revise=revise.MATH,
        verify=revise.VERIFY,
        grade=grade_math,
        answer=answer,
    )


def read(cfg: MathTask, split: str) -> Split:
    """The problems of a split, and the rows left out: two of MATH's training solutions have an empty box, so no reference."""
    return read_split(cfg.sources, split, _problem, cfg.limit)


def ask(problem: Problem) -> list[Message]:
    """One user message: not every chat template has a system role."""
    return [Message(role="user", content=ASK.format(question=problem.question))]


def answer(text: str) -> str | None:
    """The final answer of a text in one spelling, so that 1/2 in two spellings of LaTeX is no change of answer."""
    found = final_answer(text)
    return None if found is None else spelling(found)


def _problem(row: Row, number: str) -> Problem | None:
    reference = row.text("answer") if "answer" in row.fields else final_answer(row.text("solution")) or ""
    if not reference.strip():
        return None
    return Problem(
        id=row.text("unique_id") if "unique_id" in row.fields else number,
        question=row.text("problem", "question"),
        reference=FinalAnswer(text=reference),
        level=str(row.fields.get("level", "")).removeprefix("Level "),
        subject=row.text("subject", "type") if {"subject", "type"} & row.fields.keys() else "",
        solution=row.text("solution") if "solution" in row.fields else "",
    )
