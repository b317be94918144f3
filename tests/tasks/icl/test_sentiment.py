import pytest

from posttrain.types import DataError
from tests.tasks.icl.fixtures import HOSTILE, fixture, icl_task, item

FILE = fixture("phrasebank.txt")


def test_the_authors_file_is_read_in_its_own_encoding_and_cut_at_the_last_at_sign():
    task = icl_task("sentiment", source=FILE, test_items=4)
    found = {problem.question: problem.reference.text for problem in task.load("pool") + task.load("test")}
    assert len(found) == 10
    assert found["The company has about 400 employees in Jyväskylä ."] == "neutral"
    assert found["Costs came down and the margin improved @ home and abroad ."] == "positive"


@pytest.mark.parametrize(
    ("labels", "written"),
    [
        ("default", {"negative": "negative", "neutral": "neutral", "positive": "positive"}),
        ("flipped", {"negative": "neutral", "neutral": "positive", "positive": "negative"}),
        ("abstract", {"negative": "A", "neutral": "B", "positive": "C"}),
    ],
)
def test_labels_are_written_as_asked_and_the_tone_stays_as_the_subject(labels, written):
    task = icl_task("sentiment", source=FILE, labels=labels, test_items=4)
    for problem in task.load("pool") + task.load("test"):
        assert problem.reference.text == problem.solution == written[problem.subject]
    assert set(task.choices) == set(written.values())


def test_other_labels_are_for_the_same_items_in_the_same_order():
    by_labels = [icl_task("sentiment", source=FILE, labels=labels, test_items=4) for labels in ("default", "flipped", "abstract")]
    for split in ("pool", "test"):
        assert len({tuple(problem.id for problem in task.load(split)) for task in by_labels}) == 1


def test_numbers_count_from_negative_as_on_the_hub(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        '{"sentence": "up", "label": 2}\n{"sentence": "down", "label": 0}\n{"sentence": "so", "label": 1}\n'
    )
    task = icl_task("sentiment", source=str(tmp_path / "rows.jsonl"), test_items=1)
    found = {problem.question: problem.reference.text for problem in task.load("pool") + task.load("test")}
    assert found == {"up": "positive", "down": "negative", "so": "neutral"}


def test_a_sentence_with_two_labels_is_in_neither_split_and_a_repeated_one_is_there_once(tmp_path):
    (tmp_path / "rows.txt").write_text("a@neutral\na@positive\nb@neutral\nb@neutral\nc@negative\n")
    task = icl_task("sentiment", source=str(tmp_path / "rows.txt"), test_items=1)
    assert sorted(problem.question for problem in task.load("pool") + task.load("test")) == ["b", "c"]


@pytest.mark.parametrize("line", ["no label here", "It rose .@up", "@neutral", "It rose .@"])
def test_a_label_not_in_the_set_is_an_error_with_its_line(tmp_path, line):
    (tmp_path / "rows.txt").write_text(f"fine .@neutral\n{line}\n")
    with pytest.raises(DataError, match=r"rows.txt:2: expected a sentence, '@' and negative, neutral or positive"):
        icl_task("sentiment", source=str(tmp_path / "rows.txt")).load("pool")


def test_more_test_items_than_sentences_is_an_error_with_both_numbers():
    with pytest.raises(DataError, match="has 10 sentences, so none are left for the pool after 200 to test on"):
        icl_task("sentiment", source=FILE).load("pool")


def test_only_the_label_itself_is_worth_something():
    score = icl_task("sentiment", source=FILE, labels="flipped").score
    assert score([(item("neutral"), text) for text in (" neutral\n", "negative", "neutral, I think", "Neutral")]) == [1.0, 0.0, 0.0, 0.0]
    assert set(score([(item("A"), text) for text in HOSTILE])) == {0.0}


def test_confidence_is_the_right_labels_mean_probability():
    weigh = icl_task("sentiment", source=FILE, labels="abstract").weigh
    probs = [(item("A"), {"A": 0.5, "B": 0.3, "C": 0.2}), (item("C"), {"A": 0.6, "B": 0.2, "C": 0.2})]
    assert weigh(probs) == pytest.approx({"confidence": 0.35, "likeliest is right": 0.5})
