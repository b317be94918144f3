"""Evaluation counts first episodes only; intervals are Student's."""

import pytest
import torch

from posttrain.agents.kernel.charts import Panel, draw, interval, ratio_interval
from posttrain.agents.kernel.envs.catch import Catch
from posttrain.agents.kernel.rollout import returns_of


def follow(obs):
    """Stand below the ball of a 10 x 5 board."""
    ball, paddle = obs[:, :45].view(-1, 9, 5).sum(1).argmax(1), obs[:, 45:].argmax(1)
    return 1 + (ball > paddle).long() - (ball < paddle).long()


def test_a_perfect_paddle_scores_one_and_an_idle_one_what_chance_gives():
    draws = torch.Generator().manual_seed(0)
    assert returns_of(Catch(200), follow, draws).tolist() == [1.0] * 200
    idle = returns_of(Catch(2_000), lambda obs: torch.ones(len(obs), dtype=torch.long), draws)
    assert idle.mean().item() == pytest.approx(0.2 - 0.8, abs=0.06)
    assert returns_of(Catch(50), follow, draws, gamma=0.5)[0].item() == 0.5**8


def test_an_interval_by_hand():
    mean, low, high = interval([1.0, 2.0, 3.0])  # t of 2 degrees at 97.5% is 4.3027, s / sqrt(3) = 0.57735
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - 4.3027 * 0.57735, 2.0 + 4.3027 * 0.57735), rel=1e-4)
    assert interval([5.0]) == (5.0, 5.0, 5.0)


def test_a_ratio_of_paired_means_by_hand():
    assert ratio_interval([2.0, 4.0], [1.0, 2.0]) == pytest.approx((2.0, 2.0, 2.0))  # twice as much on every seed
    ratio, low, high = ratio_interval([1.0, 3.0], [2.0, 2.0])  # sd of (1, 3) - (2, 2) is sqrt(2), t of one degree 12.706
    assert (ratio, high - ratio) == pytest.approx((1.0, 12.706 / 2), rel=1e-3)
    assert ratio - low == pytest.approx(high - ratio)


def test_a_figure_is_drawn(tmp_path):
    draw(tmp_path / "a.png", [Panel("one", ["x", "y"], {"a": [[1, 2], [3, 4]], "b": [[2, 2], [1, 5]]}, "number", log=True)])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
