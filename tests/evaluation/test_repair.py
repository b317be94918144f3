"""Wrong answers to be repaired: judged again, each once, and not those that were written for other tests."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain import cli
from posttrain.config import ConfigError, build
from posttrain.evaluation.repair import read_answers, told, wrong_episodes
from posttrain.evaluation.run import rollout_of
from posttrain.evaluation.suite import Suite
from posttrain.rollout.self_correct import first_attempts
from posttrain.rollout.store import write_episodes
from posttrain.tasks.sums import SumsTask, make, written
from posttrain.types import DataError

TASK = make(SumsTask(pick=2, numbers=4, largest=6, train_size=30, validation_size=2, test_size=3))
PROBLEMS = TASK.load("test")
WRONG = written((1, 1))


def file_of(tmp_path: Path, *rows: dict) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def kept(tmp_path: Path, *rows: dict) -> dict[str, list[str]]:
    answers, _ = read_answers([file_of(tmp_path, *rows)], PROBLEMS, "test")
    return first_attempts(wrong_episodes(TASK, answers, TASK.grade([(answer.problem, answer.text) for answer in answers])))


def row(number: int, text: str, **more) -> dict:
    return {"task_id": PROBLEMS[number].id, "completion": text, **more}


def test_wrong_answers_stay_once_each_and_right_ones_go(tmp_path):
    right = PROBLEMS[1].reference.text
    rows = [row(0, WRONG), row(0, f"So it is {WRONG}."), row(0, written((1, 2, 3))), row(1, right), row(2, "no box"), row(2, WRONG)]
    assert kept(tmp_path, *rows) == {PROBLEMS[0].id: [WRONG, written((1, 2, 3))], PROBLEMS[2].id: [WRONG]}


def test_a_label_keeps_out_what_was_written_for_other_tests_but_never_lets_in_what_is_right(tmp_path):
    right = PROBLEMS[1].reference.text
    rows = [row(0, WRONG, passed=True), row(1, right, passed=False), row(2, WRONG, passed=False)]
    assert kept(tmp_path, *rows) == {PROBLEMS[2].id: [WRONG]}
    answers, _ = read_answers([file_of(tmp_path, *rows)], PROBLEMS, "test")
    said = list(told(answers, TASK.grade([(answer.problem, answer.text) for answer in answers]), [], 0, "test"))
    assert "1 of 3 labels say the same" in said
    assert any(line.startswith("1 fail here and are called right") for line in said)


def test_first_attempts_of_another_evaluation_are_answers_too(tmp_path):
    answers, _ = read_answers([file_of(tmp_path, row(0, WRONG))], PROBLEMS, "test")
    write_episodes(tmp_path / "episodes.jsonl", wrong_episodes(TASK, answers, TASK.grade([(PROBLEMS[0], WRONG)])))
    again, strangers = read_answers([tmp_path / "episodes.jsonl"], PROBLEMS, "test")
    assert ([(answer.problem, answer.text) for answer in again], strangers) == ([(PROBLEMS[0], WRONG)], 0)


def test_the_number_of_another_benchmarks_problem_is_no_match(tmp_path):
    problem = PROBLEMS[0]
    bare = {"task_id": problem.id.rpartition("/")[2], "text": WRONG}
    answers, strangers = read_answers([file_of(tmp_path, bare, {"task_id": f"Other/{problem.id}", "text": WRONG})], PROBLEMS, "test")
    assert (len(answers), strangers) == (1, 1)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"task_id": "sums-0", "solution": "x"}], "none of 1 rows answers a problem of test, e.g. 'sums-0'"),
        ([{"task_id": PROBLEMS[0].id, "answer": "x"}], "answers.jsonl:1: needs task_id and an answer in one of solution, completion, text"),
        ([{"solution": "x"}], "answers.jsonl:1: needs task_id"),
        ([{"turns": []}], "answers.jsonl:1: not an episode"),
    ],
)
def test_a_file_without_answers_is_one_line(rows, said, tmp_path):
    with pytest.raises(DataError) as caught:
        read_answers([file_of(tmp_path, *rows)], PROBLEMS, "test")
    assert said in str(caught.value)


def test_where_nothing_is_wrong_nothing_is_written(tmp_path, capsys):
    task = ["--task.pick", "2", "--task.numbers", "4", "--task.largest", "6", "--task.train_size", "30", "--task.test_size", "3"]
    path = file_of(tmp_path, row(1, PROBLEMS[1].reference.text))
    assert cli.main(["data", "repair", "sums", str(path), "--out", str(tmp_path / "out.jsonl"), *task]) == 1
    assert "not written, as no answer is wrong" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def suite_on(path: Path) -> Suite:
    tree = {"task": {"kind": "sums"}, "sampling": {"max_tokens": 8}, "first_attempts": str(path)}
    return build(Suite, [("suite", tree)])


def test_of_a_set_to_repair_only_its_problems_are_asked_and_of_a_models_own_attempts_none_may_lack(tmp_path):
    answers, _ = read_answers([file_of(tmp_path, row(0, WRONG))], PROBLEMS, "test")
    (episode,) = wrong_episodes(TASK, answers, TASK.grade([(PROBLEMS[0], WRONG)]))
    write_episodes(tmp_path / "wrong.jsonl", [episode])
    assert list(rollout_of(suite_on(tmp_path / "wrong.jsonl"), PROBLEMS).given) == [PROBLEMS[0].id]
    with pytest.raises(ConfigError, match="has none for 2 of 2 problems"):
        rollout_of(suite_on(tmp_path / "wrong.jsonl"), PROBLEMS[1:])
    write_episodes(tmp_path / "own.jsonl", [replace(episode, turns=(replace(episode.turns[0], given=False),))])
    with pytest.raises(ConfigError, match="has none for 2 of 3 problems"):
        rollout_of(suite_on(tmp_path / "own.jsonl"), PROBLEMS)
