import pytest

from posttrain.tasks.icl.gpqa import letter
from posttrain.types import DataError
from tests.tasks.icl.fixtures import FIXTURES, HOSTILE, fixture, icl_task, item, sources

GPQA = sources("gpqa_main.csv", "gpqa_diamond.csv")


def test_the_pool_is_the_main_set_without_the_diamond_questions():
    task = icl_task("gpqa", sources=GPQA)
    assert [problem.id for problem in task.load("test")] == ["gpqa/own01", "gpqa/own02"]
    assert [problem.id for problem in task.load("pool")] == ["gpqa/own03", "gpqa/own04", "gpqa/own05", "gpqa/own06"]


def test_a_question_shows_its_four_choices_and_the_reference_is_the_letter_of_the_right_one():
    for problem in icl_task("gpqa", sources=GPQA).load("pool"):
        listed = problem.question.partition("Answer Choices:\n")[2].splitlines()
        assert [line[:4] for line in listed] == ["(A) ", "(B) ", "(C) ", "(D) "]
        right = {"gpqa/own03": "the chloroplast", "gpqa/own04": "2 ohm", "gpqa/own05": "36", "gpqa/own06": "the activation energy"}
        assert f"{problem.reference.text} {right[problem.id]}" in listed
        assert problem.solution.endswith(f"\nFinal Answer: {problem.reference.text}")


def test_the_order_of_the_choices_depends_on_seed_and_record_alone(tmp_path):
    task = icl_task("gpqa", sources=GPQA)
    lines = (FIXTURES / "gpqa_diamond.csv").read_text()
    (tmp_path / "one.csv").write_text(lines)
    again = icl_task("gpqa", sources={"pool": fixture("gpqa_main.csv"), "test": str(tmp_path / "one.csv")})
    assert again.load("test") == task.load("test")
    seeds = [icl_task("gpqa", sources=GPQA, choice_seed=seed).load("pool") for seed in range(8)]
    assert len({problem.reference.text for pool in seeds for problem in pool}) == 4


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Final Answer: (C)", "C"),
        ("**Final answer:** (b).", "B"),
        ("The final answer is (D), since", "D"),
        ("Final Answer: A", "A"),
        ("Final Answer: (A)\nNo. Final Answer: (B)", "B"),
        ("Final Answer: \\boxed{C}", None),
        ("Final Answer: Because", None),
        ("Final Answer: A cat", None),
        ("Final Answer: (E)", None),
        ("(C)", None),
    ],
)
def test_the_letter_is_that_of_the_last_final_answer(text, read):
    assert letter(text) == read


def test_a_text_is_worth_one_for_the_right_letter_and_else_nothing():
    score = icl_task("gpqa", sources=GPQA).score
    assert score([(item("(C)"), "Final Answer: (C)"), (item("(C)"), "Final Answer: (A)"), (item("(C)"), "I pass")]) == [1.0, 0.0, 0.0]
    assert set(score([(item("(C)"), text) for text in HOSTILE])) == {0.0}


def test_a_record_with_two_equal_choices_is_an_error_with_its_line(tmp_path):
    lines = (FIXTURES / "gpqa_diamond.csv").read_text().replace("hydrogen", "chlorine")
    (tmp_path / "bad.csv").write_text(lines)
    with pytest.raises(DataError, match=r"bad.csv:4: two of the four choices are the same"):
        icl_task("gpqa", sources={"pool": fixture("gpqa_main.csv"), "test": str(tmp_path / "bad.csv")}).load("test")


def test_a_pool_of_test_questions_alone_is_an_error():
    with pytest.raises(DataError, match=r"every question of the pool .* is a test question"):
        icl_task("gpqa", sources=sources("gpqa_diamond.csv", "gpqa_diamond.csv")).load("pool")


def test_a_missing_column_is_an_error_that_lists_those_there_are(tmp_path):
    (tmp_path / "bad.csv").write_text("Record ID,Question\n1,why?\n")
    with pytest.raises(DataError, match=r"bad.csv:2: no field 'Correct Answer'; found 'Record ID', 'Question'"):
        icl_task("gpqa", sources={"test": str(tmp_path / "bad.csv")}).load("test")
