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
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from posttrain.grading.answer import final_answer
from posttrain.grading.child import Child, ChildFailed
from posttrain.grading.math import grade
from posttrain.grading.policy import DEFAULT, MathPolicy
from posttrain.grading.values import NeedsAlgebra
from posttrain.types import Problem, Verdict, VerdictStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one question may cost. CPU time counts first, so that a busy machine changes no verdict; wall time is the backstop."""

    cpu_s: float = 2.0
    wall_s: float = 30.0
    memory_mib: int = 500
    questions: int = 5000
    """Answers after which a worker is replaced, as sympy's caches grow."""


class Worker:
    """One worker process; not for two threads at once. It starts at the first question, and again at the next after a death."""

    def __init__(self, limits: Limits, arguments: Sequence[str] = ()) -> None:
        self.limits = limits
        own = ["-P", "-m", "posttrain.grading.worker", str(limits.cpu_s), str(limits.memory_mib)]
        self.child = Child(arguments or own, {"OMP_NUM_THREADS": "1"})

    def ask(self, reference: str, answer: str, policy: MathPolicy = DEFAULT) -> Verdict:
        """The worker's verdict, "timeout" where it took too long, or "unscored" with what went wrong."""
        line = json.dumps([reference, answer, {} if policy is DEFAULT else asdict(policy)]).encode()
        try:
            if not self.child.alive or self.child.answered >= self.limits.questions:
                self.child.start()
            said, why, rule, gold_form, pred_form = json.loads(self.child.ask(line, self.limits.wall_s))
            return Verdict(status=said, why=why, rule=rule, gold_form=gold_form, pred_form=pred_form)
        except ChildFailed as failure:
            self.child.close()
            slow = failure.end == "cpu"
            why = f"more than {self.limits.cpu_s:g} s of CPU time" if slow else f"grader process {failure}"
            status: VerdictStatus = "timeout" if slow else "unscored"
            return Verdict(status=status, why=why, rule="worker", gold_form=reference[:300], pred_form=answer[:300])


Question = tuple[str, str] | tuple[str, str, MathPolicy]


class Pool:
    """Up to `size` workers for any number of threads."""

    def __init__(self, size: int, limits: Limits, arguments: Sequence[str] = ()) -> None:
        self.size = size
        self.owner = os.getpid()
        self.workers = [Worker(limits, arguments) for _ in range(size)]
        self.idle: queue.LifoQueue[Worker] = queue.LifoQueue()  # last in, first out: a lone caller keeps one process warm, not all
        for worker in self.workers:
            self.idle.put(worker)

    def ask(self, question: Question) -> Verdict:
        worker = self.idle.get()
        try:
            return worker.ask(*question)
        except BaseException:
            worker.child.close()  # interrupted between question and answer: its next line would be another question's
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
            worker.child.close()


_shared: Pool | None = None
_shared_lock = threading.Lock()


def grade_math(pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
    """A verdict on the final answer of each text; "no_answer" where it has none."""
    return compare([(problem.final_answer, final_answer(text)) for problem, text in pairs])


def compare(pairs: Sequence[tuple[str, str | None]], policy: MathPolicy = DEFAULT) -> list[Verdict]:
    """A verdict on each (reference, answer); workers start only if exact arithmetic leaves a pair open."""
    verdicts = [_decide_here(reference, answer, policy) for reference, answer in pairs]
    left = ((gold, answer) for (gold, answer), verdict in zip(pairs, verdicts) if verdict is None and answer is not None)
    open_pairs = list(dict.fromkeys(left))
    asked = shared_pool().ask_all([(*pair, policy) for pair in open_pairs]) if open_pairs else []
    algebra: dict[tuple[str, str | None], Verdict] = dict(zip(open_pairs, asked))
    return [verdict or algebra[pair] for pair, verdict in zip(pairs, verdicts)]


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
