"""Figures worked by hand."""

import math
import statistics

import pytest

from posttrain.evaluation.icl.curves import curves_of
from posttrain.evaluation.icl.log import Cost, Row
from posttrain.evaluation.stats import clustered_mean, paired_difference, wilson


def row(item: str, score: float | None, *, arm: str = "a", shots: int = 1, seed: int = 0, order: int = 0, **more) -> Row:
    return Row(arm=arm, shots=shots, seed=seed, order=order, item=item, score=score, **more)


def test_a_point_is_the_mean_with_wilsons_interval_over_items():
    (point,) = curves_of([row("i", 1.0), row("j", 0.0), row("k", 1.0), row("l", None)], []).points
    assert point.score == wilson(2, 3)
    assert (point.items, point.graded, point.unscored, point.too_long, point.nll, point.cost) == (4, 3, 1, 0, None, None)


def test_the_same_item_under_three_seeds_is_one_item_to_the_interval():
    once = curves_of([row(str(i), float(i % 2)) for i in range(20)], []).points[0]
    thrice = curves_of([row(str(i), float(i % 2), seed=seed) for i in range(20) for seed in range(3)], []).points[0]
    assert (thrice.score.value, thrice.seeds) == (0.5, {0: 0.5, 1: 0.5, 2: 0.5})
    assert thrice.score.high - thrice.score.low > 0.95 * (once.score.high - once.score.low)


def test_nll_is_nats_per_token_over_all_tokens():
    (point,) = curves_of([row("i", 1.0, nll=6.0, nll_tokens=3), row("j", 1.0, nll=1.0, nll_tokens=1), row("k", 1.0)], []).points
    assert point.nll == clustered_mean([6.0, 1.0], [3, 1])
    assert point.nll.value == 7 / 4
    assert point.nll_seeds == {0: 7 / 4}


def test_differences_pair_the_same_item_under_the_same_seed_and_leave_out_what_only_one_side_has():
    rows = [row("i", 0.0, nll=2.0, nll_tokens=1), row("j", 1.0, nll=4.0, nll_tokens=2), row("k", 1.0)]
    rows += [row("i", 1.0, shots=8, nll=1.0, nll_tokens=1), row("j", 1.0, shots=8, nll=3.0, nll_tokens=2), row("k", None, shots=8)]
    rows += [row("i", 0.0, shots=8, seed=1)]
    (difference,) = curves_of(rows, []).differences
    assert (difference.fewer, difference.more, difference.items) == (1, 8, 2)
    assert difference.score == paired_difference([1.0, 0.0], [1.0, 0.0], [1, 1])
    assert difference.nll.value == -2 / 3  # from 6 nats to 4 over three tokens


def test_a_metric_between_0_and_1_has_a_plain_interval():
    (point,) = curves_of([row("i", 0.25), row("j", 0.75)], []).points
    assert point.score == clustered_mean([0.25, 0.75], [1, 1])


def test_the_spread_over_orders_is_told_for_all_and_per_subject():
    scores = {0: (1.0, 1.0, 0.0, 0.0), 1: (0.0, 0.0, 1.0, 1.0), 2: (1.0, 1.0, 1.0, 0.0)}
    rows = [
        row(str(i), score, order=order, subject="geometry" if i < 2 else "algebra")
        for order, each in scores.items()
        for i, score in enumerate(each)
    ]
    whole, algebra, geometry = curves_of(rows, []).spreads
    assert (whole.subject, whole.lowest, whole.highest, whole.mean) == ("", 0.5, 0.75, pytest.approx(7 / 12))
    assert whole.deviation == statistics.stdev([0.5, 0.5, 0.75])
    assert (geometry.subject, geometry.lowest, geometry.highest, geometry.items) == ("geometry", 0.0, 1.0, 2)
    assert (algebra.subject, algebra.lowest, algebra.highest) == ("algebra", 0.0, 1.0)
    assert curves_of([r for r in rows if r.order == 0], []).spreads == []


def test_other_orders_count_in_the_mean_but_not_in_the_seeds_dots():
    (point,) = curves_of([row("i", 1.0), row("i", 0.0, order=1)], []).points
    assert (point.score.value, point.seeds) == (0.5, {0: 1.0})


def test_costs_are_per_item_that_was_sent():
    rows = [row("i", 1.0, prompt_tokens=100, answer_tokens=4), row("j", 1.0, prompt_tokens=102, answer_tokens=2)]
    rows.append(row("k", None, too_long=True, prompt_tokens=9999))
    spent = Cost(arm="a", shots=1, seed=0, order=0, items=2, answer_s=3.0, answer_tokens=202, answer_cached=96, score_s=1.0,
                 score_tokens=202, score_cached=192)  # fmt: skip
    (point,) = curves_of(rows, [spent]).points
    assert (point.cost.seconds, point.cost.score_s, point.cost.prompt_tokens, point.cost.answer_tokens) == (2.0, 0.5, 101.0, 3.0)
    assert point.cost.read_tokens == (404 - 288) / 2
    assert (point.too_long, point.unscored, point.graded) == (1, 0, 2)


def test_a_point_where_nothing_fits_has_no_score():
    curves = curves_of([row("i", None, too_long=True), row("i", 1.0, shots=8)], [])
    assert [point.score and point.score.value for point in curves.points] == [None, 1.0]
    assert curves.differences == []
    assert all(math.isfinite(v) for v in curves.as_record()["points"][1]["seeds"].values())
