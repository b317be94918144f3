import pytest

from tests.tasks.icl.fixtures import HOSTILE, icl_task, item, sources

XSUM = sources("xsum_validation.jsonl", "xsum_test.jsonl")


def test_both_layouts_give_article_and_summary():
    assert {problem.id for problem in icl_task("summaries", sources=XSUM).load("test")} == {"own-t-0", "own-t-1"}
    task = icl_task("summaries", sources=sources("xsum_validation.jsonl", "xlsum_test.jsonl"))
    (museum,) = [problem for problem in task.load("test") if problem.id == "own-x-1"]
    assert museum.question.startswith("A museum has been given 400 old maps")
    assert museum.solution == museum.reference.text == "A collector has given 400 old maps to a museum."
    assert len(task.load("pool")) == 4


def test_the_test_articles_are_drawn_by_seed_and_not_by_place():
    picked = [icl_task("summaries", sources=XSUM, test_items=1, draw_seed=seed).load("test")[0].id for seed in range(10)]
    assert set(picked) == {"own-t-0", "own-t-1"}


def test_articles_without_text_or_summary_are_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"document": "", "summary": "s"}\n{"document": "d", "summary": " "}\n{"document": "d", "summary": "s"}\n')
    assert len(icl_task("summaries", sources={"pool": str(path)}).load("pool")) == 1


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence_worked_by_hand():
    """ "cats sat on mats" against "the cat sat on the mat": stemmed, 4 words in order, of 4 and of 6: F1 = 2 * 1 * (2/3) / (5/3)."""
    score = icl_task("summaries", sources=XSUM).score
    assert score([(item("the cat sat on the mat"), "Cats sat on mats.")]) == pytest.approx([0.8])
    assert score([(item("one two three"), "three two one")]) == pytest.approx([1 / 3])
    assert score([(item("one two"), "One, two!")]) == [1.0]


def test_whatever_a_model_writes_has_a_worth():
    worth = icl_task("summaries", sources=XSUM).score([(item("the cat sat on the mat"), text) for text in HOSTILE])
    assert all(0 <= value < 0.01 for value in worth)
