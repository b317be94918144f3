"""Supervised fine-tuning on two-attempt demonstrations, by TRL's SFTTrainer, with loss on the attempts' tokens only.

Sequences are made from the same token ids that a rollout would make (`prompting/chat.py`), so a model trained here reads at test time
exactly what it read in training.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, PositiveInt

from posttrain.config import config
from posttrain.progress import progress_bar
from posttrain.prompting.chat import ChatFormat, chat_format, eos_ids_of
from posttrain.run import RunFolder, keep_source, seed_for
from posttrain.sft.fit import IGNORED, FitConfig, fit, load_model, new_qwen2, save
from posttrain.sft.tokenizer import oneliners_tokenizer, sums_tokenizer, word_tokenizer, words_of
from posttrain.tasks import make_task, oneliners, python_file, sums
from posttrain.tasks.generated import Demonstration, Slips
from posttrain.tasks.oneliners import OnelinersTask
from posttrain.tasks.python_file import FileTask
from posttrain.tasks.sums import SumsTask
from posttrain.types import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Demonstrate: TypeAlias = Callable[[Any, Slips, random.Random], Iterator[Demonstration]]
GENERATED: dict[type, tuple[Demonstrate, Callable[[Any], Any]]] = {  # task -> its demonstrations, and the tokenizer of a new model for it
    SumsTask: (sums.demonstrations, sums_tokenizer),
    OnelinersTask: (oneliners.demonstrations, oneliners_tokenizer),
}


@config
class NewModel:
    """A Qwen2-architecture model from random weights, with a tokenizer made for the task."""

    kind: Literal["new"] = "new"
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    mlp_size: int = 256
    init_std: float = 0.05
    """Standard deviation of the initial weights."""


@config
class LoadedModel:
    """A model to fine-tune."""

    kind: Literal["loaded"] = "loaded"
    name: str
    """Folder or hub id."""


@config
class Config:
    """Supervised fine-tuning on demonstrations of two attempts."""

    kind: Literal["sft"] = "sft"
    model: Annotated[NewModel | LoadedModel, Field(discriminator="kind")]
    task: Annotated[SumsTask | OnelinersTask | FileTask, Field(discriminator="kind")]
    slips: Slips | None = None
    """How the people behind a generated task's demonstrations err; null for the defaults. A task file has demonstrations of its own."""
    demonstrations: PositiveInt = 100_000
    """How many demonstrations there are, or as many as a task file has; training goes through them as often as `steps` asks."""
    steps: PositiveInt
    batch: PositiveInt = 128
    """Demonstrations per update."""
    lr: float = 2e-3
    """Peak learning rate of AdamW, after `warmup_steps` of linear warm-up and then along a cosine to 0."""
    warmup_steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.slips and isinstance(self.task, FileTask):
            raise ValueError("slips: are for kind sums; a task file says in demonstrations(rng) how people err")


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, then write RUN/model (plain `from_pretrained` loads it). Under `resume` a finished run is left as it is, any other redone."""
    task = make_task(cfg.task)
    folder = RunFolder(out, cfg, resume=resume)
    keep_source(out, task.source)
    if (out / "model" / "config.json").exists():
        return 0
    folder.forget_after(-1)
    model, tokenizer, demos = _open(cfg, task, itertools.islice(_demonstrations(cfg), cfg.demonstrations))
    chat = chat_format(tokenizer, eos_ids_of(tokenizer))
    rows = []
    with progress_bar(cfg.demonstrations, folder.path.name, "demonstration") as bar:
        for row in sequences(demos, chat, task):
            rows.append(row)
            bar.update()
    fit(
        model,
        tokenizer,
        rows,
        FitConfig(steps=cfg.steps, batch=cfg.batch, lr=cfg.lr, warmup_steps=cfg.warmup_steps),
        seed=cfg.seed,
        folder=folder,
    )
    save(model, tokenizer, out / "model")
    return 0


def sequences(pool: Iterable[Demonstration], chat: ChatFormat, task: Task) -> Iterator[dict[str, list[int]]]:
    """Each demonstration as `input_ids` and `labels`; only the attempts' tokens, end-of-turn ids included, carry loss."""
    eos = chat.eos_ids[:1]
    for demo in pool:
        ids: tuple[int, ...] = chat.ask(task.ask(demo.problem))
        labels = [IGNORED] * len(ids)
        for k, text in enumerate(demo.attempts):
            attempt = (*chat.encode(text), *eos)
            before = len(ids)
            ids = (*ids, *attempt) if k + 1 == len(demo.attempts) else chat.revise(ids, attempt, task.revise)
            labels += [*attempt, *[IGNORED] * (len(ids) - before - len(attempt))]
        yield {"input_ids": list(ids), "labels": labels}


def _demonstrations(cfg: Config) -> Iterator[Demonstration]:
    rng = random.Random(seed_for(cfg.seed, "demonstrations"))
    if isinstance(cfg.task, FileTask):
        own = python_file.demonstrations(cfg.task, rng)
        return (Demonstration(problem=problem, attempts=(first, second)) for problem, first, second in own)
    return GENERATED[type(cfg.task)][0](cfg.task, cfg.slips or Slips(), rng)


def _open(
    cfg: Config, task: Task, demos: Iterable[Demonstration]
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase, Iterable[Demonstration]]":
    """The model, its tokenizer, and the demonstrations, which are all read first where the tokenizer is made from them."""
    if isinstance(cfg.model, LoadedModel):
        return *load_model(cfg.model.name), demos
    if isinstance(cfg.task, FileTask):
        demos = list(demos)
        texts = [text for demo in demos for text in (*(message.content for message in task.ask(demo.problem)), *demo.attempts)]
        tokenizer = word_tokenizer([task.revise, *words_of(texts)])
    else:
        tokenizer = GENERATED[type(cfg.task)][1](cfg.task)
    return new_qwen2(cfg.model, tokenizer, context=512, seed=seed_for(cfg.seed, "weights")), tokenizer, demos
