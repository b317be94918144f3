"""A small study from end to end: what is trained, what is only evaluated, what is handed from run to run."""

import json

import pytest
import yaml

from posttrain import study
from posttrain.config import ConfigError, build
from posttrain.rollout.store import read_episodes
from posttrain.run import read_jsonl
from tests.sums_base import TASK

SCORE = {"kind": "score", "model": "?", "task": TASK, "steps": 2, "problems_per_step": 4, "samples": 4, "kl": {"coef": [0.01, 0.01]}}
SCORE |= {"sampling": {"max_tokens": 8}, "optim": {"lr": 1e-3}, "checkpoint": {"every": 1}}
SFT = {
    "kind": "sft",
    "model": {"kind": "new", "hidden_size": 16, "heads": 2, "mlp_size": 32},
    "task": TASK,
    "demonstrations": 200,
    "steps": 20,
}
SUITE = {"kind": "eval", "task": TASK | {"test_size": 4}, "sampling": {"max_tokens": 8, "temperature": 1.0}}


def files(tmp_path) -> dict[str, str]:
    """Recipes and suites on disk, by name."""
    trees = {
        "sft": SFT,
        "score": SCORE,
        "suite": SUITE,
        "train_suite": SUITE | {"split": "train"},
        "refine": SUITE | {"method": "self_refine"},
    }
    for name, tree in trees.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    return {name: str(tmp_path / f"{name}.yaml") for name in trees}


def config(tmp_path, runs, **changes) -> study.Config:
    return build(study.Config, [("test", {"title": "t", "suite": files(tmp_path)["suite"], "runs": runs} | changes)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    at = files(folder)
    runs = {
        "base": {"recipe": at["sft"], "label": "Base"},
        "refined": {"model": "base", "suite": at["refine"], "label": "Self-Refine"},
        "attempts": {"model": "base", "suite": at["train_suite"], "label": "Training problems"},
        "plain": {"recipe": at["score"], "model": "base", "label": "Plain"},
        "offline": {
            "recipe": at["score"],
            "model": "base",
            "label": "Offline",
            "changes": {"offline": {"share": 1.0}},
            "first_attempts": "attempts",
        },
        "fixed": {"model": "plain", "first_attempts": "base", "label": "Plain on the base's attempts"},
    }
    assert study.main(config(folder, runs, overrides={"problems_per_step": 2}), folder / "out", resume=False) == 0
    return folder / "out" / "seed0"


def test_a_run_without_a_recipe_evaluates_the_model_that_it_names(done):
    assert not (done / "refined" / "model").exists()
    summary = json.loads((done / "refined" / "eval" / "refine" / "summary.json").read_text())
    assert str(done / "base" / "model") in summary["model"]


def test_overrides_go_to_the_recipes_that_have_the_key(done):
    (last,) = (row for row in read_jsonl(done / "plain" / "metrics.jsonl") if row["step"] == 2)
    assert last["train/samples"] == 2 * 4 * 2


def test_first_attempts_are_handed_to_training_and_to_evaluation(done):
    offered = {e.turns[0].text for e in read_episodes(done / "attempts" / "eval" / "train_suite" / "episodes.jsonl")}
    trained = list(read_episodes(done / "offline" / "episodes" / "step_000002.jsonl"))
    assert all(e.turns[0].given and e.turns[0].text in offered for e in trained)
    own = {(e.problem.id, e.turns[0].text) for e in read_episodes(done / "base" / "eval" / "suite" / "episodes.jsonl")}
    revised = list(read_episodes(done / "fixed" / "eval" / "suite" / "episodes.jsonl"))
    assert {(e.problem.id, e.turns[0].text) for e in revised} == own
    assert all(e.turns[0].given for e in revised)


def test_a_model_that_no_run_makes_is_evaluated_and_started_from_and_a_study_may_get_more_runs(done, tmp_path):
    at, base = files(tmp_path), str(done / "base" / "model")
    runs = {"base": {"hub": base, "label": "Base"}}
    assert study.main(config(tmp_path, runs), tmp_path / "out", resume=False) == 0
    own, theirs = (read_episodes(folder / "base" / "eval" / "suite" / "episodes.jsonl") for folder in (tmp_path / "out" / "seed0", done))
    assert [e.turns for e in own] == [e.turns for e in theirs]
    more = {**runs, "plain": {"recipe": at["score"], "model": "base", "label": "Plain", "changes": {"steps": 1}}}
    assert study.main(config(tmp_path, more), tmp_path / "out", resume=True) == 0
    assert f"model: {base}" in (tmp_path / "out" / "seed0" / "plain" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("runs", "changes", "complaint"),
    [
        ({"a": {"label": "A"}}, {}, "runs.a: has neither a recipe nor a model"),
        ({"a": {"hub": "m", "recipe": "sft"}}, {}, "runs.a: names the model 'm' in `hub`, which is only evaluated"),
        ({"a": {"recipe": "sft", "first_attempts": "b"}}, {}, "names 'b', expected an earlier run"),
        (
            {"a": {"recipe": "sft"}},
            {"overrides": {"stepz": 1}},
            "overrides.stepz: no recipe of this study has such a key; did you mean 'steps'",
        ),
        ({"a": {"recipe": "suite"}}, {}, "found kind 'eval', expected one of score"),
    ],
)
def test_a_study_that_cannot_run_is_refused_before_anything_does(runs, changes, complaint, tmp_path):
    at = files(tmp_path)
    runs = {name: {key: at.get(value, value) if key == "recipe" else value for key, value in run.items()} for name, run in runs.items()}
    with pytest.raises(ConfigError, match=complaint):
        study.main(config(tmp_path, runs, **changes), tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()


def test_two_runs_of_one_label_and_an_unknown_row_to_test_against_are_refused():
    tree = {"title": "T", "suite": "s.yaml", "runs": {"a": {"recipe": "r.yaml", "label": "A"}, "b": {"model": "a", "label": "B"}}}
    with pytest.raises(ConfigError, match="against: names 'C', expected the label of a run"):
        build(study.Config, [("test", tree | {"against": "C"})])
    runs = {**tree["runs"], "b": {"model": "a", "label": "A"}}
    with pytest.raises(ConfigError, match="several have the label 'A'"):
        build(study.Config, [("test", tree | {"runs": runs})])
