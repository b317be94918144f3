import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.rl import checkpoint
from posttrain.rl.checkpoint import CheckpointConfig, CheckpointError
from posttrain.rl.loop import TrainingError
from posttrain.rl.policy import LoraConfig, OptimConfig, Policy, PolicyConfig, load_policy
from posttrain.run import RunFolder
from tests.rl.learners import PROBLEMS, config_for, open_learner, train

KEEP_2 = CheckpointConfig(keep=2)


@pytest.fixture
def policy(tiny_qwen2: Path) -> Policy:
    return load_policy(str(tiny_qwen2), None, PolicyConfig(lora=LoraConfig(rank=2)), OptimConfig(lr=0.1), 1.0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 4 MiB: room for a few checkpoints of the tiny model."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs to mount a small file system: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all of the disk but `leave` bytes."""
    filler = disk / "filler"
    with open(filler, "wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - leave)))
    return filler


def steps(run: Path) -> list[int]:
    return [c.step for c in checkpoint.found(run)]


def save_all(run: Path, policy: Policy, rewards: list[float | None], cfg: CheckpointConfig) -> None:
    for step, reward in enumerate(rewards, 1):
        checkpoint.save(run, policy, step, reward, cfg)


def test_a_checkpoint_is_a_model_folder_that_plain_from_pretrained_loads(policy, tmp_path):
    saved = checkpoint.save(tmp_path, policy, 7, 0.5, KEEP_2)
    assert saved.path == tmp_path / "checkpoints" / "step_000007"
    assert checkpoint.latest(tmp_path) == saved
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == model.config.vocab_size
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000007"]


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert checkpoint.found(tmp_path) == []
    assert checkpoint.latest(tmp_path) is None


def test_the_newest_and_the_best_are_kept(policy, tmp_path):
    save_all(tmp_path, policy, [0.1, 0.9, 0.2, 0.3, 0.4], KEEP_2)
    assert steps(tmp_path) == [2, 4, 5]
    assert (tmp_path / "model").resolve().name == "step_000002"


def test_of_equal_rewards_the_later_is_best_and_select_last_names_the_newest(policy, tmp_path):
    save_all(tmp_path / "best", policy, [0.5, 0.5, 0.1], KEEP_2)
    assert (tmp_path / "best" / "model").resolve().name == "step_000002"
    save_all(tmp_path / "last", policy, [0.5, 0.5, 0.1], CheckpointConfig(keep=1, select="last"))
    assert (tmp_path / "last" / "model").resolve().name == "step_000003"
    assert steps(tmp_path / "last") == [2, 3]


def test_a_checkpoint_without_a_reward_is_never_best_unless_it_is_alone(policy, tmp_path):
    save_all(tmp_path, policy, [None], KEEP_2)
    assert (tmp_path / "model").resolve().name == "step_000001"
    save_all(tmp_path, policy, [0.0, None, None], KEEP_2)
    assert (tmp_path / "model").resolve().name == "step_000001"
    assert steps(tmp_path) == [1, 2, 3]


def test_the_link_survives_moving_the_run(policy, tmp_path):
    checkpoint.save(tmp_path / "run", policy, 1, 0.5, KEEP_2)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "model" / "config.json").exists()


@pytest.mark.parametrize("killed_in", ["writing", "dropping"])
def test_half_a_checkpoint_that_a_kill_left_is_not_found_and_goes_at_the_next_save(killed_in, policy, tmp_path):
    whole = checkpoint.save(tmp_path, policy, 1, 0.5, KEEP_2).path
    left = whole.with_name(".step_000002.tmp" if killed_in == "writing" else "step_000000")
    shutil.copytree(whole, left)
    if killed_in == "dropping":
        (left / "state.json").unlink()
    assert steps(tmp_path) == [1]
    checkpoint.save(tmp_path, policy, 2, 0.6, KEEP_2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_000001", "step_000002"]


def test_a_drop_cut_short_leaves_no_half_checkpoint_that_is_found(policy, tmp_path, monkeypatch):
    def stops(path: Path) -> None:
        raise OSError(errno.EIO, "the plug is pulled")

    save_all(tmp_path, policy, [0.1, 0.2], KEEP_2)
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: None if options else stops(path))
    with pytest.raises(CheckpointError, match=r"the plug is pulled; the last good checkpoint is .*step_000003"):
        checkpoint.save(tmp_path, policy, 3, 0.3, KEEP_2)
    assert steps(tmp_path) == [2, 3]


def test_tidying_after_a_kill_between_writing_and_linking_gives_the_link_and_folders_of_a_whole_save(policy, tmp_path):
    save_all(tmp_path, policy, [0.1, 0.2], KEEP_2)
    checkpoint.save(tmp_path, policy, 3, 0.3, KEEP_2)
    (tmp_path / "model").unlink()
    (tmp_path / "model").symlink_to("checkpoints/step_000002")
    checkpoint.tidy(tmp_path, KEEP_2)
    assert (tmp_path / "model").resolve().name == "step_000003"
    assert steps(tmp_path) == [2, 3]


def test_a_full_disk_is_one_line_and_the_last_checkpoint_still_loads(policy, small_disk):
    run = small_disk / "run"
    good = checkpoint.save(run, policy, 1, 0.5, KEEP_2)
    size = sum(path.stat().st_size for path in good.path.iterdir())
    for leave in (0, size // 4, size - 4096):  # full at once, in the middle of the weights, near the end
        filler = fill(small_disk, leave)
        with pytest.raises(CheckpointError) as caught:
            checkpoint.save(run, policy, 2, 0.6, KEEP_2)
        told = str(caught.value)
        assert told.startswith(f"{run}/checkpoints/step_000002: cannot write the checkpoint: ")
        assert f"the last good checkpoint is {good.path}" in told
        assert "\n" not in told
        assert steps(run) == [1]
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000001"]  # and nothing takes up the space
        filler.unlink()
    checkpoint.restore(good, policy)
    AutoModelForCausalLM.from_pretrained(run / "model")
    checkpoint.save(run, policy, 2, 0.6, KEEP_2)
    assert steps(run) == [1, 2]


def test_a_disk_that_fills_up_while_training_is_one_line_and_the_run_goes_on_when_there_is_room(tiny_qwen2, small_disk):
    cfg = config_for(tiny_qwen2, policy={"lora": {"rank": 2}}, steps=1)
    folder = RunFolder(small_disk / "run", cfg)
    train(open_learner(cfg), PROBLEMS, [], folder, start=0)
    filler = fill(small_disk, 0)
    room = 4096 - folder.metrics_path.stat().st_size % 4096  # the page that the log has begun
    folder.log(0, {"note": "x" * (room - len('{"step": 0, "note": ""}\n'))})
    learner = open_learner(config_for(tiny_qwen2, policy={"lora": {"rank": 2}}, steps=2))
    checkpoint.restore(checkpoint.latest(folder.path), learner.policy)
    with pytest.raises(TrainingError, match=r"step 2, problems .*No space left on device.*step_000001, --resume goes on from it"):
        train(learner, PROBLEMS, [], folder, start=1)
    filler.unlink()
    folder.forget_after(1)
    assert train(learner, PROBLEMS, [], folder, start=1) == 0
    assert [row["step"] for row in folder.metrics()] == [1, 0, 2]


def test_a_folder_that_cannot_be_written_is_one_line(policy, small_disk):
    run = small_disk / "run"
    good = checkpoint.save(run, policy, 1, 0.5, KEEP_2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(
        CheckpointError, match=rf"step_000002: cannot write the checkpoint: .*Read-only.*last good checkpoint is {good.path}"
    ):
        checkpoint.save(run, policy, 2, 0.6, KEEP_2)
    checkpoint.restore(checkpoint.latest(run), policy)


def test_a_flush_that_fails_leaves_no_checkpoint_that_may_not_be_on_the_disk(policy, tmp_path, monkeypatch):
    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint.save(tmp_path, policy, 1, 0.5, KEEP_2)
    monkeypatch.setattr(os, "fsync", fails)  # some file systems report a full disk only when they flush
    with pytest.raises(CheckpointError, match=r"No space left on device; the last good checkpoint is .*step_000001"):
        checkpoint.save(tmp_path, policy, 2, 0.6, KEEP_2)
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("damage", ["training.pt cut", "training.pt empty", "training.pt text", "model cut", "training.pt missing"])
def test_a_damaged_checkpoint_is_one_line_that_says_what_to_do(damage, tiny_qwen2, tmp_path):
    policy = load_policy(str(tiny_qwen2), None, PolicyConfig(), OptimConfig(lr=0.1), 1.0)
    path = checkpoint.save(tmp_path, policy, 1, 0.5, KEEP_2).path
    file, how = damage.split()
    file = path / {"model": "model.safetensors"}.get(file, file)
    match how:
        case "cut":
            file.write_bytes(file.read_bytes()[:-2000])
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("abc" * 100)
        case "missing":
            file.unlink()
    with pytest.raises(CheckpointError, match=r"cannot resume from it: .*; remove it to go on from the one before") as caught:
        checkpoint.restore(checkpoint.latest(tmp_path), policy)
    assert "\n" not in str(caught.value)


def test_restoring_brings_back_weights_and_step(policy, tmp_path, tiny_qwen2):
    saved = checkpoint.save(tmp_path, policy, 4, 0.5, KEEP_2)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    policy.step = 9
    with torch.no_grad():
        for parameter in policy.trainable:
            parameter.add_(1.0)
    checkpoint.restore(saved, policy)
    assert all(torch.equal(before[name], p) for name, p in policy.model.named_parameters())
    assert policy.step == 0


def test_keeping_none_is_refused():
    with pytest.raises(ValueError, match="keep"):
        CheckpointConfig(keep=0)
