"""`posttrain init DIR`: what it makes holds together, trains, and is never written over anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from posttrain import cli, study
from posttrain.config import build, load, read_yaml
from posttrain.evaluation.suite import Suite
from posttrain.new_project import TEMPLATE
from tests.kinds import class_of

ROOT = Path(__file__).parents[1]
SMALL = ["--demonstrations", "64", "--steps", "2", "--batch", "8"]
SHORT = ["--steps", "1", "--problems_per_step", "2", "--samples", "2", "--validation.problems", "2"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "mine"
    assert cli.main(["init", str(folder)]) == 0
    return folder


@pytest.fixture
def inside(project, monkeypatch) -> Path:
    monkeypatch.chdir(project)
    return project


def test_every_file_of_the_template_is_there_under_its_own_name(project):
    assert {path.name for path in project.iterdir()} == {path.name for path in TEMPLATE.iterdir() if path.is_file()} - {"gitignore"} | {
        ".gitignore"
    }


def test_its_task_passes_its_own_check(inside, capsys):
    assert cli.main(["data", "check", "task.py"]) == 0
    printed = capsys.readouterr().out
    assert "test: 1000 of 1000 references pass their own grader" in printed
    assert "also in" not in printed


def test_its_own_tests_pass_and_fail_with_a_grader_that_says_yes_to_all(project, tmp_path):
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""}
    assert subprocess.run(run, cwd=project, env=environment, capture_output=True, timeout=120).returncode == 0
    for name in ("task.py", "test_task.py"):
        text = (project / name).read_text()
        (tmp_path / name).write_text(text.replace("right = found == problem.reference.text", "right = True"))
    assert subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, timeout=120).returncode == 1


@pytest.mark.parametrize("name", ["base", "plain", "stage1", "stage2"])
def test_its_recipes_resolve(inside, name):
    layer = read_yaml(f"{name}.yaml")
    build(class_of(layer[1]), [layer])


def test_its_study_compares_at_equal_samples_and_updates(inside):
    load(Suite, ["suite.yaml"])
    cfg = load(study.Config, ["study.yaml"])
    jobs = {job.folder.name: job.recipe for job in study._plan(cfg, Path("runs/study"), 0)}

    def spent(*names: str) -> tuple[int, int]:
        return sum(jobs[n].steps for n in names), sum(jobs[n].steps * jobs[n].problems_per_step * jobs[n].samples for n in names)

    assert spent("plain") == spent("stage1", "score")


def test_a_step_of_each_recipe_trains_and_the_result_is_evaluated(inside):
    assert cli.main(["train", "base.yaml", *SMALL]) == 0
    assert cli.main(["train", "stage1.yaml", *SHORT]) == 0
    assert cli.main(["train", "stage2.yaml", *SHORT]) == 0
    assert cli.main(["eval", "suite.yaml", "--model", "runs/stage2/model", "--out", "runs/stage2/eval/suite", "--limit", "4"]) == 0
    assert cli.main(["report", "runs/stage2"]) == 0
    assert (inside / "runs" / "stage2" / "report.html").is_file()
    for run in ("base", "stage1", "stage2", "stage2/eval/suite"):
        assert (inside / "runs" / run / "task.py").read_text() == (inside / "task.py").read_text()


def test_an_edited_task_is_not_gone_on_with(inside, capsys):
    cli.main(["train", "base.yaml", *SMALL, "--out", "runs/again", "--resume"])
    whole = (inside / "task.py").read_text()
    try:
        (inside / "task.py").write_text(whole + "\nEXTRA = 1\n")
        capsys.readouterr()
        assert cli.main(["train", "base.yaml", *SMALL, "--out", "runs/again", "--resume"]) == 2
        assert "was begun with another task file" in capsys.readouterr().err
    finally:
        (inside / "task.py").write_text(whole)


@pytest.mark.parametrize("kind", ["file", "full"])
def test_nothing_is_written_over(tmp_path, capsys, kind):
    target = tmp_path / "there"
    if kind == "full":
        target.mkdir()
    (target / "mine.txt" if kind == "full" else target).write_text("precious")
    assert cli.main(["init", str(target)]) == 2
    assert capsys.readouterr().err == f"posttrain: {target}: is there already and not an empty folder; name a new one\n"
    assert (target / "mine.txt" if kind == "full" else target).read_text() == "precious"
