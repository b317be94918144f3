"""A task that a random model is right at half of the time, and a learner for it: the whole step, with nothing to wait for."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.config import build
from posttrain.evaluation.model import open_chat
from posttrain.rl.loop import Learner, Run, run_steps
from posttrain.rl.policy import load_policy
from posttrain.rl.recipe import Config
from posttrain.rl.score import score_step, validate
from posttrain.run import RunFolder
from posttrain.sampling.engine import open_engine
from posttrain.types import Engine, FinalAnswer, Message, Problem, Task, Verdict

PROBLEMS = [Problem(id=f"p{i}", question=f"What is {i} + {i}?", reference=FinalAnswer(text="even")) for i in range(8)]


def even_length(problem: Problem, text: str) -> Verdict:
    """Right is a text with an even number of letters: half of what a random model writes."""
    return Verdict(status="wrong" if len(text) % 2 else "correct")


def even_task(grade: Callable[[Problem, str], Verdict] = even_length) -> Task:
    return Task(
        name="even",
        load=lambda split: PROBLEMS,
        ask=lambda problem: [Message(role="user", content=problem.question)],
        revise="Check it.",
        grade=lambda pairs: [grade(problem, text) for problem, text in pairs],
        answer=lambda text: text or None,
    )


def config_for(folder: Path, **changes: Any) -> Config:
    """Two steps' worth of nothing special; Adam's eps of 1 makes an update nearly the gradient times lr."""
    plain = {
        "model": str(folder),
        "task": {"kind": "sums"},
        "steps": 4,
        "problems_per_step": 4,
        "samples": 4,
        "kl": {"coef": [0.1, 0.1]},
        "sampling": {"max_tokens": 6},
        "optim": {"lr": 0.1, "warmup_steps": 0, "eps": 1.0, "max_grad_norm": 1e9},
        "checkpoint": {"every": 1},
    }
    return build(Config, [("test", plain | changes)])


def open_learner(cfg: Config, task: Task | None = None, engine: Engine | None = None) -> Learner:
    chat, pad_id = open_chat(cfg.model)
    policy = load_policy(cfg.model, cfg.reference, cfg.policy, cfg.optim, cfg.sampling.temperature, cfg.seed)
    engine = engine or open_engine(cfg.engine, cfg.model, eos_ids=chat.eos_ids, pad_id=pad_id, dtype="auto", model=policy.model)
    return Learner(policy=policy, engine=engine, task=task or even_task(), chat=chat, cfg=cfg)


def train(learner: Learner, problems: Sequence[Problem], held_out: Sequence[Problem], folder: RunFolder, start: int) -> int:
    run = Run(learner=learner, folder=folder, problems=problems, held_out=held_out, start=start)
    return run_steps(run, partial(score_step, learner), partial(validate, learner))


def measured(row: dict[str, Any]) -> dict[str, Any]:
    """A metrics row without its wall-clock figures."""
    return {key: value for key, value in row.items() if not key.endswith("_s")}
