import gzip
import json

import pytest

from posttrain.config import ConfigError
from posttrain.grading.file import cli
from posttrain.types import DataError


def write(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_row_comes_out_with_its_verdict_and_the_counts_follow(tmp_path, capsys):
    path = write(
        tmp_path / "rows.jsonl",
        {"gold": "\\frac{1}{2}", "pred": "0.5", "expected": True, "id": 7},
        {"gold": "3", "pred": "so \\boxed{4}", "expected": False},
        {"gold": 8, "pred": "x", "expected": True},
    )
    assert cli(["math", path]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["status"] for row in rows] == ["correct", "wrong", "wrong"]
    assert (rows[0]["id"], rows[0]["rule"], rows[0]["gold_form"], rows[0]["pred_form"]) == (7, "exact number", "1/2", "0.5")
    assert all(row["seconds"] >= 0 for row in rows)
    assert "3 answers: 2 wrong, 1 correct" in captured.err
    assert "agrees with `expected` in 2 of 3 (66.7%): 0 accepted though false, 1 not accepted though true" in captured.err


def test_a_completion_must_hold_a_final_answer_but_a_bare_prediction_need_not(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", {"reference": "72", "text": "72"})
    cli(["math", path, "--gold", "reference", "--completion", "text"])
    assert json.loads(capsys.readouterr().out)["status"] == "no_answer"
    cli(["math", path, "--gold", "reference", "--pred", "text"])
    assert json.loads(capsys.readouterr().out)["status"] == "correct"


def test_rows_go_to_a_file_when_one_is_named(tmp_path, capsys):
    out = tmp_path / "verdicts.jsonl"
    assert cli(["math", write(tmp_path / "rows.jsonl", {"gold": "1", "pred": "1"}), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["status"] == "correct"
    assert capsys.readouterr().out == ""


def test_long_texts_may_come_in_parts_and_files_may_be_compressed(tmp_path, capsys):
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps({"gold_parts": [["1", 3]], "pred_parts": [[" ", 5], ["111", 1]], "tier": "t", "expected": True}) + "\n")
    out = tmp_path / "out.jsonl.gz"
    assert cli(["math", str(path), "--out", str(out), "--json"]) == 0
    with gzip.open(out, "rt") as file:
        assert json.loads(file.read())["status"] == "correct"
    summary = json.loads(capsys.readouterr().out)
    assert summary["tiers"] == {"t": {"judged": 1, "agree": 1, "false_accepts": 0, "false_rejects": 0}}
    assert (summary["rows"], summary["statuses"]) == (1, {"correct": 1})


def test_a_guess_from_prose_is_named_and_a_rows_precision_counts(tmp_path, capsys):
    prose = "first it was 3 and then, after some thought about the matter, it came to be 4"
    path = write(
        tmp_path / "rows.jsonl",
        {"gold": "4", "pred": prose},
        {"gold": "1/3", "pred": "0.33", "precision": 2},
        {"gold": "1/3", "pred": "0.33"},
    )
    cli(["math", path])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["correct", "correct", "wrong"]
    assert rows[0]["why"].endswith("(answer: the last number in the text)")


def test_fields_of_a_row_stay_whatever_they_are_called(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", {"gold": "1", "pred": "2", "why": "an easy one", "precision": "two", "language": None})
    assert cli(["math", path]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["why"], row["precision"], row["language"], row["status"]) == ("an easy one", "two", None, "wrong")


def test_an_audit_lists_where_the_second_grader_says_otherwise(tmp_path, capsys):
    pytest.importorskip("math_verify")
    path = write(tmp_path / "rows.jsonl", {"gold": "1", "pred": "1"}, {"gold": "1:4:9:\\ldots", "pred": "1:2:3:\\ldots"})
    cli(["math", path, "--audit", "math-verify", "--json"])
    audit = json.loads(capsys.readouterr().out)["audit"]
    assert (audit["peer"], audit["agree"], len(audit["disagreements"])) == ("math-verify", 1, 1)
    assert audit["disagreements"][0]["row"] == 2


def test_an_audit_without_the_second_grader_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="not installed; install it with: pip install 'math-verify"):
        cli(["math", write(tmp_path / "rows.jsonl", {"gold": "1", "pred": "1"}), "--audit", "math-verify"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"gold": "1", "pred": "1"}, {"gold": "1"}], r"rows.jsonl:2: needs text in 'pred', found None; the row has 'gold'"),
        ([{"gold": None, "pred": "1"}], r"rows.jsonl:1: needs text in 'gold'"),
        ([], "is empty"),
        ([{"gold": "1", "pred_parts": 5}], r"rows.jsonl:1: 'pred_parts' must be a list of \[text, times\]"),
    ],
)
def test_a_row_without_its_texts_is_named_before_anything_is_graded(tmp_path, capsys, rows, said):
    with pytest.raises(DataError, match=said):
        cli(["math", write(tmp_path / "rows.jsonl", *rows)])
    assert capsys.readouterr().out == ""


def test_a_missing_file_or_unwritable_folder_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"absent.jsonl: no such data file"):
        cli(["math", str(tmp_path / "absent.jsonl")])
    with pytest.raises(DataError, match="cannot be written"):
        cli(["math", write(tmp_path / "rows.jsonl", {"gold": "1", "pred": "1"}), "--out", str(tmp_path / "no" / "out.jsonl")])


def test_an_unknown_grader_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli(["maths", "rows.jsonl"])
    assert stopped.value.code == 2
    assert "invalid choice: 'maths'" in capsys.readouterr().err
