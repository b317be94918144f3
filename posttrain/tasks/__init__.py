"""Data sets with the way they are asked, revised and graded: one module each, with a config class tagged by `kind` and `make(cfg)`."""

from typing import Annotated, TypeAlias, Union

from pydantic import Field

from posttrain.tasks import gsm8k, humaneval, math, mbpp, oneliners, python_file, sums, with_shots
from posttrain.tasks.gsm8k import Gsm8kTask
from posttrain.tasks.humaneval import HumanEvalTask
from posttrain.tasks.math import MathTask
from posttrain.tasks.mbpp import MbppTask
from posttrain.tasks.oneliners import OnelinersTask
from posttrain.tasks.python_file import FileTask
from posttrain.tasks.sums import SumsTask
from posttrain.tasks.with_shots import WithShotsTask
from posttrain.types import Task

MODULES = {
    SumsTask: sums,
    OnelinersTask: oneliners,
    MathTask: math,
    Gsm8kTask: gsm8k,
    HumanEvalTask: humaneval,
    MbppTask: mbpp,
    WithShotsTask: with_shots,
    FileTask: python_file,
}
TaskConfig: TypeAlias = Annotated[Union[*MODULES], Field(discriminator="kind")]  # type: ignore[valid-type]  # as many as there are


def make_task(cfg: TaskConfig) -> Task:
    return MODULES[type(cfg)].make(cfg)
