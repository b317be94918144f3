"""Every row of recipes/score_math's two studies starts, takes its steps and hands its model on, without a network and without MATH.

The recipes stand as they are but for the overlays for tiny runs, the project's own problems in MATH's place, and transformers in vLLM's.
"""

import importlib
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.config import build, load, merge, read_yaml
from posttrain.evaluation.model import open_chat
from posttrain.evaluation.run import evaluate_model
from posttrain.evaluation.suite import Suite
from posttrain.jobs import Job
from posttrain.rl import grpo, score, think_twice
from posttrain.rl.recipe import Config as ScoreConfig
from posttrain.run import read_jsonl
from posttrain.sft import self_training
from posttrain.study import Config, _plan
from posttrain.tasks import math
from posttrain.tasks.math import MathTask
from tests.tiny_models import make_tiny_model

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes" / "score_math"
FILES = {split: str(ROOT / "data" / "fixtures" / f"math_{split}.jsonl") for split in ("train", "test")}
REPLACED: dict[str, Any] = {"task": {"kind": "math", "sources": FILES, "limit": 2}, "engine": {"kind": "hf"}}  # the answers: 2 and 5


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A tiny Qwen2 that answers any question with a boxed 2 or 5, so that half of its attempts at the two problems are right."""
    folder = make_tiny_model(tmp_path_factory.mktemp("base"), "qwen2", positions=4096)
    chat, _ = open_chat(str(folder))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=5e-3), random.Random(0)
    prompts = [chat.ask(math.ask(problem)) for problem in math.read(MathTask(sources=FILES), "train").problems]
    for step in range(50):
        ids = prompts[step % len(prompts)]
        labels = [-100] * len(ids)
        for _ in range(2):
            said = (*chat.encode(f"\\boxed{{{rng.choice('25')}}}"), chat.eos_ids[0])
            after = chat.revise(ids, said, math.revise.MATH)
            labels += [*said, *[-100] * (len(after) - len(ids) - len(said))]
            ids = after
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*where):
        raise AssertionError(f"the network was asked for: {where}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def jobs(study: str, base: Path, out: Path, overlays: tuple[str, ...]) -> list[Job]:
    overrides: dict[str, Any] = REPLACED
    for overlay in overlays:
        overrides = merge(overrides, {k: v for k, v in read_yaml(ROOT / "recipes" / "overlays" / overlay)[1].items() if k != "kind"})
    layers = [read_yaml(RECIPES / f"{study}.yaml"), ("test", {"overrides": overrides, "runs": {"base": {"hub": str(base)}}})]
    return list(_plan(build(Config, layers), out, 0))


def updates(job: Job) -> int:
    return job.recipe.rounds * job.recipe.fit.steps if is_self_training(job) else job.recipe.steps


def is_self_training(job: Job) -> bool:
    return isinstance(job.recipe, self_training.Config)


def evaluate(job: Job) -> None:
    """As the study does, in float32 and by transformers."""
    (name,) = job.suites
    small = {**REPLACED, "sampling": {"max_tokens": 24}, "dtype": "float32"}
    suite = build(Suite, [read_yaml(ROOT / "evals" / "suites" / f"{name}.yaml"), ("test", small)])
    evaluate_model(suite, job.label, str(job.model), job.folder / "eval" / name)


@pytest.mark.parametrize(
    ("study", "overlays"),
    [
        ("table", ("tiny.yaml", "tiny_grpo.yaml", "tiny_self_training.yaml")),
        ("ablations", ("lora.yaml", "tiny.yaml", "tiny_self_training.yaml")),
    ],
    ids=["table, all weights", "ablations, adapters"],
)
def test_every_row_of_a_study_takes_its_steps_and_moves_its_model(study, overlays, base, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for job in jobs(study, base, tmp_path, overlays):
        if job.trainer is None:
            evaluate(job)
            continue
        assert updates(job) == 2 * getattr(job.recipe, "rounds", 1)
        assert importlib.import_module(job.trainer).main(job.recipe, job.folder, False) == 0
        rows = list(read_jsonl(job.folder / "metrics.jsonl"))
        assert sum(row.get("train/samples", 0) for row in rows) > 0
        if not is_self_training(job):
            assert [row["step"] for row in rows] == [1, 2]
        assert (job.folder / "dropped.jsonl").read_text() == ""  # the project's own test problems are none of its training problems
        before, after = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).state_dict() for f in (job.recipe.model, job.model))
        assert any(not torch.equal(before[name], after[name]) for name in before)


def of_kind(module: Any, *names: str) -> list[Any]:
    return [load(module.Config, [RECIPES / f"{name}.yaml"]) for name in names]


def test_every_trained_row_has_the_budget_and_the_numbers_of_the_paper():
    stages = of_kind(score, "stage1", "stage2")
    for cfg in (*stages, *of_kind(score, "plain", "single_turn"), *of_kind(think_twice, "think_twice")):
        assert isinstance(cfg, ScoreConfig)
        assert (cfg.optim.lr, cfg.sampling.temperature, cfg.policy.precision) == (5e-6, 1.0, "bf16_autocast")
    budget = 3000 * 512 * 2
    assert sum(c.steps * c.problems_per_step * c.samples * 2 for c in stages) == budget
    (plain,), (single,), (twice,) = of_kind(score, "plain"), of_kind(score, "single_turn"), of_kind(think_twice, "think_twice")
    (trl,), (star,), (pairs,) = of_kind(grpo, "grpo"), of_kind(self_training, "star"), of_kind(self_training, "pairs")
    assert plain.steps * plain.problems_per_step * plain.samples * 2 == budget
    assert single.steps * single.problems_per_step * single.samples == budget
    assert trl.steps * trl.problems_per_step * trl.samples == budget
    assert twice.steps * twice.problems_per_step * twice.samples * 2 == budget
    assert [plain.steps, single.steps, trl.steps, 2 * twice.steps, star.rounds * star.fit.steps, pairs.fit.steps] == [3000] * 6
    for cfg in (star, pairs):
        assert cfg.rounds * 12000 * cfg.draw.samples * 2 == pytest.approx(budget, rel=0.01)
        assert (cfg.fit.lr, cfg.fit.batch, cfg.draw.problems) == (5e-6, 512, None)
    assert (trl.lr, trl.beta) == (5e-6, 0.01)
