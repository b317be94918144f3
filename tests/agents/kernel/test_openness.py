"""The questions asked of losses: four verdicts by construction, means by hand, and how often chance alone gets a claim through."""

import numpy as np
import pytest

from posttrain.agents.kernel.openness import HISTORIES, SHORTEST, _p_greater, _p_positive, histories, judge, means_of

COUNT = 480


def table(loss, noise=0.1, seed=0):
    """Rows of loss(t, T) in eighths of the stream, plus noise of each artifact that all observers share, and a little of their own."""
    draws = np.random.default_rng(seed)
    shared_T = draws.normal(0, noise, COUNT)
    rows = []
    for eighths in HISTORIES:
        start = COUNT * eighths // 8
        T = np.arange(start, COUNT)
        rows.append(loss(eighths, T * 8 / COUNT) + shared_T[start:] + draws.normal(0, noise / 3, len(T)))
    return rows


def rising(t, T):
    return 2 - np.exp(-(T - t) / 6)


@pytest.mark.parametrize(
    ("loss", "verdict"),
    [
        (rising, "open-ended"),
        (lambda t, T: 1 + 0.3 * T, "novel only"),
        (lambda t, T: 2 / (1 + t) + 0 * T, "learnable only"),
        (lambda t, T: 2 + 0 * T, "neither"),
        (lambda t, T: (2.0 if t == 0 else 0.1) + 0 * T, "learnable only"),  # known, and no cheaper for it
        (lambda t, T: np.where(T < 4, rising(t, T), 1.5 - t / 8), "learnable only"),  # rises no more in the second half
        (lambda t, T: rising(t, T) if t < 4 else 2 + 0.3 * T, "novel only"),  # learnt no more in the second half
    ],
)
def test_the_verdict_is_what_the_losses_were_made_for(loss, verdict):
    found = judge(table(loss))
    assert found.verdict == verdict


def test_what_rises_and_then_stays_is_not_novel():
    """Seen from any t the loss rises for a third of what follows, and no further."""
    found = judge(table(lambda t, T: 2 + np.minimum(T - t, (8 - t) / 3)))
    assert found.p_novel > 0.05
    assert all(rise.thirds[2] > rise.thirds[0] + 0.2 for rise in found.rises)


def test_histories_are_eighths():
    assert histories(480) == [0, 60, 120, 180, 240, 360]


def test_thirds_and_shares_are_means_of_the_losses():
    found = judge([np.arange(COUNT * e // 8, COUNT, dtype=float) + 100 for e in HISTORIES])
    # seen from 120: artifacts 120 to 239, 240 to 359, 360 to 479
    assert found.rises[0].thirds == pytest.approx((279.5, 399.5, 519.5))
    assert found.rises[0].rise[0] == pytest.approx(120)
    assert found.falls[0][:5] == pytest.approx((120, 240, 279.5, 279.5, 279.5))
    assert found.falls[0].fall == pytest.approx((0, 0, 0), abs=1e-12)


def test_blocks_are_consecutive():
    assert means_of(np.array([0.0, 2.0, 4.0, 6.0]), 2).tolist() == [1.0, 5.0]


def test_a_claim_that_fails_in_one_place_passes_as_often_as_alpha_says():
    """Learnt clearly everywhere but after the last history: chance has to carry that one place."""

    def short_of(t, T):
        return np.where(T >= 6, 1.0, 2 / (1 + t))

    def tables(seed):
        rows = table(short_of, seed=seed)
        own = np.random.default_rng(seed + 10_000).normal(0, 0.1, COUNT // 4)  # for the last quarter: exactly `least` cheaper
        rows[5] = rows[5] * 0 + 0.95 * (np.asarray(rows[3])[-COUNT // 4 :]) + own
        return rows

    passed = np.mean([judge(tables(seed), alpha=0.2).p_learnable <= 0.2 for seed in range(200)])
    assert 0.04 <= passed <= 0.16  # alpha is halved, as a place may also be passed by being known


def test_p_values_are_even_where_nothing_is_to_be_found():
    draws = np.random.default_rng(0)
    above = np.mean([_p_greater(draws.normal(size=12), draws.normal(size=12)) <= 0.1 for _ in range(800)])
    positive = np.mean([_p_positive(draws.normal(size=24)) <= 0.1 for _ in range(800)])
    assert above == pytest.approx(0.1, abs=0.04)
    assert positive == pytest.approx(0.1, abs=0.04)


def test_numbers_without_spread_are_compared_as_they_are():
    same, more = np.full(12, 0.5), np.full(12, 0.6)
    assert _p_greater(same, same) == 1.0
    assert _p_greater(more, same) == 0.0
    assert _p_positive(same * 0) == 1.0


def test_too_short_a_stream_is_refused():
    short = SHORTEST - 1
    with pytest.raises(ValueError, match=f"{short} artifacts are too few"):
        judge([[1.0] * (short - length) for length in histories(short)])
