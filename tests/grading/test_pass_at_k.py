import math
import statistics

import pytest

from posttrain.grading.pass_at_k import mean_pass_at_k, pass_at_k


def test_it_is_the_closed_form_on_a_grid():
    for n in range(1, 40):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)


def test_it_is_the_share_of_draws_with_a_right_sample_counted_by_hand():
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)  # 3 of the 6 pairs hold the right one
    assert pass_at_k(5, 3, 1) == pytest.approx(0.6)
    assert pass_at_k(5, 4, 2) == 1.0


def test_numbers_too_large_for_factorials_are_no_trouble():
    assert pass_at_k(100_000, 1, 100) == pytest.approx(0.001)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_counts_that_cannot_be_are_refused(n, c, k):
    with pytest.raises(ValueError, match="need 0 <= c <= n"):
        pass_at_k(n, c, k)


def test_the_standard_error_is_that_of_the_mean_over_problems():
    found = mean_pass_at_k([(4, 4), (4, 0), (4, 1)], 2)
    values = [1.0, 0.0, 0.5]
    assert found.value == pytest.approx(statistics.mean(values))
    assert found.standard_error == pytest.approx(statistics.stdev(values) / math.sqrt(3))


def test_there_is_no_estimate_where_a_problem_has_too_few_samples_and_no_error_of_one_problem():
    assert mean_pass_at_k([(4, 1), (1, 1)], 2) is None
    assert mean_pass_at_k([], 1) is None
    assert mean_pass_at_k([(4, 2)], 1).standard_error is None
