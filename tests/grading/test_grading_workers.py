"""The workers, through real processes: some of ours, some that misbehave on purpose."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from posttrain.grading.batch import Limits, Pool, Worker, compare, grade_math, shared_pool
from posttrain.types import FinalAnswer, Problem, UnitTests

ROOT = Path(__file__).parents[2]
FACTORIAL = ("1", "100000!!")  # math-verify and sympy do not come back from this one


@pytest.fixture
def worker():
    worker = Worker(Limits(cpu_s=1.0, wall_s=300.0))  # on a starved machine a second of CPU time takes long
    yield worker
    worker.close()


def misbehaving(code: str, **limits: float) -> Worker:
    return Worker(
        Limits(**limits), [sys.executable, "-c", f"print('ready', flush=True)\nimport os, sys, time\nsys.stdin.readline()\n{code}"]
    )


def test_a_question_that_never_ends_is_unscored_and_the_next_one_is_answered(worker):
    verdict = worker.ask(*FACTORIAL)
    assert (verdict.status, verdict.why) == ("unscored", "grader timeout: more than 1 s of CPU time")
    assert worker.ask("x+1", "1+x").status == "correct"


def test_a_worker_that_hangs_without_using_its_processor_is_killed_at_the_wall_limit():
    worker = misbehaving("time.sleep(60)", wall_s=0.5)
    started = time.monotonic()
    verdict = worker.ask("1", "x")
    assert (verdict.status, verdict.why) == ("unscored", "grader timeout: no verdict in 0.5 s")
    assert time.monotonic() - started < 55  # it would have slept for 60 s
    assert worker.process is None


def test_half_a_verdict_is_none():
    verdict = misbehaving("sys.stdout.write('[\"correct\"'); sys.stdout.flush(); os._exit(0)").ask("1", "x")
    assert (verdict.status, verdict.why) == ("unscored", "grader process died with exit code 0")


def test_a_worker_that_cannot_start_says_why():
    verdict = Worker(Limits(), [sys.executable, "-c", "import no_such_module"]).ask("1", "x")
    assert verdict.status == "unscored"
    assert "No module named 'no_such_module'" in verdict.why


def test_a_worker_killed_in_the_middle_is_unscored_and_one_killed_while_idle_is_replaced(worker):
    assert worker.ask("x+1", "1+x").status == "correct"
    with ThreadPoolExecutor(1) as thread:
        before = cpu_s(worker.process.pid)
        asked = thread.submit(worker.ask, *FACTORIAL)
        while cpu_s(worker.process.pid) < before + 0.2:
            time.sleep(0.01)
        os.kill(worker.process.pid, signal.SIGKILL)
        assert asked.result().why == "grader process died with signal 9"
    assert worker.ask("x+1", "1+x").status == "correct"
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    assert worker.ask("x+1", "1+x").status == "correct"


def test_a_grader_that_raises_is_unscored_and_lives_on(worker):
    verdict = worker.ask("12:00", "1:00")  # sympy divides by zero and says so
    assert verdict.status == "unscored"
    assert verdict.why.startswith("grader raised ValueError")
    before = worker.process.pid
    assert worker.ask("x+1", "1+x").status == "correct"
    assert worker.process.pid == before


def test_memory_is_bounded():
    worker = Worker(Limits(memory_mib=200, cpu_s=30.0, wall_s=300.0))
    try:
        assert worker.ask("x+1", "1+x").status == "correct"
        assert not worker.ask("1", r"2^{2^{31}} \cdot 3").correct  # 256 MiB as an integer
        assert worker.process is not None  # it ran out of memory and lives on
        assert peak_mib(worker.process.pid) < 200
    finally:
        worker.close()


def cpu_s(pid: int) -> float:
    """CPU time that a process has used."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Most memory that a process ever had mapped."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmPeak:")[1].split()[0]) / 1024


def test_a_worker_is_replaced_after_its_share_of_questions():
    worker = Worker(Limits(questions=2))
    pids = []
    for _ in range(3):
        worker.ask("x+1", "1+x")
        pids.append(worker.process.pid)
    worker.close()
    assert pids[0] == pids[1] != pids[2]


def test_many_threads_share_few_workers_and_each_gets_its_own_verdict():
    pool = Pool(2, Limits())
    pairs = [(f"x+{i}", f"{i if i % 2 else i + 1}+x") for i in range(40)]
    try:
        with ThreadPoolExecutor(8) as threads:
            verdicts = list(threads.map(pool.ask, pairs))
        assert [verdict.correct for verdict in verdicts] == [bool(i % 2) for i in range(40)]
        assert len({worker.process.pid for worker in pool.workers if worker.process}) <= 2
    finally:
        pool.close()


def test_equal_questions_in_a_batch_are_asked_once():
    before = sum(worker.answered for worker in shared_pool().workers)
    assert {verdict.status for verdict in compare([("z^2-1", "(z-1)(z+1)")] * 50)} == {"correct"}
    assert sum(worker.answered for worker in shared_pool().workers) - before <= 1


def test_verdicts_keep_the_order_of_their_pairs():
    def problem(i: int) -> Problem:
        return Problem(id=str(i), question="?", reference=FinalAnswer(text="x^2-1"))

    texts = [r"\boxed{(x-1)(x+1)}", "no answer", r"\boxed{x^2-1}", r"\boxed{x}", ""]
    statuses = [verdict.status for verdict in grade_math([(problem(i), text) for i, text in enumerate(texts)])]
    assert statuses == ["correct", "no_answer", "correct", "wrong", "no_answer"]


def test_a_program_as_reference_is_the_callers_mistake():
    problem = Problem(id="p", question="?", reference=UnitTests(entry_point="f", code=""))
    with pytest.raises(TypeError, match="problem p: expected a FinalAnswer"):
        grade_math([(problem, "x")])


def test_a_process_forked_while_all_workers_are_busy_gets_workers_of_its_own():
    pool = shared_pool()
    taken = [pool.idle.get() for _ in pool.workers]
    try:
        with multiprocessing.get_context("fork").Pool(1) as child:
            assert child.map_async(compare, [[("x+3", "3+x")]]).get(timeout=120)[0][0].correct
    finally:
        for worker in taken:
            pool.idle.put(worker)
    assert shared_pool() is pool
    assert compare([("x+4", "4+x")])[0].correct


def run(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    )


def test_numbers_alone_start_no_worker_and_load_neither_torch_nor_sympy():
    code = """
import sys
from posttrain.grading import batch
import posttrain.tasks
assert [v.status for v in batch.compare([("5", "5.0"), ("5", "6"), ("5", None)])] == ["correct", "wrong", "no_answer"]
print(batch._shared, [name for name in ("torch", "sympy", "math_verify", "transformers", "datasets") if name in sys.modules])
"""
    process = run(code)
    assert process.communicate()[0] == "None []\n"


WORKING = """
from posttrain.grading import batch
batch.compare([("x+1", "1+x")])
print(*[w.process.pid for w in batch.shared_pool().workers if w.process], flush=True)
"""


@pytest.mark.parametrize("end", ["exits", "is killed"])
def test_no_worker_outlives_a_parent_that(end):
    process = run(WORKING + ("" if end == "exits" else "import time; time.sleep(60)"))
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert pids
    if end == "is killed":
        process.kill()
    process.wait()
    until = time.monotonic() + 60
    while time.monotonic() < until and any(alive(pid) for pid in pids):
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
