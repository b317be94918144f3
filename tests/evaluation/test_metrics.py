import dataclasses
import json

import pytest
import scipy.stats

from posttrain.evaluation.metrics import acc_at, breakdown, compare, delta_of, edit_distance_ratio, flat, from_row, outcome, summarise
from posttrain.evaluation.stats import mcnemar, wilson
from tests.evaluation.hand_made import each_its_problem, episode, population


def counts(kept: int, fixed: int, broken: int, wrong: int):
    return each_its_problem(*["cc"] * kept, *["wc"] * fixed, *["cw"] * broken, *["ww"] * wrong)


def test_the_papers_score_row_comes_out_of_its_counts():  # MATH500: 60.0 -> 64.4, 29 fixed, 7 broken
    found = summarise(counts(293, 29, 7, 171))
    assert [round(100 * acc.value, 1) for acc in found.acc] == [60.0, 64.4]
    assert round(100 * found.delta.value, 1) == 4.4
    assert (round(100 * found.fixed.value, 1), round(100 * found.broken.value, 1)) == (5.8, 1.4)
    assert (found.num_fixed, found.num_broken) == (29, 7)
    assert found.p_value == pytest.approx(3e-4, rel=0.2)
    assert found.acc[0] == wilson(300, 500)
    assert 0.019 < found.delta.low < found.delta.value < found.delta.high < 0.069


def test_conditional_rates_have_their_own_denominators():
    found = summarise(counts(kept=6, fixed=1, broken=2, wrong=3))
    assert found.fix_rate == wilson(1, 4)
    assert found.break_rate == wilson(2, 8)
    assert (found.fixed, found.broken) == (wilson(1, 12), wilson(2, 12))


def test_conditional_rates_of_nothing_are_none():
    assert summarise(counts(3, 0, 0, 0)).fix_rate is None
    assert summarise(counts(0, 0, 0, 3)).break_rate is None


def test_unscored_episodes_count_neither_as_right_nor_as_wrong():
    found = summarise(each_its_problem("cc", "wc", "uc", "cu"))
    assert (found.unscored, found.episodes) == (2, 4)
    assert [acc.value for acc in found.acc] == [0.5, 1.0]


def test_a_grader_that_failed_everywhere_is_an_error_and_says_why():
    with pytest.raises(ValueError, match="all 2 episodes have an unscored verdict; the first says 'by hand'"):
        summarise(each_its_problem("uu", "uc"))


@pytest.mark.parametrize(("answers", "changed"), [(("7", "7"), 0), (("7", "8"), 1), ((None, None), 0), (("7", None), 1), ((None, "7"), 1)])
def test_an_answer_changes_if_the_final_answers_differ(answers, changed):
    assert summarise([episode("ww", answers=answers)]).answer_change.value == changed


def test_a_rewritten_text_with_the_same_answer_is_a_change_of_text_only():
    found = summarise([episode("cc", texts=("a b", "a  b"), problem="1"), episode("cc", texts=("a", "a"), problem="2")])
    assert (found.answer_change.value, found.text_copy.value) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("first", "second", "ratio"), [("", "", 0), ("abc", "abc", 0), ("abc", "", 1), ("kitten", "sitting", 3 / 13), ("ab", "cd", 0.5)]
)
def test_edit_distance_ratio_by_hand(first, second, ratio):
    assert edit_distance_ratio(first, second) == pytest.approx(ratio)


def test_clip_rate_and_tokens_are_told_per_attempt():
    found = summarise([episode("ww", finish=("length", "stop"), problem="1"), episode("ww", finish=("length", "length"), problem="2")])
    assert found.clip == (1.0, 0.5)
    assert found.tokens == (3.0, 3.0)


def test_samples_of_one_problem_are_one_piece_of_evidence():
    alone = summarise(each_its_problem(*["wc"] * 6, *["ww"] * 6))
    copied = summarise([episode("wc" if p < 6 else "ww", problem=f"p{p}", sample=s) for p in range(12) for s in range(8)])
    assert alone.p_value == mcnemar(6, 0)
    assert copied.p_value == pytest.approx(alone.p_value)
    assert copied.num_fixed == 48
    assert (copied.delta.low, copied.delta.high) == pytest.approx((alone.delta.low, alone.delta.high))


def test_the_identity_of_delta_holds_over_many_populations():
    for seed in range(10):
        found = summarise(population(seed, 60, acc=0.6, fix=0.2, broke=0.1, copy=0.6, samples=3))
        assert found.delta.value == pytest.approx(found.acc[1].value - found.acc[0].value)
        assert found.delta.value == pytest.approx(found.fixed.value - found.broken.value)
        assert found.p_value <= 1


def test_any_two_of_k_attempts_may_be_paired():
    three = each_its_problem("wcw", "wwc", "ccc", "cww")
    assert summarise(three, first=2, second=3).between == (2, 3)
    assert summarise(three, first=2, second=3).delta.value == pytest.approx(0.0)
    assert summarise(three, first=1, second=3).delta.value == pytest.approx(0.0)
    assert [acc.value for acc in summarise(three).acc] == [0.5, 0.5, 0.5]
    assert outcome(three[1], 1, 2) == "fixed"


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match=r"attempts 1 and 2, found episodes of \[1\]"):
        summarise([episode("c")])
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        summarise([episode("cc"), episode("ccc")])
    with pytest.raises(ValueError, match="no episodes"):
        summarise([])


def test_groups_come_in_natural_order_and_unnamed_ones_are_left_out():
    found = breakdown(
        [episode("cc", problem=str(i), level=level) for i, level in enumerate(["10 digits", "2 digits", "", "2 digits"])], "level"
    )
    assert list(found) == ["2 digits", "10 digits"]
    assert found["2 digits"].episodes == 2


def test_two_models_are_compared_over_the_problems_that_both_have():
    weak, strong = each_its_problem("cc", "ww", "ww", "cw"), each_its_problem("cc", "wc", "uu", "cc")
    assert compare(weak, strong, acc_at(2)).value == pytest.approx(2 / 3)  # the third is unscored on one side
    assert compare(weak, strong, delta_of).value == pytest.approx(2 / 3)
    assert compare(weak, strong, acc_at(1)).value == 0.0
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(weak, each_its_problem("uu"), acc_at(2))


def test_a_comparison_finds_the_better_model():
    weak, strong = (population(1, 500, acc=0.6, fix=fix, broke=0.05, copy=0.5) for fix in (0.05, 0.4))
    found = compare(weak, strong, delta_of)
    assert 0.05 < found.low < found.value < found.high < 0.25


def test_paired_p_value_is_scipys_on_a_population():
    found = summarise(population(4, 400, acc=0.6, fix=0.2, broke=0.05, copy=0.6))
    assert found.p_value == pytest.approx(scipy.stats.binomtest(found.num_fixed, found.num_fixed + found.num_broken).pvalue)


def test_a_summary_survives_json():
    found = summarise(population(5, 50, acc=0.5, fix=0.2, broke=0.2, copy=0.5))
    assert from_row(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_the_flat_row_carries_the_prefix_and_plain_numbers():
    row = flat(summarise(counts(6, 1, 2, 3)), "val/")
    assert row["val/acc_t1"] == pytest.approx(8 / 12)
    assert row["val/delta"] == pytest.approx(-1 / 12)
    assert row["val/answer_change"] == pytest.approx(3 / 12)
    assert all(isinstance(value, (int, float)) for value in row.values())
