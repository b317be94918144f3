"""Each return against a plain-Python twin that follows its definition, not its recursion."""

import pytest
import torch

from posttrain.agents.kernel.returns import lambda_return, n_step_return, retrace, vtrace

SHAPES = [(1, 1), (2, 3), (7, 2), (12, 4)]


def experience(steps, columns):
    g = torch.Generator().manual_seed(steps * 31 + columns)
    reward, value, q = (torch.randn(steps, columns, generator=g, dtype=torch.float64) for _ in range(3))
    discount = 0.9 * (torch.rand(steps, columns, generator=g, dtype=torch.float64) > 0.2)
    ratio = 2 * torch.rand(steps, columns, generator=g, dtype=torch.float64)
    return reward, discount, value, torch.randn(columns, generator=g, dtype=torch.float64), q, ratio


def each(reward, rows):
    """[T, B] from a function of (t, b) in plain numbers."""
    return torch.tensor([[rows(t, b) for b in range(reward.shape[1])] for t in range(reward.shape[0])], dtype=torch.float64)


def after(value, bootstrap, t, b):
    return (value[t + 1][b] if t + 1 < len(value) else bootstrap[b]).item()


def product(numbers):
    result = 1.0
    for number in numbers:
        result *= number.item()
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_n_step_return_is_n_rewards_and_a_value(shape, n):
    reward, discount, value, bootstrap, _, _ = experience(*shape)

    def slow(t, b):
        total, weight = 0.0, 1.0
        for k in range(t, min(t + n, len(reward))):
            total += weight * reward[k, b].item()
            weight *= discount[k, b].item()
        end = min(t + n, len(reward))
        return total + weight * after(value, bootstrap, end - 1, b)

    assert torch.allclose(n_step_return(reward, discount, value, bootstrap, n), each(reward, slow))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_lambda_return_is_the_value_and_the_discounted_errors_after_it(shape, lambda_):
    reward, discount, value, bootstrap, _, _ = experience(*shape)

    def slow(t, b):
        total = value[t, b].item()
        for k in range(t, len(reward)):
            error = reward[k, b].item() + discount[k, b].item() * after(value, bootstrap, k, b) - value[k, b].item()
            total += product(discount[t:k, b]) * lambda_ ** (k - t) * error
        return total

    assert torch.allclose(lambda_return(reward, discount, value, bootstrap, lambda_), each(reward, slow))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lambda_", [0.0, 0.95, 1.0])
def test_retrace_is_the_sum_of_its_definition(shape, lambda_):
    reward, discount, value, bootstrap, q, ratio = experience(*shape)

    def slow(t, b):
        total = q[t, b].item()
        for k in range(t, len(reward)):
            error = reward[k, b].item() + discount[k, b].item() * after(value, bootstrap, k, b) - q[k, b].item()
            trace = product(lambda_ * ratio[t + 1 : k + 1, b].clamp(max=1.0))
            total += product(discount[t:k, b]) * trace * error
        return total

    assert torch.allclose(retrace(reward, discount, q, value, bootstrap, ratio, lambda_), each(reward, slow))


def test_retrace_on_policy_with_lambda_1_and_q_equal_to_its_mean_is_the_monte_carlo_return():
    reward, discount, value, bootstrap, _, _ = experience(9, 3)
    got = retrace(reward, discount, value, value, bootstrap, torch.ones_like(reward), 1.0)
    assert torch.allclose(got, n_step_return(reward, discount, value, bootstrap, 9))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lambda_", [0.5, 1.0])
def test_vtrace_is_the_sum_of_its_definition(shape, lambda_):
    reward, discount, value, bootstrap, _, ratio = experience(*shape)
    rho = ratio.clamp(max=1.0)

    def slow(t, b):
        if t == len(reward):
            return bootstrap[b].item()
        total = value[t, b].item()
        for k in range(t, len(reward)):
            error = rho[k, b].item() * (reward[k, b].item() + discount[k, b].item() * after(value, bootstrap, k, b) - value[k, b].item())
            total += product(discount[t:k, b]) * product(lambda_ * rho[t:k, b]) * error
        return total

    def slow_advantage(t, b):
        return rho[t, b].item() * (reward[t, b].item() + discount[t, b].item() * slow(t + 1, b) - value[t, b].item())

    target, advantage = vtrace(reward, discount, value, bootstrap, ratio, lambda_)
    assert torch.allclose(target, each(reward, slow))
    assert torch.allclose(advantage, each(reward, slow_advantage))
