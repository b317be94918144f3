"""Muesli: that it learns, what cannot be trained, and that a resumed run is the same run. Its update: kernel/test_cmpo.py."""

import json

import pytest
import torch

from posttrain.agents import muesli
from posttrain.agents.environments import CatchConfig, GoalGridConfig
from posttrain.agents.muesli import Config
from posttrain.config import ConfigError, build
from tests.agents.resumed import assert_resumes


def test_muesli_learns_catch(tmp_path):
    cfg = Config(env=CatchConfig(rows=6, columns=5), env_steps=16_000, num_envs=32, rollout=8, updates=2, final_episodes=500, log_every=99)
    assert muesli.main(cfg, tmp_path / "run", False) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["score"] > 0.9  # a random paddle scores -0.5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"env": {"kind": "four_rooms", "n": 10}}, "env: four_rooms: .*odd n of at least 5, got 10"),
        ({"env": {"kind": "goal_grid", "n": 1}}, "env: goal_grid: .*free cells"),
        ({"env": {"kind": "gymnasium", "name": "Nope-v9"}}, "env: gymnasium: Nope-v9: .*doesn't exist"),
        ({"device": "cuda"}, "device: found cuda, .*no GPU"),
        ({"support": [1.0, 0.0, 41]}, "support: found .*expected a lower and a higher atom"),
        ({"rollout": 4}, "rollout: found 4 steps, expected more than the 4 of loss.unroll"),
        ({"replay_steps": 1024}, "replay_steps: found 1024, expected more than .* 1024"),
        ({"env_steps": 2047}, "env_steps: found 2047, expected two rollouts at least, 2048 steps"),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_folder_is_taken(changed, said, tmp_path):
    if changed.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=said):
        muesli.main(build(Config, [("r", {"kind": "muesli"} | changed)]), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_is_the_same_run(tmp_path, monkeypatch):
    cfg = Config(
        env=GoalGridConfig(n=3, limit=8), env_steps=12 * 64, num_envs=8, rollout=8, batch=8, log_every=1, checkpoint_every=5,
        replay_steps=400, eval_episodes=8, final_episodes=64, width=16, hidden=16,
    )  # fmt: skip
    assert len(assert_resumes(muesli, cfg, tmp_path, monkeypatch, ends_in="collect", call=9)) == 11
