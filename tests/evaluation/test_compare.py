"""Two checkpoints on the same problems: differences, exact tests, what could have been seen, and which items changed."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from posttrain import cli
from posttrain.config import ConfigError
from posttrain.evaluation.compare import as_text, compare_evaluations, corrected, evaluations
from posttrain.evaluation.stats import detectable_gap, mcnemar, paired_difference
from posttrain.rollout.store import write_episodes
from tests.evaluation.hand_made import each_its_problem, episode, population
from tests.evaluation.on_disk import put_evaluation


def put(folder, episodes, suite="held_out", **how):
    return put_evaluation(folder / "eval" / suite, episodes, how.pop("model", f"m (weights {folder.name})"), **how).parents[1]


@pytest.fixture
def two(tmp_path):
    """A: 4 of 6 right at last; B: 4 of 6, two gained and two lost."""
    a = put(tmp_path / "a", each_its_problem("cc", "cc", "wc", "wc", "ww", "ww"))
    b = put(tmp_path / "b", each_its_problem("ww", "cc", "wc", "ww", "wc", "cc"))
    return a, b


def test_counts_and_p_value_are_mcnemars_by_hand(two):
    (found,) = corrected([compare_evaluations(*each) for each in evaluations(*two, None)])
    first, last, delta = found.measures
    assert (first.first, first.second, first.gained, first.lost) == (2 / 6, 2 / 6, 1, 1)
    assert (last.first, last.second, last.gained, last.lost, last.p_value) == (4 / 6, 4 / 6, 2, 2, 1.0)
    assert delta.difference.value == 0.0
    assert [(c.problem, c.before, c.after) for c in found.changed] == [
        ("p4", 0, 1), ("p5", 0, 1), ("p0", 1, 0), ("p3", 1, 0),
    ]  # fmt: skip


def test_a_clear_gain_stands_with_holms_correction(tmp_path):
    a = put(tmp_path / "a", each_its_problem(*["ww"] * 30, *["cc"] * 10))
    b = put(tmp_path / "b", each_its_problem(*["cc"] * 12, *["ww"] * 18, *["cc"] * 10))
    (found,) = corrected([compare_evaluations(*each) for each in evaluations(a, b, None)])
    assert [each.p_value for each in found.measures] == [2 / 2**12, 2 / 2**12, 1.0]
    assert [each.holm for each in found.measures] == [pytest.approx(6 / 2**12), pytest.approx(6 / 2**12), 1.0]
    assert [(each.gained, each.lost) for each in found.measures] == [(12, 0), (12, 0), (0, 0)]
    assert found.measures[1].difference.low > 0
    assert found.measures[1].bootstrap.value == pytest.approx(found.measures[1].difference.value)


def test_samples_of_one_problem_are_not_counted_as_problems(tmp_path):
    def sampled(*marks):
        return [episode(m, problem=f"p{i}", sample=s) for i, each in enumerate(marks) for s, m in enumerate(each)]

    a = put(tmp_path / "a", sampled(["ww"] * 8, ["cc"] * 8))
    b = put(tmp_path / "b", sampled(["cc"] * 8, ["cc"] * 8))
    (found,) = [compare_evaluations(*each) for each in evaluations(a, b, None)]
    assert found.measures[0].exact
    assert found.measures[0].p_value == 1.0  # eight samples, one problem
    assert found.samples == (8, 8)


def test_other_numbers_of_samples_are_compared_without_an_exact_test(tmp_path):
    a = put(tmp_path / "a", population(1, 80, acc=0.3, fix=0.2, broke=0.1, copy=0.5))
    b = put(tmp_path / "b", population(1, 80, acc=0.9, fix=0.2, broke=0.1, copy=0.5, samples=3))
    (found,) = [compare_evaluations(*each) for each in evaluations(a, b, None)]
    assert not found.measures[0].exact
    assert found.measures[0].p_value < 1e-6
    assert "else of t" in as_text([found], ("a", "b"), 3)


def test_problems_of_one_side_only_or_unscored_are_left_out_and_told(tmp_path):
    a = put(tmp_path / "a", [*each_its_problem("cc", "cc", "uc"), episode("ww", problem="of a alone")])
    b = put(tmp_path / "b", each_its_problem("cc", "wc", "cc", "cc"))
    (found,) = [compare_evaluations(*each) for each in evaluations(a, b, None)]
    assert found.problems == 2
    assert "3 problems have a verdict on one side only" in " ".join(found.notes)


def test_what_was_evaluated_otherwise_is_told(tmp_path):
    a = put(tmp_path / "a", each_its_problem("cc", "ww"), samples=1, model="m (weights 1)")
    b = put(tmp_path / "b", each_its_problem("cc", "cc"), samples=2, model="m (weights 1)")
    (found,) = [compare_evaluations(*each) for each in evaluations(a, b, None)]
    assert found.notes == ("evaluated otherwise: samples differ", "both sides are the same weights: m (weights 1)")


@pytest.mark.parametrize("problems", [150, 500])
def test_a_gap_of_the_detectable_size_is_seen_four_times_in_five(problems):
    """Simulated: the gap that one draw tells is planted in others, with as much disagreement."""
    rng = np.random.default_rng(3)
    disagree = 0.25

    def draw(gap):
        up, down = (disagree + gap) / 2, (disagree - gap) / 2
        kinds = rng.multinomial(problems, [up, down, 1 - up - down])
        return paired_difference(
            [1] * kinds[0] + [-1] * kinds[1] + [0] * kinds[2], [1] * (kinds[0] + kinds[1]) + [0] * kinds[2], [1] * problems
        )

    gap = float(np.mean([detectable_gap(draw(0.0)) for _ in range(20)]))
    seen = sum(draw(gap).low > 0 for _ in range(2000)) / 2000
    assert seen == pytest.approx(0.8, abs=0.04)


def test_mcnemar_is_the_exact_binomial_on_every_count_up_to_60():
    for fixed in range(61):
        for broken in range(61 - fixed):
            n, least = fixed + broken, min(fixed, broken)
            tail = Fraction(sum(math.comb(n, i) for i in range(least + 1)), 2**n)
            assert mcnemar(fixed, broken) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-12)
            if n:
                assert mcnemar(fixed, broken) == pytest.approx(scipy.stats.binomtest(fixed, n).pvalue, rel=1e-9)


def test_the_command_prints_the_table_and_keeps_every_item(two, tmp_path, capsys):
    a, b = map(str, two)
    assert cli.main(["compare", a, b, "--items", "1", "--out", str(tmp_path / "c.json")]) == 0
    said = capsys.readouterr().out
    assert "held_out: 6 problems" in said
    assert "2 gained at the last attempt" in said
    assert "... and 1 more" in said
    assert len(json.loads((tmp_path / "c.json").read_text())["suites"][0]["changed"]) == 4


def test_every_suite_of_both_runs_is_compared_and_one_can_be_chosen(tmp_path, capsys):
    for run in ("a", "b"):
        for suite in ("gsm8k", "math500", f"only_{run}"):
            put(tmp_path / run, each_its_problem("cc", "ww"), suite=suite)
    assert [name for name, _, _ in evaluations(tmp_path / "a", tmp_path / "b", None)] == ["gsm8k", "math500"]
    assert [name for name, _, _ in evaluations(tmp_path / "a", tmp_path / "b", "math500")] == ["math500"]
    with pytest.raises(ConfigError, match=r"no suite 'only_a' that both were evaluated on: .*a has gsm8k, math500, only_a and .*only_b"):
        evaluations(tmp_path / "a", tmp_path / "b", "only_a")


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()])
def test_a_folder_without_an_evaluation_is_one_clear_line(two, tmp_path, capsys, make):
    make(tmp_path / "nothing")
    assert cli.main(["compare", str(two[0]), str(tmp_path / "nothing")]) == 2
    assert "nothing: " in capsys.readouterr().err


def test_no_problem_in_common_is_one_clear_line(tmp_path, capsys):
    put(tmp_path / "a", [episode("cc", problem="x"), episode("ww", problem="y")])
    put(tmp_path / "b", [episode("cc", problem="z"), episode("ww", problem="w")])
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "no problem has a verdict in both" in capsys.readouterr().err


def test_single_attempts_are_compared_as_well(tmp_path):
    for name, marks in (("a", "wwc"), ("b", "ccc")):
        (tmp_path / name).mkdir()
        write_episodes(tmp_path / name / "episodes.jsonl", each_its_problem(*marks))
    (found,) = [compare_evaluations(*each) for each in evaluations(tmp_path / "a", tmp_path / "b", None)]
    assert [each.name for each in found.measures] == ["Acc@t1"]
    assert found.suite == "a against b"
