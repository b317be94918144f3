"""Intervals cover the truth as often as they say: within one point of 95% over 10,000 draws of synthetic data.

Data repeat, so each distinct data set is asked about once.
"""

import pytest

from evals.bench_intervals import CASES, coverage


@pytest.mark.parametrize("case", [case for case in CASES if case.quick], ids=lambda case: case.name)
def test_the_interval_covers_at_its_nominal_rate(case):
    assert coverage(case, draws=10_000, seed=1) == pytest.approx(0.95, abs=0.01)
