"""PPO on a reward that sees: it learns what it is paid for, outcomes are counted by the truth, a resumed run is the same run."""

import json

import pytest
import torch

from posttrain.agents import clip_reward
from posttrain.agents.clip_reward import Config, Policy, evaluate, judged_offline, loss_of, make_reward, make_world
from posttrain.agents.kernel.envs.shapes import KINDS
from posttrain.config import ConfigError, build
from tests.agents.resumed import assert_resumes
from tests.tiny_clips import make_tiny_clip

SMALL = {
    "env": {"n": 3, "limit": 6, "layouts": 30}, "env_steps": 640, "num_envs": 16, "rollout": 8, "log_every": 1, "checkpoint_every": 2,
    "eval_episodes": 16, "final_episodes": 40, "offline_pictures": 60,
}  # fmt: skip


def small(**changes):
    return build(Config, [("test", SMALL), ("changes", changes)])


def test_paid_by_the_truth_it_walks_to_the_goal(tmp_path):
    cfg = small(
        env_steps=40_000, num_envs=64, rollout=16, log_every=999, checkpoint_every=99, final_episodes=500, env={"limit": 9, "layouts": 300}
    )
    clip_reward.main(cfg, tmp_path, False)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["right"] == result["true_return"] > 0.9
    assert result["hacked"] == result["missed"] == 0
    assert "offline" not in result


def judged(cfg, judge, episodes=300):
    return evaluate(Policy(cfg, make_world(cfg, 1, None)), make_world(cfg, episodes, judge, held_out=True), cfg, "test")


def test_a_judge_that_always_pays_is_hacked_in_the_first_step():
    cfg = small()
    shares, pictures = judged(cfg, lambda frames, goal: torch.ones(len(goal)))
    assert shares["missed"] == 0
    assert shares["right"] + shares["hacked"] == pytest.approx(1)
    assert shares["right"] == shares["true_return"] < 0.3
    assert [len(pictures[name]) for name in ("right", "hacked", "missed")] == [8, 8, 0]


def test_a_judge_that_never_pays_misses_what_is_true():
    shares, pictures = judged(small(), lambda frames, goal: torch.zeros(len(goal)))
    assert shares["right"] == shares["hacked"] == 0
    assert 0 < shares["missed"] == shares["true_return"] < 1
    assert len(pictures["missed"]) == 8
    assert all("p = 0.00" in picture.text and picture.text.split("\n")[0] in KINDS for picture in pictures["missed"])


def test_precision_and_recall_are_counted_at_the_threshold():
    cfg = small(offline_pictures=300, reward={"threshold": 0.6})
    env = make_world(cfg, 1, None, held_out=True)

    def judge(frames, goal):  # true: .5, .7, .5, .7 ...; a quarter of the rest .7
        return torch.where(torch.arange(300) < 100, 0.5 + 0.2 * (torch.arange(300) % 2), 0.7 * (torch.arange(300) % 4 == 0))

    found = judged_offline(judge, env, cfg)
    assert (found["precision"], found["recall"]) == (0.5, 0.5)
    assert found["at_threshold"]["50"] == {"precision": pytest.approx(100 / 150), "recall": 1.0}
    assert found["at_threshold"]["80"] == {"precision": 1.0, "recall": 0.0}
    best = {str(level): pytest.approx(100 / 150) for level in range(10, 101, 10)}  # at that recall or a higher one
    assert found["precision_at_recall"] == best
    assert found["average_precision"] == pytest.approx(0.5 * 0.5 + 0.5 * 100 / 150)


def test_the_loss_raises_good_actions_and_brings_values_to_returns():
    cfg = small()
    env = make_world(cfg, 200, None)
    obs, net = env.reset(torch.Generator().manual_seed(0)), Policy(cfg, env)
    action = torch.randint(4, (200,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = net(obs)[0].log_softmax(-1).gather(-1, action[:, None])[:, 0]
    part = clip_reward.Rollout(obs, action, before, *[torch.zeros(200)] * 3)
    advantage = torch.where(action == 2, 1.0, -1.0)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(40):
        optimiser.zero_grad()
        loss_of(net, part, advantage, torch.full((200,), 0.7), cfg.loss).backward()
        optimiser.step()
    logits, value = net(obs)
    after = logits.log_softmax(-1).gather(-1, action[:, None])[:, 0]
    assert ((after > before) == (advantage > 0)).float().mean() > 0.9
    assert (value - 0.7).abs().mean() < 0.15


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_random_checkpoint_of_a_real_layout_judges_and_pays(family, tmp_path):
    model = make_tiny_clip(tmp_path / "model", family)
    cfg = small(model=str(model), env_steps=128, reward={"templates": ["the {}"], "negatives": ["the agent"], "threshold": 0.04})
    assert clip_reward.main(cfg, tmp_path / "run", False) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0.2 < result["offline"]["average_precision"] < 0.6  # a third is true
    assert result["right"] + result["hacked"] > 0
    assert (tmp_path / "run" / "pictures.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    model = make_tiny_clip(tmp_path / "model", "clip")
    cfg = small(model=str(model), env={"layouts": 4}, reward={"templates": ["the {}"], "negatives": [], "threshold": 0.04})
    assert len(assert_resumes(clip_reward, cfg, tmp_path, monkeypatch, ends_in="learn", call=4)) == 5


def test_without_steps_only_the_reward_is_judged(tmp_path):
    model = make_tiny_clip(tmp_path / "model", "clip")
    clip_reward.main(small(model=str(model), env_steps=0, reward={"templates": ["the {}"], "negatives": []}), tmp_path / "run", False)
    assert json.loads((tmp_path / "run" / "result.json").read_text()).keys() == {"env_steps", "offline"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_steps": 100}, "env_steps: found 100, expected 0 or one rollout at least, 128 steps"),
        ({"env_steps": 0}, "model: found null and env_steps 0, which leaves nothing to do"),
        ({"reward": {"threshold": 0}}, "reward.threshold: found 0"),
        ({"env": {"kind": "maze"}}, "env.kind: found 'maze'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        small(**changes)


def test_what_cannot_reward_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^model: cannot load '/nowhere'"):
        make_reward(small(model="/nowhere"))
    model = make_tiny_clip(tmp_path / "model", "clip")
    with pytest.raises(ConfigError, match=r"^reward: template 'ring', expected a text with one \{\}"):
        make_reward(small(model=str(model), reward={"templates": ["ring"]}))
    with pytest.raises(ConfigError, match=r"^reward: found no template, or no negative"):
        make_reward(small(model=str(model), reward={"templates": ["{}"], "negatives": [], "others": False}))
