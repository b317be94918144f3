"""A log of episodes that any number of workers fill, that a kill does not harm, and in which nothing is made twice."""

import fcntl
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from posttrain.config import ConfigError
from posttrain.rollout.log import sample_into
from posttrain.rollout.store import read_episodes, to_line
from posttrain.types import Completion, DataError, EngineError, Episode, FinalAnswer, Problem, Turn, Verdict

ROOT = Path(__file__).parents[2]
SAMPLES, CHUNK = 2, 3
PROBLEMS = [Problem(id=f"p{i}", question=f"{i}?", reference=FinalAnswer(text=str(i))) for i in range(20)]


class Maker:
    """A sampler that counts what it makes; it dies at its `calls`-th call."""

    def __init__(self, made: Counter, calls: int = 1 << 30, wait_s: float = 0.0) -> None:
        self.made, self.left, self.wait_s = made, calls, wait_s

    def __call__(self, problems):
        self.left -= 1
        if self.left < 0:
            raise EngineError("died")
        time.sleep(self.wait_s)
        return [self._episode(problem, sample) for problem in problems for sample in range(SAMPLES)]

    def _episode(self, problem, sample):
        self.made[problem.id, sample] += 1
        done = Completion(ids=(1, sample), logprobs=(), finish="stop")
        right = Verdict(status="correct" if sample else "wrong")
        return Episode(problem=problem, turns=(Turn(prompt_ids=(7,), completion=done, text="x", answer="x", verdict=right),), sample=sample)


def fill(file, samplers, problems=PROBLEMS):
    return sample_into(file, problems, samplers, samples=SAMPLES, chunk=CHUNK, name="test")


@pytest.fixture
def whole(tmp_path):
    """The bytes of a file that one worker filled without a break."""
    fill(tmp_path / "whole.jsonl", [Maker(Counter())])
    return (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("workers", [1, 2, 5, 16])
def test_the_number_of_workers_changes_nothing(tmp_path, whole, workers):
    made = Counter()
    rng = random.Random(workers)
    episodes = fill(tmp_path / "e.jsonl", [Maker(made, wait_s=rng.random() / 100) for _ in range(workers)])
    assert (tmp_path / "e.jsonl").read_bytes() == whole
    assert [(e.problem.id, e.sample) for e in episodes] == [(p.id, s) for p in PROBLEMS for s in range(SAMPLES)]
    assert set(made.values()) == {1}


def test_workers_work_at_the_same_time(tmp_path):
    met = threading.Barrier(3, timeout=30)

    def meeting(problems):
        if problems[0].id in ("p0", "p3", "p6"):
            met.wait()  # breaks unless three chunks are under way together
        return Maker(Counter())(problems)

    fill(tmp_path / "e.jsonl", [meeting] * 3)


@pytest.mark.parametrize("seed", range(6))
def test_deaths_and_other_numbers_of_workers_make_nothing_twice(tmp_path, whole, seed):
    """Each round another number of workers, each of which dies after a few chunks: what was logged is never made again."""
    rng, logged = random.Random(seed), set()
    file = tmp_path / "e.jsonl"
    for _ in range(40):
        made: Counter = Counter()
        with suppress(EngineError):
            fill(file, [Maker(made, calls=rng.randint(0, 2)) for _ in range(rng.randint(1, 4))])
        assert not logged & set(made)
        logged = {(e.problem.id, e.sample) for e in read_episodes(file)}
        if len(logged) == len(PROBLEMS) * SAMPLES:
            break
    assert file.read_bytes() == whole


def test_those_beside_a_worker_that_fails_finish_their_chunks(tmp_path):
    file, started = tmp_path / "e.jsonl", threading.Barrier(2, timeout=30)

    def failing(problems):
        started.wait()
        raise EngineError("died")

    def slow(problems):
        started.wait()
        time.sleep(0.2)
        return Maker(Counter())(problems)

    with pytest.raises(EngineError, match="died"):
        fill(file, [failing, slow])
    assert len(list(read_episodes(file))) == CHUNK * SAMPLES


@pytest.mark.parametrize("seed", range(8))
def test_a_file_of_chunks_in_any_order_cut_anywhere_is_completed(tmp_path, whole, seed):
    rng = random.Random(seed)
    chunks = [PROBLEMS[i : i + CHUNK] for i in range(0, len(PROBLEMS), CHUNK)]
    rng.shuffle(chunks)
    lines = "".join(to_line(e) for chunk in chunks for e in Maker(Counter())(chunk)).encode()
    file = tmp_path / "e.jsonl"
    file.write_bytes(lines[: rng.randrange(len(lines))])
    kept = len(list(line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")))
    made: Counter = Counter()
    fill(file, [Maker(made) for _ in range(3)])
    assert file.read_bytes() == whole
    assert made.total() <= len(PROBLEMS) * SAMPLES - kept + CHUNK * SAMPLES - 1


def test_a_sample_that_stands_twice_is_refused(tmp_path, whole):
    file = tmp_path / "e.jsonl"
    first = b"".join(whole.splitlines(keepends=True)[: CHUNK * SAMPLES])
    file.write_bytes(first + first)
    with pytest.raises(DataError, match=r"e\.jsonl:7: holds episodes of other problems"):
        fill(file, [Maker(Counter())])


def test_other_problems_are_refused_and_the_file_is_left_as_it_is(tmp_path, whole):
    file = tmp_path / "e.jsonl"
    file.write_bytes(whole)
    with pytest.raises(DataError, match="other problems"):
        fill(file, [Maker(Counter())], PROBLEMS[::-1])
    assert file.read_bytes() == whole


def test_a_file_that_another_process_writes_is_left_alone(tmp_path):
    file = tmp_path / "e.jsonl"
    with open(file, "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is writing it"):
            fill(file, [Maker(Counter())])
    assert os.path.getsize(file) == 0
    fill(file, [Maker(Counter())])


KILLED = """
import sys, time
from collections import Counter
from pathlib import Path
from tests.rollout.test_log import Maker, fill

file, graded, workers = Path(sys.argv[1]), open(sys.argv[2], "a"), int(sys.argv[3])

def slow(problems):
    made = Maker(Counter(), wait_s=0.01)(problems)
    for episode in made:
        print(episode.problem.id, episode.sample, file=graded, flush=True)
    return made

print("ready", flush=True)
fill(file, [slow] * workers)
"""


def test_kills_at_random_moments_leave_every_sample_once_and_what_was_kept_is_not_graded_again(tmp_path, whole):
    """Five kills -9, each time with another number of workers; every grading is written down beside the log."""
    rng, file, graded = random.Random(4), tmp_path / "e.jsonl", tmp_path / "graded"
    for workers in (1, 3, 2, 4, 2):
        kept = set(file.read_text().splitlines()) if file.exists() else set()
        before = len(graded.read_text().splitlines()) if graded.exists() else 0
        run = subprocess.Popen([sys.executable, "-c", KILLED, file, graded, str(workers)], cwd=ROOT, stdout=subprocess.PIPE)
        run.stdout.readline()
        time.sleep(rng.random() * 0.06 / workers)
        run.kill()
        run.wait()
        kept = {json.loads(line)["problem"]["id"] for line in kept if line.endswith("}")}
        again = {line.split()[0] for line in graded.read_text().splitlines()[before:-1]} if graded.exists() else set()
        assert not {id for id in kept & again if whole_chunk(id) <= kept}
    subprocess.run([sys.executable, "-c", KILLED, file, graded, "3"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert file.read_bytes() == whole


def whole_chunk(problem: str) -> set[str]:
    start = int(problem[1:]) // CHUNK * CHUNK
    return {p.id for p in PROBLEMS[start : start + CHUNK]}
