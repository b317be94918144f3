import json
from pathlib import Path

import pytest

from posttrain.config import ConfigError
from posttrain.evaluation.data import cli
from posttrain.types import DataError

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe(folder: Path, task: dict) -> str:
    (folder / "recipe.yaml").write_text(json.dumps({"kind": "score", "steps": 3, "task": task}))
    return str(folder / "recipe.yaml")


@pytest.mark.parametrize(("kind", "train", "test"), [("math", 8, 4), ("gsm8k", 3, 2)])
def test_every_reference_of_our_own_problems_passes_its_grader(capsys, kind, train, test):
    assert cli(["check", kind, "--train", str(FIXTURES / f"{kind}_train.jsonl"), "--test", str(FIXTURES / f"{kind}_test.jsonl")]) == 0
    out = capsys.readouterr().out
    assert f"train: {train} of {train} references pass" in out
    assert f"test: {test} of {test} references pass" in out
    assert out.endswith("ok: every reference passes its own grader\n")


def test_a_reference_that_fails_its_own_grader_is_listed_and_the_exit_code_is_1(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", {"problem": "a?", "answer": "5"}, {"problem": "b?", "answer": "\\frac{1}{2}} and more {"})
    assert cli(["check", "math", "--train", path]) == 1
    out = capsys.readouterr().out
    assert "train: 1 of 2 references pass" in out
    assert "train/2: gold_unparsable, the reference cannot be read" in out
    assert "FAILED: 1 references" in out


def test_generated_sums_pass_their_own_grader(capsys):
    assert cli(["check", "sums", "--task.train_size", "50", "--task.validation_size", "20", "--task.test_size", "20"]) == 0
    out = capsys.readouterr().out
    assert "train: 50 of 50" in out
    assert "also in" not in out


def test_questions_that_stand_twice_within_and_between_splits_are_named(tmp_path, capsys):
    train = write(
        tmp_path / "train.jsonl",
        {"problem": "Evaluate $\\log_8 2$.", "answer": "\\frac{1}{3}"},
        {"problem": "Evaluate  $\\log_82$.", "answer": "\\frac13"},
        {"problem": "Evaluate $\\log_4 2$.", "answer": "\\frac12"},
    )
    test = write(tmp_path / "test.jsonl", {"problem": "evaluate \\(\\log_4 2\\)", "answer": "1/2"})
    assert cli(["check", "math", "--train", train, "--test", test]) == 0
    out = capsys.readouterr().out
    assert "1 questions that stand more than once\n    train/1, train/2\n" in out
    assert "1 questions of train that are also in test\n    train/3 = test/1\n" in out


def test_rows_without_a_reference_and_references_beyond_the_grammar_are_named(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", {"problem": "a?", "answer": ""}, {"problem": "b?", "answer": "\\zzz 5"})
    assert cli(["check", "math", "--train", path]) == 0
    out = capsys.readouterr().out
    assert f"1 rows left out\n    {path}:1: no reference answer" in out
    assert "1 not readable, so only their own text passes\n    train/2: the command \\zzz" in out


def test_a_recipes_task_is_checked_and_flags_win_over_it(tmp_path, capsys):
    file = recipe(tmp_path, {"kind": "math", "sources": {"train": str(FIXTURES / "math_train.jsonl")}})
    assert cli(["check", file, "--task.limit", "3"]) == 0
    assert "train: 3 of 3" in capsys.readouterr().out


def test_only_the_named_split_is_checked(tmp_path, capsys):
    file = recipe(tmp_path, {"kind": "math", "sources": {"train": "absent.jsonl", "test": str(FIXTURES / "math_test.jsonl")}})
    assert cli(["check", file, "--split", "test"]) == 0
    assert "train" not in capsys.readouterr().out


def test_a_wrong_call_says_what_was_expected(tmp_path):
    with pytest.raises(
        ConfigError, match=r"found 'mth', expected a .yaml file, a .py file or one of file, gsm8k, humaneval, math, mbpp, oneliners, sums"
    ):
        cli(["check", "mth"])
    (tmp_path / "no_task.yaml").write_text("kind: score\n")
    with pytest.raises(ConfigError, match="has no `task:` key"):
        cli(["check", str(tmp_path / "no_task.yaml")])
    with pytest.raises(ConfigError, match=r"task.limt: unknown key; did you mean 'limit'"):
        cli(["check", recipe(tmp_path, {"kind": "math"}), "--task.limt", "2"])
    with pytest.raises(DataError, match=r"absent.jsonl: no such data file"):
        cli(["check", "math", "--train", "absent.jsonl"])


def test_math_train_passes_and_its_known_traps_are_found(capsys):
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    assert cli(["check", "math", "--train", str(SHARED / "math_train.jsonl.gz"), "--test", str(SHARED / "math500.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "train: 7498 of 7498" in out
    assert "test: 500 of 500" in out
    assert "2 rows left out" in out
    assert "9 questions that stand more than once" in out
    assert "train/7164 = test/precalculus/285.json" in out
