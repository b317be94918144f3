"""The small process that starts cells and watches them: CPU time is the limit, wall time the backstop, and an end is always reported.

Started with a bare interpreter by `sandbox.py`, before or without anything large, so that a fork costs little. One message on the control
socket starts a cell and brings three descriptors: a socket for its end, and the two pipes to its guest. Shutting down or closing the
other end of that socket kills the cell; what goes out on it is one message, how the cell ended and what it used. Everything ends with
the parent, whose death is seen at once, even where a copy of its end of the socket lives on in another process.

Reading order: `Zygote`, then the three ways to start a cell (`starters.py`).
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from posttrain.grading import cell, starters
from posttrain.grading.starters import Started, Starter

CORES = len(os.sched_getaffinity(0))
SHORTEST_LOOK_S = 0.005
"""How near to its limit a cell is looked at last; it may overrun by as much."""


@dataclass(slots=True)
class Running:
    started: Started
    limits: dict[str, Any]
    status: socket.socket
    pidfd: int
    begun: float = field(default_factory=time.monotonic)
    look_at: float = 0.0
    killed_for: str = ""


class Zygote:
    def __init__(self, control: socket.socket, parent: int, starter: Starter) -> None:
        self.control, self.parent, self.starter = control, parent, starter
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        self.poll.register(parent, select.POLLIN)
        self.by_fd: dict[int, Running] = {}

    def serve(self) -> None:
        """Start, watch and bury cells until the parent ends or closes the control socket."""
        self.control.send(json.dumps({"layers": self.starter.layers}).encode())
        gc.collect()
        gc.freeze()  # else a collection in a cell would copy every page of these objects
        while True:
            ready = {fd for fd, _ in self.poll.poll(self._until_next_look())}
            for fd in ready:
                if (running := self.by_fd.get(fd)) is not None:
                    self._ended(running) if fd == running.pidfd else self._closed(running)
            # new cells last: theirs may be the numbers of descriptors that were ready, and are closed by now
            if self.parent in ready or (self.control.fileno() in ready and not self._accept()):
                return self._kill_all()
            self._look()

    def _accept(self) -> bool:
        message, fds, _, _ = socket.recv_fds(self.control, 4096, 3, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return False
        if len(fds) != 3:  # too many are open here: what came is closed, which tells the asker
            for fd in fds:
                os.close(fd)
            return True
        status = socket.socket(fileno=fds[0])
        limits = json.loads(message)
        try:
            started = self.starter.start(limits, (fds[1], fds[2], fds[0]))
        except Exception as error:  # no process to be had, say: the caller is told, and decides
            _tell(status, {"ended_by": "setup", "detail": f"{type(error).__name__}: {error}"[:500]})
            status.close()
        else:
            running = Running(started=started, limits=limits, status=status, pidfd=os.pidfd_open(started.pid))
            for fd in (status.fileno(), running.pidfd):
                self.by_fd[fd] = running
                self.poll.register(fd, select.POLLIN)
        finally:
            for fd in fds[1:]:
                os.close(fd)
        return True

    def _until_next_look(self) -> float | None:
        if not self.by_fd:
            return None
        return max(0.0, min(running.look_at for running in self.by_fd.values()) - time.monotonic()) * 1000 + 1

    def _look(self) -> None:
        """Kill what is over its limit; the next look at the others is when they could be at the earliest."""
        now = time.monotonic()
        for running in {id(running): running for running in self.by_fd.values() if running.look_at <= now}.values():
            cpu_left = running.limits["cpu_s"] - _cpu_s(running.started.clock_pid)
            wall_left = running.limits["wall_s"] - (now - running.begun)
            if cpu_left <= 0 or wall_left <= 0:
                self._kill(running, "cpu" if cpu_left <= 0 else "wall")
            running.look_at = now + min(wall_left, max(SHORTEST_LOOK_S, cpu_left / CORES)) if not running.killed_for else now + 1.0

    def _closed(self, running: Running) -> None:
        """Nobody wants the cell any more; its socket would now be ready for ever, so it is looked at no longer."""
        self.poll.unregister(running.status)
        del self.by_fd[running.status.fileno()]
        self._kill(running, "closed")

    def _kill(self, running: Running, reason: str) -> None:
        running.killed_for = running.killed_for or reason
        running.started.kill()

    def _ended(self, running: Running) -> None:
        _, status, usage = os.wait4(running.started.pid, 0)
        running.started.clean()
        cpu_s = usage.ru_utime + usage.ru_stime
        ended_by, detail = _cause(running, status, cpu_s, usage.ru_maxrss / 1024)
        end = {"ended_by": ended_by, "detail": detail, "cpu_s": cpu_s, "max_rss_mib": usage.ru_maxrss / 1024}
        for fd in (running.status.fileno(), running.pidfd):
            if self.by_fd.pop(fd, None):
                self.poll.unregister(fd)
        os.close(running.pidfd)
        _tell(running.status, end)
        running.status.close()

    def _kill_all(self) -> None:
        for running in {id(running): running for running in self.by_fd.values()}.values():
            running.started.kill()
            os.wait4(running.started.pid, 0)
            running.started.clean()


def _cause(running: Running, status: int, cpu_s: float, rss_mib: float) -> tuple[str, str]:
    """Why a cell ended, in one word and in a few."""
    limits = running.limits
    if running.killed_for == "cpu" or cpu_s >= limits["cpu_s"]:
        return "cpu", f"{cpu_s:.2f} s of CPU time, the limit is {limits['cpu_s']:g} s"
    if running.killed_for == "wall":
        return "wall", f"{limits['wall_s']:g} s went by in which it used {cpu_s:.2f} s of CPU time"
    code = os.waitstatus_to_exitcode(status)
    if running.started.codes_for_signals and code > 128:
        code = 128 - code
    if running.killed_for == "closed" and code == -signal.SIGKILL:  # else it had ended by itself, just before
        return "closed", ""
    if code == cell.EXIT_MEMORY or code == -signal.SIGKILL or (code < 0 and rss_mib > 0.9 * limits["memory_mib"]):
        return "memory", f"{rss_mib:.0f} MiB resident at most, the limit is {limits['memory_mib']:g} MiB of address space"
    if code < 0:
        return "signal", signal.Signals(-code).name
    return "exit", f"exit code {code}"


def _cpu_s(pid: int) -> float:
    """CPU time of a process and all its threads, from its own clock."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)
    except OSError:
        return 0.0  # it has just ended, which the loop is about to learn


def _tell(status: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        status.send(json.dumps(message).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def main(backend: str, guest: str, parent: str) -> None:
    """`parent`: the id of the process to end with. The control socket is descriptor 0."""
    control = socket.socket(fileno=0)
    pidfd = os.pidfd_open(int(parent))
    if os.getppid() != int(parent):
        sys.exit("the process that wanted a sandbox is gone")
    os.environ.clear()
    try:
        starter = starters.BACKENDS[backend](guest)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]}).encode())
        sys.exit(1)
    Zygote(control, pidfd, starter).serve()
