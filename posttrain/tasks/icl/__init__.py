"""The tasks of many-shot in-context learning (arXiv 2404.11018): one module each, a config class tagged by `kind` and `make_icl(cfg)`.

Each has a pool to take shots from and items to test on, in the labels and with the metric of the paper; read `math.py` first. Where a
benchmark has a usual few-shot prompt of its own, the task loads that as the split "few_shot". Answer labels end with a line break, where
tokens end in every usual tokenizer: a space there would be one token before a model's answer and a part of the word in a shot.
"""

from typing import Annotated, TypeAlias, Union

from pydantic import Field

from posttrain.prompting.shots import InContextTask
from posttrain.tasks.icl import bbh, gpqa, labels, linear, logistics, math, parity, sentiment, summaries, sums, translation, verifier
from posttrain.tasks.icl.bbh import BbhInContext
from posttrain.tasks.icl.gpqa import GpqaInContext
from posttrain.tasks.icl.labels import LabelsInContext
from posttrain.tasks.icl.linear import LinearInContext
from posttrain.tasks.icl.logistics import LogisticsInContext
from posttrain.tasks.icl.math import Gsm8kTransfer, MathInContext
from posttrain.tasks.icl.parity import ParityInContext
from posttrain.tasks.icl.sentiment import SentimentInContext
from posttrain.tasks.icl.summaries import SummariesInContext
from posttrain.tasks.icl.sums import SumsInContext
from posttrain.tasks.icl.translation import TranslationInContext
from posttrain.tasks.icl.verifier import VerifierInContext

ICL_MODULES = {
    MathInContext: math,
    Gsm8kTransfer: math,
    GpqaInContext: gpqa,
    BbhInContext: bbh,
    TranslationInContext: translation,
    SummariesInContext: summaries,
    SentimentInContext: sentiment,
    VerifierInContext: verifier,
    LogisticsInContext: logistics,
    SumsInContext: sums,
    LinearInContext: linear,
    ParityInContext: parity,
    LabelsInContext: labels,
}
InContextTaskConfig: TypeAlias = Annotated[Union[*ICL_MODULES], Field(discriminator="kind")]  # type: ignore[valid-type]  # as many as there are


def make_icl_task(cfg: InContextTaskConfig) -> InContextTask:
    return ICL_MODULES[type(cfg)].make_icl(cfg)
