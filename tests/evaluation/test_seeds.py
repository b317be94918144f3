"""Intervals over problems and seeds: by hand, against the plain formulas, and by how often they hold."""

import math

import numpy as np
import pytest
import scipy.stats

from posttrain.evaluation.metrics import summarise
from posttrain.evaluation.seeds import cells, crossed, crossed_difference, difference, measure, over_seeds, proportion
from posttrain.evaluation.stats import clustered_mean
from tests.evaluation.hand_made import each_its_problem, population


def test_the_variance_by_hand():
    cells_SG = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]])  # seeds differ by 2, problems by 1 and 2, nothing is left over
    found = crossed(cells_SG)
    assert found.mean == 2.0
    assert found.variance == pytest.approx(2 / 2 + 1 / 3)  # var(1, 3) / 2 seeds + var(1, 2, 3) / 3 problems
    assert found.df == pytest.approx((4 / 3) ** 2 / (1**2 / 1 + (1 / 3) ** 2 / 2))


def test_the_mean_squares_are_those_of_the_textbook():
    cells_SG = np.random.default_rng(1).normal(size=(4, 9)) + np.arange(4)[:, None] + np.arange(9) / 2
    num_s, num_g = cells_SG.shape
    grand = sum(cells_SG[s][g] for s in range(num_s) for g in range(num_g)) / (num_s * num_g)
    seed = [sum(row) / num_g for row in cells_SG]
    problem = [sum(cells_SG[s][g] for s in range(num_s)) / num_s for g in range(num_g)]
    ms_s = num_g * sum((m - grand) ** 2 for m in seed) / (num_s - 1)
    ms_g = num_s * sum((m - grand) ** 2 for m in problem) / (num_g - 1)
    rest = [cells_SG[s][g] - seed[s] - problem[g] + grand for s in range(num_s) for g in range(num_g)]
    ms_e = sum(r * r for r in rest) / ((num_s - 1) * (num_g - 1))
    assert crossed(cells_SG).variance == pytest.approx((ms_s + ms_g - ms_e) / (num_s * num_g))


def test_one_seed_gives_the_interval_over_problems():
    values = np.random.default_rng(2).normal(size=(1, 40))
    found, plain = crossed(values), clustered_mean(values[0], [1] * 40)
    assert found.mean - found.reach() * math.sqrt(found.variance) == pytest.approx(plain.low)
    assert found.p_value() == pytest.approx(scipy.stats.ttest_1samp(values[0], 0).pvalue)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("by_seed", "by_problem", "rest"), [(0, 1, 1), (0.1, 1, 1), (0.5, 0.5, 1), (0.02, 0.3, 0.6)])
def test_the_interval_holds_as_often_as_it_says(seeds, by_seed, by_problem, rest):
    rng, held, times = np.random.default_rng(3), 0, 800
    for _ in range(times):
        found = crossed(by_seed * rng.normal(size=(seeds, 1)) + by_problem * rng.normal(size=(1, 60)) + rest * rng.normal(size=(seeds, 60)))
        held += abs(found.mean) <= found.reach() * math.sqrt(found.variance)
    assert held / times >= 0.92  # 95% within what 800 draws and so few seeds allow; too wide only where seeds do not differ


def test_an_interval_over_problems_only_fails_where_seeds_differ():
    rng, held, times = np.random.default_rng(4), 0, 400
    for _ in range(times):
        pooled = crossed((0.5 * rng.normal(size=(3, 1)) + 0.5 * rng.normal(size=(1, 60)) + rng.normal(size=(3, 60))).mean(0, keepdims=True))
        held += abs(pooled.mean) <= pooled.reach() * math.sqrt(pooled.variance)
    assert held / times < 0.7


@pytest.mark.parametrize("paired", [True, False])
def test_a_difference_of_graded_attempts_holds_as_often_as_it_says(paired):
    """Two methods on the same problems; a seed makes a base model that both start from, and each method has luck of its own."""
    rng, held, times = np.random.default_rng(5), 0, 600
    for _ in range(times):
        problem, base = rng.uniform(-0.25, 0.25, (1, 80)), rng.uniform(-0.08, 0.08, (3, 1))
        chance = [0.5 + gain + problem + base + rng.uniform(-0.05, 0.05, (3, 1)) for gain in (0.0, 0.07)]
        first_SG, second_SG = (rng.binomial(2, p) / 2 for p in chance)
        found, _ = difference(second_SG - first_SG) if paired else difference(second_SG, first_SG)
        held += found.low <= 0.07 <= found.high
    assert held / times >= 0.92


def test_paired_seeds_tell_more_than_unpaired_ones_where_they_share_a_base():
    rng = np.random.default_rng(6)
    base_SG = 0.5 + rng.uniform(-0.2, 0.2, (3, 1)) + rng.uniform(-0.1, 0.1, (3, 50))
    better_SG = base_SG + 0.05 + rng.uniform(-0.02, 0.02, (3, 50))
    paired, p_paired = difference(better_SG - base_SG)
    unpaired, p_unpaired = difference(better_SG, base_SG)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high - paired.low < unpaired.high - unpaired.low
    assert p_paired < p_unpaired


def test_a_side_with_one_seed_is_taken_as_it_is():
    rng = np.random.default_rng(7)
    one_SG, many_SG = rng.normal(size=(1, 50)), rng.normal(size=(3, 50)) + np.array([[0.0], [1.0], [2.0]])
    found = crossed_difference(one_SG, many_SG)
    assert found.variance >= many_SG.mean(1).var(ddof=1) / 3
    assert found.mean == pytest.approx(many_SG.mean() - one_SG.mean())


def test_no_difference_at_all_is_not_certainty():
    found, p_value = difference(np.zeros((3, 100)))
    assert found.low < 0 < found.high
    assert p_value == 1.0


def test_a_share_of_all_or_nothing_has_an_interval():
    assert proportion(np.zeros((3, 100)), 600).high == pytest.approx(scipy.stats.t.ppf(0.975, 99) ** 2 / (100 + 3.937), rel=0.01)
    assert proportion(np.ones((3, 100)), 600).low < 1


def test_one_seed_is_its_own_summary():
    made = population(1, 50, acc=0.5, fix=0.3, broke=0.1, copy=0.5)
    assert over_seeds([measure(made, 0)]) == summarise(made)


def test_figures_over_seeds_are_means_of_the_seeds_and_keep_the_papers_identities():
    seeds = [measure(population(s, 120, acc=0.5, fix=0.3, broke=0.1, copy=0.5, samples=2), s) for s in range(3)]
    every = over_seeds(seeds)
    for name in ("delta", "fixed", "broken", "answer_change", "text_copy", "edit_ratio"):
        assert getattr(every, name).value == pytest.approx(np.mean([getattr(s.summary, name).value for s in seeds]))
    assert (
        every.delta.value == pytest.approx(every.acc[1].value - every.acc[0].value) == pytest.approx(every.fixed.value - every.broken.value)
    )
    assert every.fix_rate.value == pytest.approx(every.fixed.value / (1 - every.acc[0].value))
    assert every.break_rate.value == pytest.approx(every.broken.value / every.acc[0].value)
    assert (every.episodes, every.problems) == (720, 120)
    for found in (*every.acc, every.delta, every.fixed, every.broken, every.fix_rate, every.break_rate):
        assert found.low < found.value < found.high


def test_problems_that_one_seed_could_not_grade_are_left_out():
    seeds = [measure(each_its_problem("cc", "wc", "cw"), 0), measure(each_its_problem("cc", "uc", "cw"), 1)]
    assert cells(seeds, "acc_t2").tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert over_seeds(seeds).unscored == 1
    assert cells(seeds, "answer_change").shape == (2, 3)  # which needs no verdict
    with pytest.raises(ValueError, match="no problem has a verdict in every seed"):
        cells([measure(each_its_problem("cc", "uc"), 0), measure(each_its_problem("uc", "cc"), 1)], "acc_t2")
