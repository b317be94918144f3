"""Each many-shot recipe runs to the end of its report: a tiny random model, small files in the data sets' layouts, a few items."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from posttrain.cli import main
from posttrain.config import build, load, read_yaml
from posttrain.evaluation.icl.log import read
from posttrain.evaluation.icl.run import Suite
from posttrain.prompting.shots import Shot, question_shots, write_shots
from posttrain.tasks.icl import make_icl_task
from posttrain.types import Problem
from tests.tasks.icl.fixtures import Recipe
from tests.tasks.icl.test_references import TASKS
from tests.tiny_models import make_tiny_model

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes" / "manyshot").glob("*.yaml"))
SMALL = TASKS | {
    "linear": {"per_class": 8, "test_per_class": 2},
    "parity": {"bits": 4, "pool_size": 8, "test_size": 4},
}
for kind in ("math", "gsm8k_transfer"):
    SMALL[kind] = TASKS[kind] | {"few_shot": ["What is the remainder", "Find the sum"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"), "qwen2", positions=8192)


def test_every_task_of_the_paper_has_a_recipe():
    kinds = {read_yaml(path)[1]["task"]["kind"] for path in RECIPES}
    assert kinds == SMALL.keys() - {"sums"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_how_it_is_started_and_the_readme_what_to_expect(path):
    assert f"posttrain eval recipes/manyshot/{path.name} --model " in path.read_text()
    assert f"`{path.stem}`" in (path.parent / "README.md").read_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_to_the_end_of_its_report(path, model, tmp_path):
    recipe = read_yaml(path)[1]
    small = {"task": on_fixtures(recipe["task"]), "engine": {"kind": "hf"}, "items": 2, "shots": [1, 2], "seeds": [0], "max_tokens": 4}
    rationales = tmp_path / "shots.jsonl"
    write_shots(rationales, as_a_model_wrote(make_icl_task(build(Recipe, [("small", {"task": small["task"]})]).task).load("pool")))
    changed = {"task": on_fixtures, "rationales": lambda _: [str(rationales)]}
    small["arms"] = {name: {key: change(arm[key]) for key, change in changed.items() if key in arm} for name, arm in recipe["arms"].items()}
    small["arms"] |= {name: arms | {"solved": 1} for name, arms in small["arms"].items() if "solved" in recipe["arms"][name]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small | ({"orders": 2} if "orders" in recipe else {})))
    assert main(["eval", str(path), str(tmp_path / "small.yaml"), "--model", str(model), "--out", str(tmp_path / "out")]) == 0
    rows, _ = read(tmp_path / "out" / "answers.jsonl")
    asked = [row for row in rows if not row.baseline]
    for name, arm in recipe["arms"].items():
        fixed = arm.get("method") in ("zero_shot", "few_shot")
        of_arm = [row for row in asked if row.arm == name]
        cells = {row.cell for row in of_arm}
        assert len(cells) == (1 if fixed else 3 if "orders" in recipe else 2)  # one shot has one order
        assert len(of_arm) == 2 * len(cells)
    assert all(row.score is not None and 0 <= row.score <= 1 for row in asked)
    assert all((row.nll is not None and row.nll > 0) == load(Suite, [path]).nll for row in asked)
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def as_a_model_wrote(pool: list[Problem]) -> list[Shot]:
    return [replace(shot, answer="so it is 5", source="model") for shot in question_shots(pool)]


def on_fixtures(task: dict) -> dict:
    return {"kind": task["kind"], **SMALL[task["kind"]]}
