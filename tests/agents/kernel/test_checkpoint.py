"""A checkpoint holds everything, and is whole or absent."""

import os

import pytest
import torch

from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.checkpoint import restore, save, seeded


def test_weights_optimiser_and_generator_come_back(tmp_path):
    net, g = torch.nn.Linear(2, 2), seeded(1)
    optimiser = torch.optim.AdamW(net.parameters())
    net(torch.randn(3, 2, generator=g)).sum().backward()
    optimiser.step()
    save(tmp_path / "checkpoint.pt", {"net": net, "optimiser": optimiser, "draws": g}, step=7)
    expected = torch.rand(3, generator=g)
    other, h = torch.nn.Linear(2, 2), seeded(2)
    other_optimiser = torch.optim.AdamW(other.parameters())
    numbers = restore(tmp_path / "checkpoint.pt", {"net": other, "optimiser": other_optimiser, "draws": h})
    assert numbers == {"step": 7}
    assert torch.equal(net.weight, other.weight)
    assert torch.equal(torch.rand(3, generator=h), expected)
    assert torch.equal(optimiser.state_dict()["state"][0]["exp_avg"], other_optimiser.state_dict()["state"][0]["exp_avg"])


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save(path, {}, step=1)

    def broken(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        save(path, {}, step=2)
    assert restore(path, {}) == {"step": 1}
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_file_with_other_parts_is_refused(tmp_path):
    save(tmp_path / "checkpoint.pt", {"net": torch.nn.Linear(1, 1)})
    with pytest.raises(ValueError, match="expected"):
        restore(tmp_path / "checkpoint.pt", {})
