"""Two processes train as one does: the same weights, the same figures, one set of files."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.rl import ranks
from tests.rl.test_resume import num_rows, rows, write_recipe

EXACT = {"optim": {"eps": 1e-3}, "steps": 6}  # Adam's own eps of 1e-8 turns what is left of a gradient of 0 by rounding into a step
VARIANTS = {
    "full": EXACT,
    "lora": EXACT | {"policy": {"lora": {"rank": 4, "alpha": 8}}},
    "kl in the loss": EXACT | {"kl": {"coef": [0.05, 0.05], "estimator": "k2_in_loss", "target": [0.01, None]}, "baseline": "problem_and_outcome"},
}


def run_to_the_end(recipe: Path, run: Path, num: int) -> None:
    codes = ranks.wait(ranks.start(["train", str(recipe), "--out", str(run), "--resume"], run.with_suffix(".log"), num))
    assert codes == [0] * num, said(run, num)


def said(run: Path, num: int) -> str:
    return "\n".join(ranks.log_of(run.with_suffix(".log"), rank).read_text()[-2000:] for rank in range(num))


def weights(run: Path) -> torch.Tensor:
    last = sorted((run / "checkpoints").glob("step_*"))[-1]
    return torch.cat([tensor.flatten() for _, tensor in sorted(load_file(last / "model.safetensors").items())])


def assert_alike(found: Path, expected: Path) -> None:
    assert (weights(found) - weights(expected)).abs().max() < 1e-6
    for row, like in zip(rows(found), rows(expected), strict=True):
        assert row == pytest.approx(like, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_end_with_the_weights_and_figures_of_one(variant, sums_base, tmp_path):
    recipe = write_recipe(tmp_path, sums_base, VARIANTS[variant])
    run_to_the_end(recipe, tmp_path / "one", 1)
    run_to_the_end(recipe, tmp_path / "two", 2)
    assert "two: 2 ranks (MULTI_CPU), 2 problems of a step on each" in said(tmp_path / "two", 2)
    assert_alike(tmp_path / "two", tmp_path / "one")
    moved = weights(tmp_path / "one") - torch.cat([t.flatten() for _, t in sorted(load_file(sums_base / "model.safetensors").items())])
    assert moved.abs().max() > 1e-3
