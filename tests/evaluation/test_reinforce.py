"""Reinforced shots, sampled by a tiny model that is right now and then, and taken from stored evaluations."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from posttrain.config import ConfigError, build
from posttrain.evaluation.prompt import cli
from posttrain.evaluation.reinforce import Config, shots_of_log, start_prompt, wanted
from posttrain.prompting.shots import PromptError, read_shots, write_shots
from posttrain.rollout.store import read_episodes, write_episodes
from posttrain.tasks.manyshot import Config as PromptConfig
from posttrain.tasks.manyshot import task_of, tokens_of
from posttrain.types import Completion, DataError, Episode, FinalAnswer, Problem, Turn, Verdict
from tests.sums_base import TASK

ROOT = Path(__file__).parents[2]
PROBLEMS = {key: value for key, value in TASK.items() if key != "kind"} | {"test_size": 4}
RECIPE = {
    "kind": "reinforce",
    "task": {"kind": "sums", "problems": PROBLEMS},
    "layout": {"question_label": "", "answer_label": "", "instruction": ""},  # as the model was taught
    "start": "zero_shot",
    "shape": "one_message",
    "samples": 4,
    "chunk": 3,
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "reinforce.yaml"
    path.write_text(json.dumps(RECIPE))
    return path


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rationales.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def done(recipe, sums_base, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert cli(["reinforce", str(recipe), "--model", str(sums_base), "--out", str(out)]) == 0
    return out


def test_right_answers_become_shots_one_of_a_problem(done):
    rows = rows_of(done)
    shots = read_shots(done / "shots.jsonl")
    assert len(rows) == 30 * 4
    solved = {row["problem"] for row in rows if row["score"] == 1.0}
    assert {shot.problem for shot in shots} == solved
    assert len(shots) == len(solved) > 0
    right = {(row["problem"], row["text"]) for row in rows if row["score"] == 1.0}
    assert {(shot.problem, shot.answer) for shot in shots} <= right


def test_the_yield_is_told_per_problem_and_level(done):
    told = json.loads((done / "yield.json").read_text())
    rows = rows_of(done)
    assert told["all"]["right"] == sum(row["score"] == 1.0 for row in rows) == sum(told["right_by_problem"].values())
    assert told["by_level"]["4"] == told["all"]
    assert told["all"]["kept"] == len(read_shots(done / "shots.jsonl"))


def test_a_killed_run_goes_on_to_the_same_bytes(recipe, sums_base, done, tmp_path):
    out, log = tmp_path / "killed", tmp_path / "killed" / "rationales.jsonl"
    command = [sys.executable, "-m", "posttrain.cli", "prompt", "reinforce", str(recipe), "--model", str(sums_base), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    while process.poll() is None and (not log.exists() or not log.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open(log, "a") as file:  # as a kill within a write leaves it
        file.write('{"problem": "cut')
    assert cli(command[4:]) == 0
    for name in ("rationales.jsonl", "yield.json"):
        assert (out / name).read_bytes() == (done / name).read_bytes()
    answers = [[(shot.id, shot.answer) for shot in read_shots(run / "shots.jsonl")] for run in (out, done)]
    assert answers[0] == answers[1]


def test_a_second_iteration_asks_only_what_is_not_solved(recipe, sums_base, done, tmp_path):
    before, left = (shots := read_shots(done / "shots.jsonl"))[:5], shots[5:]
    write_shots(tmp_path / "before.jsonl", before)
    out = tmp_path / "again"
    command = ["reinforce", str(recipe), "--model", str(sums_base), "--out", str(out), "--skip_solved", f"[{tmp_path / 'before.jsonl'}]"]
    assert cli(command) == 0
    assert {row["problem"] for row in rows_of(out)} == {row["problem"] for row in rows_of(done)} - {shot.problem for shot in before}
    assert [shot.id for shot in read_shots(out / "shots.jsonl")] == [shot.id for shot in left]  # the same draws, as the seed is


def test_it_starts_from_a_prompt_of_earlier_shots_and_asks_none_of_them(done, tiny_qwen2):
    first = str(done / "shots.jsonl")
    cfg = build(Config, [("test", {**RECIPE, "start": "shots", "start_shots": [first], "start_size": 3, "shape": "raw"})])
    task = task_of(PromptConfig(task=cfg.task, layout=cfg.layout, method="zero_shot"))
    prompt = start_prompt(cfg, task, tokens_of(AutoTokenizer.from_pretrained(tiny_qwen2), "raw"))
    assert len(prompt.shots) == 3
    assert not {problem.question for problem in wanted(cfg, task, prompt)} & {shot.question for shot in prompt.shots}
    with pytest.raises(PromptError, match=r"start_size: 99 shots were asked for, but .* hold"):
        start_prompt(dataclasses.replace(cfg, start_size=99), task, tokens_of(AutoTokenizer.from_pretrained(tiny_qwen2), "raw"))


def test_another_recipe_is_not_gone_on_with(recipe, sums_base, done):
    with pytest.raises(ConfigError, match="with another samples"):
        cli(["reinforce", str(recipe), "--model", str(sums_base), "--out", str(done), "--samples", "5"])


def episode(name: str, *attempts: tuple[str, str]) -> Episode:
    problem = Problem(id=name, question=f"{name}?", reference=FinalAnswer(text="1"))
    turns: list[Turn] = []
    for text, status in attempts:
        prompt = (*turns[-1].prompt_ids, *turns[-1].completion.ids, 1) if turns else (1,)
        completion = Completion(ids=(2,), logprobs=(0.0,), finish="stop")
        turns.append(Turn(prompt_ids=prompt, completion=completion, text=text, answer=None, verdict=Verdict(status=status)))
    return Episode(problem=problem, turns=tuple(turns))


def test_a_stored_evaluation_gives_the_attempt_that_was_right_be_it_the_first_or_the_second(tmp_path):
    log = tmp_path / "episodes.jsonl"
    episodes = [
        episode("a", ("right at first", "correct"), ("spoilt", "wrong")),
        episode("b", ("bad", "wrong"), ("mended", "correct")),
        episode("c", ("bad", "wrong"), ("", "no_answer")),
    ]
    write_episodes(log, episodes)
    assert len(list(read_episodes(log))) == 3
    assert cli(["reinforce", "--from", str(tmp_path), "--out", str(tmp_path / "shots.jsonl")]) == 0
    shots = read_shots(tmp_path / "shots.jsonl")
    assert [(shot.problem, shot.answer) for shot in shots] == [("a", "right at first"), ("b", "mended")]
    assert shots[1].provenance.endswith("episodes.jsonl, step 0, sample 0, attempt 2")


def test_a_log_without_right_answers_says_what_it_holds(tmp_path):
    write_episodes(tmp_path / "log.jsonl", [episode("a", ("bad", "wrong"), ("", "no_answer"))])
    with pytest.raises(DataError, match="no right answer among the attempts of 1 episodes; verdicts: 1 wrong, 1 no_answer"):
        shots_of_log(tmp_path / "log.jsonl", 1)


def test_start_shots_and_start_belong_together():
    with pytest.raises(ConfigError, match="start_shots belong to start: shots"):
        build(Config, [("test", {**RECIPE, "start": "shots"})])
