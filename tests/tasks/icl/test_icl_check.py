import pytest
import yaml

from posttrain.config import ConfigError
from posttrain.evaluation.data import cli
from tests.tasks.icl.fixtures import fixture, sources
from tests.tasks.icl.test_references import TASKS


def recipe(tmp_path, task: dict) -> str:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"kind": "icl", "shots": [1], "task": task}))
    return str(tmp_path / "recipe.yaml")


def test_a_recipe_whose_answers_all_earn_full_marks_passes(tmp_path, capsys):
    assert cli(["check", recipe(tmp_path, {"kind": "gpqa", **TASKS["gpqa"]})]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "pool: 4 problems, 4 with an answer as a person wrote it, 4 of these earn full marks",
        "test: 2 problems, 2 with an answer as a person wrote it, 2 of these earn full marks",
        "ok: every answer earns full marks",
    ]


def test_an_answer_that_earns_less_fails_and_is_named(tmp_path, capsys):
    (tmp_path / "xsum.jsonl").write_text('{"document": "d", "summary": "ß"}\n{"document": "e", "summary": "a word"}\n')
    task = {"kind": "summaries", "sources": {"pool": str(tmp_path / "xsum.jsonl"), "test": fixture("xsum_test.jsonl")}}
    assert cli(["check", recipe(tmp_path, task)]) == 1
    said = capsys.readouterr().out
    assert "  1 earn less\n    pool/1: 0.000\n" in said  # ROUGE knows no letters but a to z
    assert "FAILED: 1 answers do not earn full marks" in said


def test_questions_of_the_pool_that_are_tested_are_listed_and_flags_win(tmp_path, capsys):
    task = {"kind": "summaries", "sources": sources("xsum_validation.jsonl", "xsum_test.jsonl")}
    assert cli(["check", recipe(tmp_path, task), "--task.sources.test", fixture("xsum_validation.jsonl")]) == 0
    assert "  4 questions of pool that are also in test\n    own-v-0 = own-v-0\n" in capsys.readouterr().out


def test_one_split_alone_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--split has no meaning for an in-context recipe"):
        cli(["check", recipe(tmp_path, {"kind": "gpqa", **TASKS["gpqa"]}), "--split", "test"])


def test_a_data_set_without_answers_is_not_said_to_have_passed(tmp_path, capsys):
    assert cli(["check", recipe(tmp_path, {"kind": "bbh", **TASKS["bbh"]})]) == 0
    assert capsys.readouterr().out.endswith("ok: there are problems, and no answers to give to the metric\n")
