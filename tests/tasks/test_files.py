import gzip

import pytest

from posttrain.tasks.files import read_examples, read_lines, read_table
from posttrain.tasks.source import read_rows
from posttrain.types import DataError


def write(path, text: str):
    path.write_text(text, newline="")
    return path


def test_a_quoted_field_may_hold_line_breaks_and_the_row_is_named_by_the_line_it_starts_on(tmp_path):
    path = write(tmp_path / "rows.csv", 'q,a\n"one\ntwo, or ""three""",1\nfour,2\n')
    assert read_table(path) == [(f"{path}:2", {"q": 'one\ntwo, or "three"', "a": "1"}), (f"{path}:4", {"q": "four", "a": "2"})]


def test_a_tab_separated_field_keeps_its_quotation_marks(tmp_path):
    path = write(tmp_path / "rows.tsv", 'q\ta\nsay "hi\t1\n')
    assert read_table(path) == [(f"{path}:2", {"q": 'say "hi', "a": "1"})]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q,a\n1,2\n3\n", r"rows.csv:3: has 1 columns, the header has 2"),
        ("q,q\n1,2\n", r"rows.csv:1: the header must name every column, each once; found 'q', 'q'"),
        ('q,a\n1,"2\n', r"rows.csv:2: not a csv row"),
        ("q,a\n", "rows.csv: has no rows"),
        ("", "rows.csv: has no rows"),
    ],
)
def test_a_malformed_table_is_named_with_file_and_line(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_table(write(tmp_path / "rows.csv", text))


def test_an_explanation_longer_than_the_csv_modules_own_limit_is_read(tmp_path):
    path = write(tmp_path / "rows.csv", f"q\n{'x' * 200_000}\n")
    assert len(read_table(path)[0][1]["q"]) == 200_000


def test_lines_keep_empty_ones_inside_and_any_line_ending_and_drop_only_the_last_empty_one(tmp_path):
    path = write(tmp_path / "dev.txt", "\ufeffone\r\n\r\nthree\n")
    assert read_lines(path) == [(f"{path}:1", "one"), (f"{path}:2", ""), (f"{path}:3", "three")]


def test_bytes_that_are_not_utf8_are_an_error_with_their_line_unless_another_encoding_is_named(tmp_path):
    path = tmp_path / "dev.txt"
    path.write_bytes("one\nJyväskylä\n".encode("iso-8859-1"))
    with pytest.raises(DataError, match=r"dev.txt:2: not UTF-8"):
        read_lines(path)
    assert read_lines(path, encoding="iso-8859-1")[1][1] == "Jyväskylä"


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '{"canary": "x", "examples": [{"a": 1}, {"a": 2}]}'])
def test_a_json_file_is_a_list_of_examples_or_holds_one(tmp_path, text):
    path = write(tmp_path / "task.json", text)
    assert read_examples(path) == [(f"{path} example 1", {"a": 1}), (f"{path} example 2", {"a": 2})]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}', "expected a list of examples"),
        ('{"a": [], "b": 1}', "expected a list of examples"),
        ("3", "expected a list of examples"),
        ("[1]", "task.json example 1: expected an object with fields, found int"),
        ('[\n{"a" 1}]', "task.json:2: not JSON"),
        ("[" * 100_000, "nested too deep|not JSON"),
    ],
)
def test_a_json_file_of_another_shape_is_an_error(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_examples(write(tmp_path / "task.json", text))


def test_a_source_is_read_as_its_name_says_also_when_packed(tmp_path):
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"q\n1\n"))
    write(tmp_path / "rows.json", '[{"q": "1"}]')
    write(tmp_path / "rows.jsonl", '{"q": "1"}\n')
    assert [read_rows(str(tmp_path / name))[0].fields for name in ("rows.csv.gz", "rows.json", "rows.jsonl")] == [{"q": "1"}] * 3


def test_a_cut_archive_is_an_error(tmp_path):
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"q\n1\n" * 999)[:-9])
    with pytest.raises(DataError, match=r"rows.csv.gz: cannot be read"):
        read_rows(str(tmp_path / "rows.csv.gz"))
