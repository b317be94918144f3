"""Jobs that build on each other: what comes first, several at a time, and what is left when the study is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from posttrain import study
from posttrain.config import build
from posttrain.jobs import Job, do_all
from posttrain.run import read_jsonl
from tests.test_study import files

RUNS = {"base": {"recipe": "sft"}, "a": {"recipe": "score", "model": "base"}, "b": {"recipe": "score", "model": "base"}}


STEPS = 100


def tree(folder: Path, workers: int) -> dict:
    at = files(folder)
    runs = {name: run | {"recipe": at[run["recipe"]], "label": name} for name, run in RUNS.items()}
    overrides = {"steps": STEPS, "checkpoint": {"every": 1000}}  # no checkpoint before the last step, but by a signal
    return {"kind": "study", "title": "t", "suite": at["suite"], "runs": runs, "workers": workers, "overrides": overrides}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A study of two workers that is killed while one of them trains, then gone on with."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "study.yaml").write_text(yaml.safe_dump(tree(folder, 2), sort_keys=False))
    out = folder / "out"
    command = [sys.executable, "-m", "posttrain.cli", "train", str(folder / "study.yaml"), "--out", str(out), "--resume"]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    log, until = out / "seed0" / "a" / "metrics.jsonl", time.monotonic() + 200
    while not log.exists() or len(log.read_text().splitlines()) < 5:
        assert time.monotonic() < until
        assert first.poll() is None
        time.sleep(0.02)
    children = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True).stdout.split()
    first.send_signal(signal.SIGKILL)
    first.wait()
    until = time.monotonic() + 100
    while any(_alive(int(child)) for child in children):
        assert time.monotonic() < until, "a worker outlives its study"
        time.sleep(0.1)
    saved = [int(folder.name.removeprefix("step_")) for folder in log.parent.glob("checkpoints/step_*")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return out / "seed0", children, saved


def test_workers_of_a_killed_study_save_their_runs_and_end(killed):
    _, children, saved = killed
    assert len(children) >= 2
    assert len(saved) == 1
    assert 5 <= saved[0] < STEPS


def test_a_study_done_by_several_workers_and_two_calls_is_the_same_to_the_bit(killed, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    try:
        cfg = build(study.Config, [("test", tree(tmp_path, 1))])
        assert study.do_all(list(study._plan(cfg, tmp_path / "out" / "seed0", 0)), 1) == 0
    finally:
        torch.set_num_threads(threads)
    for name in "ab":
        one, other = (_figures(folder / name / "metrics.jsonl") for folder in (tmp_path / "out" / "seed0", killed[0]))
        assert one == other
        assert len(one) == STEPS


def test_a_job_waits_for_those_it_needs_and_the_first_that_stops_ends_the_study(tmp_path):
    jobs = [_job(tmp_path / "stopped", 3), _job(tmp_path / "never", 0, needs={tmp_path / "stopped"})]
    assert do_all(jobs, 1) == 3
    assert do_all(jobs, 2) == 3
    assert (tmp_path / "stopped" / "log.txt").read_text() == "stopped\n"
    assert not (tmp_path / "never").exists()


def main(recipe: int, out: Path, resume: bool) -> int:
    """This module is the trainer of the jobs above: the recipe is the exit code."""
    print(out.name)
    return recipe


def _job(folder: Path, code: int, needs: frozenset[Path] | set[Path] = frozenset()) -> Job:
    return Job(folder=folder, model=folder, trainer=__name__, recipe=code, suites={}, label=None, needs=frozenset(needs))


def _figures(log: Path) -> list[dict]:
    return [{key: value for key, value in row.items() if not key.endswith("_s")} for row in read_jsonl(log)]


LATE = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from posttrain.jobs import _start_worker

def late(folder):
    parent = os.getppid()
    Path(folder, "pid").write_text(str(os.getpid()))
    while os.getppid() == parent:
        time.sleep(0.01)
    _start_worker(1)
    Path(folder, "works").touch()

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=late, args=sys.argv[1:]).start()
    while not Path(sys.argv[1], "pid").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_whose_study_died_while_it_was_starting_takes_no_job(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    assert subprocess.run([sys.executable, str(tmp_path / "late.py"), str(tmp_path)], timeout=100).returncode == -signal.SIGKILL
    until, worker = time.monotonic() + 100, int((tmp_path / "pid").read_text())
    while _alive(worker):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not (tmp_path / "works").exists()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(60)  # a job that waits for it waits for ever
def test_what_a_job_needs_and_is_not_among_the_jobs_was_done_before(tmp_path):
    """A study leaves out the runs that are finished; those after them wait for nobody."""
    jobs = [_job(tmp_path / "after", 0, needs={tmp_path / "earlier"}), _job(tmp_path / "last", 0, needs={tmp_path / "after"})]
    assert do_all(jobs, 2) == 0
    assert (tmp_path / "last" / "log.txt").exists()
