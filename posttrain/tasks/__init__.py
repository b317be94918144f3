"""Data sets with the way they are asked, revised and graded: one module each, with a config class tagged by `kind` and `make(cfg)`."""

from typing import Annotated, TypeAlias, Union

from pydantic import Field

from posttrain.tasks import gsm8k, math
from posttrain.tasks.gsm8k import Gsm8kTask
from posttrain.tasks.math import MathTask
from posttrain.types import Task

# A new task is one more member here and one more row in MODULES (e.g. SumsTask and sums).
TaskConfig: TypeAlias = Annotated[Union[MathTask, Gsm8kTask], Field(discriminator="kind")]  # noqa: UP007
MODULES = {MathTask: math, Gsm8kTask: gsm8k}


def make_task(cfg: TaskConfig) -> Task:
    return MODULES[type(cfg)].make(cfg)
