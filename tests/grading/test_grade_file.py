import json

import pytest

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
    assert (rows[0]["id"], rows[0]["why"]) == (7, "equal numbers")
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


def test_answers_that_the_grader_failed_on_are_counted_with_the_reason(tmp_path, capsys):
    cli(["math", write(tmp_path / "rows.jsonl", {"gold": "12:00", "pred": "1:00"})])
    assert "unscored 1: grader raised ValueError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"gold": "1", "pred": "1"}, {"gold": "1"}], r"rows.jsonl:2: needs text in 'pred', found None; the row has 'gold'"),
        ([{"gold": None, "pred": "1"}], r"rows.jsonl:1: needs text in 'gold'"),
        ([], "is empty"),
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
