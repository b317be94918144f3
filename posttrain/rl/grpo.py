"""GRPO by TRL's own trainer: an outside check of our loop, on the same problems, prompts and grader, with one attempt each.

Nothing of the loop here is ours. What TRL counts per process is set so that one of its steps is one of ours: `problems_per_step` problems
of `samples` answers, one update.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from posttrain.config import config
from posttrain.run import RunFolder, keep_source
from posttrain.sft.fit import load_model, progress, save
from posttrain.tasks import TaskConfig, make_task
from posttrain.tasks.decontaminate import note, training_set
from posttrain.types import Problem, Task

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import GRPOConfig


@config
class Colocated:
    """vLLM as TRL runs it, with TRL's own correction where its probabilities differ from the trainer's."""

    max_model_len: PositiveInt
    """Longest prompt plus completion, in tokens."""
    gpu_memory_utilization: float = Field(default=0.35, gt=0, lt=1)
    """Share of the GPU's memory for vLLM; the rest is for training."""


@config
class Config:
    """Single-turn GRPO (arXiv 2402.03300) by TRL."""

    kind: Literal["grpo"] = "grpo"
    model: str
    """Folder or hub id."""
    task: TaskConfig
    split: str = "train"
    decontaminate: tuple[str, ...] | None = None
    """Evaluation sets whose questions are not trained on: splits of the task, or suites' files. null: its own test split, [] none."""
    steps: PositiveInt
    problems_per_step: PositiveInt
    samples: int = Field(default=8, ge=2)
    """Answers per problem, the group that advantages are normalised in."""
    max_tokens: PositiveInt
    temperature: PositiveFloat = 1.0
    beta: float = Field(default=0.01, ge=0)
    """Coefficient of the KL to the model as it was, in the loss."""
    loss_type: Literal["grpo", "dr_grpo", "bnpo", "dapo"] = "grpo"
    """How token losses are averaged; grpo is the paper's."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    lr: PositiveFloat
    """AdamW, constant after the warm-up."""
    warmup_steps: int = Field(default=30, ge=0)
    micro_batch: PositiveInt = 256
    """Answers per forward and backward pass; `problems_per_step * samples` must be a multiple of it."""
    precision: Literal["float32", "bf16_autocast"] = "float32"
    """bf16_autocast computes in bfloat16 on float32 weights, for models of billions."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    vllm: Colocated | None = None
    """vLLM samples, beside the trainer on its GPU; null: transformers' generate."""
    seed: int = 0

    def __post_init__(self) -> None:
        answers = self.problems_per_step * self.samples
        if answers % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} does not divide a step's {answers} answers: choose one that does")


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, then write RUN/model. Under `resume` a finished run is left as it is, any other redone."""
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    task = make_task(cfg.task)
    folder = RunFolder(out, cfg, resume=resume)
    keep_source(out, task.source)
    if (out / "model" / "config.json").exists():
        return 0
    folder.forget_after(-1)
    task, clean = make_task(cfg.task), training_set(cfg.task, cfg.split, cfg.decontaminate)
    note(folder, clean)
    model, tokenizer = load_model(cfg.model)
    trainer = GRPOTrainer(
        model=model,
        args=settings(cfg, folder.path / "trainer"),
        reward_funcs=Reward(task, clean.problems),
        train_dataset=questions(task, clean.problems),
        processing_class=tokenizer,
        callbacks=[progress(cfg.steps, folder, keep=partial(_figures, cfg.problems_per_step * cfg.samples))],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    save(model, tokenizer, out / "model")
    return 0


class Reward:
    """TRL's reward function: 1 for a right answer, 0 for another, None (left out of the loss) where the grader failed."""

    __name__ = "correct"

    def __init__(self, task: Task, problems: Sequence[Problem]) -> None:
        self.task, self.problems = task, problems

    def __call__(self, completions: list[list[dict[str, str]]], number: list[int], **_: Any) -> list[float | None]:
        verdicts = self.task.grade([(self.problems[n], turns[0]["content"]) for n, turns in zip(number, completions)])
        return [float(verdict.correct) if verdict.scored else None for verdict in verdicts]


def questions(task: Task, problems: Sequence[Problem]) -> "Dataset":
    """The problems as TRL wants them: the messages of each question, and the number of its problem."""
    from datasets import Dataset

    asked = [[{"role": m.role, "content": m.content} for m in task.ask(problem)] for problem in problems]
    return Dataset.from_dict({"prompt": asked, "number": list(range(len(asked)))})


def settings(cfg: Config, folder: Path) -> "GRPOConfig":
    import torch
    from trl import GRPOConfig

    answers = cfg.problems_per_step * cfg.samples
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=cfg.steps,
        per_device_train_batch_size=cfg.micro_batch,
        gradient_accumulation_steps=answers // cfg.micro_batch,
        num_generations=cfg.samples,
        max_completion_length=cfg.max_tokens,
        temperature=cfg.temperature,
        beta=cfg.beta,
        loss_type=cfg.loss_type,
        scale_rewards=cfg.scale_rewards,
        learning_rate=cfg.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=cfg.warmup_steps,
        seed=cfg.seed,
        bf16=cfg.precision == "bf16_autocast",
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=cfg.gradient_checkpointing,
        use_vllm=cfg.vllm is not None,
        vllm_mode="colocate",
        vllm_max_model_length=cfg.vllm.max_model_len if cfg.vllm else None,
        vllm_gpu_memory_utilization=cfg.vllm.gpu_memory_utilization if cfg.vllm else 0.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _figures(answers: int, logs: dict[str, float]) -> dict[str, float]:
    """TRL's names in ours, and what the step's `answers` cost."""
    names = {"loss": "train/loss", "reward": "train/acc_t1", "kl": "train/kl_t1", "completions/mean_length": "train/tokens_t1"}
    found = {ours: logs[theirs] for theirs, ours in names.items() if theirs in logs}
    return {**found, "train/samples": float(answers), "train/tokens": answers * logs["completions/mean_length"]}
