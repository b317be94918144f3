"""Programs against their tests, many at once: judge processes, each with a sandbox of its own, and what a model's answer means to them.

The limit is CPU time, so that a busy machine changes no verdict; who meets a time limit is judged again with nothing else running in
the pool before it counts. Whatever goes wrong in a judge is the grader's fault ("unscored"), except that a program's result made the
tests themselves run out of time or memory. No signal is used here, so any thread may call, and the judges are small processes of their
own, never forks of the one that calls.

Reading order: `grade_code`, `Pool`, `Judge`; then `judge.py`, which is the other end.
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from posttrain.grading.judge import Judgement, Question
from posttrain.grading.program import program_in
from posttrain.grading.sandbox import Backend, CellLimits, SandboxError
from posttrain.types import Problem, UnitTests, Verdict

LIMITS = CellLimits(cpu_s=5.0, wall_s=60.0, output_kib=8192)
"""Of one program with all its tests."""
SandboxChoice: TypeAlias = Literal["auto", "zygote", "bwrap", "unsafe"]
START_S = 120.0
SPARE_WALL_S = 60.0
"""What a judge may take beyond its program's wall time: it has a CPU limit of its own, so this is for a machine in trouble."""
QUESTIONS = 5000
"""Programs after which a judge is replaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What judges run with; each different one has a pool of its own."""

    backend: Backend | None = None
    """None: the best that this machine allows, and a refusal where it allows none."""
    workers: int = field(default_factory=lambda: min(8, 2 * len(os.sched_getaffinity(0))))
    """Two for each core, as a judge waits for the kernel to bury a cell about as long as it works."""
    limits: CellLimits = LIMITS


def setting_of(sandbox: SandboxChoice, cpu_s: float) -> Setting:
    """The setting of a task's config."""
    return Setting(backend=None if sandbox == "auto" else sandbox, limits=replace(LIMITS, cpu_s=cpu_s))


def grade_code(pairs: Sequence[tuple[Problem, str]], setting: Setting | None = None) -> list[Verdict]:
    """A verdict on the program in each text, "no_answer" where there is none. Raises `SandboxError` where no isolation is to be had."""
    questions = [question_of(problem, text) for problem, text in pairs]
    asked = [question for question in questions if question is not None]
    judgements = iter(shared_pool(setting or Setting()).ask_all(asked) if asked else ())
    missing = Verdict(status="no_answer", rule="extraction", why="the text holds no code")
    return [missing if question is None else next(judgements).verdict for question in questions]


def question_of(problem: Problem, text: str) -> Question | None:
    """What a judge is asked about a text; None where it has no code. Raises `TypeError` on a problem without tests."""
    tests = problem.reference
    if not isinstance(tests, UnitTests):
        raise TypeError(f"problem {problem.id}: expected UnitTests to grade a program, found {type(tests).__name__}")
    found = program_in(text, prompt=tests.prompt, entry_point=tests.entry_point)
    return found and Question(program=found[0], tests=tests.code, entry_point=tests.entry_point, prompt=tests.prompt)


class Judge:
    """One judge process; not for two threads at once. It starts at the first question, and again at the next after a death."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.process: subprocess.Popen[bytes] | None = None
        self.answered = 0
        self.layers: tuple[str, ...] = ()
        self.backend = ""

    def ask(self, question: Question) -> Judgement:
        """The judge's answer, or one in its place that says what became of it. Raises `SandboxError` where it refuses to work."""
        limits = self.setting.limits
        try:
            if self.process is None or self.process.poll() is not None or self.answered >= QUESTIONS:
                self._start()
            line = json.dumps(asdict(question) | {"limits": asdict(limits)})
            answer = json.loads(self._exchange(line.encode() + b"\n", limits.wall_s + SPARE_WALL_S))
            self.answered += 1
            return Judgement(verdict=Verdict(**answer["verdict"]), cpu_s=answer["cpu_s"])
        except _JudgeFailed as failure:
            self.close()
            return Judgement(verdict=failure.verdict, cpu_s=0.0)
        except BaseException:
            self.close()  # interrupted between question and answer: its next line would be another question's
            raise

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
        env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0"}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "posttrain.grading.judge", *([self.setting.backend] if self.setting.backend else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,
            env=env,
            start_new_session=True,  # a Ctrl-C in the terminal is for the run, which then closes its judges
        )
        os.set_blocking(self.process.stdin.fileno(), False)
        self.answered = 0
        greeting = json.loads(self._exchange(b"", START_S))
        if "refused" in greeting:
            raise SandboxError(greeting["refused"])
        self.backend, self.layers = greeting["backend"], tuple(greeting["layers"])

    def _exchange(self, sent: bytes, wall_s: float) -> bytes:
        """Send, and wait for the one line that comes back."""
        into, out = self.process.stdin.fileno(), self.process.stdout.fileno()
        line, until = b"", time.monotonic() + wall_s
        while not line.endswith(b"\n"):
            readable, writable, _ = select.select([out], [into] if sent else [], [], max(0.0, until - time.monotonic()))
            if not readable and not writable:
                raise _JudgeFailed("unscored", "judge", f"no answer in {wall_s:g} s")
            try:
                if writable:
                    sent = sent[os.write(into, sent) :]
                chunk = os.read(out, 65536) if readable else None
            except OSError:
                chunk = b""
            if chunk == b"":
                raise self._cause_of_death()
            line += chunk or b""
        return line

    def _cause_of_death(self) -> "_JudgeFailed":
        code = self.process.wait()
        if code == -signal.SIGPROF:
            return _JudgeFailed("timeout", "tests", "the tests ran out of CPU time on what the program returned")
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]
        return _JudgeFailed("unscored", "judge", f"the judge died with {f'signal {-code}' if code < 0 else f'exit code {code}'}: {said}")


class _JudgeFailed(Exception):
    """A judge gave no answer; the verdict says whose fault that is."""

    def __init__(self, status: Any, rule: str, why: str) -> None:
        super().__init__(why)
        self.verdict = Verdict(status=status, rule=rule, why=why)


class Pool:
    """Up to `setting.workers` judges for any number of threads."""

    def __init__(self, setting: Setting) -> None:
        self.owner = os.getpid()
        self.judges = [Judge(setting) for _ in range(setting.workers)]
        self.idle: queue.LifoQueue[Judge] = queue.LifoQueue()  # last in, first out: a lone caller keeps one process warm, not all
        self.alone = threading.Lock()
        for judge in self.judges:
            self.idle.put(judge)

    def ask(self, question: Question) -> Judgement:
        """One judge's answer; a timeout is not yet final."""
        judge = self.idle.get()
        try:
            return judge.ask(question)
        finally:
            self.idle.put(judge)

    def ask_alone(self, question: Question) -> Judgement:
        """The answer while no other judge of this pool works."""
        with self.alone:
            held = [self.idle.get() for _ in self.judges]
            try:
                return held[0].ask(question)
            finally:
                for judge in held:
                    self.idle.put(judge)

    def ask_all(self, questions: Sequence[Question], done: Callable[[], object] = lambda: None) -> list[Judgement]:
        """Answers in the order of the questions; equal ones are asked once. `done` is called after each, from any thread."""
        distinct = list(dict.fromkeys(questions))

        def ask(question: Question) -> Judgement:
            judgement = self.ask(question)
            done()
            return judgement

        with ThreadPoolExecutor(max(1, min(len(self.judges), len(distinct)))) as threads:
            answers = dict(zip(distinct, threads.map(ask, distinct)))
        for question, judgement in answers.items():
            if judgement.verdict.status == "timeout":
                answers[question] = self.ask_alone(question)
        return [answers[question] for question in questions]

    def close(self) -> None:
        for judge in self.judges:
            judge.close()


_pools: dict[Setting, Pool] = {}
_pools_lock = threading.Lock()


def shared_pool(setting: Setting) -> Pool:
    """The process's own judges for a setting, made at the first call and killed at exit."""
    with _pools_lock:
        pool = _pools.get(setting)
        if pool is None or pool.owner != os.getpid():  # after a fork the parent's judges must be left to the parent
            pool = _pools[setting] = Pool(setting)
            atexit.register(_close_own, pool)
        return pool


def _close_own(pool: Pool) -> None:
    if pool.owner == os.getpid():
        pool.close()
