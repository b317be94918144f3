"""IVE in tables: it learns what it sees, sigma tells the rest apart, beta moves exploration, and a study goes on where it stopped."""

import json

import numpy as np
import pytest
import torch

from posttrain.agents import ive
from posttrain.agents.ive import (
    Config,
    ExploreConfig,
    Explorer,
    RoomsConfig,
    explore,
    first_tables,
    known_errors,
    learn,
    rooms_world,
    seen_rooms,
    told_apart,
)

ROOMS = RoomsConfig(n=7, updates=(300, 20_000), slips=(0.0,))


def learnt():
    world, draws = rooms_world(7, 0.0, goal=8), torch.Generator().manual_seed(0)
    seen_S = seen_rooms(ROOMS, world.free_S)
    looks = []
    for tables in learn(world, seen_S, 0.0, ROOMS, first_tables(6, 6, world.free_S, 0.3, draws), draws):
        looks.append(told_apart(tables, world, seen_S, ROOMS))
    return world, seen_S, tables, looks


def test_what_is_seen_is_learnt_and_sigma_tells_the_rest_apart():
    world, seen_S, tables, (early, late) = learnt()
    assert torch.allclose(tables.model_BSAS[:, seen_S], world.table_SAS[seen_S].float().expand(6, -1, -1, -1), atol=0.02)
    assert np.mean(late["auroc"]) > 0.9 > np.mean(early["auroc"]) + 0.1
    assert np.mean(late["sigma_seen"]) < 0.4 * np.mean(early["sigma_seen"])
    assert np.mean(late["error_rank"]) > 0.6


def test_the_walk_stays_in_the_rooms_it_may_see():
    _, seen_S, tables, _ = learnt()
    assert bool((tables.visits_BS[:, ~seen_S] == 0).all())
    assert tables.visits_BS.sum().item() == 6 * 20_000


def test_the_true_value_is_that_of_a_long_uniform_walk():
    world = rooms_world(5, 0.0, goal=6)
    value_S, reward_S = torch.zeros(25, dtype=torch.float64), world.step_SS @ world.reward_S
    for _ in range(200):
        value_S = reward_S + 0.9 * world.step_SS @ value_S
    assert torch.allclose(world.true_value(0.9), value_S, atol=1e-8)


def test_sigma_grows_with_errors_of_known_size_and_is_zero_without():
    found = known_errors(rooms_world(7, 0.0, goal=8), RoomsConfig(n=7, errors=(0.0, 0.1, 0.3)), 4, torch.Generator().manual_seed(0))
    for kind in ("model", "value"):
        none, small, large = (np.mean(x) for x in found[kind])
        assert none == pytest.approx(0, abs=1e-9)
        assert 0 < 2 * small < large
    assert np.mean(found["value"][2]) == pytest.approx(3 * np.mean(found["value"][1]), rel=1e-6)  # sigma is linear in the value


def test_beta_above_zero_explores_and_below_stays():
    cfg = ExploreConfig(n=9, steps=600)
    covered = [np.mean(explore(cfg, 5, Explorer(beta=beta), 16, torch.Generator().manual_seed(0))) for beta in (-1.0, 0.0, 3.0)]
    assert covered[2] > 1.2 * covered[1]
    assert covered[0] < covered[1]
    assert np.mean(explore(cfg, 5, None, 16, torch.Generator().manual_seed(0))) > covered[2]  # small rooms: a random walk covers more


def test_a_study_that_stopped_goes_on_and_comes_to_the_same(tmp_path, monkeypatch):
    walkers = {"beta 0": Explorer(beta=0.0), "beta 3": Explorer(beta=3.0)}
    cfg = Config(tables=3, rooms=RoomsConfig(n=5, updates=(50, 200)), explore=ExploreConfig(n=5, steps=40, walkers=walkers))
    ive.main(cfg, tmp_path / "whole", False)
    real = ive.explore

    def dies(cfg, depth, walker, *rest):
        if walker == walkers["beta 3"]:
            raise KeyboardInterrupt
        return real(cfg, depth, walker, *rest)

    monkeypatch.setattr(ive, "explore", dies)
    with pytest.raises(KeyboardInterrupt):
        ive.main(cfg, tmp_path / "cut", False)
    monkeypatch.undo()
    monkeypatch.setattr(ive, "told_apart", None)  # what is made is not made again
    ive.main(cfg, tmp_path / "cut", True)

    def rows(name):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [{key: x for key, x in json.loads(line).items() if not key.endswith("_s")} for line in lines]

    assert rows("whole") == rows("cut")
    assert (tmp_path / "whole" / "result.json").read_text() == (tmp_path / "cut" / "result.json").read_text()
