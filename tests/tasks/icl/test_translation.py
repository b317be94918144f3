import json

import pytest

from posttrain.types import DataError
from tests.tasks.icl.fixtures import HOSTILE, fixture, icl_task, item


def sides(split: str, **changed: str) -> dict[str, str]:
    return {"source": fixture(f"flores/eng_Latn.{split}"), "target": fixture(f"flores/deu_Latn.{split}")} | changed


def german(**fields):
    return icl_task("translation", target_language="German", **({"pool": sides("dev"), "test": sides("devtest")} | fields))


def test_the_two_sides_go_together_line_by_line():
    task = german()
    assert len(task.load("pool")) == 6
    first = task.load("test")[0]
    assert (first.question, first.solution) == ("The train to the coast is late today.", "Der Zug an die Küste hat heute Verspätung.")
    assert first.reference.text == first.solution
    assert [problem.id for problem in german(test_items=2).load("test")] == ["test/1", "test/2"]


def test_the_layout_names_the_languages():
    layout = german().layout
    assert (layout.question_label, layout.answer_label) == ("English:\n", "\nGerman:\n")
    assert "from English into German" in layout.instruction


def test_rows_with_fields_are_read_as_well(tmp_path):
    (tmp_path / "dev.jsonl").write_text('{"sentence": "one"}\n{"sentence": "two"}\n')
    (tmp_path / "dev.tsv").write_text("id\ttext\n1\teins\n2\tzwei\n")
    task = german(pool={"source": str(tmp_path / "dev.jsonl"), "target": str(tmp_path / "dev.tsv")})
    assert [(problem.question, problem.solution) for problem in task.load("pool")] == [("one", "eins"), ("two", "zwei")]


def test_sides_of_different_length_are_an_error_with_both_numbers():
    with pytest.raises(DataError, match=r"eng_Latn.dev has 6 sentences, .*deu_Latn.devtest has 3"):
        german(pool=sides("dev", target=fixture("flores/deu_Latn.devtest"))).load("pool")


def test_an_empty_sentence_is_an_error_with_its_line(tmp_path):
    (tmp_path / "dev.txt").write_text("eins\n\ndrei\n")
    with pytest.raises(DataError, match=r"dev.txt:2: an empty sentence"):
        german(pool=sides("dev", target=str(tmp_path / "dev.txt"))).load("pool")


def test_chrf_of_a_short_word_is_the_value_worked_by_hand():
    """ "abc" for "abd": of the character n-grams 2 of 3, 1 of 2 and 0 of 1 agree, of the words 0 of 1; precision equals recall."""
    (worth,) = german().score([(item("abd"), " abc\n")])
    assert worth == pytest.approx((2 / 3 + 1 / 2 + 0 + 0) / 4)


def test_the_corpus_figure_sums_counts_before_dividing_and_is_in_percent():
    """ "a" for "a" (1 of 1 characters and words) and "bbb" for "ccc" (0 of 3, 2, 1 characters and 0 of 1 words), counts summed:

    characters 1/4, 0/2, 0/1; words 1/2; the mean of these four is 3/16, not the mean of the two sentences' scores, 1/2.
    """
    pairs = [(item("a"), "a"), (item("ccc"), "bbb")]
    assert german().corpus(pairs) == pytest.approx(100 * 3 / 16)
    assert german().score(pairs) == pytest.approx([1.0, 0.0])


def test_a_perfect_translation_is_worth_one_and_an_empty_or_hostile_one_next_to_nothing():
    task = german()
    problem = task.load("test")[0]
    assert task.score([(problem, problem.solution)]) == pytest.approx([1.0])
    assert all(0 <= worth < 0.1 for worth in task.score([(problem, text) for text in HOSTILE]))
    assert 0 <= task.corpus([(problem, text) for text in HOSTILE]) < 10


def test_the_default_sources_are_flores_on_the_hub():
    from posttrain.tasks.icl import TranslationInContext

    cfg = TranslationInContext()
    assert json.dumps([cfg.pool.source, cfg.pool.target]) == '["hub:facebook/flores:eng_Latn:dev", "hub:facebook/flores:bem_Latn:dev"]'
