"""Cloning from videos: the expert is filmed, latent actions get their meanings, and a policy acts in the world."""

import json

import pytest
import torch

from posttrain.agents import genie, genie_cloning
from posttrain.agents.environments import PlatformerConfig, SpritesConfig
from posttrain.agents.genie_cloning import Config, Policy, cloned, expert_videos, latent_actions, meanings, reward_of
from posttrain.agents.genie_films import WorldConfig
from posttrain.agents.genie_models import ActionsConfig, DynamicsConfig, TokenizerConfig
from posttrain.agents.kernel.envs.worlds import Sprites
from posttrain.config import ConfigError


def tiny_run(folder, env):
    cfg = genie.Config(
        films=WorldConfig(env=env, clips=10), frames=3, held_out=3,
        tokenizer=TokenizerConfig(codes=16, dim=4, width=8, heads=1, steps=1, batch=2),
        actions=ActionsConfig(codes=3, width=8, heads=1, steps=1, batch=2),
        dynamics=DynamicsConfig(width=8, heads=1, steps=1, batch=2),
    )  # fmt: skip
    assert genie.main(cfg, folder, False) == 0
    return folder


def test_a_latent_action_means_what_it_was_most_often_and_else_the_commonest():
    latent = torch.tensor([0, 0, 0, 2, 2, 2, 2])
    action = torch.tensor([1, 1, 3, 4, 4, 4, 0])
    assert meanings(latent, action, 4, 5).tolist() == [1, 4, 4, 4]


def test_videos_hold_what_the_expert_did():
    world = Sprites(4, 10, 5, torch.Generator().manual_seed(0))
    video, done = expert_videos(world, torch.Generator().manual_seed(1))
    assert (video.shape, done.shape) == ((4, 10, 3, 16, 16), (4, 9))
    again = Sprites(4, 10, 5, torch.Generator().manual_seed(0))
    again.reset(torch.Generator().manual_seed(1))
    for t in range(9):
        assert torch.equal(again.expert(), done[:, t])
        obs, *_ = again.step(done[:, t])
        assert torch.equal((obs * 255).round().byte(), video[:, t + 1])


def test_every_step_of_a_video_is_named_from_the_window_that_ends_with_it(tmp_path):
    _, models = genie.load_run(tiny_run(tmp_path / "run", SpritesConfig(layouts=3)))
    video = torch.randint(256, (5, 6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    named = latent_actions(models, video)
    assert named.shape == (5, 5)
    assert torch.equal(named[:, 3], models.actions.quantised(video[:, 2:5] / 255).chosen[:, -1])
    assert torch.equal(named[:, 0], models.actions.quantised(video[:, :2] / 255).chosen[:, -1])


def test_a_policy_reads_where_a_feature_is():
    torch.manual_seed(0)
    spots = torch.zeros(300, 3, 8, 8)
    row, column = torch.randint(8, (2, 300), generator=torch.Generator().manual_seed(0))
    spots[torch.arange(300), :, row, column] = 1.0
    cfg = Config(width=8, hidden=16, steps=150, batch=64, learning_rate=1e-2)
    net = cloned(spots, (column > 3).long(), 2, cfg, torch.Generator().manual_seed(0))
    assert (net(spots).argmax(1) == (column > 3)).float().mean() > 0.95
    assert Policy((3, 16, 16), 8, 16, 5)(spots).shape == (300, 5)


def test_the_expert_is_judged_by_its_reward_and_a_meaning_turns_choices_into_actions():
    world = Sprites(64, 16, 5, torch.Generator().manual_seed(0))
    assert reward_of(world, None, None, torch.Generator().manual_seed(1)) > 2
    idle = Policy((3, 16, 16), 4, 8, 3)
    assert reward_of(world, idle, torch.tensor([4, 4, 4]), torch.Generator().manual_seed(1)) == 0  # action 4 stays


def test_cloning_writes_its_figures_and_refuses_worlds_without_an_expert(tmp_path):
    run = tiny_run(tmp_path / "run", SpritesConfig(layouts=3, limit=6))
    cfg = Config(run=run, videos=6, labels=(4,), plain_labels=(4, 20), width=4, hidden=8, steps=3, batch=4, test_episodes=8)
    assert genie_cloning.main(cfg, tmp_path / "clone", False) == 0
    result = json.loads((tmp_path / "clone" / "result.json").read_text())
    assert set(result) == {"expert", "latent", "plain", "agreement", "latent_share", "plain_share"}
    assert set(result["plain"]) == {"4", "20"}
    with pytest.raises(ConfigError, match="plain_labels: found 49600, expected at most the 30 steps"):
        genie_cloning.main(Config(run=run, videos=6, width=4, steps=1), tmp_path / "more", False)
    other = tiny_run(tmp_path / "platformer", PlatformerConfig())
    with pytest.raises(ConfigError, match="learnt from other films, expected those of the world sprites"):
        genie_cloning.main(Config(run=other), tmp_path / "none", False)
    assert not (tmp_path / "none").exists()
