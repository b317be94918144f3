"""The pieces of PPO, by hand."""

import math

import pytest
import torch

from posttrain.agents.kernel.ppo import clipped_loss, drawn, entropy, normalised


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.1, 2.0, -2.2), (1.5, 2.0, -2.4), (0.5, 2.0, -1.0), (1.5, -2.0, 3.0), (0.5, -2.0, 1.6), (1.0, 0.0, 0.0)],
)
def test_the_clipped_loss_takes_the_worse_of_both(ratio, advantage, expected):
    got = clipped_loss(torch.tensor([math.log(ratio)]), torch.zeros(1), torch.tensor([advantage]), 0.2)
    assert got.item() == pytest.approx(expected)


@pytest.mark.parametrize(("ratio", "advantage", "moves"), [(1.3, 1.0, False), (0.7, 1.0, True), (0.7, -1.0, False), (1.3, -1.0, True)])
def test_a_probability_beyond_the_clip_is_pushed_no_further_but_may_come_back(ratio, advantage, moves):
    logp = torch.tensor([math.log(ratio)], requires_grad=True)
    clipped_loss(logp, torch.zeros(1), torch.tensor([advantage]), 0.2).backward()
    assert (logp.grad.item() != 0) is moves


def test_advantages_are_normalised_and_equal_ones_are_zero():
    assert normalised(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-1, 1])
    assert normalised(torch.full((5,), 2.0)).tolist() == [0] * 5


def test_entropy_by_hand():
    assert entropy(torch.tensor([0.0, 0.0])).item() == pytest.approx(math.log(2))
    assert entropy(torch.tensor([0.25, 0.75]).log()).item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))


def test_actions_are_drawn_by_their_probabilities_and_come_with_their_logs():
    probs = torch.tensor([0.1, 0.0, 0.6, 0.3])
    action, logp = drawn(probs.log().expand(20_000, 4), torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.bincount(action, minlength=4) / 20_000, probs, atol=0.02, rtol=0)
    torch.testing.assert_close(logp, probs.log()[action])
