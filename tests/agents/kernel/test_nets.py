"""The triple: one step for every action equals a step for each; gradients are scaled; images are accepted."""

import pytest
import torch

from posttrain.agents.kernel.nets import WorldModel, descend, lookahead, scale_gradient, torso, track, unroll
from posttrain.agents.kernel.transforms import Support


def model():
    torch.manual_seed(0)
    made = WorldModel((5,), 3, Support(low=-2.0, high=2.0, num_atoms=9), width=8, hidden=16)
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


def test_a_step_for_all_actions_is_a_step_for_each():
    net, obs = model(), torch.randn(4, 5)
    state = net.represent(obs)
    all_states, all_rewards = net.step_all(state)
    for action in range(3):
        one_state, one_reward = net.step(state, torch.full((4,), action))
        assert torch.allclose(all_states[:, action], one_state, atol=1e-6)
        assert torch.allclose(all_rewards[:, action], one_reward, atol=1e-6)
    q = lookahead(net, state, 0.5)
    assert torch.allclose(q[:, 1], net.rewards(all_rewards[:, 1]) + 0.5 * net.values(all_states[:, 1]), atol=1e-6)


def test_an_unroll_is_its_steps_one_by_one():
    net = model()
    state = net.represent(torch.randn(2, 5))
    actions = [torch.tensor([0, 2]), torch.tensor([1, 1])]
    states, rewards = unroll(net, state, actions)
    after, reward = net.step(net.step(state, actions[0])[0], actions[1])
    assert torch.equal(states[2], after)
    assert torch.equal(rewards[1], reward)
    assert states.shape == (3, 2, 8)


def test_the_gradient_is_scaled_and_the_number_is_not():
    x = torch.tensor([2.0], requires_grad=True)
    y = scale_gradient(x, 0.25) ** 2
    y.sum().backward()
    assert y.item() == 4
    assert x.grad is not None
    assert x.grad.item() == 1


def test_an_average_moves_by_its_rate():
    slow, fast = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    before = slow.weight.item()
    track(slow, fast, 0.25)
    assert slow.weight.item() == pytest.approx(before + 0.25 * (fast.weight.item() - before))


def test_a_torso_takes_vectors_and_images_and_nothing_else():
    assert torso((7,), 4)(torch.randn(3, 7)).shape == (3, 4)
    assert torso((4, 10, 10), 6)(torch.randn(2, 4, 10, 10)).shape == (2, 6)
    with pytest.raises(ValueError, match="one or three axes"):
        torso((3, 4), 5)


def test_a_step_down_a_loss_is_cut_to_its_norm_and_taken_at_the_rate_given():
    """Plain descent from (3, 4) on half the square: the gradient (3, 4) of norm 5 is cut to (0.6, 0.8)."""
    x = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimiser = torch.optim.SGD([x], lr=100.0)
    descend(optimiser, 0.5 * x.square().sum(), 1.0, 0.5)
    torch.testing.assert_close(x.data, torch.tensor([2.7, 3.6]))
    descend(optimiser, 0.5 * x.square().sum(), 100.0)
    torch.testing.assert_close(x.data, torch.tensor([1.35, 1.8]))
