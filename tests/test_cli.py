"""`posttrain VERB`: exit codes, one line for whatever the caller got wrong, and help that helps."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from posttrain import cli
from posttrain.cli import KINDS
from posttrain.config import ConfigError, load
from posttrain.evaluation.metrics import NothingScored
from posttrain.prompting.chat import TemplateError
from posttrain.rl.checkpoint import CheckpointError
from posttrain.rl.loop import TrainingError
from posttrain.rl.recipe import Config
from posttrain.types import DataError, EngineError

ROOT = Path(__file__).parents[1]
RECIPE = str(ROOT / "recipes" / "score_sums" / "stage2.yaml")
SUITE = str(ROOT / "evals" / "suites" / "sums_two_attempts.yaml")
TRAINED = ", ".join(KINDS)
TINY = """\
kind: score
model: {model}
task: {{kind: sums, train_size: 20}}
steps: 1
problems_per_step: 2
samples: 2
kl: {{coef: [0.1, 0.1]}}
sampling: {{max_tokens: 4}}
optim: {{lr: 1.0e-4}}
"""


def call(*words: str) -> int:
    """The exit code, whether `main` returns it or argparse leaves with it."""
    try:
        return cli.main(list(words))
    except SystemExit as left:
        return int(str(left.code))


def refusal(capsys, *words: str) -> str:
    """The one line on stderr of a call that must end with exit code 2, with nothing on stdout."""
    assert call(*words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("posttrain: ")
    return line


def test_the_module_runs_as_a_program_and_tells_a_mistake_without_a_traceback():
    run = [sys.executable, "-m", "posttrain.cli", "train", "recipes/score_sums/stage3.yaml"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "posttrain: recipes/score_sums/stage3.yaml: no such recipe file; did you mean 'stage2.yaml'?\n"


def test_a_reader_that_goes_away_is_no_error():
    run = [sys.executable, "-m", "posttrain.cli", "train", "--help"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered)
    process.stdout.close()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 1


def test_help_lists_every_verb_and_the_exit_codes(capsys):
    assert call("--help") == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^ +{verb}\b", printed, re.MULTILINE) for verb in cli.VERBS)
    assert "Exit codes: 0 done, 1 the work failed, 2 the call or its input was wrong" in " ".join(printed.split())


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(verb, capsys):
    assert call(verb, "--help") == 0
    printed = capsys.readouterr().out
    assert f"posttrain {verb}" in printed
    assert len(printed.splitlines()) > 5


@pytest.mark.parametrize("words", [[], ["trian"], ["train"], ["eval"], ["grade"], ["report"], ["data"], ["train", "--out"], ["init"]])
def test_a_call_without_what_it_needs_is_answered_by_its_usage(words, capsys):
    assert call(*words) == 2
    printed = capsys.readouterr()
    assert "usage: posttrain" in printed.out + printed.err


def test_help_with_a_recipe_lists_the_keys_of_its_kind(capsys):
    assert call("train", RECIPE, "--help") == 0
    printed = capsys.readouterr().out
    assert "  --optim.lr  <float>  [required]\n      Learning rate after warm-up" in printed
    assert "  --bonus  <float>  [0.0]\n      alpha of sec. 5.2" in printed
    assert "--warmup" not in printed.replace("--optim.warmup", "")


@pytest.mark.parametrize("words", [["--steps", "7", RECIPE], [RECIPE, "--steps=7"], ["--out", "x", RECIPE, "--steps", "7", "--resume"]])
def test_a_dry_run_prints_the_resolved_recipe_wherever_the_words_stand(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("train", "--dry-run", *words) == 0
    (tmp_path / "resolved.yaml").write_text(capsys.readouterr().out)
    assert load(Config, ["resolved.yaml"]) == load(Config, [RECIPE], ["--steps", "7"])
    assert [path.name for path in tmp_path.iterdir()] == ["resolved.yaml"]


def test_recipe_files_may_stand_on_both_sides_of_a_flag_and_merge_in_order(capsys, tmp_path):
    (tmp_path / "overlay.yaml").write_text("steps: 3\n")
    assert call("train", RECIPE, "--seed", "4", "--out", "x", str(tmp_path / "overlay.yaml"), "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "steps: 3\n" in printed
    assert "seed: 4\n" in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", RECIPE, "--optim.lrr", "1"], "flags: optim.lrr: unknown key; did you mean 'lr'?"),
        (["train", RECIPE, "--steps", "many"], "flags: steps: found 'many', expected a whole number"),
        (["train", RECIPE, "--resum"], "flags: --resum needs a value"),
        (["train", RECIPE, "--task.kind", "maths"], "did you mean 'math'?"),
        (["train", RECIPE, "-x", "1"], "flags: found '-x', expected --key value"),
        (["train", "nowhere.yaml"], "nowhere.yaml: no such recipe file"),
        (["train", SUITE], f"found kind 'eval', expected one that can be trained: {TRAINED}; a suite is for `posttrain eval`"),
        (["eval", RECIPE, "--model", "m"], "kind: found 'score', expected 'eval'"),
        (["eval", SUITE], "--model is missing"),
        (["eval", "nowhere.yaml", "--model", "m"], "nowhere.yaml: no such recipe file"),
        (["eval", SUITE, "--model", "no/such/folder"], "no such model folder"),
        (["grade", "math", "nowhere.jsonl"], "nowhere.jsonl: no such data file"),
        (["report", "nowhere"], "nowhere: no such run folder"),
        (["data", "check", "nowhere.yaml"], "nowhere.yaml: no such recipe file"),
        (["data", "check", "mth"], "found 'mth', expected"),
        (["data", "check", SUITE, "--split", "tset"], "no split 'tset'"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(words, said, capsys):
    assert said in refusal(capsys, *words)


@pytest.mark.parametrize("text", ["model: m\n", "kind: [score]\n", "kind: scroe\n"])
def test_a_recipe_without_a_kind_that_can_be_trained_is_refused(text, capsys, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    line = refusal(capsys, "train", str(tmp_path / "r.yaml"))
    assert f"expected one that can be trained: {TRAINED}" in line
    assert ("did you mean 'score'?" in line) == ("scroe" in text)


def test_a_malformed_data_file_is_named_with_its_line(capsys, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"gold": "1", "pred": "1"}) + "\n{oops\n")
    assert f"{path}:2: not JSON" in refusal(capsys, "grade", "math", str(path))


def test_a_model_folder_that_is_not_there_is_one_line(capsys, tmp_path):
    (tmp_path / "r.yaml").write_text(TINY.format(model=tmp_path / "nowhere"))
    assert "nowhere" in refusal(capsys, "train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template"),
        ("{% for m in messages[-1:] %}{{ m['content'] }}{% endfor %}", "rewrites earlier answers"),
        ("{% for m in messages %}{{ m['content'] }}", "the chat template fails: "),
    ],
)
def test_a_model_that_can_not_be_asked_twice_is_refused_before_anything_is_written(tiny_qwen2, tmp_path, capsys, template, said):
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_qwen2.iterdir():
        if not file.name.startswith("chat_template"):
            (model / file.name).symlink_to(file)
    if template is not None:
        (model / "chat_template.jinja").write_text(template)
    assert AutoTokenizer.from_pretrained(model).chat_template == template
    (tmp_path / "r.yaml").write_text(TINY.format(model=model))
    capsys.readouterr()
    assert call("train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run")) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"posttrain: {model}: ")
    assert said in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError, 2), (DataError, 2), (TemplateError, 2), (EngineError, 1), (TrainingError, 1), (CheckpointError, 1), (NothingScored, 1)],
)
def test_every_error_that_a_caller_can_mend_has_its_exit_code(error, code, monkeypatch, capsys):
    def fail(argv):
        raise error("what, where")

    monkeypatch.setattr(cli, "cli", fail)
    assert cli.main(["train"]) == code
    assert capsys.readouterr().err == "posttrain: what, where\n"


def test_any_other_error_is_a_defect_and_shows_its_traceback(monkeypatch):
    def fail(argv):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "cli", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])
