"""The loop of proposer and solver, small: what is kept is valid, new and learnable, limits hold, and a kill changes nothing."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.config import ConfigError, build
from posttrain.run import read_jsonl
from posttrain.sft import proposing
from posttrain.sft.proposing import Config, why_ended
from posttrain.tasks import sums
from posttrain.tasks.sums import SumsTask
from posttrain.types import DataError

TASK = {"kind": "sums", "pick": 2, "numbers": 4, "largest": 6, "train_size": 40}


def config_for(base, **changes) -> Config:
    plain = {
        "model": str(base),
        "task": TASK,
        "lengths": [3, 4],
        "seeds": 12,
        "draws": 400,
        "candidates": 30,
        "samples": 4,
        "filters": {"new": 0.3, "rates": [0.25, 0.75]},
        "limits": {"rounds": 2},
        "held": {"lengths": [4], "problems": 10},
        "first": {"steps": 200, "batch": 16, "lr": 3e-3},
        "fit": {"steps": 5, "batch": 8, "lr": 1e-3},
        "follow": {"steps": 5, "batch": 8, "lr": 1e-3},
    }
    return build(Config, [("test", plain | changes)])


@pytest.fixture(scope="module")
def ran(sums_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("proposing") / "run"
    assert proposing.main(config_for(sums_base), out, resume=False) == 0
    return out


def proposals(out: Path) -> list[dict]:
    return [row for number in (1, 2) for row in read_jsonl(out / f"round_{number}" / "proposals.jsonl")]


def test_every_text_has_its_reason_and_what_is_kept_passed_all_three_tests(ran, sums_base):
    rows = proposals(ran)
    assert len(rows) == 800
    assert {row["why"].partition(":")[0] for row in rows} >= {"not valid", "not new", "not learnable", "kept"}
    seeds = {problem.id for problem in proposing.seed_problems(config_for(sums_base))}
    kept = [row for row in rows if row["kept"]]
    assert kept
    for row in kept:
        assert row["problem"]["id"] == sums.posed(SumsTask(**TASK), row["text"]).id
        assert row["problem"]["id"] not in seeds
        assert row["loss"] >= 0.3
        assert 0.25 <= row["rate"] <= 0.75


def test_what_is_kept_is_a_training_set_of_the_task(ran):
    kept = [row["problem"]["id"] for row in proposals(ran) if row["kept"]]
    task = SumsTask(**TASK, train_file=ran / "problems.jsonl")
    assert [problem.id for problem in sums.load(task, "train")] == kept
    assert {row["round"] for row in read_jsonl(ran / "problems.jsonl")} == {1, 2}


def test_the_result_counts_what_was_done(ran):
    found = json.loads((ran / "result.json").read_text())
    assert found["rounds"] == 2
    assert found["ended"] == "limits.rounds was reached"
    assert found["kept"] == len((ran / "problems.jsonl").read_text().splitlines())
    assert found["tokens"] > 2 * 400


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).parameters()])


def test_a_run_that_was_cut_short_ends_the_same(ran, sums_base, tmp_path, monkeypatch):
    real, calls = proposing.held_out, []

    def dies_at_the_end_of_round_two(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(proposing, "held_out", dies_at_the_end_of_round_two)
    with pytest.raises(KeyboardInterrupt):
        proposing.main(config_for(sums_base), tmp_path / "cut", resume=False)
    monkeypatch.setattr(proposing, "held_out", real)
    assert proposing.main(config_for(sums_base), tmp_path / "cut", resume=True) == 0
    for name in ("problems.jsonl", "result.json", "metrics.jsonl", "round_2/proposals.jsonl"):
        assert (ran / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert torch.equal(weights(ran / "model"), weights(tmp_path / "cut" / "model"))


def test_the_fixed_set_is_asked_in_turn_and_all_of_it_kept(sums_base, tmp_path):
    cfg = config_for(sums_base, source="fixed", filters=None, candidates=12)
    proposing.main(cfg, tmp_path / "fixed", resume=False)
    rows = proposals(tmp_path / "fixed")
    seeds = {problem.id for problem in proposing.seed_problems(cfg)}
    assert [row["kept"] for row in rows] == [True] * 24
    assert {row["problem"]["id"] for row in rows} == seeds  # two rounds of twelve are an epoch of the 24
    assert not (tmp_path / "fixed" / "round_1" / "proposer").exists()
    cfg = config_for(sums_base, source="fixed", filters=None, candidates=20)
    proposing.main(cfg, tmp_path / "again", resume=False)  # forty of twenty-four: some come round
    assert len(list(read_jsonl(tmp_path / "again" / "problems.jsonl"))) == 24


def test_no_more_is_kept_than_the_limit(sums_base, tmp_path):
    cfg = config_for(sums_base, filters=None, limits={"rounds": 2, "kept": 5})
    proposing.main(cfg, tmp_path / "few", resume=False)
    assert json.loads((tmp_path / "few" / "result.json").read_text())["ended"] == "limits.kept was reached"
    rows = list(read_jsonl(tmp_path / "few" / "round_1" / "proposals.jsonl"))
    assert sum(row["kept"] for row in rows) == 5
    assert any(row["why"].startswith("limit: ") for row in rows)


def test_the_loop_ends_at_the_first_limit(sums_base):
    cfg = config_for(sums_base, limits={"rounds": 3, "tokens": 100, "kept": 50, "least": 2})
    none = {"kept": 0, "tokens": 0}
    assert why_ended(cfg, [none]) is None
    assert why_ended(cfg, [none, {"kept": 2, "tokens": 10}]) is None
    assert why_ended(cfg, [none, {"kept": 1, "tokens": 10}]) == "round 1 kept 1 problems"
    assert why_ended(cfg, [none, {"kept": 9, "tokens": 100}]) == "limits.tokens was reached"
    assert why_ended(cfg, [none, {"kept": 50, "tokens": 10}]) == "limits.kept was reached"
    assert why_ended(cfg, [none, *[{"kept": 9, "tokens": 10}] * 3]) == "limits.rounds was reached"


def test_a_fixed_set_is_not_filtered(sums_base):
    with pytest.raises(ConfigError, match="set filters to null"):
        config_for(sums_base, source="fixed")


def test_what_cannot_work_is_refused_before_the_folder_is_taken(sums_base, tmp_path):
    with pytest.raises(ConfigError, match="lengths must lie above pick = 2 and within largest = 6, got 2"):
        config_for(sums_base, lengths=[2, 3])
    with pytest.raises(ConfigError, match="no such model folder"):
        proposing.main(config_for(tmp_path / "none" / "model"), tmp_path / "run", resume=False)
    with pytest.raises(DataError, match="raise largest"):
        proposing.main(config_for(sums_base, seeds=500), tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()
