"""Rounds of sampling, selecting and training, with a small base model that has something to select."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.config import ConfigError, build
from posttrain.rollout.store import read_episodes
from posttrain.run import read_jsonl
from posttrain.sft import self_training
from posttrain.sft.self_training import Config, NothingSelected
from tests.sums_base import TASK


def config_for(base, **changes) -> Config:
    plain = {
        "model": str(base),
        "task": TASK,
        "traces": "star_plus",
        "rounds": 2,
        "draw": {"problems": 12, "samples": 6, "max_tokens": 8, "chunk": 5},
        "fit": {"steps": 3, "batch": 8, "lr": 1e-3},
    }
    return build(Config, [("test", plain | changes)])


def weights(folder) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).parameters()])


@pytest.fixture(scope="module")
def trained(sums_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("star") / "run"
    assert self_training.main(config_for(sums_base), out, resume=False) == 0
    return out


def test_each_round_samples_from_the_model_of_the_round_before(trained, sums_base):
    first, second = (list(read_episodes(trained / f"round_{i}" / "episodes.jsonl")) for i in (1, 2))
    assert len(first) == len(second) == 72
    assert not {e.problem.id for e in first} & {e.problem.id for e in second}  # a round goes on in the training set
    base, one, last = weights(sums_base), weights(trained / "round_1" / "model"), weights(trained / "model")
    assert not torch.equal(base, one)
    assert not torch.equal(one, last)
    assert torch.equal(last, weights(trained / "round_2" / "model"))


def test_the_budget_and_the_balance_of_classes_are_logged_per_round(trained):
    rows = [row for row in read_jsonl(trained / "metrics.jsonl") if "train/samples" in row]
    assert [row["train/samples"] for row in rows] == [144, 144]
    assert all(row["traces/fixed"] + row["traces/kept"] > 0 for row in rows)


def test_an_interrupted_run_ends_with_the_same_weights(trained, sums_base, tmp_path, monkeypatch):
    fit, calls = self_training.fit, []

    def dies_in_round_two(*args, **kwargs):
        calls.append(kwargs["after"])
        if kwargs["after"]:
            raise KeyboardInterrupt
        fit(*args, **kwargs)

    monkeypatch.setattr(self_training, "fit", dies_in_round_two)
    with pytest.raises(KeyboardInterrupt):
        self_training.main(config_for(sums_base), tmp_path / "run", resume=False)
    monkeypatch.undo()
    assert self_training.main(config_for(sums_base), tmp_path / "run", resume=True) == 0
    assert torch.equal(weights(tmp_path / "run" / "model"), weights(trained / "model"))


def test_a_round_that_selects_nothing_says_so(tiny_qwen2, tmp_path):
    with pytest.raises(NothingSelected, match=r"round_1: none of 72 episodes is a trace for star; draw more"):
        self_training.main(config_for(tiny_qwen2, traces="star"), tmp_path / "run", resume=False)


@pytest.mark.parametrize(("changes", "complaint"), [({"learn": []}, "learn is empty"), ({"traces": "stars"}, "traces")])
def test_settings_that_make_no_sense_are_refused(changes, complaint, tiny_qwen2):
    with pytest.raises(ConfigError, match=complaint):
        config_for(tiny_qwen2, **changes)
