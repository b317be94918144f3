"""A run folder: what it records, whom it lets in again, and seeds that are the same everywhere."""

import json
import os
import platform
import signal
import subprocess
import sys
from importlib import metadata
from itertools import product
from pathlib import Path

import pytest

from posttrain import run
from posttrain.config import ConfigError, config, load
from posttrain.run import RunFolder, StopSignal, commit, provenance, seed_for, write_atomic
from posttrain.types import DataError

ROOT = Path(__file__).parents[1]


@config
class Optim:
    lr: float = 1e-6


@config
class Recipe:
    steps: int = 3
    optim: Optim = Optim()
    weight: tuple[float, ...] = (0.0, 1.0)


def test_a_seed_never_changes_as_published_figures_depend_on_it():
    assert seed_for(0) == 4761921975702974394
    assert seed_for(0, 1, "math/17", 3, 1) == 6413708987019649778
    assert seed_for("é") == 7317610273420446871


def test_every_part_of_a_seed_and_its_place_count():
    seeds = [seed_for(*parts) for parts in product(range(3), range(3), ("p/1", "p/2"), range(3), range(2))]
    assert len(set(seeds)) == len(seeds) == 108
    assert seed_for(1, 23) != seed_for(12, 3)
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_seeds_do_not_depend_on_the_process():
    code = "from posttrain.run import seed_for; print(seed_for(0, 1, 'math/17', 3, 1))"
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert int(printed) == seed_for(0, 1, "math/17", 3, 1)


def test_a_new_run_records_its_recipe_and_where_it_comes_from(tmp_path):
    RunFolder(tmp_path / "a" / "run", Recipe(steps=5))
    assert load(Recipe, [tmp_path / "a" / "run" / "config.yaml"]) == Recipe(steps=5)
    recorded = json.loads((tmp_path / "a" / "run" / "provenance.json").read_text())
    assert recorded == {**provenance(), "started": recorded["started"]}
    assert (tmp_path / "a" / "run" / "episodes").is_dir()


def test_provenance_names_command_commit_versions_and_machine(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["posttrain", "train", "r.yaml"])
    found = provenance()
    assert found["command"] == ["posttrain", "train", "r.yaml"]
    assert found["python"] == platform.python_version()
    assert found["cpus"] == os.cpu_count()
    assert found["versions"]["torch"] == metadata.version("torch")
    assert found["versions"]["transformers"] == metadata.version("transformers")
    assert "no-such-package" not in found["versions"]
    assert found["started"].endswith("Z")
    assert len(found["started"]) == len("2026-01-31T23:59:59Z")


def test_the_commit_is_told_with_whether_the_tree_differs_from_it(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", "-C", str(tmp_path), *who, *words], capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "file.py").write_text("1")
    monkeypatch.setattr(run, "__file__", str(tmp_path / "file.py"))
    assert commit() == "unknown"
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    assert commit() == git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "file.py").write_text("2")
    assert commit() == git("rev-parse", "--short=12", "HEAD") + "+changes"


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path):
    RunFolder(tmp_path, Recipe())
    with pytest.raises(ConfigError, match=r"holds a run already; add --resume to go on with it, or name another --out"):
        RunFolder(tmp_path, Recipe())


def test_the_same_recipe_takes_a_run_up_again_and_leaves_its_record_alone(tmp_path):
    RunFolder(tmp_path, Recipe())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    RunFolder(tmp_path, Recipe(), resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_another_recipe_is_refused_and_the_keys_that_differ_are_named(tmp_path):
    RunFolder(tmp_path, Recipe())
    with pytest.raises(ConfigError) as caught:
        RunFolder(tmp_path, Recipe(optim=Optim(lr=2e-6), weight=(1.0, 1.0)), resume=True)
    assert str(caught.value) == f"{tmp_path}: cannot resume, the recipe differs from the recorded one in: optim.lr, weight"
    assert load(Recipe, [tmp_path / "config.yaml"]) == Recipe()


def test_a_key_that_a_recorded_recipe_does_not_have_stands_at_its_default(tmp_path):
    RunFolder(tmp_path, Recipe())
    recorded = tmp_path / "config.yaml"
    recorded.write_text("".join(line for line in recorded.read_text().splitlines(keepends=True) if not line.startswith("steps")))
    RunFolder(tmp_path, Recipe(), resume=True)
    assert load(Recipe, [recorded]) == Recipe()
    recorded.write_text("".join(line for line in recorded.read_text().splitlines(keepends=True) if not line.startswith("steps")))
    with pytest.raises(ConfigError, match="differs from the recorded one in: steps"):
        RunFolder(tmp_path, Recipe(steps=Recipe().steps + 1), resume=True)


def test_resume_starts_a_run_where_there_is_none(tmp_path):
    RunFolder(tmp_path / "run", Recipe(), resume=True)
    assert (tmp_path / "run" / "config.yaml").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError) as caught:
            RunFolder(path, Recipe())
        assert str(caught.value).startswith(f"{path}: cannot write the run folder: ")


def test_a_start_that_was_killed_before_its_recipe_was_recorded_can_be_made_again(tmp_path):
    RunFolder(tmp_path, Recipe())
    (tmp_path / "config.yaml").unlink()
    RunFolder(tmp_path, Recipe(steps=9))
    assert load(Recipe, [tmp_path / "config.yaml"]).steps == 9


def test_metrics_come_back_as_they_were_logged_to_the_last_bit(tmp_path):
    folder = RunFolder(tmp_path, Recipe())
    rows = [{"train/loss": 0.1 + 0.2, "time_s": 1e-12}, {"train/loss": -1 / 3, "time_s": 7}]
    for step, row in enumerate(rows, 1):
        folder.log(step, row)
    assert folder.metrics() == [{"step": 1, **rows[0]}, {"step": 2, **rows[1]}]


def test_a_number_that_is_none_is_not_logged(tmp_path):
    folder = RunFolder(tmp_path, Recipe())
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.log(1, {"train/loss": float("nan")})
    assert folder.metrics() == []


def test_a_line_that_a_kill_cut_short_is_not_there(tmp_path):
    folder = RunFolder(tmp_path, Recipe())
    assert folder.metrics() == []
    folder.log(1, {"x": 1})
    whole = folder.metrics_path.read_bytes()
    folder.log(2, {"x": 2})
    both = folder.metrics_path.read_bytes()
    for end in range(len(whole), len(both)):
        folder.metrics_path.write_bytes(both[:end])
        assert [row["step"] for row in folder.metrics()] == [1]
    folder.forget_after(5)
    assert folder.metrics_path.read_bytes() == whole
    folder.log(2, {"x": 3})
    assert [row["x"] for row in folder.metrics()] == [1, 3]


def test_damage_elsewhere_in_the_log_is_told_with_its_line(tmp_path):
    folder = RunFolder(tmp_path, Recipe())
    folder.metrics_path.write_bytes(b'{"step": 1}\n\x00\xff\n{"step": 3}\n')
    for read in (folder.metrics, lambda: folder.forget_after(1)):
        with pytest.raises(DataError, match=r"metrics\.jsonl:2: not a row of JSON"):
            read()


def test_later_steps_are_forgotten_with_their_episodes_and_earlier_ones_kept_bit_for_bit(tmp_path):
    folder = RunFolder(tmp_path, Recipe())
    for step in range(5):
        folder.log(step, {"x": 0.1 * step})
        (tmp_path / "episodes" / f"step_{step:06d}.jsonl").write_text("")
    lines = folder.metrics_path.read_text().splitlines(keepends=True)
    folder.forget_after(2)
    assert folder.metrics_path.read_text() == "".join(lines[:3])
    assert sorted(path.name for path in (tmp_path / "episodes").iterdir()) == [f"step_00000{step}.jsonl" for step in range(3)]


def test_what_a_kill_left_half_written_is_gone_when_the_run_is_taken_up(tmp_path):
    folder = RunFolder(tmp_path, Recipe())
    (tmp_path / "episodes" / ".step_000003.jsonl.99.tmp").write_text("half")
    (tmp_path / ".model.99.tmp").symlink_to("checkpoints/step_000002")
    folder.forget_after(2)
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomic(tmp_path / "f", "old é")
    assert (tmp_path / "f").read_bytes() == "old é".encode()
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "folder", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "folder"]


def test_sigterm_is_only_noted_while_entered():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.came
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.came
    assert signal.getsignal(signal.SIGTERM) is before
