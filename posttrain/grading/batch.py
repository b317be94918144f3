"""Many gradings at once: text and exact arithmetic decide here, the rest goes to algebra in worker processes that can be killed.

A worker is a small process of its own that never imported torch, whenever it is started. What uses up its CPU time is asked once more
when nothing else is, and then is a "timeout"; whatever else goes wrong in a worker (it dies, raises, runs out of memory) is the grader's
fault: the verdict is "unscored", its `why` says what happened, and the next question gets a fresh process. No signal is used here, so
any thread may call, and asyncio through `asyncio.to_thread`.
"""

import atexit
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from posttrain.grading.answer import final_answer
from posttrain.grading.math import grade
from posttrain.grading.policy import DEFAULT, MathPolicy
from posttrain.grading.values import NeedsAlgebra
from posttrain.types import FinalAnswer, Problem, Verdict, VerdictStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one question may cost. CPU time counts first, so that a busy machine changes no verdict; wall time is the backstop."""

    cpu_s: float = 2.0
    wall_s: float = 30.0
    memory_mib: int = 500
    questions: int = 5000
    """Answers after which a worker is replaced, as sympy's caches grow."""
    start_s: float = 120.0
    """Wall time to start in: sympy takes about a second to import."""


class Worker:
    """One worker process; not for two threads at once. It starts at the first question, and again at the next after a death."""

    def __init__(self, limits: Limits, command: Sequence[str] = ()) -> None:
        self.limits = limits
        self.command = command or [sys.executable, "-P", "-m", "posttrain.grading.worker", str(limits.cpu_s), str(limits.memory_mib)]
        self.process: subprocess.Popen[bytes] | None = None
        self.answered = 0

    def ask(self, reference: str, answer: str, policy: MathPolicy = DEFAULT) -> Verdict:
        """The worker's verdict, "timeout" where it took too long, or "unscored" with what went wrong."""
        try:
            if self.process is None or self.process.poll() is not None or self.answered >= self.limits.questions:
                self._start()
            self._send(json.dumps([reference, answer, {} if policy is DEFAULT else asdict(policy)]))
            status, why, rule, gold_form, pred_form = json.loads(self._receive(self.limits.wall_s))
            self.answered += 1
            return Verdict(status=status, why=why, rule=rule, gold_form=gold_form, pred_form=pred_form)
        except _WorkerFailed as failure:
            self.close()
            return Verdict(status=failure.status, why=str(failure), rule="worker", gold_form=reference[:300], pred_form=answer[:300])

    def close(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()
        self.errors.close()
        self.process = None

    def _start(self) -> None:
        self.close()
        env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1"}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,
            env=env,
            start_new_session=True,  # a Ctrl-C in the terminal is for the run, which then closes its workers
        )
        self.answered = 0
        self._receive(self.limits.start_s)

    def _send(self, line: str) -> None:
        try:  # `grade` bounds both texts, so that a line fits into the empty pipe and writing cannot block
            self.process.stdin.write(line.encode() + b"\n")
        except OSError:
            raise self._cause_of_death() from None

    def _receive(self, wall_s: float) -> bytes:
        """The next line; every question gets exactly one."""
        line, until = b"", time.monotonic() + wall_s
        while not line.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                raise _WorkerFailed("unscored", f"no verdict in {wall_s:g} s")
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise self._cause_of_death()
            line += chunk
        return line

    def _cause_of_death(self) -> "_WorkerFailed":
        code = self.process.wait()
        if code == -signal.SIGPROF:
            return _WorkerFailed("timeout", f"more than {self.limits.cpu_s:g} s of CPU time")
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]
        died = f"grader process died with {f'signal {-code}' if code < 0 else f'exit code {code}'}{': ' if said else ''}{said}"
        return _WorkerFailed("unscored", died)


class _WorkerFailed(Exception):
    """A worker gave no verdict; the message is the reason."""

    def __init__(self, status: VerdictStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


Question = tuple[str, str] | tuple[str, str, MathPolicy]


class Pool:
    """Up to `size` workers for any number of threads."""

    def __init__(self, size: int, limits: Limits, command: Sequence[str] = ()) -> None:
        self.size = size
        self.owner = os.getpid()
        self.workers = [Worker(limits, command) for _ in range(size)]
        self.idle: queue.LifoQueue[Worker] = queue.LifoQueue()  # last in, first out: a lone caller keeps one process warm, not all
        for worker in self.workers:
            self.idle.put(worker)

    def ask(self, question: Question) -> Verdict:
        worker = self.idle.get()
        try:
            return worker.ask(*question)
        except BaseException:
            worker.close()  # interrupted between question and answer: its next line would be another question's
            raise
        finally:
            self.idle.put(worker)

    def ask_all(self, questions: Sequence[Question]) -> list[Verdict]:
        """The verdicts in order; what timed out among others is asked again alone."""
        if len(questions) <= 1:
            verdicts = [self.ask(question) for question in questions]
        else:
            with ThreadPoolExecutor(min(self.size, len(questions))) as threads:
                verdicts = list(threads.map(self.ask, questions))
        return [self.ask(q) if verdict.status == "timeout" else verdict for q, verdict in zip(questions, verdicts)]

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


_shared: Pool | None = None
_shared_lock = threading.Lock()


def grade_math(pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
    """A verdict on the final answer of each text; "no_answer" where it has none."""
    return compare([(_reference(problem), final_answer(text)) for problem, text in pairs])


def compare(pairs: Sequence[tuple[str, str | None]], policy: MathPolicy = DEFAULT) -> list[Verdict]:
    """A verdict on each (reference, answer); workers start only if exact arithmetic leaves a pair open."""
    verdicts = [_decide_here(reference, answer, policy) for reference, answer in pairs]
    open_pairs = list(dict.fromkeys(pair for pair, verdict in zip(pairs, verdicts) if verdict is None))
    if open_pairs:
        algebra = dict(zip(open_pairs, shared_pool().ask_all([(*pair, policy) for pair in open_pairs])))
        verdicts = [verdict or algebra[pair] for pair, verdict in zip(pairs, verdicts)]
    return verdicts


def shared_pool() -> Pool:
    """The process's own workers, made at the first call and killed at exit."""
    global _shared
    with _shared_lock:
        if _shared is None or _shared.owner != os.getpid():  # after a fork the parent's workers must be left to the parent
            _shared = Pool(min(8, len(os.sched_getaffinity(0))), Limits())
            atexit.register(_close_own, _shared)
        return _shared


def _close_own(pool: Pool) -> None:
    if pool.owner == os.getpid():
        pool.close()


def _decide_here(reference: str, answer: str | None, policy: MathPolicy) -> Verdict | None:
    if answer is None:
        return Verdict(status="no_answer", why="the text has no box, no closing line and no ####", rule="extraction")
    try:
        return grade(reference, answer, policy)
    except NeedsAlgebra:
        return None
    except Exception as error:  # a fault of ours is never the model's: it gets no verdict, and is counted
        return Verdict(status="unscored", why=f"grader raised {type(error).__name__}: {str(error)[:200]}", rule="fault")


def _reference(problem: Problem) -> str:
    if not isinstance(problem.reference, FinalAnswer):
        raise TypeError(f"problem {problem.id}: expected a FinalAnswer to grade as mathematics, found {type(problem.reference).__name__}")
    return problem.reference.text
