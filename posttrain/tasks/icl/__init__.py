"""The tasks of many-shot in-context learning (arXiv 2404.11018): one module each, a config class tagged by `kind` and `make_icl(cfg)`.

Each has a pool to take shots from and items to test on, in the labels and with the metric of the paper; read `math.py` first. Where a
benchmark has a usual few-shot prompt of its own, the task loads that as the split "few_shot".
"""

from typing import Annotated, TypeAlias, Union

from pydantic import Field

from posttrain.prompting.shots import InContextTask
from posttrain.tasks.icl import math, sums
from posttrain.tasks.icl.math import Gsm8kTransfer, MathInContext
from posttrain.tasks.icl.sums import SumsInContext

InContextTaskConfig: TypeAlias = Annotated[Union[MathInContext, Gsm8kTransfer, SumsInContext], Field(discriminator="kind")]  # noqa: UP007
ICL_MODULES = {MathInContext: math, Gsm8kTransfer: math, SumsInContext: sums}


def make_icl_task(cfg: InContextTaskConfig) -> InContextTask:
    return ICL_MODULES[type(cfg)].make_icl(cfg)
