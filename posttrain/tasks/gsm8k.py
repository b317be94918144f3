r"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): school arithmetic in words. Rows have `question` and an `answer` that ends in "#### n"."""

from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.grading.batch import grade_math
from posttrain.prompting import revise
from posttrain.tasks.math import answer
from posttrain.tasks.source import Row, Source, Split, read_split
from posttrain.types import DataError, FinalAnswer, Message, Problem, Task

ASK = (
    "Solve the problem below. Think step by step, write only the solution, and end it with the final answer, a number, in "
    "\\boxed{{}}.\n\nProblem:\n{question}"
)


@config
class Gsm8kTask:
    """GSM8K."""

    kind: Literal["gsm8k"] = "gsm8k"
    sources: dict[str, Source] = Field(default={"train": "hub:openai/gsm8k:main:train", "test": "hub:openai/gsm8k:main:test"})
    """Split name -> a .jsonl or .jsonl.gz file, or hub:org/name[:config]:split, or a list of these that is read as one split."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many problems of each split; null for all."""


def make(cfg: Gsm8kTask) -> Task:
    return Task(
        name="gsm8k",
        load=lambda split: read(cfg, split).problems,
        ask=ask,
        revise=revise.MATH,
        verify=revise.VERIFY,
        grade=grade_math,
        answer=answer,
    )


def read(cfg: Gsm8kTask, split: str) -> Split:
    return read_split(cfg.sources, split, _problem, cfg.limit)


def ask(problem: Problem) -> list[Message]:
    return [Message(role="user", content=ASK.format(question=problem.question))]


def _problem(row: Row, number: str) -> Problem:
    _, marker, reference = row.text("answer").rpartition("####")
    if not marker or not reference.strip():
        raise DataError(f"{row.where}: 'answer' must end in '#### n', found {row.text('answer')[-40:]!r}")
    return Problem(
        id=number, question=row.text("question"), reference=FinalAnswer(text=reference.strip()), solution=row.text("answer").strip()
    )
