"""GPQA (arXiv 2311.12022): graduate-level multiple choice; the diamond set is the test, the other questions of the main set the pool.

The data set is gated: accept its terms on the hub and log in, or name the authors' CSV files. The four choices are shuffled by a hash of
the record's id, so that the letter of the right one is the same in every run and on every machine.
"""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.tasks.icl.draw import draw
from posttrain.tasks.source import Row, Source, read_split
from posttrain.types import DataError, FinalAnswer, Problem

LETTERS = "ABCD"
COLUMNS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
FINAL = re.compile(r"final answer\W{0,12}(?:is\W{0,12})?(?:\(([A-D])\)|([A-D])[\s.*$}]*(?=\n|$))", re.IGNORECASE)
LAYOUT = Layout(
    question_label="Question: ",
    answer_label="\nAnswer:\n",
    divider="\n\n----------\n\n",
    announce="You will be provided questions similar to the ones below:",
    instruction=(
        'You will be given a multiple-choice question. Think step by step, then end with a line that reads "Final Answer: (X)", where X '
        "is the letter of the correct choice. If no choice fits, give the closest."
    ),
)


@config
class GpqaInContext:
    """GPQA diamond behind shots from the rest of GPQA."""

    kind: Literal["gpqa"] = "gpqa"
    sources: dict[str, Source] = Field(
        default={"pool": "hub:Idavidrein/gpqa:gpqa_main:train", "test": "hub:Idavidrein/gpqa:gpqa_diamond:train"}
    )
    """`pool` and `test` in the authors' columns; records of `test` are taken out of `pool`. On the hub both are gated."""
    choice_seed: int = 0
    """Seed of the order of the choices."""
    test_items: int | None = Field(default=None, ge=1)
    """Only the first so many test questions; null for all."""


def make_icl(cfg: GpqaInContext) -> InContextTask:
    return InContextTask(
        name="gpqa",
        load=lambda split: load(cfg, split),
        layout=LAYOUT,
        score=score,
        max_tokens=1024,
        stop=("\n----------", "\nQuestion:"),
    )


def load(cfg: GpqaInContext, split: str) -> list[Problem]:
    """The questions of a split; the pool without those that are test questions."""

    def problem(row: Row, number: str) -> Problem:
        return _problem(row, cfg.choice_seed)

    if split != "pool":
        return read_split(cfg.sources, split, problem, cfg.test_items).problems
    tested = {item.id for item in read_split(cfg.sources, "test", problem, None).problems}
    pool = [item for item in read_split(cfg.sources, "pool", problem, None).problems if item.id not in tested]
    if not pool:
        raise DataError(f"gpqa: every question of the pool {cfg.sources['pool']} is a test question; name another pool")
    return pool


def score(pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
    """1.0 where the last "Final Answer" is the letter of the right choice."""
    return [float(f"({letter(text)})" == problem.final_answer) for problem, text in pairs]


def letter(text: str) -> str | None:
    """The letter that the last "Final Answer: (X)" names, or None."""
    found = FINAL.findall(text)
    return "".join(found[-1]).upper() if found else None


def _problem(row: Row, choice_seed: int) -> Problem:
    name = row.text("Record ID").strip()
    if not name:
        raise DataError(f"{row.where}: 'Record ID' is empty")
    answers = [row.text(column).strip() for column in COLUMNS]
    if len(set(answers)) < len(answers):
        raise DataError(f"{row.where}: two of the four choices are the same: {', '.join(map(repr, answers))}")
    order = sorted(range(len(answers)), key=lambda index: draw(f"{choice_seed}/{name}/{index}"))
    listed = "\n".join(f"({mark}) {answers[index]}" for mark, index in zip(LETTERS, order))
    right = f"({LETTERS[order.index(0)]})"
    explanation = row.text("Explanation").strip()
    return Problem(
        id=f"gpqa/{name}",
        question=f"{row.text('Question').strip()}\n\nAnswer Choices:\n{listed}",
        reference=FinalAnswer(text=right),
        subject=row.text("High-level domain") if "High-level domain" in row.fields else "",
        solution=f"{explanation}\nFinal Answer: {right}".strip(),
    )
