"""`posttrain eval` with a real tiny model, or with scripted answers where the outcome must be known."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain import cli
from posttrain.config import ConfigError, load
from posttrain.evaluation.metrics import NothingScored, from_row
from posttrain.evaluation.model import identity, open_chat
from posttrain.evaluation.run import evaluate
from posttrain.evaluation.suite import Suite
from posttrain.rollout.store import read_episodes
from posttrain.sampling.engine import HFEngineConfig, open_engine
from posttrain.sampling.scripted import ScriptedEngine
from posttrain.tasks import make_task
from posttrain.tasks.sums import SumsTask
from posttrain.types import DataError, EngineError, Verdict

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
SUITES = sorted((ROOT / "evals" / "suites").glob("*.yaml"))
TASK = {"kind": "sums", "test_size": 23}


def suite_of(**changed) -> Suite:
    fields = {"task": SumsTask(test_size=23), "sampling": {"max_tokens": 8, "temperature": 1.0}, "chunk": 5, "samples": 2}
    return Suite(**(fields | changed))


class Session:
    """A tiny model opened for sampling, with the problems of a suite."""

    def __init__(self, model: Path, suite: Suite):
        self.suite, self.model = suite, str(model)
        self.task = make_task(suite.task)
        self.problems = self.task.load("test")
        self.chat, pad_id = open_chat(self.model)
        self.engine = open_engine(HFEngineConfig(), self.model, eos_ids=self.chat.eos_ids, pad_id=pad_id, dtype="float32")

    def evaluate(self, out: Path, **changed):
        given = {"suite": self.suite, "task": self.task, "problems": self.problems, "engine": self.engine, "chat": self.chat}
        return evaluate(**(given | {"out": out, "model": identity(self.model)} | changed))


@pytest.fixture(scope="module")
def session(tiny_qwen2):
    return Session(tiny_qwen2, suite_of())


@pytest.fixture(scope="module")
def whole(session, tmp_path_factory):
    """An evaluation that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    session.evaluate(out)
    return out


class Dying:
    """An engine that dies at its n-th call."""

    def __init__(self, engine, calls: int):
        self.engine, self.left = engine, calls

    def generate(self, prompts, sampling, seeds):
        self.left -= 1
        if self.left < 0:
            raise EngineError("died")
        return self.engine.generate(prompts, sampling, seeds)


def test_every_problem_gets_its_samples_in_order(session, whole):
    episodes = list(read_episodes(whole / "episodes.jsonl"))
    assert [(e.problem.id, e.sample) for e in episodes] == [(p.id, s) for p in session.problems for s in range(2)]
    assert {len(e.turns) for e in episodes} == {2}


def test_a_finished_evaluation_is_not_sampled_again(session, whole):
    before = (whole / "summary.json").read_bytes()
    session.evaluate(whole, engine=Dying(session.engine, 0))
    assert (whole / "summary.json").read_bytes() == before


@pytest.mark.parametrize("calls", [0, 1, 5, 9])
def test_an_engine_that_dies_costs_one_chunk(session, whole, tmp_path, calls):
    with pytest.raises(EngineError, match="died"):
        session.evaluate(tmp_path / "out", engine=Dying(session.engine, calls))
    assert len((tmp_path / "out" / "episodes.jsonl").read_text().splitlines()) == calls // 2 * 10
    session.evaluate(tmp_path / "out")
    for name in ("episodes.jsonl", "summary.json", "config.yaml"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 0.93, 0.9999])
def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(session, whole, tmp_path, share):
    shutil.copytree(whole, tmp_path / "cut")
    file = tmp_path / "cut" / "episodes.jsonl"
    os.truncate(file, int(share * file.stat().st_size))
    session.evaluate(tmp_path / "cut")
    assert file.read_bytes() == (whole / "episodes.jsonl").read_bytes()


def test_another_suite_or_other_weights_do_not_go_on(session, whole):
    with pytest.raises(ConfigError, match=r"another samples, seed"):
        session.evaluate(whole, suite=suite_of(seed=1, samples=3))
    with pytest.raises(ConfigError, match="another model"):
        session.evaluate(whole, model="other weights")


def test_episodes_of_other_problems_are_refused(session, whole):
    with pytest.raises(DataError, match="other problems"):
        session.evaluate(whole, problems=session.problems[::-1])


def test_an_unwritable_folder_is_one_clear_error(session, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the results"):
        session.evaluate(tmp_path / "file" / "out")


def test_the_same_folder_with_other_weights_is_another_model(tiny_qwen2, tmp_path):
    folder = shutil.copytree(tiny_qwen2, tmp_path / "model")
    before = identity(str(folder))
    assert before.startswith(f"{folder} (weights ")
    assert identity(str(folder)) == before
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "q_proj.weight" in n).add_(1e-3)
    model.save_pretrained(folder)
    assert identity(str(folder)) != before
    assert identity("Qwen/Qwen2.5-1.5B") == "Qwen/Qwen2.5-1.5B"


def scripted(session, second_right) -> ScriptedEngine:
    """The first attempt is always a wrong pair; the second is right where `second_right(number of the problem)` says so."""
    number = {session.chat.ask(session.task.ask(problem)): i for i, problem in enumerate(session.problems)}
    encode = AutoTokenizer.from_pretrained(session.model)

    def answers(prompt, seed):
        first = next((p for p in number if prompt[: len(p)] == p), None)
        again = len(prompt) > len(first)
        text = session.problems[number[first]].reference.text if again and second_right(number[first]) else "\\boxed{ 1 + 1 }"
        return (*encode(text, add_special_tokens=False)["input_ids"], session.chat.eos_ids[0])

    return ScriptedEngine(answers)


def test_the_summary_tells_what_the_answers_were(session, tmp_path):
    suite = suite_of(sampling={"max_tokens": 64})
    summary = session.evaluate(tmp_path / "out", suite=suite, engine=scripted(session, lambda i: i < 9))
    assert [acc.value for acc in summary.acc] == [0.0, pytest.approx(9 / 23)]
    assert (summary.num_fixed, summary.num_broken, summary.problems, summary.episodes) == (18, 0, 23, 46)
    assert summary.p_value == pytest.approx(2 / 2**9)
    row = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert from_row(row["summary"]) == summary
    assert set(row["by_subject"]) == {"words", "symbols"}
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["commit"]


def test_a_grader_that_fails_everywhere_gives_no_accuracy(session, tmp_path):
    broken = replace(session.task, grade=lambda pairs: [Verdict(status="unscored", why="worker died") for _ in pairs])
    with pytest.raises(NothingScored, match="worker died"):
        session.evaluate(tmp_path / "out", task=broken)


def write_suite(folder: Path, size: int = 23) -> Path:
    text = f"kind: eval\ntask: {{kind: sums, test_size: {size}}}\nsampling: {{max_tokens: 8, temperature: 1.0}}\nchunk: 5\n"
    (folder / "tiny.yaml").write_text(text)
    return folder / "tiny.yaml"


def test_the_command_prints_a_table_and_names_its_folder(tiny_llama, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["eval", str(write_suite(tmp_path)), "--model", str(tiny_llama), "--out", str(out), "--limit", "7"]) == 0
    printed = capsys.readouterr().out
    assert "7 problems, 7 episodes, 0 unscored" in printed
    assert "Delta(t1,t2)" in printed
    assert "exact p = 1" in printed
    assert str(out) in printed


def no_template(model: Path, folder: Path) -> str:
    shutil.copytree(model, folder / "model")
    (folder / "model" / "chat_template.jinja").unlink()
    return str(folder / "model")


def no_weights(model: Path, folder: Path) -> str:
    shutil.copytree(model, folder / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    return str(folder / "model")


def run_folder(model: Path, folder: Path) -> str:
    (folder / "run" / "checkpoints" / "step_000010").mkdir(parents=True)
    return str(folder / "run")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda model, folder: str(folder / "nope"), "no such model folder"),
        (no_template, "no chat template"),
        (no_weights, "weights cannot be loaded"),
        (run_folder, "name a checkpoint such as"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_clear_line(tiny_qwen2, tmp_path, capfd, make, said):
    model = make(tiny_qwen2, tmp_path)
    assert cli.main(["eval", str(write_suite(tmp_path)), "--model", model, "--out", str(tmp_path / "out")]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("posttrain: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert model in lines[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--model is missing"),
        (["--model", "m", "--smaples", "3"], "did you mean 'samples'"),
        (["--model", "m", "--attempts", "0"], "greater than or equal to 1"),
        (["--model", "m", "--sampling.temprature", "1"], "did you mean 'temperature'"),
    ],
)
def test_a_wrong_call_is_one_clear_line(tmp_path, capsys, words, said):
    assert cli.main(["eval", str(write_suite(tmp_path)), *words]) == 2
    assert said in capsys.readouterr().err


def test_help_lists_the_keys_of_a_suite(tmp_path, capsys):
    assert cli.main(["eval", str(write_suite(tmp_path)), "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--sampling.temperature" in printed
    assert "0 is greedy" in printed


OF_THE_PAPER = [path for path in SUITES if path.stem.endswith("_two_attempts") and path.stem.split("_")[0] not in ("sums", "oneliners")]


@pytest.mark.parametrize("path", OF_THE_PAPER, ids=lambda path: path.stem)
def test_the_suites_follow_the_papers_protocol(path):
    suite = load(Suite, [path])
    assert (suite.attempts, suite.samples, suite.sampling.temperature, suite.split) == (2, 1, 0.0, "test")
    assert str(make_task(suite.task).name) in path.stem


@pytest.mark.parametrize(("name", "data"), [("math500", "math500.jsonl"), ("gsm8k", "gsm8k_test.jsonl.gz")])
@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma"])
def test_the_suites_run_over_the_real_problems(name, data, family, request, tmp_path):
    if not (SHARED / data).is_file():
        pytest.skip(f"needs {data} in shared/data beside the checkout")
    model = str(request.getfixturevalue(f"tiny_{family}"))
    words = ["eval", f"{ROOT}/evals/suites/{name}_two_attempts.yaml", "--model", model, "--task.sources.test", str(SHARED / data)]
    words += ["--engine.kind", "hf", "--limit", "6", "--chunk", "4", "--sampling.max_tokens", "24", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    episodes = list(read_episodes(tmp_path / "out" / "episodes.jsonl"))
    assert len(episodes) == 6
    assert all(len(turn.completion.ids) <= 24 for e in episodes for turn in e.turns)
    assert all("error" in decode(model, e.turns[1].prompt_ids) for e in episodes)  # the instruction stands whole in the second prompt


def decode(model: str, ids) -> str:
    return AutoTokenizer.from_pretrained(model).decode(list(ids))


def test_a_killed_evaluation_ends_with_the_same_bytes(tiny_qwen2, tmp_path):
    suite = write_suite(tmp_path, size=60)
    words = [sys.executable, "-m", "posttrain.cli", "eval", str(suite), "--model", str(tiny_qwen2), "--chunk", "3", "--out"]
    subprocess.run([*words, str(tmp_path / "whole")], cwd=ROOT, check=True, capture_output=True)
    log = tmp_path / "killed" / "episodes.jsonl"
    killed = subprocess.Popen([*words, str(log.parent)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while killed.poll() is None and not (log.exists() and log.stat().st_size > 20_000):
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    rows = len(log.read_text().splitlines())
    assert 0 < rows < 60
    subprocess.run([*words, str(log.parent)], cwd=ROOT, check=True, capture_output=True)
    for name in ("episodes.jsonl", "summary.json"):
        assert (log.parent / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_two_models_can_revise_the_same_first_attempts(session, whole, tmp_path):
    fixed = suite_of(first_attempts=whole / "episodes.jsonl", seed=3)
    session.evaluate(tmp_path / "out", suite=fixed)
    before = {(e.problem.id, e.turns[0].text) for e in read_episodes(whole / "episodes.jsonl")}
    episodes = list(read_episodes(tmp_path / "out" / "episodes.jsonl"))
    assert {(e.problem.id, e.turns[0].text) for e in episodes} <= before
    assert {tuple(turn.given for turn in e.turns) for e in episodes} == {(True, False)}


def test_first_attempts_that_are_missing_are_counted_before_anything_is_sampled(session, whole, tmp_path):
    fixed = suite_of(task=SumsTask(test_size=25), first_attempts=whole / "episodes.jsonl")
    with pytest.raises(ConfigError, match=r"has none for 2 of 25 problems"):
        session.evaluate(tmp_path / "out", suite=fixed, problems=make_task(fixed.task).load("test"))
    assert not (tmp_path / "out").exists()
