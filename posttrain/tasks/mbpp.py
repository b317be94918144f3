"""MBPP (Austin et al. 2021, arXiv 2108.07732): short Python tasks in one sentence, graded by assertions.

Rows have `task_id`, `text` (or `prompt`, in the sanitised half), `test_list`, `test_setup_code` or `test_imports`, and the reference
program in `code`. The published split is by task_id: 1-10 for prompts, 11-510 test, 511-600 validation, 601-974 train; a file that holds
all 974 is cut by it with `task_ids`. Asked in words, or behind solved tasks as in the paper (`shots`).
"""

from dataclasses import replace
from functools import partial
from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.grading.code import LIMITS, SandboxChoice, grade_code, setting_of
from posttrain.grading.unit_tests import mbpp_tests
from posttrain.prompting import revise
from posttrain.tasks.humaneval import answer
from posttrain.tasks.source import Row, Source, Split, read_split
from posttrain.types import DataError, Message, Problem, Task

ASK = (
    "You are an expert Python programmer. {question}\n\nWrite the whole program, with the imports and helper functions that it needs and "
    "without the tests, in one ```python block."
)
ASK_BEHIND_SHOTS = "You are an expert Python programmer. Your task: {question}\n\n[BEGIN]\n"
SHOT = ASK_BEHIND_SHOTS + "{program}\n[DONE]\n\n\n"
SPLITS = ("train", "validation", "test", "prompt")
QUESTION = "{text}\nYour code must pass {these}:\n\n```python\n{tests}\n```"


@config
class MbppTask:
    """MBPP."""

    kind: Literal["mbpp"] = "mbpp"
    sources: dict[str, Source] = Field(default={split: f"hub:google-research-datasets/mbpp:full:{split}" for split in SPLITS})
    """Split name -> a .jsonl or .jsonl.gz file, or hub:org/name[:config]:split, or a list of these that is read as one split."""
    task_ids: dict[str, tuple[int, int]] = Field(default_factory=dict)
    """Split name -> first and last task_id to take of its source; splits that are not named here take all. Published: train 601-974."""
    shown_tests: int = Field(default=3, ge=1)
    """How many of the assertions the question shows; one is needed to tell the function's name, three is what arXiv 2108.07732 does."""
    shots: tuple[int, ...] = ()
    """task_ids of the `prompt` split whose solutions stand before the question, programs between [BEGIN] and [DONE]; arXiv 2108.07732 has
    2, 3 and 4. Without any the question is asked in words."""
    cpu_s: float = Field(default=LIMITS.cpu_s, gt=0)
    """CPU time of one program with all its tests, seconds; who exceeds it is run twice, the second time alone."""
    sandbox: SandboxChoice = "auto"
    """What stands around a program; "unsafe" is resource limits and no isolation, for a machine that is itself thrown away."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many problems of each split; null for all."""


def make(cfg: MbppTask) -> Task:
    return Task(
        name="mbpp",
        load=lambda split: read(cfg, split).problems,
        ask=partial(ask_behind, shots_of(cfg)) if cfg.shots else ask,
        revise=revise.CODE,
        verify=revise.VERIFY,
        grade=partial(grade_code, setting=setting_of(cfg.sandbox, cfg.cpu_s)),
        answer=answer,
    )


def read(cfg: MbppTask, split: str) -> Split:
    """The problems of a split; raises `DataError`, also where `task_ids` leaves nothing of it."""
    whole = read_split(cfg.sources, split, lambda row, number: _problem(row, number, cfg.shown_tests), None)
    bounds = cfg.task_ids.get(split)
    if bounds is None:
        return Split(problems=whole.problems[: cfg.limit], left_out=whole.left_out)
    first, last = bounds
    kept = [problem for problem in whole.problems if first <= int(problem.id.rpartition("/")[2]) <= last]
    if not kept:
        raise DataError(f"{cfg.sources[split]}: no task_id from {first} to {last} in it")
    return Split(problems=kept[: cfg.limit], left_out=whole.left_out)


def ask(problem: Problem) -> list[Message]:
    return [Message(role="user", content=ASK.format(question=problem.question))]


def ask_behind(block: str, problem: Problem) -> list[Message]:
    return [Message(role="user", content=block + ASK_BEHIND_SHOTS.format(question=problem.question))]


def shots_of(cfg: MbppTask) -> str:
    """The block of solved tasks before every question; raises `DataError` where one is missing or has no program."""
    there = {int(problem.id.rpartition("/")[2]): problem for problem in read(replace(cfg, limit=None), "prompt").problems}
    for number in cfg.shots:
        if number not in there or not there[number].solution:
            raise DataError(f"{cfg.sources['prompt']}: has no solved task_id {number} for task.shots; found {', '.join(map(str, there))}")
    chosen = [there[number] for number in cfg.shots]
    return "".join(SHOT.format(question=problem.question, program=problem.solution.replace("\r\n", "\n").strip()) for problem in chosen)


def _problem(row: Row, number: str, shown_tests: int) -> Problem:
    tests = mbpp_tests(row.where, row.fields)
    shown = row.fields["test_list"][:shown_tests]
    these = "a test like this" if len(shown) == 1 else "tests like these"
    return Problem(
        id=f"mbpp/{row.fields['task_id']}" if "task_id" in row.fields else number,
        question=QUESTION.format(text=row.text("text", "prompt").strip(), these=these, tests="\n".join(shown)),
        reference=tests,
        solution=row.text("code") if "code" in row.fields else "",
    )
