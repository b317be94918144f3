"""Supervised fine-tuning on two-attempt demonstrations, by TRL's SFTTrainer, with loss on the attempts' tokens only.

Sequences are made from the same token ids that a rollout would make (`prompting/chat.py`), so a model trained here reads at test time
exactly what it read in training.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt
from tqdm import tqdm

from posttrain.config import config
from posttrain.prompting.chat import ChatFormat, chat_format, eos_ids_of
from posttrain.run import RunFolder, seed_for
from posttrain.sft.fit import IGNORED, FitConfig, fit, load_model, new_qwen2, save
from posttrain.sft.tokenizer import oneliners_tokenizer, sums_tokenizer
from posttrain.tasks import make_task, oneliners, sums
from posttrain.tasks.generated import Demonstration, Slips
from posttrain.tasks.oneliners import OnelinersTask
from posttrain.tasks.sums import SumsTask
from posttrain.types import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GENERATED = {  # task -> its demonstrations, and the tokenizer of a new model for it
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
    task: Annotated[SumsTask | OnelinersTask, Field(discriminator="kind")]
    slips: Slips = Slips()
    demonstrations: PositiveInt = 100_000
    """How many demonstrations there are; training goes through them as often as `steps` asks."""
    steps: PositiveInt
    batch: PositiveInt = 128
    """Demonstrations per update."""
    lr: float = 2e-3
    """Peak learning rate of AdamW, after `warmup_steps` of linear warm-up and then along a cosine to 0."""
    warmup_steps: int = 100
    seed: int = 0


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, then write RUN/model (plain `from_pretrained` loads it). Under `resume` a finished run is left as it is, any other redone."""
    folder = RunFolder(out, cfg, resume=resume)
    if (out / "model" / "config.json").exists():
        return 0
    folder.forget_after(-1)
    demonstrate, _ = GENERATED[type(cfg.task)]
    demos = demonstrate(cfg.task, cfg.slips, random.Random(seed_for(cfg.seed, "demonstrations")))
    model, tokenizer = _open(cfg)
    chat = chat_format(tokenizer, eos_ids_of(tokenizer))
    made = sequences(itertools.islice(demos, cfg.demonstrations), chat, make_task(cfg.task))
    rows = list(tqdm(made, total=cfg.demonstrations, desc=f"{folder.path.name}: demonstrations", dynamic_ncols=True))
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


def _open(cfg: Config) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    if isinstance(cfg.model, LoadedModel):
        return load_model(cfg.model.name)
    _, tokenizer_for = GENERATED[type(cfg.task)]
    tokenizer = tokenizer_for(cfg.task)
    return new_qwen2(cfg.model, tokenizer, context=512, seed=seed_for(cfg.seed, "weights")), tokenizer
