"""The judge process: runs the tests of a problem here, and the program that they test in a cell.

The tests are trusted and run unchanged; the program is not, and not a line of it runs in this process. One question a line on stdin
(the fields of `Question`), one answer a line on stdout, until stdin ends; the first line out says which isolation is in force. A judge
has a ceiling on memory and each question one on CPU time, as a value may make the tests themselves run for ever.

Reading order: `judge`, then `plan` (which names of the tests are the program's), then `remote.py` (how a call crosses).
"""

import ast
import builtins
import importlib
import json
import os
import resource
import signal
import symtable
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import CodeType, TracebackType
from typing import Any, TextIO, cast

from posttrain.grading.remote import Broken, Remote, Session, shown
from posttrain.grading.sandbox import Backend, CellLimits, Sandbox, SandboxError
from posttrain.types import Verdict, VerdictStatus

TESTS = "tests"
"""The tests' file name in tracebacks."""
SPARE_CPU_S = 10.0
"""CPU time of the tests themselves."""
MEMORY_MIB = 2048
LIBRARY = frozenset(
    ("array", "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools")
)
LIBRARY |= {"json", "math", "numbers", "operator", "os", "random", "re", "statistics", "string", "sys", "time", "typing"}
"""Modules that tests may use without importing them, because the reference program did: the judge's own, never the program's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One program and its tests. `prompt` is the part of the program that the problem gave: helpers that tests use come from there."""

    program: str
    tests: str
    entry_point: str
    prompt: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    verdict: Verdict
    cpu_s: float
    """Of the program; the tests' own is not in it."""


def judge(question: Question, sandbox: Sandbox, limits: CellLimits) -> Judgement:
    """Load the program into a fresh cell and run the tests against it."""
    try:
        ready, space = plan(question.tests, question.prompt, question.entry_point), _namespace(question.prompt)
    except Exception as error:  # the tests do not compile, or what the prompt imports is not installed
        return Judgement(verdict=Verdict(status="gold_unparsable", rule="tests", why=f"tests or prompt: {_said(error)}"), cpu_s=0.0)
    expected = {name: type(name, (Exception,), {}) for name in ready.exceptions}
    try:
        with sandbox.cell(limits) as cell:
            session = Session(cell, expected)
            space |= {name: importlib.import_module(name) for name in ready.modules}
            space |= {name: Remote(session, {"name": name}) for name in ready.names} | expected
            verdict = _loaded(session, question.program) or _tested(session, ready.code, space)
            return Judgement(verdict=verdict, cpu_s=cell.close().cpu_s)
    except SandboxError as error:
        return Judgement(verdict=Verdict(status="unscored", rule="sandbox", why=shown(str(error))), cpu_s=0.0)


def _loaded(session: Session, program: str) -> Verdict | None:
    """None where the program runs to its end, else the verdict."""
    try:
        session.load(program)
    except Broken as end:
        return Verdict(status=end.status, rule=end.rule, why=end.why)
    except BaseException as error:
        return Verdict(status=_of_raised(error), rule="load", why=_said(error))
    return None


def _tested(session: Session, tests: CodeType, space: dict[str, Any]) -> Verdict:
    """The verdict of the tests. What ended the session goes before what the tests made of it: they may have caught it."""
    failure: BaseException | None = None
    try:
        exec(tests, space)
    except BaseException as error:
        failure = error
    if session.broken is not None:
        return Verdict(status=session.broken.status, rule=session.broken.rule, why=session.broken.why)
    if failure is not None:
        return _of_failure(session, failure)
    if not session.calls:
        return Verdict(status="gold_unparsable", rule="tests", why="the tests never call the program")
    return Verdict(status="correct", rule="tests", why=f"all tests passed, {session.calls} calls")


def _of_failure(session: Session, failure: BaseException) -> Verdict:
    where = _line(failure.__traceback__)
    if failure is session.raised:
        return Verdict(status=_of_raised(failure), rule="program", why=f"{_said(failure)}{where}")
    if isinstance(failure, MemoryError):
        return Verdict(status="limit", rule="tests", why=f"the tests ran out of memory on what the program returned{where}")
    return Verdict(status="wrong", rule="tests", why=f"{_said(failure)}{where}")


def _of_raised(error: BaseException) -> VerdictStatus:
    return "limit" if isinstance(error, MemoryError) else "crash"


def _said(error: BaseException) -> str:
    try:
        said = str(error)
    except BaseException:  # a number too long to be printed, or an object of a program that has ended
        said = ""
    return shown(f"{type(error).__name__}: {said}" if said else type(error).__name__)


def _line(trace: TracebackType | None) -> str:
    """The line of the tests at which an exception came out, by number; their text is the reader's to look up."""
    number = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == TESTS:
            number = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {number} of the tests)" if number else ""


def main(backend: Backend | None) -> None:
    """Answer questions until stdin ends. What tests print goes nowhere, as stdout belongs to the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        sandbox = Sandbox(backend, allow_unsafe=backend == "unsafe")
    except SandboxError as error:
        _write(answers, {"refused": str(error)})
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB << 20, MEMORY_MIB << 20))
    _write(answers, {"backend": sandbox.backend, "layers": sandbox.layers})
    recursion = sys.getrecursionlimit()
    for line in sys.stdin:
        fields = json.loads(line)
        limits = CellLimits(**fields.pop("limits"))
        signal.setitimer(signal.ITIMER_PROF, SPARE_CPU_S)  # nothing handles the signal, so the kernel ends this process
        judgement = judge(Question(**fields), sandbox, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.setrecursionlimit(recursion)
        _write(answers, asdict(judgement))
    sandbox.close()


def _write(stream: TextIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Tests ready to run: the modules that they use as if they had imported them, and the names that mean something of the program's."""

    code: CodeType
    modules: frozenset[str]
    names: frozenset[str]
    exceptions: frozenset[str]
    """Those names that stand where an exception class must."""


@lru_cache(maxsize=512)
def plan(tests: str, prompt: str, entry_point: str) -> Plan:
    """How to run the tests: what neither they nor the prompt nor Python defines is the program's. Raises `SyntaxError`, `ValueError`.

    Where the tests define `check` and leave it to others to call it, the plan calls it with the entry point.
    """
    used, bound = _names_in(symtable.symtable(tests, TESTS, "exec"))
    if "check" in bound - used:
        tests += f"\n\ncheck({entry_point})\n"
    caught = set(_caught_in(ast.parse(tests))) if "except" in tests or "assertRaises" in tests else set()
    free = used - bound - _namespace(prompt).keys() - vars(builtins).keys()
    own = {entry_point} - {""}
    return Plan(
        code=compile(tests, TESTS, "exec", dont_inherit=True),
        modules=frozenset(free & LIBRARY - own),
        names=frozenset(free - LIBRARY | own),
        exceptions=frozenset((free - LIBRARY) & caught),
    )


def _names_in(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Global names that a scope or one within it uses, and those that it binds."""
    everything = table.get_type() == "module"
    symbols = [symbol for symbol in table.get_symbols() if everything or symbol.is_global()]
    used = {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
    bound = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    for child in table.get_children():
        used_within, bound_within = _names_in(child)
        used |= used_within
        bound |= bound_within
    return used, bound


def _caught_in(tree: ast.AST) -> Iterator[str]:
    """Names in `except NAME` and `assertRaises(NAME`."""
    for node in ast.walk(tree):
        kinds: Sequence[ast.expr | None] = []
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "assertRaises":
            kinds = node.args[:1]
        yield from (kind.id for kind in kinds if isinstance(kind, ast.Name))


def _namespace(prompt: str) -> dict[str, Any]:
    """What the problem's own text defines, in a namespace that is new each time."""
    space: dict[str, Any] = {"__name__": TESTS, "__builtins__": builtins}
    code = _compiled_prompt(prompt)
    if code is not None:
        exec(code, space)
    return space


@lru_cache(maxsize=512)
def _compiled_prompt(prompt: str) -> CodeType | None:
    """None where the prompt ends within a statement: then it has nothing to give."""
    for ending in ("", "    pass\n"):
        try:
            return compile(prompt + ending, "prompt", "exec", dont_inherit=True)
        except SyntaxError:
            pass
    return None


if __name__ == "__main__":
    main(cast(Backend, sys.argv[1]) if len(sys.argv) > 1 else None)
