"""The implicit ensemble: no disagreement where model and value are right, and each estimate by another road."""

import math

import pytest
import torch

from posttrain.agents.kernel.consistency import (
    backed_up_values,
    disagreement,
    expected_values,
    optimism,
    rolled_out_action_values,
    rolled_out_values,
    under_policy,
)
from posttrain.agents.kernel.envs.grids import transition_table
from posttrain.agents.kernel.envs.layouts import four_rooms
from posttrain.agents.kernel.nets import WorldModel
from posttrain.agents.kernel.transforms import Support


def model():
    torch.manual_seed(0)
    made = WorldModel((5,), 3, Support(low=-2.0, high=2.0, num_atoms=9), width=8, hidden=16)
    for parameter in made.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return made.requires_grad_(False)


def exact(gamma=0.9, slip=0.1):
    """Model, reward and true value of four rooms that pay for entering the first cell, under the uniform policy."""
    table_SAS = transition_table(four_rooms(7), slip)
    reward_SA = table_SAS[:, :, 0]
    step_SS, reward_S = under_policy(table_SAS, reward_SA, torch.full((49, 4), 0.25, dtype=torch.float64))
    return step_SS, reward_S, torch.linalg.solve(torch.eye(49, dtype=torch.float64) - gamma * step_SS, reward_S)


def test_a_right_model_and_value_do_not_disagree_and_a_wrong_value_does_by_its_error():
    step_SS, reward_S, value_S = exact()
    assert disagreement(backed_up_values(step_SS, reward_S, value_S, 0.9, 5)).max() < 1e-12
    shifted = backed_up_values(step_SS, reward_S, value_S + 1.0, 0.9, 1)  # v^0 is wrong by 1, v^1 by 0.9, so sigma is half of 0.1
    assert disagreement(shifted).tolist() == pytest.approx([0.05] * 49)


def test_backed_up_values_of_two_states_by_hand():
    step_SS, reward_S = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1.0, 0.0])
    values = backed_up_values(step_SS, reward_S, torch.tensor([4.0, 2.0]), 0.5, 2)
    assert values.tolist() == [[4.0, 2.0], [2.0, 1.0], [1.5, 0.5]]
    assert optimism(values, 2.0)[1].item() == pytest.approx(3.5 / 3 + 2 * math.sqrt((4 + 1 + 0.25) / 3 - (3.5 / 3) ** 2))


def test_tables_side_by_side_are_each_their_own():
    step_SS, reward_S, value_S = exact()
    both = backed_up_values(torch.stack([step_SS, step_SS.T]), torch.stack([reward_S, reward_S]), torch.stack([value_S, value_S]), 0.9, 3)
    assert torch.allclose(both[:, 0], backed_up_values(step_SS, reward_S, value_S, 0.9, 3))
    assert torch.allclose(both[:, 1], backed_up_values(step_SS.T, reward_S, value_S, 0.9, 3))


def test_expected_values_are_the_mean_over_all_walks():
    net = model()
    state = net.represent(torch.randn(2, 5))
    slow = torch.zeros(2)
    for a in range(3):
        for b in range(3):
            first, reward_a = net.step(state, torch.full((2,), a))
            second, reward_b = net.step(first, torch.full((2,), b))
            prob = net.predict(state).policy_logits.softmax(-1)[:, a] * net.predict(first).policy_logits.softmax(-1)[:, b]
            slow += prob * (net.rewards(reward_a) + 0.9 * net.rewards(reward_b) + 0.81 * net.values(second))
    got = expected_values(net, state, 0.9, 2)
    assert torch.allclose(got[2], slow, atol=1e-5)
    assert torch.allclose(got[0], net.values(state), atol=1e-6)


def test_sampled_walks_come_to_the_expectation():
    net, draws = model(), torch.Generator().manual_seed(0)
    state = net.represent(torch.randn(3, 5))
    exactly = expected_values(net, state, 0.9, 3)
    sampled = rolled_out_values(net, state, 0.9, 3, 4_000, draws)
    assert torch.allclose(sampled, exactly, atol=0.1)
    assert (exactly[3] - exactly[0]).abs().max() > 1  # so that the depths are told apart


def test_action_values_average_to_the_value_one_step_deeper():
    net, draws = model(), torch.Generator().manual_seed(0)
    state = net.represent(torch.randn(3, 5))
    q_KNA = rolled_out_action_values(net, state, 0.9, 3, 4_000, draws)
    policy_NA = net.predict(state).policy_logits.softmax(-1)
    assert q_KNA.shape == (3, 3, 3)
    assert torch.allclose((policy_NA * q_KNA).sum(-1), expected_values(net, state, 0.9, 3)[1:], atol=0.1)
