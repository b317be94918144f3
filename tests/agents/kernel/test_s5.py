"""S5: its scan against the recurrence step by step, its discretisations against the differential equation, its start against HiPPO."""

import math

import pytest
import torch

from posttrain.agents.kernel import s5
from posttrain.agents.kernel.s5 import S5, S5Layer, bilinear, hippo_n, scan, zero_order_hold


def step_by_step(a_P, b_TBP, reset_TB, state_BP):
    """The recurrence as it is written."""
    states = []
    for b_BP, reset_B in zip(b_TBP, reset_TB, strict=True):
        before_BP = torch.where(reset_B[:, None], torch.zeros_like(state_BP), state_BP)
        state_BP = a_P * before_BP + b_BP
        states.append(state_BP)
    return torch.stack(states)


def problem(steps, dtype, resets, columns=3, states=5):
    real = dtype.to_real()
    a_P = torch.polar(1 - 0.05 * torch.rand(states, dtype=real), 6 * torch.rand(states, dtype=real))
    return a_P, torch.randn(steps, columns, states, dtype=dtype), resets(steps, columns), torch.randn(columns, states, dtype=dtype)


def none(steps, columns):
    return torch.zeros(steps, columns, dtype=torch.bool)


def ends(steps, columns):
    reset_TB = none(steps, columns)
    reset_TB[0, 0] = reset_TB[-1, 1] = True
    return reset_TB


RESETS = {
    "none": none,
    "first and last": ends,
    "some": lambda t, b: torch.rand(t, b) < 0.1,
    "all": lambda t, b: ~none(t, b),
}


@pytest.fixture(params=[False, True], ids=["chunks", "one walk"])
def wide(request, monkeypatch):
    monkeypatch.setattr(s5, "WIDE", 1 if request.param else 10**9)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("resets", RESETS.values(), ids=RESETS)
@pytest.mark.parametrize("steps", [1, 2, 3, 17, 64, 257, 1000])
def test_the_scan_is_the_recurrence(steps, resets):
    torch.manual_seed(steps)
    for dtype, tolerance in ((torch.complex64, 1e-5), (torch.complex128, 1e-12)):
        a_P, b_TBP, reset_TB, state_BP = problem(steps, dtype, resets)
        wide = torch.complex128
        expected = step_by_step(a_P.to(wide), b_TBP.to(wide), reset_TB, state_BP.to(wide))
        assert (scan(a_P, b_TBP, reset_TB, state_BP) - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("resets", RESETS.values(), ids=RESETS)
@pytest.mark.parametrize("steps", [1, 2, 7, 13])
def test_the_gradient_of_the_scan_is_that_of_differences(steps, resets):
    torch.manual_seed(steps)
    a_P, b_TBP, reset_TB, state_BP = problem(steps, torch.complex128, resets, columns=2, states=2)
    inputs = [x.requires_grad_() for x in (a_P, b_TBP, state_BP)]
    assert torch.autograd.gradcheck(lambda a, b, state: scan(a, b, reset_TB, state), inputs)


def test_nothing_before_a_reset_reaches_what_comes_after_it_nor_the_other_way_round():
    torch.manual_seed(0)
    a_P, b_TBP, reset_TB, state_BP = problem(40, torch.complex64, none)
    reset_TB[23] = True
    b_TBP.requires_grad_()
    scan(a_P, b_TBP, reset_TB, state_BP)[30].abs().sum().backward()
    reached = b_TBP.grad.abs().sum((1, 2)) > 0
    assert reached.nonzero().flatten().tolist() == list(range(23, 31))


def test_two_halves_of_a_sequence_are_the_whole():
    torch.manual_seed(0)
    core, x, reset = S5(6, 2, 8), torch.randn(50, 3, 6), torch.rand(50, 3) < 0.1
    whole, end = core(x, reset, core.first_state(3))
    first, state = core(x[:21], reset[:21], core.first_state(3))
    second, state = core(x[21:], reset[21:], state)
    assert torch.allclose(torch.cat([first, second]), whole, atol=1e-5)
    assert torch.allclose(state[0], end[0], atol=1e-5)


def test_hippo_n_is_the_normal_part_of_hippo():
    num = 8
    n = torch.arange(num, dtype=torch.float64)
    legs = -torch.tril((2 * n[:, None] + 1).sqrt() * (2 * n + 1).sqrt(), -1) - torch.diag(n + 1)
    normal = legs + (n[:, None] + 0.5).sqrt() * (n + 0.5).sqrt()
    eigenvalue_P, vectors_NP = hippo_n(num)
    assert torch.allclose(eigenvalue_P.real, torch.full((4,), -0.5, dtype=torch.float64))
    assert bool((eigenvalue_P.imag > 0).all())
    assert torch.allclose(normal.to(vectors_NP.dtype) @ vectors_NP, vectors_NP * eigenvalue_P)
    both = torch.cat([vectors_NP, vectors_NP.conj()], 1)
    assert torch.allclose(both @ both.mH, torch.eye(num, dtype=both.dtype))


def test_the_hold_solves_the_equation_for_an_input_that_stays_and_bilinear_comes_near_it():
    """x' = lambda x + 1 from x = 0 is (exp(lambda t) - 1) / lambda; lambda = -1, t = ln 2 gives 1/2 for both what is left and what came."""
    eigenvalue, delta = torch.tensor([-1.0]), torch.tensor([math.log(2)])
    assert [x.item() for x in zero_order_hold(eigenvalue, delta)] == pytest.approx([0.5, 0.5])
    half = math.log(2) / 2
    assert [x.item() for x in bilinear(eigenvalue, delta)] == pytest.approx([(1 - half) / (1 + half), math.log(2) / (1 + half)])
    small = torch.tensor([0.01])
    assert bilinear(eigenvalue, small)[0].item() == pytest.approx(zero_order_hold(eigenvalue, small)[0].item(), abs=1e-6)


def test_bilinear_is_stable_for_any_step():
    eigenvalue = torch.complex(-torch.rand(100), 100 * torch.randn(100))
    assert bilinear(eigenvalue, 10 * torch.rand(100))[0].abs().max() <= 1


@pytest.mark.parametrize("discretisation", ["zoh", "bilinear"])
def test_a_layer_is_the_real_output_of_all_conjugate_pairs(discretisation):
    """Kept one of each pair, 2 Re(C x): the same as all 2 P states of the full real system."""
    torch.manual_seed(0)
    layer = S5Layer(3, 4, discretisation, (0.05, 0.1))
    u, reset = torch.randn(9, 1, 3), torch.zeros(9, 1, dtype=torch.bool)
    got, _ = layer(u, reset, layer.first_state(1))
    pair = lambda x: torch.cat([x, x.conj()], 0)  # noqa: E731
    eigenvalue, b = pair(torch.view_as_complex(layer.eigenvalue_P2)), pair(torch.view_as_complex(layer.b_PH2))
    c = pair(torch.view_as_complex(layer.c_HP2).T).T
    a, factor = s5.DISCRETISATIONS[discretisation](eigenvalue, pair(layer.log_delta_P).exp())
    x, outs = torch.zeros(4, dtype=torch.complex64), []
    for u_H in u[:, 0]:
        x = a * x + factor * (b @ u_H.to(b.dtype))
        outs.append(c @ x + layer.d_H * u_H)
    expected = torch.stack(outs)
    assert expected.imag.abs().max() < 1e-5
    assert torch.allclose(got[:, 0], expected.real, atol=1e-5)


def test_a_layer_remembers_as_long_as_its_timescales_say():
    torch.manual_seed(0)
    for timescales, remembers in (((1e-3, 1e-1), True), ((1.0, 2.0), False)):
        layer = S5Layer(4, 16, "zoh", timescales)
        u = torch.randn(128, 1, 4, requires_grad=True)
        layer(u, torch.zeros(128, 1, dtype=torch.bool), layer.first_state(1))[0][-1].sum().backward()
        assert (u.grad[0].norm() > 1e-3 * u.grad[-1].norm()).item() is remembers


def test_eigenvalues_never_reach_zero():
    layer = S5Layer(4, 8, "zoh", (1e-3, 1e-1))
    layer.eigenvalue_P2.data[:, 0] = 3.0
    assert layer.discretised()[0].abs().max() < 1


def test_an_odd_number_of_states_is_refused():
    with pytest.raises(ValueError, match=r"even number of states.*got 7"):
        S5Layer(4, 7, "zoh", (1e-3, 1e-1))
