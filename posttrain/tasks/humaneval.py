"""HumanEval (Chen et al. 2021, arXiv 2107.03374): Python functions to be completed from signature and docstring, graded by unit tests.

Rows have `task_id`, `prompt`, `entry_point`, `test` that defines check(candidate), and `canonical_solution` where it is known. Sets in
the same layout, such as MBPP's sanitised half as CodeT published it, load as well. There is no training split.
"""

from functools import partial
from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.grading.code import LIMITS, SandboxChoice, grade_code, setting_of
from posttrain.grading.program import code_in
from posttrain.grading.unit_tests import humaneval_tests
from posttrain.prompting import revise
from posttrain.tasks.source import Row, Source, Split, read_split
from posttrain.types import Message, Problem, Task

ASK = (
    "You are an expert Python programmer. Complete the function below, so that it does what its docstring says. Write the whole program, "
    "with the imports and helper functions that it needs, in one ```python block.\n\n```python\n{question}\n```"
)


@config
class HumanEvalTask:
    """HumanEval."""

    kind: Literal["humaneval"] = "humaneval"
    sources: dict[str, Source] = Field(default={"test": "hub:openai/openai_humaneval:test"})
    """Split name -> a .jsonl or .jsonl.gz file, or hub:org/name[:config]:split, or a list of these that is read as one split."""
    complete: bool = False
    """Ask with signature and docstring alone, for a model to go on with, as arXiv 2107.03374 does; for prompts in plain text."""
    cpu_s: float = Field(default=LIMITS.cpu_s, gt=0)
    """CPU time of one program with all its tests, seconds; who exceeds it is run twice, the second time alone."""
    sandbox: SandboxChoice = "auto"
    """What stands around a program; "unsafe" is resource limits and no isolation, for a machine that is itself thrown away."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many problems of each split; null for all."""


def make(cfg: HumanEvalTask) -> Task:
    return Task(
        name="humaneval",
        load=lambda split: read(cfg, split).problems,
        ask=ask_to_go_on if cfg.complete else ask,
        revise=revise.CODE,
        verify=revise.VERIFY,
        grade=partial(grade_code, setting=setting_of(cfg.sandbox, cfg.cpu_s)),
        answer=answer,
    )


def read(cfg: HumanEvalTask, split: str) -> Split:
    return read_split(cfg.sources, split, _problem, cfg.limit)


def ask(problem: Problem) -> list[Message]:
    return [Message(role="user", content=ASK.format(question=problem.question.strip()))]


def ask_to_go_on(problem: Problem) -> list[Message]:
    """What the problem gives, to its last letter but spaces that would part the model from its indentation."""
    return [Message(role="user", content=problem.question.rstrip(" "))]


def answer(text: str) -> str | None:
    """The program in a text without blank lines and trailing spaces, so that layout alone is no change of answer."""
    found = code_in(text)
    return None if found is None else "\n".join(line.rstrip() for line in found.source.splitlines() if line.strip())


def _problem(row: Row, number: str) -> Problem:
    tests = humaneval_tests(row.where, row.fields)
    known = "canonical_solution" in row.fields
    return Problem(
        id=row.text("task_id") if "task_id" in row.fields else number,
        question=tests.prompt,
        reference=tests,
        solution=tests.prompt + row.text("canonical_solution") if known else "",
    )
