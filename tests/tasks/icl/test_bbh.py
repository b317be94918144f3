import pytest

from posttrain.tasks.icl.bbh import final_answer
from posttrain.types import DataError
from tests.tasks.icl.fixtures import HOSTILE, fixture, icl_task, item

FILES = {"source": fixture("bbh/{name}.json"), "prompts": fixture("bbh/{name}.txt")}


def test_pool_and_test_are_disjoint_parts_of_one_file_and_another_seed_draws_others():
    task = icl_task("bbh", **FILES, pool_items=5, test_items=4)
    pool, test = task.load("pool"), task.load("test")
    assert (len(pool), len(test)) == (5, 4)
    assert not {problem.question for problem in pool} & {problem.question for problem in test}
    assert icl_task("bbh", **FILES, test_items=4, draw_seed=1).load("test") != test


def test_the_pool_has_targets_but_no_rationales():
    for problem in icl_task("bbh", **FILES, test_items=4).load("pool"):
        assert problem.reference.text == " ".join(sorted(problem.question.rpartition(": ")[2].split()))
        assert problem.solution == ""


def test_the_few_shot_prompt_is_the_authors_three_worked_problems():
    worked = icl_task("bbh", **FILES).load("few_shot")
    assert [problem.reference.text for problem in worked] == ["clay sand stone", "ant bee moth wasp", "chair desk lamp"]
    assert worked[2].question == "Sort the following words alphabetically: List: lamp chair desk"
    assert worked[0].solution.startswith("Look at the first letters:")
    assert worked[0].solution.endswith("So the answer is clay sand stone.")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("So the answer is (B).", "(B)"),
        ("the answer is no. Wait.\nSo the answer is  a  b .", "a b"),
        ("The answer is: **-12**.", "-12"),
        ("The answer is ] ) }.", "] ) }"),
        ("answer is", ""),
        ("it is 5", None),
    ],
)
def test_the_final_answer_stands_after_the_last_answer_is(text, read):
    assert final_answer(text) == read


def test_a_text_is_worth_one_for_the_target_letter_for_letter():
    score = icl_task("bbh", **FILES).score
    texts = ["So the answer is ant bee.", "So the answer is bee ant.", "So the answer is Ant bee.", "ant bee"]
    assert score([(item("ant bee"), text) for text in texts]) == [1.0, 0.0, 0.0, 0.0]
    assert set(score([(item("ant bee"), text) for text in HOSTILE])) == {0.0}


def test_a_file_with_too_few_problems_is_an_error_with_both_numbers():
    with pytest.raises(DataError, match="has 10 problems, so none are left for the pool after 100 to test on"):
        icl_task("bbh", **FILES).load("test")


def test_without_prompt_files_there_is_no_few_shot_prompt():
    with pytest.raises(DataError, match=r"no few-shot prompt; set task.prompts"):
        icl_task("bbh", source=FILES["source"]).load("few_shot")


def test_a_prompt_file_without_an_answer_is_an_error_that_names_the_problem(tmp_path):
    (tmp_path / "x.txt").write_text("-----\nSort.\n\nQ: b a\nA: Let's think step by step.\na b, so there.\n")
    with pytest.raises(DataError, match=r"x.txt: problem 1 has no .*'answer is'"):
        icl_task("bbh", source=FILES["source"], prompts=str(tmp_path / "x.txt")).load("few_shot")
