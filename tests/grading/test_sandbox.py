"""Cells from the outside: messages, ends, who may ask, and that nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from posttrain.grading.sandbox import Cell, CellDied, CellLimits, Sandbox, SandboxError
from tests.grading.test_escapes import GUEST, open_sandbox

ROOT = Path(__file__).parents[2]
LIMITS = CellLimits(cpu_s=10.0, wall_s=120.0)


@pytest.fixture(scope="module", params=["zygote", "bwrap", "unsafe"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with open_sandbox(request.param) as sandbox:
        yield sandbox


@pytest.fixture
def zygote() -> Iterator[Sandbox]:
    with open_sandbox("zygote") as sandbox:
        yield sandbox


def ask(cell: Cell, source: str) -> str:
    cell.send(source.encode())
    return cell.receive().decode()


def run(sandbox: Sandbox, source: str, limits: CellLimits = LIMITS) -> str:
    with sandbox.cell(limits) as cell:
        return ask(cell, source)


def end_of(sandbox: Sandbox, source: str, limits: CellLimits = LIMITS) -> CellDied:
    with sandbox.cell(limits) as cell, pytest.raises(CellDied) as died:
        ask(cell, source)
    return died.value


def descendants(pid: int) -> set[int]:
    """Its children, theirs, and so on."""
    children: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children |= {int(child) for child in task.read_text().split()}
    return children.union(*map(descendants, children))


def eventually(claim: Callable[[], bool]) -> bool:
    """Whether it becomes true; the wait is bounded by far more than it takes."""
    until = time.monotonic() + 30
    while not claim() and time.monotonic() < until:
        time.sleep(0.02)
    return claim()


def test_a_cell_answers_message_by_message_and_keeps_its_state(sandbox: Sandbox):
    with sandbox.cell(LIMITS) as cell:
        assert [ask(cell, f"import sys; sys.x = getattr(sys, 'x', 0) + {n}; result = sys.x") for n in (1, 2, 3)] == ["1", "3", "6"]
    assert cell.close().ended_by == "closed"


def test_long_messages_cross_whole_both_ways(sandbox: Sandbox):
    limits = CellLimits(output_kib=4096)
    assert run(sandbox, f"x = {'a' * 3_000_000!r}\nresult = x[:2_000_000]", limits) == repr("a" * 2_000_000)


def test_a_new_cell_knows_nothing_of_an_earlier_one(sandbox: Sandbox):
    leave = "import math, os; math.pi = 3; open('left', 'w').close(); os.environ['LEFT'] = '1'; result = os.listdir('.')"
    look = "import math, os; result = math.pi == 3, os.listdir('.'), dict(os.environ)"
    assert (run(sandbox, leave), run(sandbox, look)) == ("['left']", "(False, [], {})")


def test_ends_are_told_apart(sandbox: Sandbox):
    ends = {
        "import os; os._exit(7)": ("exit", "exit code 7"),
        "import os; os._exit(98)": ("exit", "exit code 98"),
        "raise SystemExit(3)": ("exit", "exit code 3"),
        "import ctypes; ctypes.string_at(0)": ("signal", "SIGSEGV"),
        "import os; os.close(3); os.close(4); os._exit(0)": ("exit", "exit code 0"),
    }
    assert {source: (end.reason, end.detail) for source in ends for end in [end_of(sandbox, source)]} == ends


def test_a_cell_that_says_too_much_is_told_apart_to_the_end(sandbox: Sandbox):
    with sandbox.cell(CellLimits(output_kib=1)) as cell, pytest.raises(CellDied, match="the limit is 1 KiB"):
        ask(cell, "result = 'x' * 2000")
    assert cell.close().ended_by == "output"


def test_a_guest_out_of_memory_says_so(sandbox: Sandbox):
    assert run(sandbox, "x = bytearray(1 << 30)", CellLimits(memory_mib=256)).startswith("MemoryError")
    source = (
        "class Out(BaseException): pass\nimport sys\nsys.modules['os'].read = lambda *_: (_ for _ in ()).throw(MemoryError)\nresult = 1"
    )
    with sandbox.cell(LIMITS) as cell:
        assert ask(cell, source) == "1"
        with pytest.raises(CellDied, match="address space"):
            cell.receive()


def test_cpu_time_is_that_of_all_threads_and_is_reported(sandbox: Sandbox):
    burn = """
import hashlib, threading, time
def burn():
    while time.process_time() < 0.4: hashlib.sha256(bytes(1 << 20))
threads = [threading.Thread(target=burn) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
"""
    with sandbox.cell(LIMITS) as cell:
        ask(cell, burn)
    assert cell.close().cpu_s >= 0.4
    assert cell.close().max_rss_mib > 5


def test_on_a_busy_machine_a_cell_still_gets_its_cpu_time(sandbox: Sandbox):
    limits = CellLimits(cpu_s=0.6)
    enough, too_much = (f"import time\nwhile time.process_time() < {s}: pass\nresult = 'done'" for s in (0.3, 5.0))
    with ThreadPoolExecutor(8) as threads:  # more than there are cores
        done = [threads.submit(run, sandbox, enough, limits) for _ in range(4)]
        ended = [threads.submit(end_of, sandbox, too_much, limits) for _ in range(4)]
    assert [future.result() for future in done] == ["'done'"] * 4
    assert [future.result().reason for future in ended] == ["cpu"] * 4


def test_many_threads_may_ask_at_once(sandbox: Sandbox):
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: run(sandbox, f"result = {n} ** 2"), range(24))) == [str(n**2) for n in range(24)]


def test_a_solution_finds_the_standard_library_and_no_installed_package(sandbox: Sandbox):
    source = """
import asyncio, bisect, collections, datetime, decimal, fractions, hashlib, heapq, itertools, json, random, re
import sqlite3, statistics, threading, uuid, xml.etree.ElementTree, zoneinfo, unittest, tempfile, email, html, csv, zlib, bz2, lzma, ctypes
async def three():
    await asyncio.sleep(0)
    return 3
with tempfile.TemporaryDirectory() as folder, open(folder + "/f", "w+") as file:
    file.write("x"); file.seek(0)
    result = (asyncio.run(three()), file.read(),
        sqlite3.connect(":memory:").execute("select 1").fetchone(), len(hashlib.sha256(b"").hexdigest()))
"""
    assert run(sandbox, source) == "(3, 'x', (1,), 64)"
    for package in ("numpy", "pip", "posttrain.cli"):
        assert "Error" in run(sandbox, f"import {package}")


def test_sets_have_one_order_in_all_sandboxes_and_random_numbers_none():
    order = "result = list({f'{n}' for n in range(50)})"
    chance = "import random; result = random.random()"
    with open_sandbox("zygote") as one, open_sandbox("zygote") as other:
        assert run(one, order) == run(other, order)
        assert len({run(box, chance) for box in (one, one, other)}) == 3


def test_two_cells_that_run_together_do_not_meet(zygote: Sandbox):
    with zygote.cell(LIMITS) as one, zygote.cell(LIMITS) as other:
        assert ask(one, "open('/tmp/mine', 'w').close(); import os; result = os.getpid(), os.listdir('/tmp')") == "(1, ['mine'])"
        assert ask(other, "import os; result = os.getpid(), os.listdir('/tmp'), os.listdir('/')") == ask(
            other, "import os; result = 1, [], os.listdir('/')"
        )


def test_threads_are_counted_per_cell(zygote: Sandbox):
    source = """
import threading, time
threading.stack_size(1 << 16)
try:
    for n in range(1, 100): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
except RuntimeError: result = n
"""
    limits = CellLimits(threads=10)
    with zygote.cell(limits) as one, zygote.cell(limits) as other:  # each alone may have ten, its first included
        assert (ask(one, source), ask(other, source)) == ("10", "10")


def test_nothing_is_left_of_closed_cells(sandbox: Sandbox):
    watched = max(descendants(sandbox._process.pid) | {sandbox._process.pid})
    for _ in range(3):
        run(sandbox, "result = 1")

    def open_files() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), watched)]

    time.sleep(0.2)  # the last descriptor of a cell is closed just after its end is told
    before = open_files()
    cells = [sandbox.cell(LIMITS) for _ in range(10)]
    assert [ask(cell, "result = 1") for cell in cells] == ["1"] * 10
    assert len(descendants(sandbox._process.pid)) >= 10
    for cell in cells:
        cell.close()
    assert len(descendants(sandbox._process.pid)) <= 1
    assert eventually(lambda: open_files() == before)


def test_the_small_process_does_not_grow(zygote: Sandbox):
    (watched,) = descendants(zygote._process.pid)

    def pages_after(cells: int) -> int:
        for _ in range(cells):
            run(zygote, "result = 1")
        return int(Path(f"/proc/{watched}/statm").read_text().split()[1])

    first = pages_after(50)
    assert pages_after(200) - first < 64


def test_a_forked_child_makes_its_own(zygote: Sandbox):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            try:
                zygote.cell(LIMITS)
            except SandboxError:
                with open_sandbox("zygote") as own:
                    status = 0 if run(own, "result = 2") == "2" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run(zygote, "result = 1") == "1"


@pytest.mark.parametrize("backend", ["zygote", "bwrap", "unsafe"])
def test_killing_the_parent_ends_all_even_with_a_copy_of_it_alive(backend: str):
    open_sandbox(backend).close()
    code = f"""
import os, time
from pathlib import Path
from posttrain.grading.sandbox import CellLimits, Sandbox
box = Sandbox({backend!r}, allow_unsafe=True, guest=Path({str(GUEST)!r}))
cell = box.cell(CellLimits(cpu_s=60))
cell.send(b"result = 1"); cell.receive(); cell.send(b"while True: pass")
copy = os.fork()
if copy == 0: time.sleep(1000)
print(box._process.pid, copy, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        small, copy = map(int, parent.stdout.readline().split())
        there = {small} | descendants(small)
        try:
            assert len(there) >= 2
            parent.kill()
            parent.wait()
            assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in there))
        finally:
            os.kill(copy, signal.SIGKILL)


def test_a_dead_sandbox_is_the_sandboxs_fault(zygote: Sandbox):
    with zygote.cell(LIMITS) as cell:
        ask(cell, "result = 1")
        cell.send(b"import time; time.sleep(1000)")
        zygote._process.kill()
        with pytest.raises(SandboxError):
            cell.receive()
        with pytest.raises(SandboxError):
            cell.close()
    zygote._process.wait()
    with pytest.raises(SandboxError):
        zygote.cell(LIMITS)


def test_no_isolation_is_asked_for_by_its_name():
    with pytest.raises(SandboxError, match="isolates nothing"):
        Sandbox("unsafe", guest=GUEST)


def test_where_user_namespaces_are_forbidden_it_refuses_and_says_what_to_do():
    code = f"from pathlib import Path\nfrom posttrain.grading.sandbox import *\nSandbox(guest=Path({str(GUEST)!r}))"
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if "SandboxError" not in done.stderr:
        pytest.skip(f"cannot forbid them for a child here: {done.stderr.strip()[-300:]}")
    last = done.stderr.strip().splitlines()[-1]
    assert "SandboxError: no isolation" in last, done.stderr
    assert "install bubblewrap" in last
    assert "zygote: " in last
    assert "bwrap: " in last


@pytest.mark.parametrize("field", ["cpu_s", "wall_s", "memory_mib", "threads", "file_mib", "open_files", "output_kib"])
def test_a_limit_of_nothing_is_refused(field: str):
    with pytest.raises(ValueError, match=field):
        CellLimits(**{field: 0})
