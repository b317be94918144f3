"""One task of BIG-Bench Hard (arXiv 2210.09261): 150 problems as pool, 100 as test, exact match on the final answer.

The data set holds targets without rationales, so the pool has no human solutions: shots come from the model (Reinforced ICL) or are
questions alone. The authors' prompt file with three worked answers, where it is named, is the few-shot prompt.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.tasks.files import read_text
from posttrain.tasks.icl.draw import shuffled
from posttrain.tasks.source import Row, read_split
from posttrain.types import DataError, FinalAnswer, Problem

ANSWER = re.compile(r"\banswer is:?[^\S\n]*([^\n]*)", re.IGNORECASE)
LAYOUT = Layout(
    question_label="Q: ",
    answer_label="\nA: Let's think step by step.\n",
    divider="\n\n",
    announce="You will be provided questions similar to the ones below:",
    instruction='Think step by step, and end with a sentence that reads "So the answer is X."',
)


@config
class BbhInContext:
    """One task of BIG-Bench Hard behind shots of the same task."""

    kind: Literal["bbh"] = "bbh"
    name: str = "word_sorting"
    """Which of BIG-Bench Hard's 23 tasks; recipes take the eight where a lucky answer is unlikely."""
    source: str = "hub:lukaemon/bbh:{name}:test"
    """Where a task's problems are; {name} stands for the task. A local path to the authors' files is "bbh/{name}.json"."""
    prompts: str | None = None
    """The authors' worked prompts, "cot-prompts/{name}.txt"; null for none, and then there is no few-shot prompt."""
    pool_items: int = Field(default=150, ge=1)
    """Problems to take shots from, at most."""
    test_items: int = Field(default=100, ge=1)
    """Problems to test on."""
    draw_seed: int = 0
    """Seed of which problems are which."""


def make_icl(cfg: BbhInContext) -> InContextTask:
    return InContextTask(
        name=f"bbh_{cfg.name}",
        load=lambda split: load(cfg, split),
        layout=LAYOUT,
        score=score,
        max_tokens=512,
        stop=("\nQ:",),
    )


def load(cfg: BbhInContext, split: str) -> list[Problem]:
    if split == "few_shot":
        return _worked(cfg)
    if split not in ("pool", "test"):
        raise DataError(f"bbh: no split {split!r}; expected pool, test or few_shot")
    source = cfg.source.format(name=cfg.name)
    problems = shuffled(read_split({cfg.name: source}, cfg.name, _problem, None).problems, cfg.draw_seed)
    if len(problems) <= cfg.test_items:
        raise DataError(f"{source}: has {len(problems)} problems, so none are left for the pool after {cfg.test_items} to test on")
    if split == "test":
        return problems[: cfg.test_items]
    return problems[cfg.test_items :][: cfg.pool_items]


def score(pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
    """1.0 where the last "answer is ..." is the target, letter for letter but for white space and a final full stop."""
    return [float(final_answer(text) == _plain(problem.final_answer)) for problem, text in pairs]


def final_answer(text: str) -> str | None:
    """What stands after the last "answer is" up to the end of its line, or None."""
    found = ANSWER.findall(text)
    return _plain(found[-1]) if found else None


def _plain(answer: str) -> str:
    return " ".join(answer.strip().strip("*$").removesuffix(".").strip("*$ ").split())


def _problem(row: Row, number: str) -> Problem:
    return Problem(id=number, question=row.text("input"), reference=FinalAnswer(text=row.text("target")))


def _worked(cfg: BbhInContext) -> list[Problem]:
    """The worked problems of the authors' prompt file: blocks "Q: ... A: Let's think step by step. ..." after a rule of dashes."""
    if cfg.prompts is None:
        raise DataError('bbh: no few-shot prompt; set task.prompts to the authors\' files, for instance "cot-prompts/{name}.txt"')
    path = Path(cfg.prompts.format(name=cfg.name))
    blocks = read_text(path).rpartition("-----\n")[2].strip().split("\n\nQ: ")[1:]
    problems = []
    for number, block in enumerate(blocks, 1):
        question, label, worked = block.partition(LAYOUT.answer_label)
        answer = final_answer(worked)
        if not label or answer is None:
            raise DataError(f"{path}: problem {number} has no {LAYOUT.answer_label.strip()!r} or no 'answer is' in it: {block[:60]!r}")
        reference = FinalAnswer(text=answer)
        problems.append(Problem(id=f"few_shot/{number}", question=question, reference=reference, solution=worked.strip()))
    if not problems:
        raise DataError(f"{path}: no block that starts with 'Q: ' after an empty line")
    return problems
