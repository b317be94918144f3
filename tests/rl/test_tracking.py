"""Figures reach the tracker that a recipe names, and metrics.jsonl always."""

import json

import pytest

from posttrain.config import ConfigError, build
from posttrain.rl import tracking
from posttrain.rl.score import Config, main
from posttrain.rl.tracking import check_tracker
from tests.sums_base import TASK


def recipe(model: str, **more: object) -> Config:
    tree = {"model": model, "task": TASK, "steps": 2, "problems_per_step": 2, "samples": 2, "kl": {"coef": [0.0, 0.0]}}
    tree |= {"sampling": {"max_tokens": 4}, "optim": {"lr": 1e-3}, "validation": {"every": 2, "problems": 2}}
    return build(Config, [("test", tree | more)])


def test_tensorboard_reads_every_figure_at_its_step(sums_base, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    main(recipe(str(sums_base), tracker="tensorboard"), tmp_path / "run", False)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = {name: [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    names = {name for row in logged for name in row} - {"step"}
    assert "val/acc_t1" in names
    assert found == {name: [(row["step"], row[name]) for row in logged if name in row] for name in names}


def test_no_tracker_by_default_and_a_run_may_go_on_with_another(sums_base, tmp_path):
    assert recipe(str(sums_base)).tracker == "none"
    main(recipe(str(sums_base)), tmp_path / "run", False)
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == ["checkpoints", "episodes", "model"]
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    assert main(recipe(str(sums_base), tracker="tensorboard"), tmp_path / "run", True) == 0


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(sums_base, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="tracker: wandb is not installed: pip install wandb, or set tracker to none"):
        main(recipe(str(sums_base), tracker="wandb"), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()
    check_tracker("none")
