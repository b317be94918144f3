"""SCoRe's first stage on a task of a page, in seconds: does the loop learn what it is paid for, and only that?"""

from pathlib import Path

from posttrain.config import build
from posttrain.evaluation.model import open_chat
from posttrain.rl.loop import Learner
from posttrain.rl.policy import load_policy
from posttrain.rl.recipe import Config
from posttrain.rl.score import sample, score_step
from posttrain.rollout.problems import draw_problems
from posttrain.sampling.engine import open_engine
from posttrain.tasks import make_task
from tests.sums_base import TASK

STAGE_ONE = {
    "task": TASK,
    "steps": 40,
    "problems_per_step": 16,
    "samples": 8,
    "weight": [0, 1],
    "kl": {"coef": [1.0, 0.01]},
    "sampling": {"max_tokens": 10},
    "optim": {"lr": 2e-3, "warmup_steps": 5},
    "micro_tokens": 4096,
}


def accuracies(learner: Learner) -> tuple[float, float]:
    """Of both attempts, over all problems, 20 samples each."""
    episodes = sample(learner, learner.task.load("train"), samples=20, seed=1, step=0)
    first, second = (sum(episode.turns[k].verdict.correct for episode in episodes) / len(episodes) for k in (0, 1))
    return first, second


def test_stage_one_raises_the_paid_second_attempt_while_the_first_stays_put(sums_base: Path):
    cfg = build(Config, [("test", STAGE_ONE | {"model": str(sums_base)})])
    task = make_task(cfg.task)
    chat, pad_id = open_chat(cfg.model)
    policy = load_policy(cfg.model, None, cfg.policy, cfg.optim, cfg.sampling.temperature)
    engine = open_engine(cfg.engine, cfg.model, eos_ids=chat.eos_ids, pad_id=pad_id, dtype="auto", model=policy.model)
    learner = Learner(policy=policy, engine=engine, task=task, chat=chat, cfg=cfg)

    first_before, second_before = accuracies(learner)
    for step in range(1, cfg.steps + 1):
        score_step(learner, draw_problems(task.load("train"), cfg.problems_per_step, step, cfg.seed), step)
    first, second = accuracies(learner)
    told = f"attempt 1: {first_before:.1%} -> {first:.1%}; attempt 2: {second_before:.1%} -> {second:.1%}"
    assert second > second_before + 0.12, told  # 600 episodes: a standard error of 0.02
    assert abs(first - first_before) < 0.06, told
    assert second > first + 0.05, told
