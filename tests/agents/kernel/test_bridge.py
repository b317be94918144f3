"""Gymnasium's environments behind the protocol of ours."""

import pytest
import torch

from posttrain.agents.kernel.envs import bridge
from posttrain.agents.kernel.envs.bridge import GymnasiumEnv
from posttrain.agents.kernel.envs.cartpole import CartPole


def test_its_cartpole_is_ours_step_by_step():
    pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'posttrain[agents]'")
    theirs, ours, g = GymnasiumEnv("CartPole-v1", 3), CartPole(3), torch.Generator().manual_seed(0)
    obs = theirs.reset(torch.Generator().manual_seed(1))
    ours.reset(torch.Generator().manual_seed(1))
    ours.state_B4 = obs.clone()
    assert (theirs.obs_shape, theirs.num_actions) == (ours.obs_shape, ours.num_actions)
    for _ in range(8):
        action = torch.randint(2, (3,), generator=g)
        (obs, reward, *ends), (our_obs, our_reward, *our_ends) = theirs.step(action), ours.step(action)
        assert torch.allclose(obs, our_obs, atol=1e-5)
        assert torch.equal(reward, our_reward)
        assert all(torch.equal(one, other) for one, other in zip(ends, our_ends, strict=True))


def test_an_episode_that_ends_shows_the_first_observation_of_the_next():
    pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'posttrain[agents]'")
    env = GymnasiumEnv("CartPole-v1", 2)
    env.reset(torch.Generator().manual_seed(0))
    for _ in range(30):
        obs, _, terminated, _ = env.step(torch.ones(2, dtype=torch.long))
        if bool(terminated.any()):
            break
    assert bool(terminated.any())
    assert bool((obs[terminated].abs() <= 0.05).all())  # where every episode of CartPole begins


def test_a_restored_environment_begins_new_episodes_from_the_saved_stream_of_seeds():
    pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'posttrain[agents]'")
    one, other, third = (GymnasiumEnv("CartPole-v1", 2) for _ in range(3))
    one.reset(torch.Generator().manual_seed(0))
    for env in (other, third):
        env.load_state_dict(one.state_dict())
    action = torch.tensor([0, 1])
    assert torch.equal(other.step(action)[0], third.step(action)[0])


def test_without_gymnasium_the_error_names_the_extra(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(bridge.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"posttrain\[agents\]"):
        GymnasiumEnv("CartPole-v1", 1)


def test_a_box_of_actions_becomes_all_combinations_of_levels():
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'posttrain[agents]'")
    env = bridge.discretised(gymnasium.make("Pendulum-v1"))
    env.reset(seed=0)
    assert env.action_space.n == 3
    assert env.step(2)[1] < 0
    assert env.action(0).tolist() == [-2.0]
    assert env.action(2).tolist() == [2.0]
