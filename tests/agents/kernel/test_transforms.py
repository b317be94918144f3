"""Squashed values: inverse, mean, and two-hot codes, over numbers drawn by hypothesis."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posttrain.agents.kernel.transforms import Support, squash, unsquash

SUPPORT = Support(low=-3.0, high=4.0, num_atoms=29)
numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)
inside = st.floats(float(unsquash(torch.tensor(SUPPORT.low))) + 1e-3, float(unsquash(torch.tensor(SUPPORT.high))) - 1e-3)


@given(numbers)
def test_unsquash_undoes_squash(x):
    there = torch.tensor(x, dtype=torch.float64)
    assert float(unsquash(squash(there))) == pytest.approx(x, rel=1e-4, abs=1e-4)


@given(numbers, numbers)
def test_squash_keeps_order_and_sign(x, y):
    a, b = squash(torch.tensor([x, y], dtype=torch.float64))
    assert (x < y) == bool(a < b)
    assert float(a) * x >= 0


def test_squash_by_hand():
    assert squash(torch.tensor([0.0, 3.0, -8.0])).tolist() == pytest.approx([0.0, 1.003, -2.008])


@given(inside)
def test_the_mean_of_a_two_hot_code_is_the_number(x):
    probs = SUPPORT.two_hot(torch.tensor(x, dtype=torch.float64))
    assert float(probs.sum()) == pytest.approx(1.0)
    assert int((probs > 0).sum()) <= 2
    assert bool((probs >= 0).all())
    assert float(SUPPORT.mean(probs.clamp(min=1e-300).log())) == pytest.approx(x, rel=1e-6, abs=1e-6)


def test_a_number_beyond_the_ends_is_the_end():
    low, high = SUPPORT.two_hot(torch.tensor([-1e5, 1e5]))
    assert low[0] == 1
    assert high[-1] == 1


def test_cross_entropy_is_least_at_the_code_itself():
    x = torch.tensor([0.3, -1.0])
    own = SUPPORT.cross_entropy(SUPPORT.two_hot(x).clamp(min=1e-9).log(), x)
    other = SUPPORT.cross_entropy(SUPPORT.two_hot(x + 0.5).clamp(min=1e-9).log(), x)
    assert bool((own < other).all())
