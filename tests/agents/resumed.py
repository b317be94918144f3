"""A run that is ended in its midst and resumed, beside one that is left alone."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def assert_resumes(
    agent: ModuleType, cfg: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, *, ends_in: str, call: int
) -> list[dict[str, Any]]:
    """Ended at the `call`-th call of the agent's function `ends_in`, it goes on to the same metrics, results and, bit for bit, weights.

    Returns the rows of its metrics, without times.
    """
    whole, killed = folder / "whole", folder / "killed"
    assert agent.main(cfg, whole, False) == 0
    real, calls = getattr(agent, ends_in), []

    def dies(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(agent, ends_in, dies)
    with pytest.raises(KeyboardInterrupt):
        agent.main(cfg, killed, False)
    monkeypatch.undo()
    assert agent.main(cfg, killed, True) == 0

    assert rows(killed) == rows(whole)
    assert untimed(json.loads((killed / "result.json").read_text())) == untimed(json.loads((whole / "result.json").read_text()))
    for weights in whole.glob("*.pt"):
        if weights.name != "checkpoint.pt":  # a zip file, whose bytes hold names of folders
            assert leaves(killed / weights.name) == leaves(weights)
    return rows(whole)


def rows(run: Path) -> list[dict[str, Any]]:
    return [untimed(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.endswith("_s")}


def leaves(file: Path) -> Any:
    import torch

    def plain(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: plain(value) for key, value in tree.items()}
        return tree.tolist() if isinstance(tree, torch.Tensor) else tree

    return plain(torch.load(file, weights_only=True))
