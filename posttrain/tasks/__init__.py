"""Data sets with the way they are asked, revised and graded: one module each, with a config class tagged by `kind` and `make(cfg)`."""

from typing import Annotated, TypeAlias, Union

from pydantic import Field

from posttrain.tasks import gsm8k, humaneval, math, mbpp, sums
from posttrain.tasks.gsm8k import Gsm8kTask
from posttrain.tasks.humaneval import HumanEvalTask
from posttrain.tasks.math import MathTask
from posttrain.tasks.mbpp import MbppTask
from posttrain.tasks.sums import SumsTask
from posttrain.types import Task

TaskConfig: TypeAlias = Annotated[Union[SumsTask, MathTask, Gsm8kTask, HumanEvalTask, MbppTask], Field(discriminator="kind")]  # noqa: UP007
MODULES = {SumsTask: sums, MathTask: math, Gsm8kTask: gsm8k, HumanEvalTask: humaneval, MbppTask: mbpp}


def make_task(cfg: TaskConfig) -> Task:
    return MODULES[type(cfg)].make(cfg)
