"""What a grader must never get wrong: a right answer, a wrong one, none at all; and no test problem may be trained on."""

import pytest
import task


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_problems_own_solution_passes(split):
    assert all(task.grade(problem, problem.solution).correct for problem in task.load(split))


def test_a_wrong_answer_fails():
    problem = task.load("test")[0]
    assert task.grade(problem, "Sorted: 1 2 3").status == "wrong"


@pytest.mark.parametrize("text", ["", "Sorted:", "I do not know", "\\boxed{1 2 3}", "\x00" * 1000])
def test_text_without_an_answer_is_no_answer(text):
    assert task.grade(task.load("test")[0], text).status == "no_answer"


def test_no_test_problem_is_a_training_problem():
    assert {p.reference.text for p in task.load("test")}.isdisjoint(p.reference.text for p in task.load("train"))
