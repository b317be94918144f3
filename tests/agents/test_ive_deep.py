"""IVE of trained agents: an agent that is trained is inconsistent where it was not, and a study goes on where it stopped."""

import json

import pytest
import torch

from posttrain.agents import ive_deep, muesli
from posttrain.agents.environments import WallsConfig
from posttrain.agents.ive_deep import Config, Disturbed, signal, world_of
from posttrain.agents.kernel.nets import WorldModel, save_model
from posttrain.agents.kernel.transforms import Support
from posttrain.config import ConfigError

WORLD = WallsConfig(n=5, limit=15, layouts=3)


def agents(folder, sizes=(2, 4), members=1):
    """Agents with random weights."""
    for seed in (0, 1):
        for name in [*(f"layouts_{n}" for n in sizes), *(f"layouts_{sizes[-1]}_member_{k}" for k in range(1, members + 1))]:
            torch.manual_seed(seed)
            model = WorldModel((75,), 4, Support(low=-2.0, high=2.0, num_atoms=9), width=8, hidden=8)
            for parameter in model.parameters():
                parameter.data.add_(0.3 * torch.randn_like(parameter))
            (folder / f"seed{seed}" / name).mkdir(parents=True)
            save_model(folder / f"seed{seed}" / name / "model.pt", model)
    return folder


def asked(folder, **changes):
    small = {"sizes": (2, 4), "size": 4, "members": 1, "depth": 2, "rollouts": 1, "states": 40, "episodes": 20, "betas": (0.0,)}
    return Config(agents=folder, seeds=(0, 1), env=WORLD, disturbances=(0.5,), **(small | changes))


def test_sigma_of_a_trained_agent_tells_new_layouts_from_known_ones(tmp_path):
    cfg = muesli.Config(
        env=WORLD, env_steps=80_000, batch=32, updates=6, width=64, hidden=64, eval_episodes=8, final_episodes=200, log_every=99,
        loss=muesli.LossConfig(gamma=0.9),
    )  # fmt: skip
    muesli.main(cfg, tmp_path / "seed0" / "layouts_3", False)
    assert json.loads((tmp_path / "seed0" / "layouts_3" / "result.json").read_text())["score"] > 0.95
    found = signal(asked(tmp_path, sizes=(3,), size=9, depth=4, states=300), 0)
    assert found["3"]["auroc"]["held out"] > 0.75
    assert found["3"]["sigma"]["held out"] > 2 * found["3"]["sigma"]["known"]


def test_the_explicit_ensemble_of_one_agent_twice_agrees_with_itself(tmp_path):
    found = signal(asked(agents(tmp_path)), 0)
    assert found["explicit"]["sigma"]["held out"] == pytest.approx(0, abs=1e-6)
    assert found["explicit"]["auroc"]["maze"] == 0.5


def test_a_disturbed_model_moves_states_by_its_size():
    model = WorldModel((5,), 3, Support(low=-2.0, high=2.0, num_atoms=9), width=64, hidden=8).requires_grad_(False)
    state = model.represent(torch.randn(200, 5))
    moved = Disturbed(model, 0.3, torch.Generator().manual_seed(0)).step_all(state)[0] - model.step_all(state)[0]
    assert moved.std().item() == pytest.approx(0.3, rel=0.02)


def test_held_out_layouts_are_not_the_known_ones_and_only_the_slippery_world_slips(tmp_path):
    cfg = asked(tmp_path)
    known, new = (world_of(cfg, name, 0, 4, 1).walls_LC for name in ("known", "held out"))
    assert len(known) == 4
    assert len(new) == 200
    assert torch.equal(known[:2], world_of(cfg, "known", 0, 2, 1).walls_LC)
    assert not torch.equal(known, new[:4])
    assert [world_of(cfg, name, 0, 4, 1).slip for name in ("known", "slippery", "maze")] == [0, 0.3, 0]


def test_an_agent_that_is_not_trained_is_named(tmp_path):
    cfg = asked(agents(tmp_path, members=0))
    with pytest.raises(ConfigError, match="layouts_4_member_1"):
        signal(cfg, 0)
    with pytest.raises(ConfigError, match="layouts_4_member_1"):
        ive_deep.main(cfg, tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


def test_a_study_that_stopped_goes_on_and_comes_to_the_same(tmp_path, monkeypatch):
    cfg = asked(agents(tmp_path / "agents"))
    ive_deep.main(cfg, tmp_path / "whole", False)
    real = ive_deep.played

    def dies(cfg, seed, world, policy):
        if (seed, world) == (1, "dense"):
            raise KeyboardInterrupt
        return real(cfg, seed, world, policy)

    monkeypatch.setattr(ive_deep, "played", dies)
    with pytest.raises(KeyboardInterrupt):
        ive_deep.main(cfg, tmp_path / "cut", False)
    monkeypatch.undo()
    monkeypatch.setattr(ive_deep, "told_apart", None)  # what is answered is not asked again
    ive_deep.main(cfg, tmp_path / "cut", True)
    assert (tmp_path / "whole" / "result.json").read_text() == (tmp_path / "cut" / "result.json").read_text()
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 6
