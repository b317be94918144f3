"""The losses against slow twins, and their expected gradients against exact ones on a policy small enough to enumerate."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from posttrain.rl.advantage import informative_rows, leave_one_out
from posttrain.rl.batch import Batch, collate
from posttrain.rl.loss import kl_estimate, kl_loss, reinforce
from posttrain.rl.reward import shaped_reward
from tests.rl.episodes import episode

ACTIONS = 3  # each attempt of the tabular policy is one of these tokens
RIGHT = 1
REFERENCE_1 = torch.tensor([0.5, -0.2, 0.1]).log_softmax(0)
REFERENCE_2 = torch.tensor([[0.1, 0.0, 0.3], [0.0, -0.4, 0.2], [0.7, 0.1, 0.0]]).log_softmax(1)


def tables() -> tuple[Tensor, Tensor]:
    """Logits of attempt 1, [A], and of attempt 2 given attempt 1, [A, A]."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(ACTIONS, generator=generator).requires_grad_(), torch.randn(ACTIONS, ACTIONS, generator=generator).requires_grad_()


def batch_of(pairs: list[tuple[int, int]]) -> Batch:
    """Rows of (prompt, y1, instruction, y2)."""
    ids = torch.tensor([[9, y1, 8, y2] for y1, y2 in pairs])
    turn = torch.tensor([[0, 1, 0, 2]]).expand(len(pairs), 4)
    return Batch(ids=ids, turn=turn, length=torch.full((len(pairs),), 4), sampler_logp=torch.zeros(len(pairs), 4), num_attempts=2)


def tabular_logp(first: Tensor, second: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    y1, y2 = torch.tensor(pairs).T
    logp1_B, logp2_B = first.log_softmax(0)[y1], second.log_softmax(1)[y1, y2]
    zero_B = torch.zeros_like(logp1_B)
    return torch.stack([zero_B, logp1_B, zero_B, logp2_B], dim=1)


def reward_of(pairs: list[tuple[int, int]]) -> Tensor:
    return torch.tensor([[float(y1 == RIGHT), float(y2 == RIGHT)] for y1, y2 in pairs])


PAIRS = list(itertools.product(range(ACTIONS), repeat=2))


def exact_gradient(weight: tuple[float, float], bonus: float, coef: tuple[float, float]) -> list[Tensor]:
    """Gradient of -J by enumeration: each attempt's own reward and KL, expectation over earlier attempts with no gradient to them."""
    first, second = tables()
    logp1_A, logp2_AA = first.log_softmax(0), second.log_softmax(1)
    objective = torch.zeros(())
    for y1, y2 in PAIRS:
        r1, r2 = float(y1 == RIGHT), float(y2 == RIGHT)
        if y2 == 0:  # attempt 1 counts once, not once per attempt 2
            objective = objective + logp1_A[y1].exp() * (weight[0] * r1 - coef[0] * (logp1_A[y1] - REFERENCE_1[y1]))
        shaped = weight[1] * (r2 + bonus * (r2 - r1)) - coef[1] * (logp2_AA[y1, y2] - REFERENCE_2[y1, y2])
        objective = objective + logp1_A[y1].exp().detach() * logp2_AA[y1, y2].exp() * shaped
    return list(torch.autograd.grad(-objective, [first, second]))


def expected_gradient(weight, bonus, coef, *, samples: int | None, estimator="k1_in_reward") -> list[Tensor]:
    """Expectation of the training gradient over every group of `samples` episodes (None: single episodes without a baseline)."""
    first, second = tables()
    reference_BT = tabular_logp(REFERENCE_1, REFERENCE_2, PAIRS)
    total = torch.zeros(())
    for group in itertools.product(range(len(PAIRS)), repeat=samples or 1):
        pairs = [PAIRS[i] for i in group]
        batch, logp_BT = batch_of(pairs), tabular_logp(first, second, pairs)
        prob = logp_BT.detach().sum().exp()
        kl_BK = kl_estimate(logp_BT.detach(), reference_BT[list(group)], batch, "k1_in_reward")
        shaped_BK = shaped_reward(reward_of(pairs), weight, bonus)
        if estimator == "k1_in_reward":
            shaped_BK = shaped_BK - torch.tensor(coef) * kl_BK
        advantage_BK = leave_one_out(shaped_BK, samples, torch.ones(len(pairs), dtype=torch.bool)) if samples else shaped_BK
        loss = reinforce(logp_BT, advantage_BK, batch, torch.full((2,), float(len(pairs))))
        loss = loss + kl_loss(logp_BT, reference_BT[list(group)], batch, torch.tensor(coef), len(pairs), estimator)
        total = total + prob * loss
    return list(torch.autograd.grad(total, [first, second]))


METHODS = {
    "plain": ((1.0, 1.0), 0.0, (0.01, 0.01)),
    "stage one": ((0.0, 1.0), 0.0, (0.5, 0.01)),
    "stage two": ((1.0, 1.0), 10.0, (0.01, 0.01)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("samples", [None, 2])
def test_the_expected_gradient_is_the_exact_one(method, samples):
    for expected, exact in zip(expected_gradient(*METHODS[method], samples=samples), exact_gradient(*METHODS[method])):
        torch.testing.assert_close(expected, exact, rtol=1e-4, atol=1e-6)


def test_the_bonus_never_reaches_the_tokens_of_attempt_one():
    with_bonus, without = (expected_gradient((1.0, 1.0), bonus, (0.01, 0.01), samples=2) for bonus in (10.0, 0.0))
    torch.testing.assert_close(with_bonus[0], without[0])
    assert (with_bonus[1] - without[1]).abs().max() > 0.1


def test_in_expectation_the_bonus_only_scales_what_attempt_two_earns():
    with_bonus, scaled = exact_gradient((1.0, 1.0), 10.0, (0.0, 0.0)), exact_gradient((1.0, 11.0), 0.0, (0.0, 0.0))
    torch.testing.assert_close(with_bonus[1], scaled[1])


def test_k2_in_the_loss_has_the_gradient_of_the_kl_and_k3_has_not():
    exact = exact_gradient((0.0, 0.0), 0.0, (1.0, 1.0))
    k2, k3 = (expected_gradient((0.0, 0.0), 0.0, (1.0, 1.0), samples=None, estimator=name) for name in ("k2_in_loss", "k3_in_loss"))
    torch.testing.assert_close(k2[0], exact[0], rtol=1e-4, atol=1e-6)
    assert (k3[0] - exact[0]).abs().max() > 1e-3


def test_reinforce_equals_its_slow_twin():
    episodes = [
        episode([([3, 4, 5], True), ([3], True)]),
        episode([([4], False), ([5, 6], True)], sample=1),
        episode([([6, 6], False), ([4, 3, 3, 3], False)], problem="q", context=3),
        episode([([5], True), ([5], False)], problem="q", sample=1),
    ]
    batch = collate(episodes, pad_id=0)
    logp_BT = -torch.rand(batch.ids.shape, generator=torch.Generator().manual_seed(1))
    advantage_BK = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, 0.0], [0.0, -0.5]])
    rows_K = informative_rows(advantage_BK, 2)
    expected = 0.0
    for i, e in enumerate(episodes):
        for k, turn in enumerate(e.turns):
            start = len(turn.prompt_ids)
            logp = sum(float(logp_BT[i, t]) for t in range(start, start + len(turn.completion.ids)))
            expected -= float(advantage_BK[i, k]) * logp / float(rows_K[k])
    assert math.isclose(float(reinforce(logp_BT, advantage_BK, batch, rows_K)), expected, rel_tol=1e-5)


def test_importance_weights_are_truncated_and_carry_no_gradient():
    batch = collate([episode([([3], True), ([4], True)])], pad_id=0)  # the sampler's log-probabilities are -0.5
    logp_BT = torch.zeros(batch.ids.shape, requires_grad=True)
    loss = reinforce(logp_BT, torch.ones(1, 2), batch, torch.ones(2), importance_cap=1.2)
    loss.backward()
    assert logp_BT.grad is not None
    torch.testing.assert_close(logp_BT.grad[0, [2, 5]], torch.tensor([-1.2, -1.2]))  # exp(0.5) = 1.65 is cut to 1.2
