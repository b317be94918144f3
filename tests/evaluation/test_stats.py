import math
import random
from itertools import product

import numpy as np
import pytest
import scipy.stats

from posttrain.evaluation.stats import clustered_mean, clustered_proportion, mcnemar, paired_bootstrap, paired_difference, sign_flip, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (264, 500)])
def test_wilson_is_scipys(successes, n):
    theirs = scipy.stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    ours = wilson(successes, n)
    assert (ours.value, ours.low, ours.high) == pytest.approx((successes / n, theirs.low, theirs.high))


def test_wilson_of_none_in_ten_by_hand():  # z^2 = 3.8415; high = z^2 / (n + z^2)
    assert wilson(0, 10).low == 0.0
    assert wilson(0, 10).high == pytest.approx(3.8415 / 13.8415, abs=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


@pytest.mark.parametrize(
    ("fixed", "broken", "p"),
    [(29, 7, 3e-4), (25, 5, 3e-4), (27, 18, 0.23), (13, 11, 0.84)],
    ids=["SCoRe on MATH", "SCoRe on HumanEval", "Pair-SFT", "STaR+"],
)
def test_mcnemar_gives_the_published_counts_their_p_values(fixed, broken, p):
    assert mcnemar(fixed, broken) == pytest.approx(p, rel=0.2 if p < 0.01 else 0.02)
    assert mcnemar(fixed, broken) == mcnemar(broken, fixed) == pytest.approx(scipy.stats.binomtest(fixed, fixed + broken).pvalue)


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(5, 0) == 2 / 2**5
    assert mcnemar(4, 1) == pytest.approx(2 * (1 + 5) / 2**5)


def test_sign_flip_is_mcnemar_for_one_sample_per_problem():
    for fixed, broken in [(0, 0), (5, 0), (4, 1), (29, 7), (27, 18), (300, 250)]:
        assert sign_flip([1] * fixed + [-1] * broken + [0] * 17) == pytest.approx(mcnemar(fixed, broken), rel=1e-9)


def test_sign_flip_counts_every_choice_of_signs():
    rng = random.Random(0)
    for _ in range(50):
        differences = [rng.randint(-4, 4) for _ in range(rng.randint(0, 9))]
        sums = [abs(sum(sign * d for sign, d in zip(signs, differences))) for signs in product((1, -1), repeat=len(differences))]
        share = sum(s >= abs(sum(differences)) for s in sums) / len(sums)
        assert sign_flip(differences) == pytest.approx(share)


def test_sign_flip_does_not_take_repeated_samples_for_evidence():
    assert sign_flip([8]) == 1.0  # one problem, eight samples all fixed: still one problem
    assert mcnemar(8, 0) < 0.01


def slow_clustered_mean(values: list[list[float]]) -> tuple[float, float, float]:
    flat = [v for cluster in values for v in cluster]
    mean, groups = sum(flat) / len(flat), len(values)
    squares = sum(sum(v - mean for v in cluster) ** 2 for cluster in values)
    half = scipy.stats.t.ppf(0.975, groups - 1) * math.sqrt(groups / (groups - 1) * squares) / len(flat)
    return mean, mean - half, mean + half


def test_clustered_mean_is_its_slow_twin():
    rng = random.Random(1)
    for _ in range(20):
        values = [[rng.random() for _ in range(rng.randint(1, 5))] for _ in range(rng.randint(2, 12))]
        ours = clustered_mean([sum(v) for v in values], [len(v) for v in values])
        assert (ours.value, ours.low, ours.high) == pytest.approx(slow_clustered_mean(values))


def test_clustered_mean_of_single_samples_is_students_interval():
    values = [0.2, 0.4, 0.9, 0.1, 0.7]
    low, high = scipy.stats.t.interval(0.95, 4, loc=np.mean(values), scale=scipy.stats.sem(values))
    ours = clustered_mean(values, [1] * 5)
    assert (ours.low, ours.high) == pytest.approx((low, high))


def test_one_problem_alone_tells_no_spread():
    assert clustered_mean([3], [8]).high == math.inf


def test_a_copied_sample_adds_no_certainty():
    right, times = [1, 0, 1, 1, 0, 1, 0, 1], 6
    copies = [times * r for r in right]
    once, copied = clustered_proportion(right, [1] * 8), clustered_proportion(copies, [times] * 8)
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.06)  # n_eff is 47/6 instead of 8
    difference, again = paired_difference(right, right, [1] * 8), paired_difference(copies, copies, [times] * 8)
    assert (again.low, again.high) == pytest.approx((difference.low, difference.high))


def test_independent_samples_keep_their_worth():
    rng = np.random.default_rng(0)
    totals = rng.binomial(4, 0.6, size=3000)
    clustered, plain = clustered_proportion(totals, [4] * 3000), wilson(totals.sum(), 12000)
    assert clustered.high - clustered.low == pytest.approx(plain.high - plain.low, rel=0.05)


def test_a_perfect_score_counts_problems_and_not_samples():
    assert clustered_proportion([8] * 10, [8] * 10) == wilson(10, 10)


def test_paired_difference_is_bonett_and_prices_interval_by_hand():
    fixed, broken, n = 29, 7, 500
    up, down = (fixed + 1) / (n + 2), (broken + 1) / (n + 2)
    half = 1.96 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    differences = [1] * fixed + [-1] * broken + [0] * (n - fixed - broken)
    ours = paired_difference(differences, [abs(d) for d in differences], [1] * n)
    assert ours.value == 22 / 500
    assert (ours.low, ours.high) == pytest.approx((up - down - half, up - down + half), rel=5e-3)  # t with 501 degrees, not z


def test_no_change_at_all_is_not_certainty():
    ours = paired_difference([0] * 50, [0] * 50, [1] * 50)
    assert ours.value == 0.0
    assert ours.low < -0.03
    assert ours.high > 0.03


def sample_differences(rng: np.random.Generator, problems: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Per problem, the sum of differences and the number of changed samples; most problems are settled, a few often change."""
    up = rng.choice([0.0, 0.02, 0.5], p=[0.6, 0.3, 0.1], size=problems)
    down = rng.choice([0.0, 0.02, 0.3], p=[0.6, 0.3, 0.1], size=problems)
    uniform = rng.random((problems, samples))
    fixed, broken = uniform < up[:, None], uniform > 1 - down[:, None]
    return (fixed.astype(int) - broken).sum(axis=1), (fixed | broken).sum(axis=1)


@pytest.mark.parametrize(("problems", "samples"), [(60, 1), (400, 1), (60, 8), (200, 4)])
def test_the_interval_of_delta_covers_the_truth(problems, samples):
    truth = 0.3 * 0.02 + 0.1 * 0.5 - (0.3 * 0.02 + 0.1 * 0.3)
    rng, trials = np.random.default_rng(7), 1500
    found = [paired_difference(*sample_differences(rng, problems, samples), [samples] * problems) for _ in range(trials)]
    covered = sum(e.low <= truth <= e.high for e in found) / trials
    assert 0.935 <= covered <= 0.992  # 60 problems with one sample have about five changes: there the exact coverage is above nominal


def test_an_interval_that_ignored_clusters_would_not_cover():
    truth = 0.02
    rng, trials = np.random.default_rng(7), 500
    covered = 0
    for _ in range(trials):
        totals, changed = sample_differences(rng, 200, 8)
        n, mean = 1600, totals.sum() / 1600
        covered += abs(mean - truth) < 1.96 * math.sqrt((changed.sum() / n - mean**2) / n)
    assert covered / trials < 0.85


@pytest.mark.parametrize("samples", [1, 6])
def test_the_interval_of_an_accuracy_covers_the_truth(samples):
    rng, trials = np.random.default_rng(3), 1500
    covered = 0
    for _ in range(trials):
        right = rng.binomial(samples, rng.beta(1.2, 0.4, size=80))
        found = clustered_proportion(right, [samples] * 80)
        covered += found.low <= 0.75 <= found.high
    assert 0.935 <= covered / trials <= 0.97


def test_sign_flip_rejects_a_true_hypothesis_at_most_as_often_as_it_says():
    rng, trials = np.random.default_rng(5), 1000
    rejected = 0
    for _ in range(trials):
        difficulty = rng.beta(0.5, 0.5, size=60)
        differences = rng.binomial(4, difficulty) - rng.binomial(4, difficulty)
        rejected += sign_flip(differences) < 0.05
    assert rejected / trials < 0.065


def test_the_bootstrap_agrees_with_the_formula():
    rng = np.random.default_rng(11)
    first, second = rng.binomial(4, 0.5, size=300), rng.binomial(4, 0.6, size=300)
    drawn = paired_bootstrap((first, [4] * 300), (second, [4] * 300), seed=0)
    formula = clustered_mean(second - first, [4] * 300)
    assert (drawn.value, drawn.low, drawn.high) == pytest.approx((formula.value, formula.low, formula.high), abs=4e-3)


def test_the_bootstrap_keeps_pairs_together():
    rng = np.random.default_rng(12)
    first = rng.binomial(1, 0.5, size=200)
    drawn = paired_bootstrap((first, [1] * 200), (first, [1] * 200), seed=0, draws=200)
    assert (drawn.low, drawn.high) == (0.0, 0.0)


def test_the_bootstrap_repeats_with_its_seed():
    first, second = ([1, 0, 2, 4, 3, 3, 1], [4] * 7), ([3, 0, 2.5, 4, 2, 1, 0.5], [4] * 7)
    assert paired_bootstrap(first, second, seed=1) == paired_bootstrap(first, second, seed=1)
    assert paired_bootstrap(first, second, seed=1) != paired_bootstrap(first, second, seed=2)


def test_both_sides_of_a_comparison_need_the_same_problems():
    with pytest.raises(ValueError, match="same problems"):
        paired_bootstrap(([1, 1], [1, 1]), ([1], [1]), seed=0)
