"""The benchmark for a GPU, as far as a CPU can run it: every line comes, and what must agree does."""

import importlib.util
import sys
from pathlib import Path

import pytest

EVALS = Path(__file__).parents[1] / "evals"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(EVALS))
    spec = importlib.util.spec_from_file_location("bench_gpu", EVALS / "bench_gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_gpu", module)
    spec.loader.exec_module(module)
    return module


def test_every_line_comes_on_a_cpu_and_the_fast_paths_agree_with_the_slow_ones(bench, tmp_path):
    assert bench.main(["--tiny", "--cpu", "--out", str(tmp_path / "gpu.md")]) == 0
    table = (tmp_path / "gpu.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ")]
    verdict = {what: says for what, _, _, says in rows}
    assert len(rows) == 1 + 3 + 11 + 2
    for what in (
        "log-probabilities, a few logits at a time - all logits",
        "log-probabilities, packed - row by row",
        "greedy second attempts behind kept rows, the same as without",
        "gap of engine and trainer, worse attempt",
    ):
        assert verdict[what] == "ok", table


def test_without_a_gpu_and_without_cpu_it_says_what_to_do(bench, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        bench.main(["--tiny"])
    assert caught.value.code == 2
    assert "no CUDA device; --cpu --tiny shows the lines on a CPU" in capsys.readouterr().err
