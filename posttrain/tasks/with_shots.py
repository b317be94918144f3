"""Any task behind solved shots: one block of text stands before every question, the same for all, so that an engine reads it once.

    [Message(user, preamble + shot 1 + ... + shot N + what the task itself would ask)]

For SCoRe with a many-shot context, and for evaluating either with it. Problems that stand in the block are left out of every split.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, Union

from pydantic import Field, PositiveInt

from posttrain.config import config
from posttrain.prompting.manyshot import RAW, written
from posttrain.prompting.selection import Rules, letters_and_digits, select
from posttrain.prompting.shots import Layout, PromptError, read_shots
from posttrain.tasks import gsm8k, math, python_file, sums
from posttrain.tasks.gsm8k import Gsm8kTask
from posttrain.tasks.math import MathTask
from posttrain.tasks.python_file import FileTask
from posttrain.tasks.sums import SumsTask
from posttrain.types import Message, Problem, Task

Plain: TypeAlias = Annotated[Union[SumsTask, MathTask, Gsm8kTask, FileTask], Field(discriminator="kind")]  # noqa: UP007
MODULES = {SumsTask: sums, MathTask: math, Gsm8kTask: gsm8k, FileTask: python_file}


@config
class WithShotsTask:
    """A task behind a block of solved shots."""

    kind: Literal["with_shots"] = "with_shots"
    task: Plain
    """What is asked after the block."""
    shots: tuple[str, ...]
    """Files of shots made by `posttrain prompt reinforce`; a later iteration's stand after an earlier one's."""
    count: PositiveInt
    """The first so many of them that the rules leave, in the files' order."""
    rules: Rules = Rules()
    preamble: str = ""
    """Before the first shot."""
    question_label: str = ""
    answer_label: str = "\n"
    divider: str = "\n\n"
    """Around a shot: question_label + question + answer_label + answer + divider."""


def make(cfg: WithShotsTask) -> Task:
    """Raises `PromptError` where the files hold fewer shots than asked for, `DataError` where one is malformed."""
    inner = MODULES[type(cfg.task)].make(cfg.task)
    selection = select([shot for file in cfg.shots for shot in read_shots(Path(file))], cfg.rules)
    if len(selection.shots) < cfg.count:
        raise PromptError(f"{cfg.count} shots were asked for, but {', '.join(cfg.shots)} leave {selection}")
    chosen = selection.shots[: cfg.count]
    layout = Layout(question_label=cfg.question_label, answer_label=cfg.answer_label, divider=cfg.divider)
    block = cfg.preamble + "".join(written(shot, "solved", layout, RAW) for shot in chosen)
    taken = {letters_and_digits(shot.question) for shot in chosen}

    def ask(problem: Problem) -> list[Message]:
        first, *rest = inner.ask(problem)
        return [Message(role=first.role, content=block + first.content), *rest]

    return replace(
        inner,
        name=f"{inner.name} behind {cfg.count} shots",
        load=lambda split: [problem for problem in inner.load(split) if letters_and_digits(problem.question) not in taken],
        ask=ask,
    )
