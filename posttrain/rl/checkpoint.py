"""Checkpoints that are whole or absent: written beside their place, flushed to disk, then renamed.

    RUN/checkpoints/step_000050/   model, tokenizer (plain `from_pretrained` loads it), training.pt, state.json
    RUN/model                      link to the checkpoint that the run stands for

A run's draws are seeded by (seed, step, problem, sample), so weights, optimizer state and the step number are all there is to restore.
"""

import json
import math
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from safetensors import SafetensorError

from posttrain.config import config
from posttrain.rl.policy import Gathered, Policy

STEP = re.compile(r"step_\d+")
UNFINISHED = re.compile(r"\.step_\d+\.tmp")
FAULTS = (OSError, RuntimeError, SafetensorError)  # a full disk is an OSError to Python, but not to torch and safetensors


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says where and why, and what still stands."""

    exit_code: ClassVar[int] = 1


@config
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    every: PositiveInt = 50
    """Steps between checkpoints; the last step always has one."""
    keep: PositiveInt = 2
    """How many of the newest to keep, besides the best."""
    select: Literal["best", "last"] = "best"
    """Which one RUN/model names: best is the highest mean training reward since the checkpoint before it (arXiv 2409.12917, App. B)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    path: Path
    step: int
    reward: float | None
    """Mean reward over the steps since the previous checkpoint, each attempt by its weight, without bonus or KL. None is never best."""


def save(run: Path, policy: Policy, step: int, reward: float | None, cfg: CheckpointConfig, gathered: Gathered | None = None) -> Checkpoint:
    """Write a checkpoint, then drop what `cfg` does not keep. Raises `CheckpointError`; earlier checkpoints stay whole whatever happens.

    `gathered` is the policy's content where several ranks hold it, of whom only one is here.
    """
    weights, state = gathered or policy.gather()
    folder = run / "checkpoints"
    final = folder / f"step_{step:06d}"
    temporary = folder / f".{final.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        policy.save(temporary, weights)
        torch.save(state, temporary / "training.pt")
        (temporary / "state.json").write_text(json.dumps({"step": step, "reward": reward}) + "\n")
        _flush(temporary)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        _flush_folder(folder)
        tidy(run, cfg)
    except FAULTS as error:
        shutil.rmtree(temporary, ignore_errors=True)
        good = latest(run)
        stands = f"the last good checkpoint is {good.path}" if good else "there is no earlier checkpoint"
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{final}: cannot write the checkpoint: {reason}; {stands}; free space, then use --resume") from None
    return Checkpoint(path=final, step=step, reward=reward)


def found(run: Path) -> list[Checkpoint]:
    """Every whole checkpoint of a run, oldest first."""
    return sorted(_found(run), key=lambda checkpoint: checkpoint.step)


def _found(run: Path) -> Iterator[Checkpoint]:
    for path in (run / "checkpoints").glob("step_*"):
        if STEP.fullmatch(path.name) and (path / "state.json").exists():
            state = json.loads((path / "state.json").read_text())
            yield Checkpoint(path=path, step=state["step"], reward=state["reward"])


def latest(run: Path) -> Checkpoint | None:
    return found(run)[-1] if found(run) else None


def best(checkpoints: list[Checkpoint]) -> Checkpoint:
    """The highest training reward; the later one of equals."""
    return max(checkpoints, key=lambda c: (-math.inf if c.reward is None else c.reward, c.step))


def tidy(run: Path, cfg: CheckpointConfig) -> None:
    """Point RUN/model at the checkpoint that `cfg` selects, and drop those that it does not keep. Doing it twice changes nothing."""
    checkpoints = found(run)
    _link(run, best(checkpoints) if cfg.select == "best" else checkpoints[-1])
    kept = {c.path for c in [*checkpoints[-cfg.keep :], best(checkpoints)]}
    for path in (run / "checkpoints").iterdir():
        if path not in kept and (STEP.fullmatch(path.name) or UNFINISHED.fullmatch(path.name)):
            (path / "state.json").unlink(missing_ok=True)  # first, so that half a checkpoint cannot pass for a whole one after a kill
            shutil.rmtree(path)


def restore(checkpoint: Checkpoint, policy: Policy) -> None:
    """Put the policy where it was after that step."""
    try:
        state: dict[str, Any] = torch.load(checkpoint.path / "training.pt", map_location="cpu", weights_only=True)
        policy.restore(checkpoint.path, state)
    except (*FAULTS, LookupError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CheckpointError(f"{checkpoint.path}: cannot resume from it: {reason[0]}; remove it to go on from the one before") from None


def _link(run: Path, chosen: Checkpoint) -> None:
    temporary = run / f".model.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(chosen.path.relative_to(run))
    os.replace(temporary, run / "model")


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
