"""Recurrent cores: one interface, the step of acting against the stretch learnt from, and resets that forget all."""

import pytest
import torch

from posttrain.agents.kernel.cores import GRU, LSTM, Transformer, rotated, rotations
from posttrain.agents.kernel.s5 import S5

CORES = {
    "s5": lambda: S5(8, 2, 8),
    "s5, bilinear, no norm": lambda: S5(8, 2, 8, "bilinear", norm=False),
    "gru": lambda: GRU(8, 2),
    "lstm": lambda: LSTM(8, 2),
    "transformer": lambda: Transformer(8, 2, 2, window=50),
    "transformer, short window": lambda: Transformer(8, 2, 2, window=7),
}
cores = pytest.mark.parametrize("make", CORES.values(), ids=CORES)


def experience(steps=40, columns=4):
    torch.manual_seed(1)
    reset = torch.rand(steps, columns) < 0.1
    reset[0, 0] = reset[-1, 1] = True
    reset[:, 3] = False
    return torch.randn(steps, columns, 8), reset


@cores
def test_the_step_of_acting_gives_what_the_stretch_gives(make):
    torch.manual_seed(0)
    core, (x, reset) = make(), experience()
    _, state = core(torch.randn(5, 4, 8), torch.zeros(5, 4, dtype=torch.bool), core.first_state(4))  # something to carry in
    whole, end = core(x, reset, state)
    step, outs = core.stepper(), []
    for x_BH, reset_B in zip(x, reset, strict=True):
        y_BH, state = step(x_BH, reset_B, state)
        outs.append(y_BH)
    assert torch.allclose(torch.stack(outs), whole, rtol=1e-5, atol=1e-5)
    y, again = core(x[:3], torch.zeros(3, 4, dtype=torch.bool), state)
    expected, _ = core(x[:3], torch.zeros(3, 4, dtype=torch.bool), end)
    assert torch.allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert [x.shape for x in again] == [x.shape for x in end] == [x.shape for x in core.first_state(4)]


@cores
def test_a_reset_is_a_new_beginning(make):
    torch.manual_seed(0)
    core, (x, reset) = make(), experience()
    reset[17] = True
    whole, end = core(x, reset, core.first_state(4))
    fresh, fresh_end = core(x[17:], reset[17:], core.first_state(4))
    assert torch.allclose(whole[17:], fresh, atol=1e-6)
    after = [core(x[:5], torch.zeros(5, 4, dtype=torch.bool), state)[0] for state in (end, fresh_end)]
    assert torch.allclose(*after, atol=1e-6)


@cores
def test_without_a_reset_the_past_is_known_and_the_future_is_not(make):
    torch.manual_seed(0)
    core, (x, _) = make(), experience(12)
    x.requires_grad_()
    core(x, torch.zeros(12, 4, dtype=torch.bool), core.first_state(4))[0][6].sum().backward()
    reached = x.grad.abs().sum((1, 2)) > 0
    assert reached.nonzero().flatten().tolist() == list(range(7))


@cores
def test_the_gradient_reaches_the_state_carried_in(make):
    torch.manual_seed(0)
    core, (x, _) = make(), experience(6)
    reset = torch.zeros(6, 4, dtype=torch.bool)
    reset[0, 0] = True
    _, state = core(x, reset & False, core.first_state(4))
    state = tuple(part.detach().requires_grad_(part.dtype.is_floating_point or part.dtype.is_complex) for part in state)
    core(x, reset, state)[0].square().sum().backward()
    for part in state:
        if part.requires_grad:
            assert part.grad[0].abs().sum() == 0
            assert part.grad[1].abs().sum() > 0


def test_a_transformer_knows_no_more_than_its_window():
    torch.manual_seed(0)
    core, (x, _) = Transformer(8, 1, 2, window=4), experience(12)
    x.requires_grad_()
    core(x, torch.zeros(12, 4, dtype=torch.bool), core.first_state(4))[0][9].sum().backward()
    assert (x.grad.abs().sum((1, 2)) > 0).nonzero().flatten().tolist() == [6, 7, 8, 9]


def test_a_transformer_may_begin_without_any_cache():
    torch.manual_seed(0)
    core, (x, reset) = Transformer(8, 2, 2, window=50), experience()
    empty = tuple(part[:, :0] if part.dim() == 2 else part[..., :0, :] for part in core.first_state(4))
    (short, state), (whole, _) = core(x, reset, empty), core(x, reset, core.first_state(4))
    assert torch.allclose(short, whole, atol=1e-6)
    again, padded = core(x, reset & False, state)[0], core(x, reset & False, core(x, reset, core.first_state(4))[1])[0]
    assert torch.allclose(again, padded, atol=1e-6)


def test_rotations_tell_distances_alone():
    torch.manual_seed(0)
    q, k = torch.randn(1, 6), torch.randn(1, 6)
    angles = rotations(torch.arange(20), 6)
    score = lambda s, t: (rotated(q, angles[s, None]) * rotated(k, angles[t, None])).sum().item()  # noqa: E731
    assert score(5, 3) == pytest.approx(score(17, 15), abs=1e-5)
    assert score(5, 3) != pytest.approx(score(5, 4), abs=1e-3)


def test_a_width_that_cannot_be_rotated_is_refused():
    with pytest.raises(ValueError, match=r"multiple of 2 \* heads = 8.*got 12"):
        Transformer(12, 1, 4, window=5)
