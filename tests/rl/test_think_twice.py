import pytest
import torch

from posttrain.config import ConfigError, build
from posttrain.rl import think_twice
from posttrain.rl.think_twice import Config, think_twice_step
from posttrain.run import read_jsonl
from tests.rl.learners import PROBLEMS, config_for, measured, open_learner
from tests.sums_base import TASK


def flat(learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.policy.trainable]).clone()


def test_a_step_updates_on_answers_and_on_refinements_of_one_answer_of_each_problem(tiny_qwen2):
    learner = open_learner(config_for(tiny_qwen2, kl={"coef": [0.0, 0.0]}))
    refined, figures = think_twice_step(learner, PROBLEMS[:4], 1)
    assert len(refined) == 16
    for start in range(0, 16, 4):
        assert len({episode.turns[0].text for episode in refined[start : start + 4]}) == 1  # one answer, refined four times
        assert all((episode.turns[0].given, episode.turns[1].given) == (True, False) for episode in refined[start : start + 4])
    assert (figures["train/samples"], figures["train/updates"]) == (32, 2)
    assert learner.policy.step == 2


def test_the_same_step_from_the_same_weights_is_the_same(tiny_qwen2):
    one, two = (open_learner(config_for(tiny_qwen2)) for _ in range(2))
    first, second = (measured(think_twice_step(learner, PROBLEMS[:4], 3)[1]) for learner in (one, two))
    assert first == second
    assert torch.equal(flat(one), flat(two))


def test_a_run_logs_saves_and_resumes(sums_base, tmp_path):
    recipe = {"model": str(sums_base), "task": TASK, "steps": 3, "problems_per_step": 4, "samples": 4, "kl": {"coef": [0.01, 0.01]}}
    recipe |= {"sampling": {"max_tokens": 8}, "optim": {"lr": 1e-3}, "checkpoint": {"every": 1}}
    cfg = build(Config, [("test", recipe)])
    assert think_twice.main(cfg, tmp_path / "run", resume=False) == 0
    rows = list(read_jsonl(tmp_path / "run" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert think_twice.main(cfg, tmp_path / "run", resume=True) == 0


def test_a_bonus_is_refused(tiny_qwen2):
    with pytest.raises(ConfigError, match="think_twice pays solving and refining alike"):
        build(
            Config,
            [
                (
                    "test",
                    {
                        "model": "m",
                        "task": TASK,
                        "steps": 1,
                        "problems_per_step": 1,
                        "kl": {"coef": [0, 0]},
                        "bonus": 10,
                        "sampling": {"max_tokens": 8},
                        "optim": {"lr": 1e-3},
                    },
                )
            ],
        )
