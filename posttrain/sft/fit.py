"""One round of supervised training by TRL's SFTTrainer: rows of ids and labels in, a model folder out."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field, PositiveFloat, PositiveInt

from posttrain.config import ConfigError, config
from posttrain.progress import progress_bar
from posttrain.run import RunFolder
from posttrain.types import Episode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2ForCausalLM, TrainerCallback

IGNORED = -100  # the label of a token that carries no loss


@config
class FitConfig:
    """How a round of supervised training goes."""

    steps: PositiveInt
    """Updates."""
    batch: PositiveInt = 128
    """Rows per update."""
    lr: PositiveFloat
    """Peak learning rate of AdamW, after the warm-up and then along a cosine to 0."""
    warmup_steps: int = Field(default=0, ge=0)
    micro_batch: PositiveInt | None = None
    """Rows per forward and backward pass, for memory only; null takes all of `batch` at once."""
    precision: Literal["float32", "bf16_autocast"] = "float32"
    """bf16_autocast computes in bfloat16 on float32 weights, for models of billions."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} does not divide a batch of {self.batch} rows: choose one that does")


def rows_of(episodes: Sequence[Episode], learn: Sequence[int]) -> list[dict[str, list[int]]]:
    """Each episode as `input_ids` and `labels`, from the very ids that were sampled; only the attempts in `learn` (from 1) carry loss."""
    rows = []
    for episode in episodes:
        ids: list[int] = []
        labels: list[int] = []
        for number, turn in enumerate(episode.turns, 1):
            context = turn.prompt_ids[len(ids) :]
            sampled = turn.completion.ids
            ids += [*context, *sampled]
            labels += [IGNORED] * len(context) + (list(sampled) if number in learn else [IGNORED] * len(sampled))
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def load_model(name: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A folder's or hub id's model in float32, and its tokenizer; raises `ConfigError`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32), tokenizer
    except (OSError, ValueError) as error:
        raise ConfigError(f"model: cannot load {name!r}: {str(error).splitlines()[0]}") from None


class Qwen2Shape(Protocol):
    """The sizes of a new model."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def mlp_size(self) -> int: ...
    @property
    def init_std(self) -> float: ...


def new_qwen2(shape: Qwen2Shape, tokenizer: "PreTrainedTokenizerBase", *, context: int, seed: int) -> "Qwen2ForCausalLM":
    """A Qwen2 model of random weights with a tied head, for `tokenizer` and up to `context` tokens."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden_size,
            intermediate_size=shape.mlp_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            initializer_range=shape.init_std,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def fit(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[dict[str, list[int]]],
    how: FitConfig,
    *,
    seed: int,
    folder: RunFolder,
    after: int = 0,
) -> None:
    """Train `model` in place; the loss goes to the folder's metrics, in steps counted on from `after`."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        output_dir=str(folder.path / "trainer"),
        max_steps=how.steps,
        per_device_train_batch_size=how.micro_batch or how.batch,
        gradient_accumulation_steps=how.batch // (how.micro_batch or how.batch),
        learning_rate=how.lr,
        warmup_steps=how.warmup_steps,
        lr_scheduler_type="cosine",
        adam_beta2=0.98,
        weight_decay=0.01,
        seed=seed,
        bf16=how.precision == "bf16_autocast",
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=how.gradient_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=50,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    bar = progress(how.steps, folder, after=after)
    trainer = SFTTrainer(model=model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[bar])
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def progress(
    steps: int, folder: RunFolder, *, after: int = 0, keep: Callable[[dict[str, float]], dict[str, float]] | None = None
) -> "TrainerCallback":
    """A bar with the time left, and the trainer's figures in metrics.jsonl, in place of its own printing; `keep` picks and renames them."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        bar = progress_bar(steps, folder.path.name, "step")

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.bar.update()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                folder.log(after + state.global_step, keep(logs) if keep else {"train/loss": logs["loss"]})
                self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.bar.close()

    return Progress()


def save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Written beside its place, then renamed: a killed run leaves no half model to be taken for a finished one."""
    temporary = folder.with_name(".model.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    temporary.rename(folder)
