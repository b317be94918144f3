"""Cells per second of each backend beside a bare fork, in alternating rounds; with --soak, what the small process holds after many cells.

python evals/golden/bench_sandbox.py [--cells 400] [--rounds 5] [--sandboxes 2] [--soak 10000]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from posttrain.grading.sandbox import CellLimits, Sandbox, SandboxError

GUEST = """
import os
def main(read_fd, write_fd):
    while head := os.read(read_fd, 4):
        os.write(write_fd, head + os.read(read_fd, int.from_bytes(head, "big")))
"""
BARE_FORK = """
import os, sys
for line in sys.stdin:
    for _ in range(int(line)):
        if os.fork() == 0: os._exit(0)
        os.wait()
    print(flush=True)
"""


def trivial_cell(sandbox: Sandbox) -> None:
    with sandbox.cell(CellLimits()) as cell:
        cell.send(b"1")
        assert cell.receive() == b"1"


def cells_in(sandboxes: list[Sandbox], count: int, threads_each: int = 4) -> None:
    """Some threads a sandbox, so that one cell starts while another ends."""
    with ThreadPoolExecutor(threads_each * len(sandboxes)) as threads:
        list(threads.map(lambda i: trivial_cell(sandboxes[i % len(sandboxes)]), range(count)))


def bare_forks(processes: list[subprocess.Popen[str]], count: int) -> None:
    for process in processes:
        process.stdin.write(f"{count // len(processes)}\n")
        process.stdin.flush()
    for process in processes:
        process.stdout.readline()


def rate_and_cost(run: Callable[[int], None], count: int, processes: list[int]) -> tuple[float, float]:
    """Cells per second, and milliseconds of CPU time per cell: of this process, of those named, and of all their ended children."""
    begun, used = time.perf_counter(), cpu_s(processes)
    run(count)
    return count / (time.perf_counter() - begun), (cpu_s(processes) - used) / count * 1000


def cpu_s(processes: list[int]) -> float:
    own = time.process_time()
    stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in processes]
    return own + sum(int(tick) for stat in stats for tick in stat[11:15]) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def throughput(guest: Path, cells: int, rounds: int, sandboxes: int) -> None:
    with ExitStack() as stack:
        python = [os.path.realpath(sys.executable), "-I", "-S", "-c", BARE_FORK]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        forks = [stack.enter_context(subprocess.Popen(python, **pipes)) for _ in range(sandboxes)]
        ways = {"bare fork, no guest": (cells, lambda n: bare_forks(forks, n), [process.pid for process in forks])}
        for backend, share in (("unsafe", 1), ("zygote", 1), ("bwrap", 10)):
            try:
                boxes = [stack.enter_context(Sandbox(backend, allow_unsafe=True, guest=guest)) for _ in range(sandboxes)]
            except SandboxError as refusal:
                print(f"{backend}: {refusal}")
                continue
            processes = [pid for box in boxes for pid in tree(box._process.pid)]
            ways[backend] = (cells // share, lambda n, boxes=boxes: cells_in(boxes, n), processes)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (count, run, processes) in ways.items():
                found[name].append(rate_and_cost(run, count, processes))
        cores = len(os.sched_getaffinity(0))
        print(f"{sandboxes} sandboxes, {rounds} rounds in turn, {cores} cores, load {os.getloadavg()[0]:.1f}; medians (least to most)")
        for name, rows in found.items():
            rates, costs = zip(*rows)
            cost = statistics.median(costs)
            print(
                f"{name:20s} {statistics.median(rates):6.0f} cells/s ({min(rates):.0f} to {max(rates):.0f})   {cost:6.2f} ms CPU a cell"
                f" ({min(costs):.2f} to {max(costs):.2f}): {cores * 1000 / cost:.0f} cells/s if all cores did nothing else"
            )
        for process in forks:
            process.stdin.close()


def soak(guest: Path, cells: int) -> None:
    """Memory, descriptors, children and mounts of the small process, and descriptors and memory here, as cells come and go."""
    with Sandbox("zygote", guest=guest) as sandbox:
        outer = sandbox._process.pid
        (inner,) = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        print(f"{'cells':>6} {'zygote MiB':>10} {'its fds':>8} {'children':>8} {'mounts':>7} {'own MiB':>8} {'own fds':>8}")
        for done in range(0, cells + 1, max(1, cells // 10)):
            if done:
                cells_in([sandbox], max(1, cells // 10))
            time.sleep(0.2)
            there, here = Path(f"/proc/{inner}"), Path("/proc/self")
            mib = [int((path / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20) for path in (there, here)]
            fds = [len(os.listdir(path / "fd")) for path in (there, here)]
            children = len((there / "task" / inner / "children").read_text().split())
            mounts = len((there / "mountinfo").read_text().splitlines())
            print(f"{done:6d} {mib[0]:10.1f} {fds[0]:8d} {children:8d} {mounts:7d} {mib[1]:8.1f} {fds[1]:8d}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sandboxes", type=int, default=2)
    parser.add_argument("--soak", type=int, default=0, help="run this many cells through one sandbox instead")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        guest = Path(folder) / "guest.py"
        guest.write_text(GUEST)
        if flags.soak:
            soak(guest, flags.soak)
        else:
            throughput(guest, flags.cells, flags.rounds, flags.sandboxes)


if __name__ == "__main__":
    main()
