"""A run that is killed and resumed ends with the bits of one that was left alone."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from posttrain.config import merge
from tests.rl import forked
from tests.rl.learners import measured
from tests.sums_base import TASK

STEPS = 12
RECIPE = {
    "kind": "score",
    "task": TASK,
    "steps": STEPS,
    "problems_per_step": 4,
    "samples": 4,
    "weight": [1, 1],
    "bonus": 2,
    "kl": {"coef": [0.05, 0.05]},
    "sampling": {"max_tokens": 10},
    "optim": {"lr": 3e-3, "warmup_steps": 5},
    "checkpoint": {"every": 2},
    "validation": {"every": 5, "problems": 2, "samples": 2},
}
LORA = {"policy": {"lora": {"rank": 4, "alpha": 8}}, "steps": 4}


def write_recipe(folder: Path, base: Path, changes: dict[str, Any]) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(merge(merge(RECIPE, {"model": str(base)}), changes)))
    return file


def num_rows(run: Path) -> int:
    """Whole lines in the log, that of step 0 included."""
    log = run / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def rows(run: Path) -> list[dict[str, Any]]:
    return [measured(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def to_the_end(recipe: Path, run: Path) -> float:
    """Run or resume until it is done; returns the seconds."""
    began = time.monotonic()
    process = forked.start(["train", str(recipe), "--out", str(run), "--resume"], run.with_suffix(".log"))
    process.join(300)
    assert process.exitcode == 0, run.with_suffix(".log").read_text()[-2000:]
    return time.monotonic() - began


def kill_at(recipe: Path, run: Path, row: int, pause_s: float, last_row: int) -> None:
    """Start or resume, and kill -9 `pause_s` after the log has got `row` rows, or at once when it has got `last_row`."""
    process = forked.start(["train", str(recipe), "--out", str(run), "--resume"], run.with_suffix(".log"))
    while process.exitcode is None and num_rows(run) < row:
        time.sleep(0.002)
    until = time.monotonic() + pause_s
    while time.monotonic() < until and num_rows(run) < last_row:
        time.sleep(0.002)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, run.with_suffix(".log").read_text()[-2000:]


def assert_same_run(found: Path, expected: Path) -> None:
    """Metrics, kept checkpoints, episodes and the link to the model are equal; weights and optimizer state bit for bit."""
    assert rows(found) == rows(expected)
    for pattern in ("checkpoints/*/*", "episodes/*"):
        names = sorted(str(path.relative_to(expected)) for path in expected.glob(pattern))
        assert sorted(str(path.relative_to(found)) for path in found.glob(pattern)) == names
        for name in names:
            if name.endswith("training.pt"):
                assert leaves(torch.load(found / name, weights_only=True)) == leaves(torch.load(expected / name, weights_only=True))
            else:
                assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert (found / "model").readlink() == (expected / "model").readlink()


def leaves(tree: Any, key: str = "") -> dict[str, Any]:
    """Path -> value of a nested state, tensors as lists."""
    if isinstance(tree, (dict, list, tuple)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: leaf for k, node in items for name, leaf in leaves(node, f"{key}/{k}").items()}
    return {key: tree.tolist() if isinstance(tree, torch.Tensor) else tree}


@pytest.fixture(scope="module")
def recipe(sums_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("full"), sums_base, {})


@pytest.fixture(scope="module")
def left_alone(recipe: Path) -> tuple[Path, float]:
    """The uninterrupted run, and how long it took."""
    run = recipe.parent / "left_alone"
    to_the_end(recipe, run)
    return run, to_the_end(recipe, recipe.parent / "warm")  # the first one waits for the server's imports


def test_two_runs_of_one_recipe_are_equal_and_learn_something(left_alone, recipe):
    run, _ = left_alone
    assert_same_run(recipe.parent / "warm", run)
    assert [row["step"] for row in rows(run)] == list(range(STEPS + 1))
    assert any(row["train/grad_norm"] > 1e-3 for row in rows(run)[1:])
    assert any("val/acc_t2" in row for row in rows(run)[1:])


def test_a_run_killed_at_ten_random_moments_ends_with_the_bits_of_one_left_alone(left_alone, recipe):
    expected, whole_s = left_alone
    run, draw = recipe.parent / "killed", random.Random(0)
    for row in sorted(draw.randrange(STEPS - 1) for _ in range(10)):  # some find that row logged already and die while they load
        kill_at(recipe, run, row, draw.uniform(0, whole_s / 4), last_row=STEPS - 1)
    to_the_end(recipe, run)
    assert_same_run(run, expected)


def test_an_adapter_survives_kills_too_even_before_its_first_checkpoint(sums_base, tmp_path):
    recipe = write_recipe(tmp_path, sums_base, LORA)
    expected, run, draw = tmp_path / "left_alone", tmp_path / "killed", random.Random(1)
    whole_s = to_the_end(recipe, expected)
    for row in (2, 2, 4):
        kill_at(recipe, run, row, draw.uniform(0, whole_s / 20), last_row=4)
    to_the_end(recipe, run)
    assert_same_run(run, expected)


def test_sigterm_writes_a_checkpoint_within_one_step_and_resuming_gives_the_same_bits(left_alone, recipe):
    expected, _ = left_alone
    run = recipe.parent / "stopped"
    command = [sys.executable, "-m", "posttrain.cli", "train", str(recipe), "--out", str(run), "--resume"]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root)
    while num_rows(run) < 4 and process.poll() is None:  # rows of steps 0 to 3
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    done = num_rows(run) - 1
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said[-2000:]
    step = rows(run)[-1]["step"]
    assert 3 <= step <= done + 1
    assert (run / "checkpoints" / f"step_{step:06d}" / "state.json").exists()
    assert f"stopped by SIGTERM after step {step}; its checkpoint is written, --resume goes on from there" in said
    to_the_end(recipe, run)
    extra = run / "episodes" / f"step_{step:06d}.jsonl"
    if step % 2:
        extra.unlink()  # the stop's own checkpoint has its episodes, as each has
    assert_same_run(run, expected)
