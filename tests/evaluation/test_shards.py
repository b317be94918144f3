"""Processes that sample for one caller: what they make, how their failures are told, and that they end with their owner."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.config import ConfigError
from posttrain.evaluation.shards import open_shards
from posttrain.types import EngineError, FinalAnswer, Problem

ROOT = Path(__file__).parents[2]
PROBLEMS = [Problem(id=f"p{i}", question="?", reference=FinalAnswer(text="7")) for i in range(3)]


def opener(what: str):
    """A sampler that answers with what a test wants to see of its process."""
    if what == "no model":
        raise ConfigError("m: no such model folder")
    if what == "no memory":
        raise MemoryError("12 GiB")

    def sample(problems):
        if what == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "fails":
            raise EngineError("server: 500")
        return [(problem.id, os.environ.get("CUDA_VISIBLE_DEVICES")) for problem in problems]

    return sample


@pytest.fixture
def shards(request):
    opened = open_shards(2, opener, (request.param,))
    yield opened
    for shard in opened:
        shard.close()


@pytest.mark.parametrize("shards", ["works"], indirect=True)
def test_problems_go_in_and_what_was_made_of_them_comes_back(shards):
    for shard in shards:
        assert [name for name, _ in shard(PROBLEMS)] == ["p0", "p1", "p2"]


def test_processes_take_the_named_gpus_in_turn(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    opened = open_shards(3, opener, ("works",))
    assert [shard(PROBLEMS[:1])[0][1] for shard in opened] == ["4", "6", "4"]
    for shard in opened:
        shard.close()


@pytest.mark.parametrize(
    ("shards", "said"), [("dies", r"shard 0: its process died \(exit code -9"), ("fails", "server: 500")], indirect=["shards"]
)
def test_what_went_wrong_in_a_process_is_told_in_its_owner(shards, said):
    with pytest.raises(EngineError, match=said):
        shards[0](PROBLEMS)


NOT_OPENED = [("no model", ConfigError, "no such model"), ("no memory", EngineError, "MemoryError: 12")]


@pytest.mark.parametrize(("what", "error", "said"), NOT_OPENED)
def test_a_sampler_that_cannot_be_opened_is_told_and_leaves_no_process(what, error, said):
    with pytest.raises(error, match=said):
        open_shards(2, opener, (what,))


OWNER = """
from posttrain.evaluation.shards import open_shards
from tests.evaluation.test_shards import opener
if __name__ == "__main__":
    print(*[shard._process.pid for shard in open_shards(2, opener, ("works",))], flush=True)
    input()
"""


def test_processes_end_when_their_owner_is_killed(tmp_path):
    (tmp_path / "owner.py").write_text(OWNER)
    seen = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    run = subprocess.Popen([sys.executable, tmp_path / "owner.py"], cwd=ROOT, env=seen, **pipes)
    pids = [int(word) for word in run.stdout.readline().split()]
    run.kill()
    run.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(pids) == 2
