"""What a recipe may say, how its layers merge, and the one line that a wrong one gets: where, found, expected, nearest."""

from pathlib import Path

import pytest

from posttrain.config import ConfigError, build, config, dump, load, merge, read_flags, read_yaml
from posttrain.evaluation.icl.run import Arm
from posttrain.evaluation.suite import Suite
from posttrain.rl.score import Config as ScoreConfig
from posttrain.sampling.engine import HFEngineConfig, VLLMEngineConfig
from posttrain.schema import describe
from posttrain.study import Config as StudyConfig
from posttrain.tasks.gsm8k import Gsm8kTask
from posttrain.tasks.math import MathTask
from tests.kinds import class_of

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*/*.yaml") if path.parent.name != "overlays")
SUITES = sorted((ROOT / "evals" / "suites").glob("*.yaml"))

SCORE = """\
kind: score
model: some/model
task: {kind: sums, train_size: 10}
steps: 5
problems_per_step: 2
kl: {coef: [0.1, 0.1]}
sampling: {max_tokens: 8}
optim: {lr: 1.0e-4}
"""
STUDY = "kind: study\ntitle: t\nsuite: s.yaml\nruns:\n  base: {recipe: a.yaml}\n  tuned: {recipe: b.yaml, model: base}\n"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(SCORE)
    return path


def complaint(cls, files, flags=()) -> str:
    """The one line that a wrong recipe gets."""
    with pytest.raises(ConfigError) as caught:
        load(cls, files, flags)
    line = str(caught.value)
    assert "\n" not in line
    assert "pydantic" not in line
    return line


def test_later_files_win_over_earlier_ones_key_by_key_and_flags_over_all(recipe, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("optim: {eps: 1e-7}\nsteps: 7\n")
    cfg = load(ScoreConfig, [recipe, overlay], ["--steps", "9", "--optim.max_grad_norm=0.5"])
    assert (cfg.optim.lr, cfg.optim.eps, cfg.optim.max_grad_norm, cfg.steps) == (1e-4, 1e-7, 0.5, 9)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--a.b", "3e-6"], 3e-6),
        (["--a.b", "-3E+6"], -3e6),
        (["--a.b", "1.5"], 1.5),
        (["--a.b=-2"], -2),
        (["--a.b", "null"], None),
        (["--a.b", "true"], True),
        (["--a.b", "[1, 2]"], [1, 2]),
        (["--a.b", "x=y: z"], {"x=y": "z"}),
        (["--a.b", "hub:org/name:test"], "hub:org/name:test"),
        (["--a.b", "--c"], "--c"),
        (["--a.b", "[unclosed"], "[unclosed"),
        (["--a.b", "1", "--a.b", "2"], 2),
    ],
)
def test_a_flag_is_read_as_yaml_with_numbers_in_any_usual_form(words, value):
    (found,) = read_flags(words)[1]["a"].values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("words", [["a"], ["--"], ["--a."], ["--.a", "1"], ["--a..b", "1"], ["-a", "1"], ["--a"]])
def test_a_flag_that_is_none_is_refused(words):
    with pytest.raises(ConfigError, match="flags: "):
        read_flags(words)


def test_a_mapping_is_replaced_whole_when_its_kind_changes():
    old = {"task": {"kind": "sums", "numbers": 3}, "optim": {"lr": 1, "eps": 2}}
    new = {"task": {"kind": "math", "limit": 4}, "optim": {"lr": 5}}
    assert merge(old, new) == {"task": {"kind": "math", "limit": 4}, "optim": {"lr": 5, "eps": 2}}


def test_a_kind_that_is_said_after_its_keys_keeps_them(recipe):
    cfg = load(ScoreConfig, [recipe], ["--engine.max_model_len", "64", "--engine.kind", "vllm"])
    assert cfg.engine == VLLMEngineConfig(max_model_len=64)


def test_a_key_without_a_kind_means_the_kind_of_the_earlier_layer_or_the_default(recipe, tmp_path):
    assert load(ScoreConfig, [recipe], ["--engine.max_rows", "8"]).engine == HFEngineConfig(max_rows=8)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("engine: {max_rows: 8}\n")
    assert load(ScoreConfig, [recipe, overlay], ["--engine.kind", "hf"]).engine == HFEngineConfig(max_rows=8)
    assert load(ScoreConfig, [recipe, overlay], ["--engine.kind", "vllm"]).engine == VLLMEngineConfig()


def test_merging_leaves_its_inputs_as_they_were():
    old, new = {"a": {"b": 1}}, {"a": {"c": 2}}
    merge(old, new)["a"]["d"] = 3
    assert (old, new) == ({"a": {"b": 1}}, {"a": {"c": 2}})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--optim.lrr", "1"], "flags: optim.lrr: unknown key; did you mean 'lr'?"),
        (["--lr", "1"], "flags: lr: unknown key; did you mean 'optim.lr'?"),
        (["--task.trian_size", "1"], "flags: task.trian_size: unknown key; did you mean 'train_size'?"),
        (["--task.limit", "1"], "flags: task.limit: unknown key; it is a key of kind math or gsm8k"),
        (["--kl.zzzz", "1"], "flags: kl.zzzz: unknown key; expected one of coef, estimator"),
        (["--policy.lora.rnk", "8"], "flags: policy.lora.rnk: unknown key; did you mean 'rank'?"),
        (["--optim", "{1: 2}"], "flags: optim.1: found 1, expected words as keys"),
        (["--optim.lr", "fast"], "flags: optim.lr: found 'fast', expected a number"),
        (["--optim.lr.x", "1"], "flags: optim.lr: found {'x': 1}, expected a number"),
        (["--optim.lr", ".inf"], "flags: optim.lr: found inf, expected a finite number"),
        (["--steps", "null"], "flags: steps: found null, expected a whole number"),
        (["--steps", "1.5"], "flags: steps: found 1.5, expected a whole number"),
        (["--shared_first", "maybe"], "flags: shared_first: found 'maybe', expected true or false"),
        (["--model", "[a]"], "flags: model: found ['a'], expected text"),
        (["--kl.coef", "0.1"], "flags: kl.coef: found 0.1, expected a list"),
        (["--kl.coef", "[0.1, x]"], "flags: kl.coef.1: found 'x', expected a number"),
        (["--optim.betas", "[1, 2, 3]"], "flags: optim.betas: found [1, 2, 3], expected at most 2 values"),
        (["--policy", "3"], "flags: policy: found 3, expected keys and values"),
        (["--policy.lora.targets", "4"], "flags: policy.lora.targets: found 4, expected text or a list"),
        (["--task", "5"], "flags: task: found 5, expected keys and values"),
        (["--engine.max_rows", "0"], "flags: engine.max_rows: found 0, expected a number greater than 0"),
        (["--engine.kind", "vlm"], "flags: engine.kind: found 'vlm', expected one of hf, vllm, server; did you mean 'vllm'?"),
        (["--engine.kind", "server"], "flags: engine.url: missing; it is required (and 1 more)"),
        (["--kl.estimator", "k1_in_rewards"], "flags: kl.estimator: found 'k1_in_rewards', expected 'k1_in_reward', 'k2_in_loss' or"),
        (["--kl.estimator", "k1_in_rewards"], "did you mean 'k1_in_reward'?"),
        (["--kind", "sft"], "flags: kind: found 'sft', expected 'score'"),
    ],
)
def test_a_wrong_flag_is_told_with_its_path_what_was_found_and_what_is_near(recipe, words, said):
    assert said in complaint(ScoreConfig, [recipe], words)


SERVER = ["--engine.kind", "server", "--engine.url", "http://u/v1", "--engine.model", "m"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weight", "[1, 1, 1]"], "weight has 3 attempts but kl.coef has 2; give one number per attempt"),
        (["--kl.coef", "[0.1]"], "weight has 2 attempts but kl.coef has 1"),
        (["--shared_first", "true", "--weight", "[0, 1]", "--bonus", "10"], "shared_first: all samples of a problem share attempt 1"),
        (["--samples", "1"], "samples must be at least 2"),
        ([*SERVER, "--engine.token_ids", "false"], "engine.token_ids: training needs the ids that were sampled"),
        ([*SERVER, "--sampling.temperature", "0.7"], "sampling.temperature: found 0.7, expected 1"),
        (["--sampling.temperature", "0"], "sampling: need max_tokens >= 1 and temperature > 0, got 8 and 0.0"),
    ],
)
def test_keys_that_do_not_go_together_are_refused_and_every_layer_that_set_them_is_named(recipe, words, said):
    line = complaint(ScoreConfig, [recipe], words)
    assert line.startswith(f"{recipe} + flags: ")
    assert said in line
    assert "Value error" not in line


def test_flags_that_were_not_given_are_not_blamed(recipe):
    recipe.write_text(SCORE.replace("[0.1, 0.1]", "[0.1]"))
    with pytest.raises(ConfigError, match="weight has 2 attempts") as caught:
        build(ScoreConfig, [read_yaml(recipe), read_flags([])])
    assert str(caught.value).startswith(f"{recipe}: ")


def test_the_file_that_said_it_last_is_named(recipe, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("optim: {lr: slow}\n")
    assert complaint(ScoreConfig, [recipe, overlay], ["--steps", "1"]).startswith(f"{overlay}: optim.lr: ")
    assert complaint(ScoreConfig, [overlay, recipe], ["--bonnus", "1"]) == "flags: bonnus: unknown key; did you mean 'bonus'?"


def test_what_is_missing_is_named_with_the_layer_it_is_missing_from(recipe):
    recipe.write_text("".join(line for line in SCORE.splitlines(keepends=True) if "optim" not in line))
    assert complaint(ScoreConfig, [recipe]) == f"{recipe}: optim: missing; it is required"
    assert complaint(ScoreConfig, [recipe], ["--optim.eps", "1e-7"]) == "flags: optim.lr: missing; it is required"
    recipe.write_text(SCORE.replace("kind: sums, ", ""))
    assert (
        complaint(ScoreConfig, [recipe])
        == f"{recipe}: task.kind: missing; it is required (kinds: sums, oneliners, math, gsm8k, humaneval, mbpp, with_shots, file)"
    )
    recipe.write_text(SCORE.replace("task:", "# "))
    assert (
        complaint(ScoreConfig, [recipe])
        == f"{recipe}: task: missing; it is required (kinds: sums, oneliners, math, gsm8k, humaneval, mbpp, with_shots, file)"
    )


def test_a_recipe_of_another_kind_is_told_by_its_kind_not_by_its_keys(recipe):
    assert complaint(Suite, [recipe]) == f"{recipe}: kind: found 'score', expected 'eval'"


def test_the_runs_of_a_study_are_checked_by_name(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    assert load(StudyConfig, [study], ["--runs.base.label", "Base"]).runs["base"].label == "Base"
    assert complaint(StudyConfig, [study], ["--runs.base.recpie", "x"]) == "flags: runs.base.recpie: unknown key; did you mean 'recipe'?"
    assert "names 'bas', expected an earlier run; did you mean 'base'?" in complaint(StudyConfig, [study], ["--runs.tuned.model", "bas"])
    assert "names 'tuned', expected an earlier run" in complaint(StudyConfig, [study], ["--runs.base.reference", "tuned"])


def test_a_missing_file_is_told_with_the_nearest_name(recipe):
    assert complaint(ScoreConfig, [recipe.with_name("recpie.yaml")]).endswith("no such recipe file; did you mean 'recipe.yaml'?")
    assert complaint(ScoreConfig, [recipe.parent]) == f"{recipe.parent}: no such recipe file"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", ":4: not valid YAML: key 'c' stands twice"),
        ("a: 1\na: 1\n", ":2: not valid YAML: key 'a' stands twice"),
        ("a: 1\nb: [1\n", "not valid YAML: expected ',' or ']'"),
        ("? [a, b]\n: 1\n", ":1: not valid YAML: a key must be a word or a number"),
        ("a: 1\n---\nb: 2\n", "not valid YAML: but found another document"),
        ("a: !!python/object:os.system 1\n", ":1: not valid YAML: could not determine a constructor"),
        ("a: \x00\n", "not valid YAML: unacceptable character"),
        (b"\xff\xfe", "not valid YAML: 'utf-8' codec can't decode byte 0xff"),
        ("", "found nothing, expected keys and values"),
        ("- 1\n", "found [1], expected keys and values"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_in_one_line_with_its_place(tmp_path, text, said):
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    line = complaint(ScoreConfig, [path])
    assert line.startswith(f"{path}:")
    assert said in line


@pytest.mark.parametrize("path", [*RECIPES, *SUITES], ids=lambda path: path.stem)
def test_every_recipe_and_suite_survives_being_written_out_and_read_back(path, tmp_path):
    _, tree = read_yaml(path)
    cls = class_of(tree)
    cfg = load(cls, [path])
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump(cfg))
    assert load(cls, [copy]) == cfg
    assert dump(load(cls, [copy])) == copy.read_text()


@config
class Odd:
    """Values that YAML likes to take for something else."""

    text: tuple[str, ...]
    number: float = 1e-8
    """Small."""
    choice: MathTask | Gsm8kTask | None = None
    path: Path = Path("a/b")


def test_text_that_looks_like_something_else_survives_being_written_out(tmp_path):
    odd = Odd(text=("3e-6", "1", "yes", "null", "", " a ", "x: y", "é\n\\boxed{}", "- 1", "#"), number=3e-6)
    path = tmp_path / "odd.yaml"
    path.write_text(dump(odd))
    assert load(Odd, [path]) == odd


def test_a_config_can_not_be_changed_nor_made_with_a_wrong_default(recipe):
    cfg = load(ScoreConfig, [recipe])
    with pytest.raises(AttributeError):
        cfg.steps = 3

    @config
    class Wrong:
        number: int = "x"

    assert "number: found 'x', expected a whole number" in complaint(Wrong, [])


def test_a_union_that_may_be_left_out_is_described_as_null():
    rows = {key: rest for key, *rest in describe(Arm)}
    assert rows["task.kind"][1] == "null"


def test_every_key_is_described_with_its_type_default_and_docstring():
    rows = {key: rest for key, *rest in describe(ScoreConfig)}
    assert rows["bonus"] == ["float", "0.0", ScoreConfig.__pydantic_fields__["bonus"].description]
    assert rows["bonus"][2].startswith("alpha of sec. 5.2")
    assert rows["optim.lr"][:2] == ["float", "required"]
    assert rows["policy.lora.rank"][:2] == ["int", "32"]
    assert rows["kl.estimator"][:2] == ["k1_in_reward|k2_in_loss|k3_in_loss", "k1_in_reward"]
    assert rows["weight"][:2] == ["tuple[float, ...]", "[1.0, 1.0]"]
    assert rows["reference"][:2] == ["str | None", "null"]
    assert rows["shared_first"][:2] == ["bool", "false"]
    assert rows["task.kind"][:2] == ["sums|oneliners|math|gsm8k|humaneval|mbpp|with_shots|file", "required"]
    assert rows["engine.kind"][:2] == ["hf|vllm|server", "hf"]
    assert rows["engine.max_model_len [vllm]"][:2] == ["int | None", "null"]
    assert rows["engine.max_length [server]"][:2] == ["int | None", "null"]  # of positive numbers alone, which no name says
    assert rows["kl.target"][:2] == ["tuple[float | None, ...] | None", "null"]
    assert rows["task.limit [math]"][1] == "null"


def test_keys_that_must_be_given_and_keys_under_names_are_described_as_such():
    suite = {key: rest for key, *rest in describe(Suite)}
    assert suite["sampling.max_tokens"][:2] == ["int", "required"]
    assert suite["limit"][:2] == ["int | None", "null"]
    study = {key: rest for key, *rest in describe(StudyConfig)}
    assert study["runs.NAME.recipe"][:2] == ["Path | None", "null"]
    assert study["overrides"][:2] == ["dict[str, Any]", "{}"]
