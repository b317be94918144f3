"""The workers, through real processes: some of ours, some that misbehave on purpose."""

import asyncio
import json
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
OPEN = (r"\tan\frac{x}{2}", r"\frac{\sin x}{1+\cos x}")  # exact arithmetic leaves it to algebra


@pytest.fixture
def worker():
    worker = Worker(Limits(cpu_s=1.0, wall_s=300.0))  # on a starved machine a second of CPU time takes long
    yield worker
    worker.close()


def misbehaving(code: str, **limits: float) -> Worker:
    return Worker(
        Limits(**limits), [sys.executable, "-c", f"print('ready', flush=True)\nimport os, sys, time\nsys.stdin.readline()\n{code}"]
    )


BUSY = """
import json, signal, sys
print("ready", flush=True)
for line in sys.stdin:
    signal.setitimer(signal.ITIMER_PROF, 0.2)
    gold, answer, policy = json.loads(line)
    while answer == "busy":
        pass
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(json.dumps(["correct", "", "", gold, answer]), flush=True)
"""


def test_a_question_that_never_ends_is_a_timeout_and_the_next_one_is_answered():
    worker = Worker(Limits(cpu_s=0.2), [sys.executable, "-c", BUSY])
    try:
        verdict = worker.ask("1", "busy")
        assert (verdict.status, verdict.why, verdict.scored) == ("timeout", "more than 0.2 s of CPU time", True)
        assert worker.ask("1", "quick").status == "correct"
    finally:
        worker.close()


def test_a_timeout_counts_only_when_met_twice_the_second_time_alone(tmp_path):
    marker = tmp_path / "asked"
    first = f'import os\n    first = not os.path.exists({str(marker)!r})\n    open({str(marker)!r}, "w")'
    once = BUSY.replace('while answer == "busy":', first + '\n    while first and answer == "busy":')
    pool = Pool(1, Limits(cpu_s=0.2), [sys.executable, "-c", once])
    try:
        assert [verdict.status for verdict in pool.ask_all([("1", "busy"), ("1", "quick")])] == ["correct", "correct"]
        assert pool.workers[0].process is not None
    finally:
        pool.close()
    busy = Pool(1, Limits(cpu_s=0.2), [sys.executable, "-c", BUSY])
    try:
        assert busy.ask_all([("1", "busy")])[0].status == "timeout"
    finally:
        busy.close()


def test_algebra_gives_up_in_time_on_what_it_cannot_settle():
    worker = Worker(Limits())
    for answer in (r"\sum_{k=1}^{10^9} k^k", r"\int_0^1 e^{-x^2} dx", r"\prod_{k=1}^{500} \sin k + 10^{10^{4}}", r"\Gamma(10^{20})"):
        assert worker.ask("1", answer).status in ("wrong", "limit"), answer
    worker.close()


def test_a_worker_that_hangs_without_using_its_processor_is_killed_at_the_wall_limit():
    worker = misbehaving("time.sleep(60)", wall_s=0.5)
    started = time.monotonic()
    verdict = worker.ask("1", "x")
    assert (verdict.status, verdict.why) == ("unscored", "no verdict in 0.5 s")
    assert time.monotonic() - started < 55  # it would have slept for 60 s
    assert worker.process is None


def test_half_a_verdict_is_none():
    verdict = misbehaving("sys.stdout.write('[\"correct\"'); sys.stdout.flush(); os._exit(0)").ask("1", "x")
    assert (verdict.status, verdict.why) == ("unscored", "grader process died with exit code 0")


def test_a_worker_that_cannot_start_says_why():
    verdict = Worker(Limits(), [sys.executable, "-c", "import no_such_module"]).ask("1", "x")
    assert verdict.status == "unscored"
    assert "No module named 'no_such_module'" in verdict.why


def test_a_worker_killed_in_the_middle_is_unscored_and_one_killed_while_idle_is_replaced():
    worker = Worker(Limits(), [sys.executable, "-c", BUSY.replace("0.2)", "60)")])
    assert worker.ask("x+1", "1+x").status == "correct"
    with ThreadPoolExecutor(1) as thread:
        before = cpu_s(worker.process.pid)
        asked = thread.submit(worker.ask, "1", "busy")
        while cpu_s(worker.process.pid) < before + 0.1:
            time.sleep(0.01)
        os.kill(worker.process.pid, signal.SIGKILL)
        assert asked.result().why == "grader process died with signal 9"
        assert asked.result().status == "unscored"
    assert worker.ask("x+1", "1+x").status == "correct"
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    assert worker.ask("x+1", "1+x").status == "correct"
    worker.close()


def test_a_grader_that_raises_is_unscored_and_lives_on(worker):
    before = worker.ask("x+1", "1+x") and worker.process.pid
    worker._send('["1", "2", {"no_such_field": 1}]')
    status, why, *_ = json.loads(worker._receive(60))
    assert (status, why.partition(":")[0]) == ("unscored", "grader raised TypeError")
    assert worker.ask("x+1", "1+x").status == "correct"
    assert worker.process.pid == before


def test_memory_is_bounded_and_no_hostile_text_comes_near_the_bound():
    worker = Worker(Limits(cpu_s=30.0, wall_s=300.0))
    try:
        assert worker.ask(*OPEN).correct
        for answer in (r"2^{2^{31}} \cdot 3", "9^9^9^9", r"\binom{10^9}{10^8}", r"(x+y+z+1)^{60}", r"(10^9)!", "(" * 900 + "1" + ")" * 900):
            assert not worker.ask("1", answer).correct
        assert peak_mib(worker.process.pid) < 512
    finally:
        worker.close()


def test_beyond_its_memory_a_worker_says_so():
    greedy = BUSY.replace('while answer == "busy":\n        pass', "answer = bytearray(10**9)")
    worker = Worker(Limits(), [sys.executable, "-c", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))\n" + greedy])
    verdict = worker.ask("1", "x")
    assert verdict.status == "unscored"
    assert "MemoryError" in verdict.why


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
    pairs = [(f"x+{i}", f"{i if i % 2 else i + 1}+x") for i in range(40)]  # straight to the workers, which need not be asked
    try:
        with ThreadPoolExecutor(8) as threads:
            verdicts = list(threads.map(pool.ask, pairs))
        assert [verdict.correct for verdict in verdicts] == [bool(i % 2) for i in range(40)]
        assert len({worker.process.pid for worker in pool.workers if worker.process}) <= 2
    finally:
        pool.close()


def test_equal_questions_in_a_batch_are_asked_once():
    before = sum(worker.answered for worker in shared_pool().workers)
    assert {verdict.status for verdict in compare([OPEN] * 50)} == {"correct"}
    assert sum(worker.answered for worker in shared_pool().workers) - before == 1


def test_any_thread_and_asyncio_may_grade():
    async def grade() -> list:
        return [verdicts[0].status for verdicts in await asyncio.gather(*(asyncio.to_thread(compare, [OPEN]) for _ in range(3)))]

    assert asyncio.run(grade()) == ["correct"] * 3
    with ThreadPoolExecutor(3) as threads:
        assert [verdicts[0].status for verdicts in threads.map(compare, [[OPEN]] * 3)] == ["correct"] * 3


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
            assert child.map_async(compare, [[OPEN]]).get(timeout=120)[0][0].correct
    finally:
        for worker in taken:
            pool.idle.put(worker)
    assert shared_pool() is pool
    assert compare([OPEN])[0].correct


def run(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    )


def test_what_exact_arithmetic_decides_starts_no_worker_and_loads_neither_torch_nor_sympy():
    code = """
import sys
from posttrain.grading import batch
import posttrain.tasks
verdicts = batch.compare([("5", "5.0"), ("5", "6"), ("5", None), ("x^2-1", "(x-1)(x+1)")])
assert [v.status for v in verdicts] == ["correct", "wrong", "no_answer", "correct"]
print(batch._shared, [name for name in ("torch", "sympy", "mpmath", "math_verify", "transformers", "datasets") if name in sys.modules])
"""
    process = run(code)
    assert process.communicate()[0] == "None []\n"


WORKING = """
from posttrain.grading import batch
batch.compare([(r"\\tan\\frac{x}{2}", r"\\frac{\\sin x}{1+\\cos x}")])
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
