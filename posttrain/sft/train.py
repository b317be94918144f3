"""Supervised fine-tuning on two-attempt demonstrations, by TRL's SFTTrainer, with loss on the attempts' tokens only.

Sequences are made from the same token ids that a rollout would make (`prompting/chat.py`), so a model trained here reads at test time
exactly what it read in training.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt
from tqdm import tqdm

from posttrain.config import ConfigError, config
from posttrain.prompting.chat import ChatFormat, chat_format, eos_ids_of
from posttrain.run import RunFolder, seed_for
from posttrain.sft.tokenizer import sums_tokenizer
from posttrain.tasks import sums
from posttrain.tasks.sums import Demonstration, Slips, SumsTask
from posttrain.types import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

IGNORED = -100  # the label of a token that carries no loss


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
    task: SumsTask
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
    demos = sums.demonstrations(cfg.task, cfg.slips, random.Random(seed_for(cfg.seed, "demonstrations")))
    model, tokenizer = _open(cfg)
    chat = chat_format(tokenizer, eos_ids_of(tokenizer))
    made = sequences(itertools.islice(demos, cfg.demonstrations), chat, sums.make(cfg.task))
    rows = list(tqdm(made, total=cfg.demonstrations, desc=f"{folder.path.name}: demonstrations", dynamic_ncols=True))
    _fit(model, tokenizer, rows, cfg, folder)
    save_model(model, tokenizer, out / "model")
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
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    if isinstance(cfg.model, LoadedModel):
        try:
            tokenizer = AutoTokenizer.from_pretrained(cfg.model.name)
            return AutoModelForCausalLM.from_pretrained(cfg.model.name, dtype=torch.float32), tokenizer
        except (OSError, ValueError) as error:
            raise ConfigError(f"model.name: cannot load {cfg.model.name!r}: {str(error).splitlines()[0]}") from None
    tokenizer = sums_tokenizer(cfg.task)
    torch.manual_seed(seed_for(cfg.seed, "weights"))
    shape = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=cfg.model.hidden_size,
        intermediate_size=cfg.model.mlp_size,
        num_hidden_layers=cfg.model.layers,
        num_attention_heads=cfg.model.heads,
        num_key_value_heads=cfg.model.heads,
        initializer_range=cfg.model.init_std,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(shape), tokenizer


def _fit(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: list[dict[str, list[int]]], cfg: Config, folder: RunFolder):
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        output_dir=str(folder.path / "trainer"),
        max_steps=cfg.steps,
        per_device_train_batch_size=cfg.batch,
        learning_rate=cfg.lr,
        warmup_steps=cfg.warmup_steps,
        lr_scheduler_type="cosine",
        adam_beta2=0.98,
        weight_decay=0.01,
        seed=cfg.seed,
        bf16=False,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=50,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    bar = _progress(cfg.steps, folder)
    trainer = SFTTrainer(model=model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[bar])
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def _progress(steps: int, folder: RunFolder) -> "TrainerCallback":
    """A bar with the time left, and the loss in metrics.jsonl, in place of the trainer's own printing."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        bar = tqdm(total=steps, desc=folder.path.name, unit="step", dynamic_ncols=True)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.bar.update()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                folder.log(state.global_step, {"train/loss": logs["loss"]})
                self.bar.set_postfix_str(f"loss {logs['loss']:.3f}")

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.bar.close()

    return Progress()


def save_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Written beside its place, then renamed: a killed run leaves no half model to be taken for a finished one."""
    temporary = folder.with_name(".model.tmp")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    temporary.rename(folder)
