"""The pool of judges, through real processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from posttrain.grading.code import Judge, Pool, Setting, grade_code, shared_pool
from posttrain.grading.judge import Question
from posttrain.grading.sandbox import CellLimits, SandboxError
from posttrain.types import FinalAnswer, Problem, UnitTests
from tests.grading.judges import ROOT, need_isolation

TESTS = "assert double(2) == 4\nassert double(-1) == -2\n"
QUICK = CellLimits(cpu_s=0.5, wall_s=8.0, output_kib=8192)


@pytest.fixture(autouse=True)
def isolation():
    need_isolation()


def problem(name: str = "p") -> Problem:
    return Problem(id=name, question="?", reference=UnitTests(entry_point="double", code=TESTS))


def question(body: str) -> Question:
    return Question(program=f"def double(x): return {body}", tests=TESTS, entry_point="double")


def chat(body: str) -> str:
    return f"Here it is.\n\n```python\ndef double(x):\n    return {body}\n```\n"


def test_verdicts_keep_the_order_of_their_pairs():
    texts = [chat("x + x"), "I cannot.", chat("x"), chat("x / 0"), chat("2 * x"), ""]
    verdicts = grade_code([(problem(str(i)), text) for i, text in enumerate(texts)])
    assert [verdict.status for verdict in verdicts] == ["correct", "no_answer", "wrong", "crash", "correct", "no_answer"]


def test_equal_programs_are_run_once():
    pool = Pool(Setting(workers=2))
    try:
        answers = pool.ask_all([question("x + x")] * 20)
        assert {answer.verdict.status for answer in answers} == {"correct"}
        assert sum(judge.child.answered for judge in pool.judges) == 1
    finally:
        pool.close()


def test_a_timeout_is_judged_again_with_nothing_else_running():
    class Watched(Pool):
        alone_with = None

        def ask_alone(self, question):
            assert self.idle.qsize() == len(self.judges)
            self.alone_with = question
            return super().ask_alone(question)

    pool = Watched(Setting(workers=2, limits=QUICK))
    endless = question("double(x) if x != x else [1 for _ in iter(int, 1)]")
    try:
        answers = pool.ask_all([question("x + x"), endless, question("x")])
        assert [answer.verdict.status for answer in answers] == ["correct", "timeout", "wrong"]
        assert pool.alone_with == endless
        assert answers[1].cpu_s >= 0.5
    finally:
        pool.close()


def test_many_threads_share_few_judges_and_each_gets_its_own_verdict():
    pool = Pool(Setting(workers=2))
    try:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(pool.ask, [question("x + x" if i % 2 else f"x + {i}") for i in range(24)]))
        assert [answer.verdict.correct for answer in answers] == [bool(i % 2) for i in range(24)]
        assert len({judge.child.process.pid for judge in pool.judges if judge.child.process}) == 2
    finally:
        pool.close()


def test_a_judge_that_is_killed_leaves_the_answer_unscored_and_the_next_is_judged():
    judge = Judge(Setting(limits=CellLimits(wall_s=30.0)))
    try:
        assert judge.ask(question("x + x")).verdict.correct
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(judge.ask, question("__import__('time').sleep(25)"))
            time.sleep(0.3)
            os.kill(judge.child.process.pid, signal.SIGKILL)
            verdict = asked.result().verdict
        assert (verdict.status, verdict.rule) == ("unscored", "judge")
        assert "signal 9" in verdict.why
        assert judge.ask(question("x + x")).verdict.correct
    finally:
        judge.child.close()


def test_tests_that_never_end_on_what_a_program_returned_are_ended():
    judge = Judge(Setting(limits=QUICK))
    try:
        endless = Question(program="def f(): return 1", tests="while f():\n    pass\n", entry_point="f")
        assert judge.ask(endless).verdict.status == "timeout"
        assert judge.ask(question("x + x")).verdict.correct
    finally:
        judge.child.close()


def test_an_unsafe_backend_is_only_used_where_it_is_asked_for():
    judge = Judge(Setting(backend="unsafe"))
    try:
        assert judge.ask(question("x + x")).verdict.correct
        assert judge.backend == "unsafe"
    finally:
        judge.child.close()


def test_a_sandbox_that_cannot_start_is_a_refusal_and_no_verdict():
    judge = Judge(Setting(backend="nonesuch"))
    with pytest.raises(SandboxError, match="nonesuch"):
        judge.ask(question("x + x"))
    assert judge.child.process is None


def test_a_final_answer_as_reference_is_the_callers_mistake():
    with pytest.raises(TypeError, match="problem p: expected UnitTests"):
        grade_code([(Problem(id="p", question="?", reference=FinalAnswer(text="1")), "x")])


def test_a_process_forked_while_all_judges_are_busy_gets_judges_of_its_own():
    pool = shared_pool(Setting())
    taken = [pool.idle.get() for _ in pool.judges]
    try:
        with multiprocessing.get_context("fork").Pool(1) as child:
            (verdict,) = child.map_async(grade_code, [[(problem(), chat("x + x"))]]).get(timeout=120)[0]
        assert verdict.correct
    finally:
        for judge in taken:
            pool.idle.put(judge)
    assert shared_pool(Setting()) is pool


def test_many_programs_leave_no_process_no_open_file_and_no_more_memory_behind():
    """A hundredth of what the bench does."""
    judge = Judge(Setting())
    try:
        judge.ask(question("x + x"))
        family = [judge.child.process.pid, *children(judge.child.process.pid)]
        before = open_files(family)
        for i in range(100):
            judge.ask(question(f"x + x + {i % 3} * 0"))
        assert [judge.child.process.pid, *children(judge.child.process.pid)] == family
        assert open_files(family) == before
    finally:
        judge.child.close()


def open_files(family: list[int]) -> dict[int, int]:
    """How many each process has, once they keep still for half a second: an answer may come before a process has closed what led to it."""
    found: list[dict[int, int]] = []
    while len(found) < 10 or any(one != found[-1] for one in found[-10:]):
        time.sleep(0.05)
        found.append({pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in family})
    return found[-1]


def children(pid: int) -> list[int]:
    """All descendants."""
    found = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return found + [below for child in found for below in children(child)]


WORKING = """
from posttrain.grading.code import Judge, Setting, grade_code, shared_pool
from posttrain.types import Problem, UnitTests
import sys
text = "```python\\ndef double(x): return x + x\\n```"
tests = UnitTests(entry_point="double", code="assert double(2) == 4")
assert grade_code([(Problem(id="p", question="", reference=tests), text)])[0].correct
print(*[judge.child.process.pid for judge in shared_pool(Setting()).judges if judge.child.process], "torch" in sys.modules, flush=True)
"""


@pytest.mark.parametrize("end", ["exits", "is killed"])
def test_no_judge_and_no_sandbox_outlives_a_parent_that(end):
    code = WORKING + ("" if end == "exits" else "import time; time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    )
    *pids, torch = process.stdout.readline().split()
    assert torch == "False"
    family = [int(pid) for pid in pids]
    if end == "is killed":
        family += [below for pid in family for below in children(pid)]
        process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 60
    while time.monotonic() < until and any(alive(pid) for pid in family):
        time.sleep(0.05)
    assert family
    assert not any(alive(pid) for pid in family)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
