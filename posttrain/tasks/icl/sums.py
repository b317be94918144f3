"""The generated sums of `tasks/sums.py` behind shots: a task whose data needs no download."""

from collections.abc import Sequence
from typing import Literal

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.tasks import sums
from posttrain.tasks.sums import SumsTask
from posttrain.types import Problem

SPLITS = {"pool": "train", "test": "test"}
LAYOUT = Layout(
    question_label="Problem:\n",
    answer_label="\nSolution:\n",
    divider="\n\n",
    announce="You will be provided Problems similar to the ones below:",
    instruction="Answer with the numbers that add up, as in \\boxed{ 1 + 2 }.",
)


@config
class SumsInContext:
    """Pick the numbers of a list that add up to a target, behind solved ones."""

    kind: Literal["sums"] = "sums"
    problems: SumsTask = SumsTask(pick=2, numbers=6, largest=30, train_size=8_192, test_size=500)
    """Which sums, and how many; the training split is the pool."""


def make_icl(cfg: SumsInContext) -> InContextTask:
    return InContextTask(
        name="sums",
        load=lambda split: sums.load(cfg.problems, SPLITS.get(split, split)),
        layout=LAYOUT,
        score=score,
        max_tokens=40,
        stop=("\n",),
    )


def score(pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
    """1.0 where the last boxed sum holds the reference's numbers."""
    return [float(sums.grade(problem, text).correct) for problem, text in pairs]
