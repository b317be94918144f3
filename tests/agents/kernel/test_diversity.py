"""Diversity by hand, its reward against the gradient of what it is to raise, slow twins, and multipliers that find their bound."""

import math

import pytest
import torch

from posttrain.agents.kernel.diversity import (
    discrimination_reward,
    force,
    nearest,
    places,
    running,
    stepped_multipliers,
    task_share,
)


def psi(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_neighbours_by_hand():
    near = nearest(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]))
    assert near.neighbour.tolist() == [1, 2, 1]
    assert near.distance.tolist() == [5.0, 1.0, 1.0]
    assert near.difference.tolist() == [[-3.0, -4.0], [0.0, -1.0], [0.0, 1.0]]


def test_neighbours_are_those_of_a_plain_search_in_every_set():
    psi_BND = psi(3, 5, 4)
    near = nearest(psi_BND)
    for b, psi_ND in enumerate(psi_BND.tolist()):
        for i, mine in enumerate(psi_ND):
            distance, j = min((math.dist(mine, other), j) for j, other in enumerate(psi_ND) if j != i)
            assert near.neighbour[b, i].item() == j
            assert near.distance[b, i].item() == pytest.approx(distance)
            assert near.difference[b, i].tolist() == pytest.approx([x - y for x, y in zip(mine, psi_ND[j], strict=True)])


def test_a_set_of_one_has_no_neighbours():
    with pytest.raises(ValueError, match="at least two policies to be different, got 1"):
        nearest(torch.zeros(1, 4))


def test_the_force_is_gone_at_the_distance_of_rest_and_turns_beyond_it():
    assert force(torch.tensor([0.0, 0.5, 1.0, 2.0]), rest=1.0).tolist() == [1.0, 0.875, 0.0, -7.0]
    assert force(torch.tensor([0.0, 9.0]), rest=None).tolist() == [1.0, 1.0]


def term(psi_D, neighbour_D, rest):
    """A policy's own part of the diversity: 1/2 l^2, or 1/2 l^2 - 1/5 l^5 / l_0^3."""
    distance = math.dist(psi_D, neighbour_D)
    return distance**2 / 2 - (0 if rest is None else distance**5 / rest**3 / 5)


@pytest.mark.parametrize("rest", [None, 0.3, 2.0])
def test_the_reward_is_the_gradient_of_the_policys_own_part_of_the_diversity(rest):
    """f(l_i) phi . (psi_i - psi_j*) against finite differences in psi_i, the neighbour held still."""
    psi_ND, step = psi(4, 3), 1e-6
    near = nearest(psi_ND)
    reward_ND = force(near.distance, rest)[:, None] * near.difference  # of meeting each feature alone
    for i in range(4):
        neighbour_D = psi_ND[near.neighbour[i]].tolist()
        for d in range(3):
            moved = [[x + sign * step * (k == d) for k, x in enumerate(psi_ND[i].tolist())] for sign in (1, -1)]
            slope = (term(moved[0], neighbour_D, rest) - term(moved[1], neighbour_D, rest)) / (2 * step)
            assert reward_ND[i, d].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_following_the_reward_brings_a_set_to_the_distance_of_rest():
    psi_ND = psi(5, 3)
    for _ in range(3000):
        near = nearest(psi_ND)
        psi_ND = psi_ND + 0.05 * force(near.distance, 0.4)[:, None] * near.difference
    assert torch.allclose(nearest(psi_ND).distance, torch.tensor(0.4, dtype=torch.float64), atol=1e-3)


def test_a_discriminator_that_knows_pays_log_of_the_number_and_one_that_does_not_nothing():
    logits = torch.tensor([[50.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, math.log(5), 0.0, 0.0]])
    paid = discrimination_reward(logits, torch.tensor([0, 3, 1]))
    assert paid.tolist() == pytest.approx([math.log(4), 0.0, math.log(4 * 5 / 8)], abs=1e-6)


def test_the_first_policy_has_its_task_alone():
    assert task_share(torch.tensor([-9.0, 0.0, math.log(3)])).tolist() == pytest.approx([1.0, 0.5, 0.75])


def test_multipliers_go_down_the_gradient_of_what_they_minimise():
    multiplier_N = torch.tensor([0.7, 0.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    value_N = torch.tensor([10.0, 8.0, 9.5, 1.0], dtype=torch.float64)
    (multiplier_N.sigmoid() * (value_N - 0.9 * value_N[0]))[1:].sum().backward()
    stepped_N = stepped_multipliers(multiplier_N.detach(), value_N, alpha=0.9, rate=0.1, largest=15.0)
    assert torch.allclose(stepped_N, multiplier_N.detach() - 0.1 * multiplier_N.grad)
    assert stepped_N[1] > 0  # below 9: more of the task
    assert stepped_N[2] < -1  # above
    assert stepped_multipliers(multiplier_N.detach(), value_N, alpha=0.9, rate=1e6, largest=4.0).tolist() == [0.7, 4.0, -4.0, 4.0]


def test_a_running_average_starts_with_its_first_sample():
    average = running(torch.full((2,), torch.nan), torch.tensor([1.0, 3.0]), decay=0.9)
    assert average.tolist() == [1.0, 3.0]
    assert running(average, torch.tensor([2.0, 3.0]), decay=0.9).tolist() == pytest.approx([1.1, 3.0])


def test_a_place_is_closest_to_itself_and_closeness_sums_to_one():
    phi = places(torch.tensor([[-1.0, -1.0, 9.0], [1.0, -1.0, 9.0], [0.0, 0.2, 9.0]]), side=3)
    assert phi.sum(-1).tolist() == pytest.approx([1.0] * 3)
    assert phi.argmax(-1).tolist() == [0, 6, 4]
    slow = [[math.exp(-((x - 0.0) ** 2 + (y - 0.2) ** 2) / (2 * 0.5**2)) for y in (-1, 0, 1)] for x in (-1, 0, 1)]
    total = sum(map(sum, slow))
    assert phi[2].tolist() == pytest.approx([value / total for row in slow for value in row], rel=1e-5)
