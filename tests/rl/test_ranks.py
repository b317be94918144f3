"""Several processes train as one does: the same weights, the same figures, one set of files, whatever each of them holds."""

import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from posttrain.cli import main
from posttrain.config import ConfigError
from posttrain.rl.ranks import Ranks, join
from posttrain.types import EngineError
from tests.rl import ranks
from tests.rl.test_resume import num_rows, rows, write_recipe

ROOT = Path(__file__).parents[2]
EXACT = {"optim": {"eps": 1e-3}, "steps": 4}  # Adam's own eps of 1e-8 turns what is left of a gradient of 0 by rounding into a step
LORA = {"policy": {"lora": {"rank": 4, "alpha": 8}}}
VARIANTS = {
    "full": {},
    "lora": LORA,
    "kl in the loss": {"kl": {"coef": [0.05, 0.05], "estimator": "k2_in_loss", "target": [0.01, None]}, "baseline": "problem_and_outcome"},
    "odd micro-batches": {"micro_tokens": 100},
    "sampled ahead": {"sample_ahead": True, "importance_cap": 2.0},
}
SHARDS = {  # (kind, changes of the recipe, flags of the run that is shared out)
    "fsdp2": ("fsdp2", {}, ["--micro_tokens", "100", "--policy.gradient_checkpointing", "true"]),
    "fsdp2 lora": ("fsdp2", LORA, []),
    "zero2": ("zero2", {}, ["--micro_tokens", "100"]),
    "zero3": ("zero3", {}, ["--micro_tokens", "100", "--policy.gradient_checkpointing", "true"]),
    "zero3 lora": ("zero3", LORA, []),
}


def run_to_the_end(recipe: Path, run: Path, num: int, *flags: str) -> None:
    codes = ranks.wait(ranks.start(["train", str(recipe), "--out", str(run), "--resume", *flags], run.with_suffix(".log"), num))
    assert codes == [0] * num, said(run, num)[-5000:]


def said(run: Path, num: int) -> str:
    return "\n".join(ranks.log_of(run.with_suffix(".log"), rank).read_text() for rank in range(num))


def weights(run: Path) -> torch.Tensor:
    last = sorted((run / "checkpoints").glob("step_*"))[-1]
    return flat(last)


def flat(folder: Path) -> torch.Tensor:
    return torch.cat([tensor.flatten() for _, tensor in sorted(load_file(folder / "model.safetensors").items())])


def assert_alike(found: Path, expected: Path) -> None:
    """Weights within 1e-6 and Adam's state with them; figures but for rounding."""
    assert (weights(found) - weights(expected)).abs().max() < 1e-6
    for row, like in zip(rows(found), rows(expected), strict=True):
        same = {key for key in like if not key.startswith("train/cached")}  # what a prefix saves depends on who is asked with whom
        assert {key: row[key] for key in same} == pytest.approx({key: like[key] for key in same}, rel=1e-3, abs=1e-5)
    one, other = (torch.load(sorted((run / "checkpoints").glob("step_*"))[-1] / "training.pt") for run in (found, expected))
    for i, kept in other["optimizer"]["state"].items():
        for key, value in kept.items():
            assert torch.allclose(one["optimizer"]["state"][i][key], value, rtol=1e-4, atol=1e-7), (i, key)


@pytest.fixture(scope="module")
def alone(sums_base, tmp_path_factory):
    """Changes of the recipe -> the recipe, and its run by one process."""
    made: dict[str, tuple[Path, Path]] = {}

    def alone(changes: dict) -> tuple[Path, Path]:
        key = repr(changes)
        if key not in made:
            recipe = write_recipe(tmp_path_factory.mktemp("alone"), sums_base, EXACT | changes)
            run_to_the_end(recipe, recipe.parent / "one", 1)
            assert (weights(recipe.parent / "one") - flat(sums_base)).abs().max() > 1e-3
            made[key] = recipe, recipe.parent / "one"
        return made[key]

    return alone


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_end_with_the_weights_and_figures_of_one(variant, alone, tmp_path):
    recipe, one = alone(VARIANTS[variant])
    run_to_the_end(recipe, tmp_path / "two", 2)
    assert "two: 2 ranks (MULTI_CPU, replicated)" in said(tmp_path / "two", 2)
    assert_alike(tmp_path / "two", one)
    for pattern in ("checkpoints/*/*", "episodes/*"):
        assert [path.name for path in sorted((tmp_path / "two").glob(pattern))] == [path.name for path in sorted(one.glob(pattern))]


@pytest.mark.parametrize("variant", SHARDS)
def test_ranks_that_share_out_weights_and_state_end_with_those_of_one(variant, alone, tmp_path):
    kind, changes, flags = SHARDS[variant]
    if kind.startswith("zero") and find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed: pip install '.[deepspeed]'")
    recipe, one = alone(changes)
    run_to_the_end(recipe, tmp_path / "two", 2, "--policy.shard", kind, *flags)
    assert f"two: 2 ranks (MULTI_CPU, {kind})" in said(tmp_path / "two", 2)
    assert_alike(tmp_path / "two", one)


@pytest.mark.parametrize("kind", ["replicated", "fsdp2", "zero2", "zero3"])
def test_a_run_that_is_killed_goes_on_with_another_number_of_ranks(kind, alone, tmp_path):
    if kind.startswith("zero") and find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed: pip install '.[deepspeed]'")
    recipe, one = alone({})
    run = tmp_path / "run"
    running = ranks.start(["train", str(recipe), "--out", str(run), "--resume", "--policy.shard", kind], run.with_suffix(".log"), 2)
    while num_rows(run) < 4 and running[0].exitcode is None:  # rows of steps 0 to 3, a checkpoint at 2
        time.sleep(0.01)
    for process in running:
        process.kill()
    assert ranks.wait(running) == [-signal.SIGKILL] * 2, said(run, 2)
    run_to_the_end(recipe, run, 1)
    assert_alike(run, one)
    half = tmp_path / "half"
    stopped = ranks.start(["train", str(recipe), "--out", str(half), "--resume"], half.with_suffix(".log"), 1)
    while num_rows(half) < 4 and stopped[0].exitcode is None:
        time.sleep(0.01)
    stopped[0].kill()
    assert ranks.wait(stopped) == [-signal.SIGKILL], said(half, 1)
    run_to_the_end(recipe, half, 2, "--policy.shard", kind)
    assert_alike(half, one)


def together_or_not(ranks: Ranks) -> list[str]:
    with ranks.together():
        if ranks.rank == 1:
            raise EngineError("the cache is on fire")
    return []


def shared_out(ranks: Ranks) -> list:
    own, idle = ranks.deal(list("abcde"))
    total = ranks.sum(torch.tensor([1.0, float(ranks.rank)]))
    return [
        list(ranks.share(list("abcde"))),
        ranks.gather(ranks.share(list("abcde"))),
        own,
        idle,
        total.tolist(),
        ranks.any(ranks.rank == 1),
    ]


def test_what_fails_on_one_rank_fails_on_all_with_its_words():
    elsewhere, here = ranks.results(together_or_not, 2)
    assert here == "EngineError: the cache is on fire"
    assert elsewhere == "OtherRankError: rank 1: the cache is on fire"


def test_items_are_shared_out_and_come_together_in_order():
    first, second = ranks.results(shared_out, 2)
    assert first == [["a", "b"], list("abcde"), ["a", "c", "e"], [], [2.0, 1.0], True]
    assert second == [["c", "d", "e"], list("abcde"), ["b", "d"], ["a"], [2.0, 1.0], True]


def test_what_would_be_ignored_without_a_word_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", str(ROOT / "recipes" / "score_sums" / "base.yaml")]) == 2
    assert "kind sft trains in one process, and 2 were started" in capsys.readouterr().err
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"its FSDP settings are not used: launch without them and set policy\.shard"):
        join("cpu")


def test_one_process_cannot_share_out(sums_base, tmp_path, capsys):
    recipe = write_recipe(tmp_path, sums_base, {"policy": {"shard": "fsdp2"}})
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 2
    assert "policy.shard: fsdp2 shares out among several ranks, and this is one process" in capsys.readouterr().err


def test_torchrun_starts_ranks_that_stop_together_at_sigterm(alone, tmp_path):
    recipe, _ = alone({})
    run = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "posttrain.cli"]
    argv = ["train", str(recipe), "--out", str(run), "--policy.device", "cpu", "--steps", "400"]
    process = subprocess.Popen([*command, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    while num_rows(run) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=120)
    step = rows(run)[-1]["step"]
    assert "run: 2 ranks (MULTI_CPU, replicated)" in told
    assert f"stopped by SIGTERM after step {step}; its checkpoint is written" in told
    assert (run / "checkpoints" / f"step_{step:06d}" / "state.json").exists()
