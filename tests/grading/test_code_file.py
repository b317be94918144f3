import gzip
import json
import shutil

import pytest

from posttrain.cli import main
from posttrain.grading.file import cli
from posttrain.types import DataError
from tests.grading.judges import FIXTURES, need_isolation

HUMANEVAL = FIXTURES / "humaneval_test.jsonl"
MBPP = FIXTURES / "mbpp_train.jsonl"
EVEN = "    return len(text) % 2 == 0\n"


@pytest.fixture(autouse=True)
def isolation():
    need_isolation()


def write(path, *rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def graded(capsys):
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_rows_come_out_in_order_with_status_reason_and_cpu_time(tmp_path, capsys):
    path = write(
        tmp_path / "rows.jsonl.gz",
        {"task_id": "own/even", "completion": EVEN, "passed": True, "model": "m"},
        {"task_id": "own/even", "completion": "    return True\n", "passed": False},
        {"solution": "def f(x): return x", "test": "assert f(1) == 2", "expected": True},
        {"solution": "```python\ndef f(x): return x\n```", "test": "def check(g):\n    assert g(1) == 1", "entry_point": "f"},
        {"task_id": "own/even", "completion": "It depends."},
    )
    assert cli(["code", path, "--problems", str(HUMANEVAL), "--workers", "2"]) == 0
    rows, said = graded(capsys)
    assert [row["status"] for row in rows] == ["correct", "wrong", "wrong", "correct", "no_answer"]
    assert rows[0]["model"] == "m"
    assert 0 < rows[0]["cpu_seconds"] < 5
    assert rows[2]["why"] == "AssertionError (line 1 of the tests)"
    assert "agrees with `expected` in 2 of 3 (66.7%): 0 accepted though false, 1 not accepted though true" in said
    assert "isolation: zygote: user namespace" in said or "isolation: bwrap" in said


def test_mbpp_problems_are_found_by_each_spelling_of_their_id(tmp_path, capsys):
    right = "def second_largest(numbers):\n    return sorted(numbers)[-2]\n"
    ids = [9001, "9001", "mbpp/9001", "MBPP/9001"]
    path = write(tmp_path / "rows.jsonl", *({"task_id": task_id, "completion": right} for task_id in ids))
    assert cli(["code", path, "--problems", str(MBPP)]) == 0
    assert [row["status"] for row in graded(capsys)[0]] == ["correct"] * 4


def test_pass_at_k_is_told_with_its_standard_error(tmp_path, capsys):
    out = tmp_path / "out.jsonl.gz"
    wrong = "    return None\n"
    tries = [("own/even", EVEN)] * 5 + [("own/even", wrong)] * 5 + [("own/totals", wrong)] * 10
    path = write(tmp_path / "rows.jsonl", *({"task_id": task_id, "completion": text} for task_id, text in tries))
    assert cli(["code", path, "--problems", str(HUMANEVAL), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(each["k"], each["problems"]) for each in told["pass_at_k"]] == [(1, 2), (10, 2)]
    assert told["pass_at_k"][0]["value"] == pytest.approx(0.25)
    assert told["pass_at_k"][0]["standard_error"] == pytest.approx(0.25)
    assert told["isolation"]["backend"] in ("zygote", "bwrap")
    with gzip.open(out, "rt") as file:
        assert len(file.readlines()) == 20


@pytest.mark.parametrize(
    ("row", "problems", "said"),
    [
        (
            {"task_id": "own/evn", "completion": ""},
            HUMANEVAL,
            r"rows.jsonl:1: no problem has the task_id 'own/evn'; did you mean 'own/even'",
        ),
        (
            {"task_id": "own/even", "completion": ""},
            None,
            r"the tests of 'own/even' are not in the row: name the benchmark's file with --problems",
        ),
        ({"task_id": "own/even"}, HUMANEVAL, r"needs task_id and completion, or solution and test; found 'task_id'"),
        ({"task_id": "own/even", "completion": 5.5j.real}, "absent.jsonl", r"absent.jsonl: no such data file"),
        ({"solution": ["x"], "test": "x"}, None, r"rows.jsonl:1: needs text in 'solution'"),
    ],
)
def test_a_wrong_row_is_named_before_anything_is_run(tmp_path, capsys, row, problems, said):
    path = write(tmp_path / "rows.jsonl", row)
    with pytest.raises(DataError, match=said):
        cli(["code", path, *(["--problems", str(problems)] if problems else [])])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"task_id": "a"}], "needs 'test' \\(as HumanEval\\) or 'test_list' \\(as MBPP\\)"),
        ([{"task_id": "a", "prompt": "", "test": "", "entry_point": "f"}] * 2, "the task_id 'a' stands twice"),
        ([{"task_id": 1, "test_list": "assert f()"}], "'test_list' must be a list of lines"),
        ([{"task_id": 1, "test_list": ["assert True"]}], "calls no function"),
        ([{"test_list": ["assert f()"]}], "needs a 'task_id'"),
    ],
)
def test_a_wrong_benchmark_file_is_named_with_its_line(tmp_path, rows, said):
    problems = write(tmp_path / "problems.jsonl", *rows)
    path = write(tmp_path / "rows.jsonl", {"task_id": "a", "completion": ""})
    with pytest.raises(DataError, match=said):
        cli(["code", path, "--problems", problems])


def test_an_unsafe_sandbox_is_used_where_it_is_asked_for_and_named(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", {"solution": "def f(): return 1", "test": "assert f() == 1"})
    assert main(["grade", "code", path, "--sandbox", "unsafe"]) == 0
    assert "isolation: unsafe" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bwrap") is not None, reason="bubblewrap is installed, so that its backend does not refuse")
def test_where_a_sandbox_cannot_be_had_the_command_refuses_and_says_what_to_install(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", {"solution": "def f(): return 1", "test": "assert f() == 1"})
    assert main(["grade", "code", path, "--sandbox", "bwrap"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "install bubblewrap" in captured.err
