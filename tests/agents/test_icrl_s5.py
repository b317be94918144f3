"""Recurrent PPO: acting and learning see the same numbers, a trial is remembered or not, it learns, a resumed run is the same run."""

import json

import pytest
import torch

from posttrain.agents import icrl_s5
from posttrain.agents.cores import GRUConfig, LSTMConfig, S5Config, TransformerConfig
from posttrain.agents.environments import MemoryChainConfig, TMazeConfig, TrialCartPoleConfig, make_env
from posttrain.agents.icrl_s5 import (
    ActorCritic,
    Config,
    LossConfig,
    beginning,
    collect,
    learn,
    loss_of,
)
from posttrain.config import ConfigError, build
from tests.agents.resumed import assert_resumes

CORES = [S5Config(layers=1, states=8), GRUConfig(), LSTMConfig(), TransformerConfig(layers=1, window=9)]
SHORT = TrialCartPoleConfig(episodes=3, limit=6)


def played(cfg):
    env = make_env(cfg.env, cfg.num_envs)
    torch.manual_seed(0)
    net = ActorCritic(cfg, env)
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    x, state, draws = beginning(env.reset(torch.Generator().manual_seed(1))), net.memory.first_state(cfg.num_envs), torch.Generator()
    _, _, x, state = collect(env, net, x, state, cfg, draws)
    return net, *collect(env, net, x, state, cfg, draws)[:2]


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.kind)
def test_what_is_learnt_from_is_what_was_acted_on(core):
    cfg = Config(env=SHORT, core=core, num_envs=4, rollout=25, width=8)
    net, rollout, _ = played(cfg)
    logits, value, _ = net(rollout.inputs, rollout.state)
    logp = logits.log_softmax(-1).gather(-1, rollout.action[..., None])[..., 0]
    assert torch.allclose(logp, rollout.logp, atol=1e-5)
    assert torch.allclose(value, rollout.value, atol=1e-5)


def test_memory_outlasts_an_episode_in_context_and_never_a_trial():
    env = make_env(SHORT, 4)
    for in_context, expected in ((True, [0, 18, 36]), (False, list(range(0, 40, 6)))):
        cfg = Config(env=SHORT, core=S5Config(layers=1, states=8), num_envs=4, rollout=40, width=8, in_context=in_context)
        net = ActorCritic(cfg, env)
        x = beginning(env.reset(torch.Generator().manual_seed(1)))
        rollout, *_ = collect(env, net, x, net.memory.first_state(4), cfg, torch.Generator())
        assert rollout.inputs.reset[:, 0].nonzero().flatten().tolist() == expected
        assert rollout.inputs.first[:, 0].nonzero().flatten().tolist() == list(range(0, 40, 6))
        ends = (rollout.discount[:, 0] == 0).nonzero().flatten().tolist()
        assert ends == [t for t in range(40) if t % 6 == 5]  # values never cross an episode's end, whatever is remembered


def test_the_action_before_is_read_but_not_at_the_first_step():
    cfg = Config(env=SHORT, num_envs=4, width=8)
    net = ActorCritic(cfg, make_env(SHORT, 4))
    x, state = beginning(torch.randn(4, 4)), net.memory.first_state(4)
    other = x._replace(last_action=1 - x.last_action)
    step = net.stepper()
    assert torch.equal(step(x, state)[1], step(other, state)[1])
    went_on = torch.zeros(4, dtype=torch.bool)
    x, other = x._replace(first=went_on), other._replace(first=went_on)
    assert not torch.equal(step(x, state)[1], step(other, state)[1])


def test_the_loss_raises_good_actions_and_brings_values_to_returns():
    cfg = Config(env=SHORT, num_envs=4, rollout=25, width=8, learning_rate=0.01, minibatches=1)
    net, rollout, _ = played(cfg)
    advantage = torch.where(rollout.action == 1, 1.0, -1.0)
    returns = torch.full_like(advantage, 0.7)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        loss, _ = loss_of(net, rollout, advantage, returns, cfg.loss)
        loss.backward()
        optimiser.step()
    logits, value, _ = net(rollout.inputs, rollout.state)
    before = rollout.logp.exp()
    after = logits.softmax(-1).gather(-1, rollout.action[..., None])[..., 0]
    assert ((after > before) == (advantage > 0)).float().mean() > 0.9
    assert (value - 0.7).abs().mean() < 0.1


def test_the_loss_pays_for_entropy_and_for_values_that_are_wrong():
    cfg = Config(env=SHORT, num_envs=4, rollout=25, width=8)
    net, rollout, _ = played(cfg)
    zero = torch.zeros_like(rollout.value)
    loss, parts = loss_of(net, rollout, zero, rollout.value + 2.0, LossConfig(weight_value=0.25, weight_entropy=3.0))
    assert parts["value"].item() == pytest.approx(2.0, abs=1e-3)  # half of 2 squared
    assert loss.item() == pytest.approx(0.25 * 2.0 - 3.0 * parts["entropy"].item(), abs=1e-3)


def test_every_environment_is_learnt_from_once_in_a_pass():
    cfg = Config(env=SHORT, num_envs=8, rollout=6, width=8, epochs=3, minibatches=4)
    net, rollout, after = played(cfg)
    seen, real = [], icrl_s5.columns_of
    try:
        icrl_s5.columns_of = lambda rollout, column: seen.append(column) or real(rollout, column)
        learn(net, torch.optim.Adam(net.parameters()), rollout, after, cfg, torch.Generator())
    finally:
        icrl_s5.columns_of = real
    assert [len(column) for column in seen] == [2] * 12
    for i in range(3):
        assert sorted(torch.cat(seen[4 * i : 4 * i + 4]).tolist()) == list(range(8))


@pytest.mark.parametrize("core", [S5Config(states=16), GRUConfig()], ids=lambda core: core.kind)
def test_it_learns_what_only_memory_solves(core, tmp_path):
    cfg = Config(
        env=MemoryChainConfig(length=7), core=core, env_steps=40_000, rollout=16, num_envs=64, log_every=99, final_trials=500,
        learning_rate=3e-3, width=16,
    )  # fmt: skip
    assert icrl_s5.main(cfg, tmp_path / "run", False) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["score"] > 0.9  # without memory 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"minibatches": 5}, "minibatches: found 5, expected a divisor of num_envs = 32"),
        ({"env_steps": 4095}, "env_steps: found 4095, expected one rollout at least, 4096 steps"),
        ({"core": {"kind": "transformer", "heads": 3}}, "width: found 32, expected a multiple of 2 \\* core.heads = 6"),
        ({"core": {"kind": "s5", "states": 7}}, "core.*states.*multiple of 2"),
        ({"core": {"kind": "rnn"}}, "core.kind: found 'rnn', expected one of s5, gru, lstm, transformer"),
        ({"env": {"kind": "repeat_previous", "delay": 50}}, "env: repeat_previous: .*shorter than the episode of 48 steps, got 50"),
        ({"elsewhere": {"maze": {"kind": "t_maze"}}}, "elsewhere.maze: found .*expected .*: name an environment that looks like it"),
        ({"device": "cuda"}, "device: found cuda, .*no GPU"),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_folder_is_taken(changed, said, tmp_path):
    if changed.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=said):
        icrl_s5.main(build(Config, [("r", {"kind": "icrl_s5"} | changed)]), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.kind)
def test_a_resumed_run_is_the_same_run(core, tmp_path, monkeypatch):
    cfg = Config(
        env=SHORT, elsewhere={"long_pole": TrialCartPoleConfig(episodes=3, limit=6, half_length=(1.0, 1.0))}, core=core, width=8,
        env_steps=9 * 40, num_envs=4, rollout=10, minibatches=2, epochs=2, log_every=1, checkpoint_every=4, eval_trials=8, final_trials=16,
    )  # fmt: skip
    assert len(assert_resumes(icrl_s5, cfg, tmp_path, monkeypatch, ends_in="collect", call=7)) == 9
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert set(result) == {"env_steps", "score", "episode", "long_pole", "train_cpu_s"}
    assert list(result["episode"]) == ["1", "2", "3"]


def test_a_t_maze_can_be_trained_in(tmp_path):
    cfg = Config(env=TMazeConfig(length=3), env_steps=256, num_envs=8, rollout=16, width=8, final_trials=16)
    assert icrl_s5.main(cfg, tmp_path / "run", False) == 0
