"""Every recipe and suite in the repository can be run as it stands, and is explained beside it."""

import importlib
from pathlib import Path

import pytest

from posttrain.cli import KINDS as TRAINED
from posttrain.config import build, load, read_yaml
from posttrain.evaluation.suite import Suite
from posttrain.study import Config as StudyConfig
from posttrain.study import _plan
from tests.kinds import class_of

KINDS = TRAINED | {"manyshot": "posttrain.tasks.manyshot", "reinforce": "posttrain.evaluation.reinforce"}
ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "recipes").glob("*/*.yaml"))
OVERLAYS = [path for path in FILES if path.parent.name == "overlays"]
RECIPES = [path for path in FILES if path not in OVERLAYS]
SUITES = sorted((ROOT / "evals" / "suites").glob("*.yaml"))
STUDIES = [path for path in RECIPES if read_yaml(path)[1]["kind"] == "study"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_recipes_suites_and_a_study():
    assert FILES
    assert SUITES
    assert STUDIES


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_resolves_against_its_kind(path):
    layer = read_yaml(path)
    build(class_of(layer[1]), [layer])


@pytest.mark.parametrize("path", OVERLAYS, ids=name)
def test_an_overlay_goes_over_every_recipe_of_its_kind(path):
    kind = read_yaml(path)[1].get("kind", "score")
    recipes = [recipe for recipe in RECIPES if read_yaml(recipe)[1]["kind"] == kind]
    assert recipes
    for recipe in recipes:
        below = build(importlib.import_module(KINDS[kind]).Config, [read_yaml(recipe)])
        above = build(importlib.import_module(KINDS[kind]).Config, [read_yaml(recipe), read_yaml(path)])
        assert above != below


@pytest.mark.parametrize("path", SUITES, ids=name)
def test_a_suite_resolves(path):
    load(class_of(read_yaml(path)[1]), [path])


@pytest.mark.parametrize("path", STUDIES, ids=name)
def test_the_recipes_and_the_suite_that_a_study_names_resolve_as_it_changes_them(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    cfg = load(StudyConfig, [path])
    load(Suite, [cfg.suite])
    for seed in cfg.seeds:
        assert [job.folder.name for job in _plan(cfg, Path("runs/x"), seed)] == list(cfg.runs)


@pytest.mark.parametrize("folder", sorted({path.parent for path in RECIPES}), ids=name)
def test_a_folder_of_recipes_explains_itself(folder):
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_recipe_is_at_most_sixty_lines(path):
    assert len(path.read_text().splitlines()) <= 60
