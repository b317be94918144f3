"""avg@n, pass@k and maj@k against counting every choice by hand, and accuracy per group."""

from dataclasses import replace
from itertools import combinations

import pytest

from posttrain import cli
from posttrain.evaluation.groups import grouped
from posttrain.evaluation.metrics import NothingScored
from posttrain.evaluation.samples import accuracy_by, as_text, sampled
from posttrain.evaluation.stats import wilson
from posttrain.rollout.store import write_episodes
from posttrain.types import UnitTests
from tests.evaluation.hand_made import each_its_problem, episode


def samples_of(*marks: str, answers=None):
    """One problem per argument, one sample per letter; a wrong answer is 8 but for those given."""
    return [
        episode(mark, problem=f"p{i}", sample=s, answers=[answers[i][s]] if answers else None)
        for i, each in enumerate(marks)
        for s, mark in enumerate(each)
    ]


def test_pass_at_k_is_the_mean_over_every_choice_of_k():
    marks = ["cwww", "ccww", "wwww"]
    (attempt,) = sampled(samples_of(*marks)).attempts
    for k, found in attempt.pass_at.items():
        each = [[any(mark == "c" for mark in choice) for choice in combinations(m, k)] for m in marks]
        assert found.value == pytest.approx(sum(sum(e) / len(e) for e in each) / 3)
        assert found.low <= found.value <= found.high
    assert list(attempt.pass_at) == [1, 2, 4]
    assert attempt.avg.value == attempt.pass_at[1].value == 3 / 12


def test_maj_at_n_lets_the_most_frequent_answer_win():
    answers = [["7", "7", "5"], ["7", "5", "5"], ["7", "5", "6"]]
    (attempt,) = sampled(samples_of("ccw", "cww", "cww", answers=answers)).attempts
    assert attempt.maj_at[3].value == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert attempt.maj_at[1].value == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)


def test_programs_are_not_voted_on():
    made = [replace(e, problem=replace(e.problem, reference=UnitTests(entry_point="f", code="assert f()"))) for e in samples_of("cw", "ww")]
    assert sampled(made).attempts[0].maj_at == {}
    assert sampled(made).attempts[0].pass_at[2].value == 0.5


def test_every_attempt_has_figures_of_its_own():
    found = sampled([episode(marks, problem=f"p{i}", sample=s) for i in range(3) for s, marks in enumerate(("wc", "ww"))])
    assert [attempt.avg.value for attempt in found.attempts] == [0.0, 0.5]
    assert [attempt.pass_at[2].value for attempt in found.attempts] == [0.0, 1.0]
    assert "t2 pass@2" in "\n".join(as_text(found))


def test_one_sample_has_wilsons_interval_and_the_three_intervals_agree():
    found = sampled(each_its_problem(*["c"] * 60, *["w"] * 40)).attempts[0]
    assert found.avg == wilson(60, 100)
    for other in (found.analytic, found.bootstrap):
        assert (other.value, other.low, other.high) == pytest.approx((0.6, found.avg.low, found.avg.high), abs=0.012)


def test_a_problem_with_an_unscored_sample_is_left_out_of_choices_and_counted():
    found = sampled(samples_of("cc", "cu", "ww"))
    assert (found.problems, found.episodes, found.unscored) == (3, 6, 1)
    assert found.attempts[0].avg.value == 3 / 5
    assert found.attempts[0].pass_at[2].value == 0.5
    with pytest.raises(NothingScored, match="by hand"):
        sampled(samples_of("uu"))


def test_groups_are_by_level_subject_and_quarters_of_length():
    made = [episode("c" if i < 5 else "w", problem=f"p{i}", level=str(i % 2 + 9), subject="Algebra") for i in range(8)]
    made = [replace(e, problem=replace(e.problem, question="x" * (10 * i + 1))) for i, e in enumerate(made)]
    assert {name: e.value for name, e in accuracy_by(made, "level").items()} == {"9": 3 / 4, "10": 2 / 4}
    assert {name: e.value for name, e in accuracy_by(made, "subject").items()} == {"Algebra": 5 / 8}
    assert {name: [e.problem.id for e in group] for name, group in grouped(made, "length").items()} == {
        "1-11 characters": ["p0", "p1"],
        "12-31 characters": ["p2", "p3"],
        "32-51 characters": ["p4", "p5"],
        "52-71 characters": ["p6", "p7"],
    }


def test_a_report_says_that_it_has_nothing_to_tell_of_single_attempts(tmp_path, capsys):
    write_episodes(tmp_path / "episodes.jsonl", each_its_problem("c", "w"))
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds single attempts" in capsys.readouterr().err
