"""Exact sets: occupancies against a long walk, what a bound and a distance of rest do, and a study that stopped and goes on."""

import json

import pytest
import torch

from posttrain.agents import domino_tables
from posttrain.agents.domino_tables import (
    Config,
    Setting,
    action_values,
    best_value,
    diversity_of_cells,
    figures_of,
    make_sets,
    occupancies,
    room,
)
from posttrain.config import ConfigError, build

SMALL = Config(n=5, policies=4, sets=2, iterations=600, gamma=0.9)


def made(setting, cfg=SMALL):
    return figures_of(make_sets(cfg, setting, torch.Generator().manual_seed(0)))


def test_occupancies_and_values_are_those_of_a_long_walk():
    next_SA, reward_S, start = room(3)
    policy_SA = torch.rand(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    policy_SA /= policy_SA.sum(-1, keepdim=True)
    at_S, total_S = torch.zeros(9, dtype=torch.float64), torch.zeros(9, dtype=torch.float64)
    at_S[start] = 1
    for t in range(300):
        total_S += 0.1 * 0.9**t * at_S
        after_S = torch.zeros(9, dtype=torch.float64)
        for s in range(9):
            for a in range(4):
                after_S[next_SA[s, a]] += at_S[s] * policy_SA[s, a]
        at_S = after_S
    occupancy_S, factors = occupancies(policy_SA, next_SA, start, 0.9)
    assert torch.allclose(occupancy_S, total_S, atol=1e-9)
    q_SA = action_values(reward_S, factors, next_SA, 0.9)
    assert (policy_SA[start] * q_SA[start]).sum().item() == pytest.approx((occupancy_S @ reward_S).item())


def test_the_best_value_is_that_of_going_straight():
    next_SA, reward_S, start = room(5)
    right = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64).expand(25, 4)
    assert (occupancies(right, next_SA, start, 0.9)[0] @ reward_S).item() == pytest.approx(best_value(5, 0.9))


def test_a_discriminator_of_exact_occupancies_by_hand():
    psi_BNS = torch.tensor([[[0.75, 0.25], [0.25, 0.75]]], dtype=torch.float64)
    paid = diversity_of_cells(psi_BNS, Setting(share=0.5, reward="discrimination"))
    assert paid[0].exp().tolist() == [pytest.approx([1.5, 0.5]), pytest.approx([0.5, 1.5])]


def test_policies_stay_within_the_bound_and_apart():
    alike, bounded = made(Setting(share=1.0)), made(Setting(alpha=0.9))
    assert min(alike["worst"]) > 0.99
    assert max(alike["distance"]) < 1e-6
    assert min(bounded["worst"]) >= 0.88
    assert min(bounded["nearest"]) > 0.3


def test_without_a_task_policies_fail_it():
    assert max(made(Setting(share=0.0))["worst"]) < 0.2


def test_neighbours_come_to_the_distance_of_rest():
    found = made(Setting(alpha=0.9, rest=0.2), Config(n=5, policies=4, sets=2, gamma=0.9))
    assert min(found["nearest"]) > 0.97 * 0.2
    assert max(found["farthest"]) < 1.03 * 0.2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {"x": {}}}, "settings.x: .*found alpha None and share None, expected one of the two"),
        ({"settings": {"x": {"alpha": 0.9, "share": 0.1}}}, "found alpha 0.9 and share 0.1"),
        ({"settings": {"x": {"alpha": 0.9, "rest": 0.1, "reward": "discrimination"}}}, "rest: found 0.1 with reward discrimination"),
        ({"pictured": ["y"]}, "pictured: found 'y', expected one of no diversity, alpha .9"),
        ({"policies": 1}, "policies: .*1"),
    ],
)
def test_what_cannot_be_made_is_said(changed, said):
    with pytest.raises(ConfigError, match=said):
        build(Config, [("r", {"kind": "domino_tables"} | changed)])


def test_a_study_that_stopped_goes_on_and_comes_to_the_same(tmp_path, monkeypatch):
    cfg = Config(n=4, policies=3, sets=2, iterations=30)
    domino_tables.main(cfg, tmp_path / "whole", False)
    real = domino_tables.make_sets

    def dies(cfg, setting, draws):
        if setting.alpha is not None:
            raise KeyboardInterrupt
        return real(cfg, setting, draws)

    monkeypatch.setattr(domino_tables, "make_sets", dies)
    with pytest.raises(KeyboardInterrupt):
        domino_tables.main(cfg, tmp_path / "cut", False)
    monkeypatch.undo()
    domino_tables.main(cfg, tmp_path / "cut", True)

    def rows(name):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [{key: x for key, x in json.loads(line).items() if not key.endswith("_s")} for line in lines]

    assert rows("whole") == rows("cut")
    assert (tmp_path / "whole" / "result.json").read_text() == (tmp_path / "cut" / "result.json").read_text()
    assert (tmp_path / "whole" / "sets.png").stat().st_size > 1000
