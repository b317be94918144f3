"""Sets of policies: each acts in its turn, and one is chosen by trials that do not count."""

import pytest
import torch

from posttrain.agents.kernel.envs.catch import Catch
from posttrain.agents.kernel.sets import PolicySet, act, by_policy, play, tried


def test_every_policy_reads_the_observation_its_latent_and_their_product():
    net = PolicySet(2, 3, 2, 5, hidden=4)
    got = net.inputs(torch.tensor([[5.0, 7.0], [5.0, 7.0]]), torch.tensor([0, 1]))
    assert got.tolist() == [[5, 7, 1, 0, 5, 7, 0, 0], [5, 7, 0, 1, 0, 0, 5, 7]]
    assert net.ahead(got).shape == (2, 5)


def test_actions_are_drawn_as_often_as_their_log_probabilities_say():
    torch.manual_seed(0)
    net = PolicySet(2, 3, 2, 1, hidden=8)
    obs, policy = torch.ones(20_000, 2), torch.arange(20_000) % 2
    action, logp = act(net, obs, policy, torch.Generator().manual_seed(0))
    for i in range(2):
        for a in range(3):
            drawn = (policy == i) & (action == a)
            assert drawn.sum().item() / 10_000 == pytest.approx(logp[drawn][0].exp().item(), abs=0.015)


def test_policies_that_take_turns_are_averaged_apart():
    x_TB = torch.arange(12.0).reshape(2, 6)  # environments 0, 3 are policy 0's
    assert by_policy(x_TB, 3).tolist() == [(0 + 3 + 6 + 9) / 4, (1 + 4 + 7 + 10) / 4, (2 + 5 + 8 + 11) / 4]


def test_what_is_played_is_each_policys_own():
    """A policy that always steps to the right, and one that always stays, among paddles of Catch."""
    net, env = PolicySet(18, 3, 2, 1, hidden=4), Catch(6, rows=6, columns=3)
    for parameter in net.actor.parameters():
        parameter.data.zero_()
    net.actor[0].weight.data[0, 18], net.actor[0].weight.data[1, 19] = 1, 1  # the two latents
    net.actor[2].weight.data[0, 0], net.actor[2].weight.data[1, 1] = 1, 1
    net.actor[4].weight.data[2, 0], net.actor[4].weight.data[1, 1] = 99, 99
    value_NE, obs = play(net, env, 5, torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))
    assert value_NE.shape == (2, 3)
    assert obs.shape == (5, 2, 3, 18)
    assert obs[4, :, :, 15:].argmax(-1).tolist() == [[2, 2, 2], [1, 1, 1]]  # where the paddles are
    assert torch.allclose(value_NE.abs(), torch.tensor(0.2))  # one ball in five steps, caught or missed


def test_the_best_of_the_trials_is_judged_on_others():
    value_NE = torch.tensor([[3.0, 3.0, 4.0, 6.0], [5.0, 5.0, 1.0, 1.0], [0.0, 0.0, 9.0, 9.0]])
    assert tried(value_NE, k=2) == pytest.approx({"single": 5.0, "all": (5 + 1 + 9) / 3, "picked": 1.0})
