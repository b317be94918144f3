import gzip
import json

import datasets
import pytest

from posttrain.tasks.source import Row, read_rows, read_split
from posttrain.types import DataError, FinalAnswer, Problem

GOOD = '{"q": "1+1?", "a": "2"}\n'


def to_problem(row: Row, number: str) -> Problem | None:
    if not row.text("a"):
        return None
    return Problem(id=row.fields.get("id", number), question=row.text("q"), reference=FinalAnswer(text=row.text("a")))


def write(path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD + '{"q": "2+2?", "a"\n', 2, "not JSON"),
        (GOOD + GOOD + "\n", 3, "not JSON"),
        (GOOD + "[1, 2]\n", 2, "expected an object with fields, found list"),
        (GOOD + '{"q": "2+2?"}\n', 2, "no field 'a'; found 'q'"),
        (GOOD + '{"q": "2+2?", "a": 4}\n', 2, "'a' must be text, found int"),
        (GOOD + "[" * 100_000 + "\n", 2, "not JSON"),
    ],
)
def test_a_malformed_row_is_named_with_file_and_line(tmp_path, text, line, said):
    path = write(tmp_path / "rows.jsonl", text)
    with pytest.raises(DataError, match=f"rows.jsonl:{line}: ") as error:
        read_split({"train": path}, "train", to_problem, None)
    assert said in str(error.value)


def test_the_same_id_twice_is_an_error_that_names_both_places(tmp_path):
    path = write(tmp_path / "rows.jsonl", '{"q": "1", "a": "1", "id": "x"}\n{"q": "2", "a": "2", "id": "x"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:2: the id 'x' stands already in .*rows.jsonl:1"):
        read_split({"train": path}, "train", to_problem, None)


def test_a_cut_archive_is_an_error_and_nothing_is_loaded(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress((GOOD * 5000).encode())[:-20])
    with pytest.raises(DataError, match=r"rows.jsonl.gz:\d+: cannot be read"):
        read_rows(str(path))


def test_bytes_that_are_not_utf8_are_an_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD.encode() + b'{"q": "\xff"}\n')
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(str(path))


@pytest.mark.parametrize(("name", "text"), [("missing.jsonl", None), ("empty.jsonl", "")])
def test_a_missing_or_empty_file_is_an_error(tmp_path, name, text):
    path = tmp_path / name if text is None else write(tmp_path / name, text)
    with pytest.raises(DataError, match=name):
        read_rows(str(path))


def test_a_split_without_a_source_says_which_there_are(tmp_path):
    with pytest.raises(DataError, match=r"no source for the split 'test': the task names 'train'; add sources.test"):
        read_split({"train": "x.jsonl"}, "test", to_problem, None)


def test_several_sources_are_read_as_one_split_with_unique_ids(tmp_path):
    one = write(tmp_path / "one.jsonl", GOOD * 2)
    two = tmp_path / "two.jsonl.gz"
    two.write_bytes(gzip.compress(GOOD.encode()))
    split = read_split({"train": (one, str(two))}, "train", to_problem, None)
    assert [problem.id for problem in split.problems] == ["train/1", "train/2", "train/3"]


def test_rows_without_a_reference_are_left_out_and_named_and_the_limit_counts_what_is_kept(tmp_path):
    path = write(tmp_path / "rows.jsonl", '{"q": "?", "a": ""}\n' + GOOD * 3)
    split = read_split({"train": path}, "train", to_problem, 2)
    assert [problem.id for problem in split.problems] == ["train/2", "train/3"]
    assert split.left_out == [f"{path}:1: no reference answer"]


def test_a_split_of_nothing_but_rows_without_reference_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no problem with a reference answer"):
        read_split({"train": write(tmp_path / "rows.jsonl", '{"q": "?", "a": ""}\n')}, "train", to_problem, None)


def test_a_hub_source_is_loaded_by_the_datasets_library(tmp_path, monkeypatch):
    """A folder with a data file is a data set to the library, as a hub repository is."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps({"q": f"{i}?", "a": str(i)}) + "\n" for i in range(3)))
    split = read_split({"train": f"hub:{tmp_path / 'set'}:train"}, "train", to_problem, None)
    assert [(problem.id, problem.reference.text) for problem in split.problems] == [("train/1", "0"), ("train/2", "1"), ("train/3", "2")]
    with pytest.raises(DataError, match=r"hub:.*:dev: cannot be loaded from the hub: ValueError: Unknown split"):
        read_rows(f"hub:{tmp_path / 'set'}:dev")


@pytest.mark.parametrize("source", ["hub:openai/gsm8k", "hub:a/b:c:d:e", "hub::train"])
def test_a_hub_source_that_names_no_split_is_refused_before_any_download(source):
    with pytest.raises(DataError, match=r"expected hub:org/name:split or hub:org/name:config:split"):
        read_rows(source)
