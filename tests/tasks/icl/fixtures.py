"""In-context tasks on this project's own small files in the data sets' layouts."""

from pathlib import Path
from typing import Any

from posttrain.config import build, config
from posttrain.prompting.shots import InContextTask
from posttrain.tasks.icl import InContextTaskConfig, make_icl_task
from posttrain.types import FinalAnswer, Problem

FIXTURES = Path(__file__).parents[3] / "data" / "fixtures"
SHARED = Path(__file__).parents[4] / "shared" / "data"
HOSTILE = ["", " \n", "(" * 50_000, "\\boxed{" * 20_000, "answer is " * 20_000, "\x00\ud7ff\u202e", "Yes" * 20_000, "word " * 20_000]


@config
class Recipe:
    task: InContextTaskConfig


def icl_task(kind: str, **fields: Any) -> InContextTask:
    return make_icl_task(build(Recipe, [("recipe.yaml", {"task": {"kind": kind, **fields}})]).task)


def fixture(name: str) -> str:
    return str(FIXTURES / name)


def sources(pool: str, test: str) -> dict[str, str]:
    return {"pool": fixture(pool), "test": fixture(test)}


def item(reference: str, *, id: str = "test/1", question: str = "?") -> Problem:
    return Problem(id=id, question=question, reference=FinalAnswer(text=reference))
