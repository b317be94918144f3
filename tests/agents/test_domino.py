"""DOMiNO: how advantages are mixed, how the best of a set is chosen, that sets learn and part, and that a resumed run is the same run."""

import json
from dataclasses import replace

import pytest
import torch

from posttrain.agents import domino
from posttrain.agents.domino import Config, DiversityConfig, Learner, TrialConfig, collect
from posttrain.agents.environments import PointMassConfig, make_env
from posttrain.config import ConfigError, build
from tests.agents.resumed import assert_resumes

TINY = Config(
    policies=3, num_envs=12, rollout=5, env_steps=12 * 60, epochs=2, minibatches=2, hidden=16, log_every=1, checkpoint_every=5,
    trials=TrialConfig(steps=30, k=2, judged=3),
)  # fmt: skip


def learner_and_rollout(diversity, seed=0):
    cfg = replace(TINY, diversity=diversity)
    env, draws = make_env(cfg.env, cfg.num_envs), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    learner = Learner(cfg, env)
    rollout = collect(env, env.reset(draws), learner, draws)
    learner.average(rollout)
    return learner, rollout._replace(reward=torch.rand(rollout.reward.shape, generator=draws))


def test_every_policy_mixes_its_own_share_of_two_advantages():
    """A plain twin: lambda returns step by step, spreads over the whole rollout, the force after them."""
    learner, rollout = learner_and_rollout(DiversityConfig(rest=0.05))
    learner.multiplier_N = torch.tensor([0.0, 1.0, -1.0])
    rollout.ended[2, 4] = True
    mixed, returns, _ = learner.advantages(rollout)
    cfg, net, near = learner.cfg, learner.net, domino.nearest(learner.psi_NF)
    task, other = torch.zeros(5, 12), torch.zeros(5, 12)
    with torch.no_grad():
        for b in range(12):
            i = b % 3
            unit_F = near.difference[i] / near.distance[i]
            last = net.inputs(rollout.last_obs[b], torch.tensor(i))
            value, ahead_F = net.value(last)[0], net.ahead(last)
            target, target_F = value, ahead_F
            for t in reversed(range(5)):
                goes_on = 0.0 if rollout.ended[t, b] else cfg.gamma
                target = (1 - cfg.gamma) * rollout.reward[t, b] + goes_on * ((1 - cfg.lambda_) * value + cfg.lambda_ * target)
                phi_F = domino.places(rollout.obs[t, b], cfg.diversity.places)
                target_F = (1 - cfg.gamma) * phi_F + goes_on * ((1 - cfg.lambda_) * ahead_F + cfg.lambda_ * target_F)
                here = net.inputs(rollout.obs[t, b], torch.tensor(i))
                value, ahead_F = net.value(here)[0], net.ahead(here)
                assert returns[t, b].item() == pytest.approx(target.item(), abs=1e-5)
                task[t, b], other[t, b] = target - value, (target_F - ahead_F) @ unit_F
        share_N = [1.0, *torch.tensor([1.0, -1.0]).sigmoid().tolist()]
        for b in range(12):
            force = 1 - (near.distance[b % 3] / 0.05) ** 3
            by_hand = share_N[b % 3] * task[:, b] / task.square().mean().sqrt()
            by_hand += (1 - share_N[b % 3]) * force * other[:, b] / other.square().mean().sqrt()
            assert torch.allclose(mixed[:, b], by_hand, atol=1e-4)


def test_a_fixed_share_leaves_the_first_policy_its_task_and_moves_no_multiplier():
    learner, rollout = learner_and_rollout(DiversityConfig(alpha=None, share=0.3))
    assert learner.shares().tolist() == pytest.approx([1.0, 0.3, 0.3])
    before = learner.multiplier_N.clone()
    learner.update(rollout, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(learner.multiplier_N, before)


def test_a_set_learns_the_way_and_parts_within_the_bound(tmp_path):
    cfg = Config(
        seed=1, policies=3, num_envs=192, minibatches=2, env_steps=220_000, env=PointMassConfig(doors=(-0.5, 0.5)), hidden=32,
        learning_rate=3e-3,
        diversity=DiversityConfig(multiplier_rate=10), trials=TrialConfig(k=4, judged=8),
    )  # fmt: skip
    assert domino.main(cfg, tmp_path / "apart", False) == 0
    assert domino.main(replace(cfg, diversity=DiversityConfig(alpha=None, share=1.0)), tmp_path / "alike", False) == 0
    apart, alike = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("apart", "alike"))
    assert min(apart["first"], alike["first"]) > 0.09  # a trip in eleven steps; random thrusts need more than a thousand
    assert apart["worst_over_best"] > 0.85
    assert apart["distance"] > 4 * alike["distance"]
    assert apart["doors"]["picked"] > 1.5 * apart["doors"]["single"]
    assert (tmp_path / "apart" / "paths.png").stat().st_size > 1000


def test_a_discriminator_learns_who_is_where():
    learner, rollout = learner_and_rollout(DiversityConfig(alpha=None, share=0.5, reward="discrimination"))
    rollout.obs[..., 0] = torch.tensor([-0.8, 0.0, 0.8])[learner.policy_B]  # each policy keeps to a place of its own
    draws = torch.Generator().manual_seed(0)
    losses = [learner.update(rollout, 0.0, draws)["error_discriminator"].item() for _ in range(150)]
    assert losses[0] > 1.0
    assert losses[-1] < 0.2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"env": {"kind": "pointmass", "doors": [0.95]}}, "env: pointmass: doors: found .*within the room"),
        ({"device": "cuda"}, "device: found cuda, .*no GPU"),
        ({"num_envs": 100}, "num_envs: found 100, expected a multiple of the 8 policies"),
        ({"env_steps": 100}, "env_steps: found 100, expected a rollout at least, 10240"),
        ({"minibatches": 7}, "minibatches: found 7, expected a divisor of the 10240"),
        ({"diversity": {"share": 0.5}}, "diversity: .*found alpha 0.9 and share 0.5, expected one of the two"),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_folder_is_taken(changed, said, tmp_path):
    if changed.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=said):
        domino.main(build(Config, [("r", {"kind": "domino"} | changed)]), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


def test_other_environments_than_the_point_mass_are_trained_and_have_no_perturbed_worlds(tmp_path):
    cfg = build(Config, [("r", {"env": {"kind": "cartpole"}, "policies": 2, "num_envs": 8, "rollout": 5, "env_steps": 80, "minibatches": 2,
                                "diversity": {"phi": "observation"}, "trials": {"steps": 20, "k": 1, "judged": 2}})])  # fmt: skip
    assert domino.main(cfg, tmp_path / "run", False) == 0
    assert "doors" not in json.loads((tmp_path / "run" / "result.json").read_text())


@pytest.mark.parametrize("reward", ["features", "discrimination"])
def test_a_resumed_run_is_the_same_run(tmp_path, monkeypatch, reward):
    cfg = replace(TINY, diversity=DiversityConfig(reward=reward))
    assert len(assert_resumes(domino, cfg, tmp_path, monkeypatch, ends_in="collect", call=9)) == 12
