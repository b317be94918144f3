import json

import pytest

from posttrain.types import DataError
from tests.tasks.icl.fixtures import FIXTURES, HOSTILE, SHARED, icl_task, item, sources

MATH = sources("math_train.jsonl", "math_test.jsonl")


def test_math_takes_shots_from_its_pool_and_tests_on_its_test_split():
    task = icl_task("math", sources=MATH, test_items=2)
    assert [problem.id for problem in task.load("test")] == ["own/algebra/1", "own/algebra/2"]
    assert len(task.load("pool")) > 2  # the limit is for test items alone


def test_transfer_has_math_shots_and_gsm8k_items():
    task = icl_task("gsm8k_transfer", sources=sources("math_train.jsonl", "gsm8k_test.jsonl"), test_items=1)
    assert task.load("pool")[0].question == icl_task("math", sources=MATH).load("pool")[0].question
    (tested,) = task.load("test")
    assert tested.question == json.loads((FIXTURES / "gsm8k_test.jsonl").read_text().splitlines()[0])["question"]


def test_the_few_shot_prompt_is_looked_up_in_the_pool_whatever_its_white_space():
    pool = icl_task("math", sources=MATH).load("pool")
    starts = [" ".join(problem.question[:30]) for problem in pool[1::-1]]
    assert icl_task("math", sources=MATH, few_shot=starts).load("few_shot") == pool[1::-1]


def test_a_few_shot_problem_that_the_pool_lacks_is_an_error_that_names_it():
    with pytest.raises(DataError, match=r"few-shot prompt's problem 'Find the domain.*not in the pool of \d+; set task.few_shot"):
        icl_task("math", sources=MATH).load("few_shot")


def test_minervas_four_problems_are_in_maths_training_set():
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    task = icl_task("math", sources={"pool": str(SHARED / "math_train.jsonl.gz"), "test": str(SHARED / "math500.jsonl")})
    assert [problem.reference.text for problem in task.load("few_shot")] == ["[2,5)", "24", "16", r"-\frac{2}{3}"]


@pytest.mark.parametrize("kind", ["math", "gsm8k_transfer"])
def test_a_text_is_worth_its_final_answer(kind):
    score = icl_task(kind, sources=MATH).score
    texts = [r"so \boxed{0.5}", r"Final Answer: The final answer is $\frac{2}{4}$. I hope it is correct.", r"\boxed{2}", "one half"]
    assert score([(item(r"\frac12"), text) for text in texts]) == [1.0, 1.0, 0.0, 0.0]


def test_whatever_a_model_writes_has_a_worth():
    worth = icl_task("math", sources=MATH).score([(item("4"), text) for text in HOSTILE])
    assert all(value in (0.0, None) for value in worth)


def test_sums_need_no_data_and_their_splits_are_disjoint():
    task = icl_task("sums", problems={"train_size": 64, "test_size": 16})
    pool, test = task.load("pool"), task.load("test")
    assert (len(pool), len(test)) == (64, 16)
    assert not {problem.id for problem in pool} & {problem.id for problem in test}
    assert task.score([(test[0], test[0].reference.text), (test[0], r"\boxed{1 + 1}"), (test[0], "")]) == [1.0, 0.0, 0.0]
    assert set(task.score([(test[0], text) for text in HOSTILE])) == {0.0}
