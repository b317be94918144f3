import pytest

from posttrain.rl.adaptive_kl import kl_coefficients


def test_without_a_target_coefficients_stay():
    assert kl_coefficients([0.1, 0.01], None, [{"train/kl_t1": 9.0, "train/kl_t2": 9.0}]) == (0.1, 0.01)


def test_a_coefficient_grows_while_the_kl_is_above_its_target_and_shrinks_below_it():
    history = [{"train/kl_t1": kl, "train/kl_t2": 5.0} for kl in (0.55, 0.5, 0.0, 100.0)]
    first, second = kl_coefficients([0.1, 0.01], [0.5, None], history)
    assert first == pytest.approx(0.1 * 1.01 * 1.0 * 0.98 * 1.02)  # at most 2% a step either way
    assert second == 0.01
