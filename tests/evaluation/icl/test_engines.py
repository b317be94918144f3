"""The same run on every engine says the same: answers, likelihoods, and that prefixes were shared."""

import pytest

from posttrain.config import build
from posttrain.evaluation.icl.log import NAME, Row, read
from posttrain.evaluation.icl.run import Suite, run

TASK = {"kind": "linear", "dimensions": 2, "largest": 99, "per_class": 16, "test_per_class": 4}
SUITE = {"kind": "icl", "task": TASK, "shots": [2, 12], "seeds": [0], "max_tokens": 3, "baselines": False}


def answered(tmp_path, model, engine: dict) -> dict[tuple, Row]:
    assert run(build(Suite, [("suite", SUITE | {"engine": engine})]), "lines", str(model), tmp_path) == 0
    rows, costs = read(tmp_path / NAME)
    assert sum(cost.score_cached for cost in costs) > 0.5 * sum(cost.score_tokens for cost in costs if cost.shots == 12)
    return {(row.shots, row.item): row for row in rows}


@pytest.fixture(scope="module")
def by_hf(tiny_qwen2, tmp_path_factory):
    return answered(tmp_path_factory.mktemp("icl"), tiny_qwen2, {"kind": "hf"})


def same(found: dict[tuple, Row], expected: dict[tuple, Row]) -> None:
    assert found.keys() == expected.keys()
    for key, row in found.items():
        assert (row.text, row.finish, row.answer_tokens, row.score) == tuple(
            getattr(expected[key], name) for name in ("text", "finish", "answer_tokens", "score")
        )
        assert row.nll == pytest.approx(expected[key].nll, abs=1e-3)


def test_vllm(by_hf, tiny_qwen2, tmp_path, no_vllm_runs):
    same(answered(tmp_path, tiny_qwen2, {"kind": "vllm", "max_model_len": 512}), by_hf)


def test_a_server(by_hf, tiny_qwen2, tmp_path, real_server):
    same(answered(tmp_path, tiny_qwen2, {"kind": "server", "url": real_server, "model": "tiny", "concurrency": 4}), by_hf)
