import pytest

from posttrain.rl.guards import GuardConfig, alarms

CFG = GuardConfig(window=5)
HEALTHY = {
    **{f"train/acc_t{k}": 0.5 + 0.05 * k for k in (1, 2)},
    **{f"train/clip_t{k}": 0.05 for k in (1, 2)},
    **{f"train/gap_t{k}": 0.001 for k in (1, 2)},
    "train/answer_change": 0.2,
    "train/unscored": 0.0,
}


def history(steps: int = 20, **late: float) -> list[dict[str, float]]:
    """Healthy steps whose second half differs in `late`, given as acc_t1=... for train/acc_t1."""
    changed = HEALTHY | {f"train/{key}": value for key, value in late.items()}
    return [HEALTHY] * (steps // 2) + [changed] * (steps - steps // 2)


def test_a_healthy_run_raises_no_alarm():
    assert alarms(history(), CFG) == {}


@pytest.mark.parametrize(
    ("late", "name", "says"),
    [
        ({"acc_t1": 0.44}, "sabotage", "attempt 1 fell from 55.0% to 44.0%"),
        ({"answer_change": 0.01}, "copying", "only 1.0% of second attempts change the answer"),
        ({"clip_t1": 0.5}, "clipped_t1", "50% of attempts 1 are cut at max_tokens"),
        ({"clip_t2": 0.21}, "clipped_t2", "21% of attempts 2 are cut at max_tokens"),
        ({"gap_t1": 0.06}, "gap_t1", "differ by 0.060 nats per token in attempt 1"),
        ({"gap_t2": 1.0}, "gap_t2", "differ by 1.000 nats per token in attempt 2"),
        ({"unscored": 0.03}, "unscored", "failed on 3.0% of episodes"),
    ],
)
def test_each_fault_raises_its_own_alarm_and_no_other(late, name, says):
    found = alarms(history(**late), CFG)
    assert list(found) == [name]
    assert says in found[name]


@pytest.mark.parametrize(
    "late",
    [{"acc_t1": 0.46}, {"answer_change": 0.11}, {"clip_t1": 0.19}, {"gap_t1": 0.04}, {"unscored": 0.01}, {"acc_t1": 0.9, "acc_t2": 0.2}],
)
def test_what_stays_within_the_limits_raises_none(late):
    assert alarms(history(**late), CFG) == {}


def test_one_bad_step_among_good_ones_raises_none():
    assert alarms([*history(), HEALTHY | {"train/answer_change": 0.0, "train/acc_t1": 0.1}], CFG) == {}


def test_a_run_must_be_two_windows_long_before_it_is_judged():
    bad = [HEALTHY] * 5 + [HEALTHY | {"train/acc_t1": 0.0}] * 4
    assert alarms(bad, CFG) == {}
    assert list(alarms([*bad, bad[-1]], CFG)) == ["sabotage"]


def test_weights_that_did_not_arrive_are_told_at_the_first_step_and_at_any():
    stale = HEALTHY | {"train/gap_t2": 0.06}
    assert list(alarms([stale], CFG)) == ["gap_t2"]
    assert list(alarms([*history(), stale], CFG)) == ["gap_t2"]
    assert alarms([HEALTHY], CFG) == alarms([stale, HEALTHY], CFG) == {}


def test_a_fault_that_has_passed_raises_none():
    assert alarms([*history(unscored=0.5), *[HEALTHY] * 5], CFG) == {}


def test_every_attempt_of_a_longer_chain_is_watched():
    third = {"train/acc_t3": 0.6, "train/clip_t3": 0.5, "train/gap_t3": 0.5}
    assert sorted(alarms([HEALTHY | third] * 10, CFG)) == ["clipped_t3", "gap_t3"]
