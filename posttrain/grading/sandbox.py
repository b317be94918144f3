"""Cells: processes that run model-written code and can reach nothing but a pipe to the judge, with limits that the kernel keeps.

A `Sandbox` owns one small process that starts cells (`zygote.py`); a `Cell` is one of them, running the `main(read_fd, write_fd)` of a
guest script. What a guest may do is decided by the layers that the sandbox names: `isolation.py` for namespaces, `seccomp.py` for system
calls, `cell.py` for limits. The limit on time is CPU time, so that a busy machine changes no verdict; wall time is the backstop.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeAlias

Backend: TypeAlias = Literal["zygote", "bwrap", "unsafe"]
Reason: TypeAlias = Literal["cpu", "wall", "memory", "output", "exit", "signal", "closed"]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LD_BIND_NOW": "1"}
"""All that the small process gets of one: sets in the same order in every run, UTF-8, and symbols looked up once instead of per cell."""
START_S = 60.0
"""Wall time for the small process to start in; it takes a tenth of a second where nothing else runs."""
HANG_UP_S = 2.0
"""How long after its pipe is closed a cell may take to end."""
GRACE_S = 10.0
"""How long after a cell's wall limit its end is waited for; the machine is in trouble if that is not enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellLimits:
    """What one cell may use; a cell is one process, as the filter lets it start no other."""

    cpu_s: float = 5.0
    """CPU time of all its threads: the limit that verdicts rest on."""
    wall_s: float = 60.0
    memory_mib: int = 1024
    """Address space, the interpreter's own 30 MiB included."""
    threads: int = 32
    file_mib: int = 16
    """Everything in its /tmp together."""
    open_files: int = 64
    output_kib: int = 1024
    """The longest message that is taken from it."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(f"{name} must be > 0, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    cpu_s: float
    max_rss_mib: float
    ended_by: Reason
    """"closed" where it lived until `close`; "exit" where it had ended by itself."""


class SandboxError(RuntimeError):
    """No isolation is to be had, or the sandbox itself failed: never the fault of the code in a cell."""

    exit_code: ClassVar[int] = 1


class CellDied(Exception):
    """A cell ended, or was ended, before it answered."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Cell:
    """One isolated process and the pipes to it; for one thread at a time. Made by `Sandbox.cell`."""

    def __init__(self, limits: CellLimits, status: socket.socket, read_fd: int, write_fd: int) -> None:
        self.limits = limits
        self._status, self._read_fd, self._write_fd = status, read_fd, write_fd
        self._until = time.monotonic() + limits.wall_s + GRACE_S
        self._end: dict[str, Any] | None = None
        self._condemned: Reason | None = None
        self._received = bytearray()
        self._closed: Usage | None = None
        os.set_blocking(write_fd, False)
        os.set_blocking(read_fd, False)

    def __enter__(self) -> "Cell":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: bytes) -> None:
        """Send one message. Raises CellDied where the cell ends before it has taken all of it."""
        left = memoryview(len(message).to_bytes(4, "big") + message)
        while left:
            self._wait(self._write_fd, select.POLLOUT)
            try:
                left = left[os.write(self._write_fd, left) :]
            except BlockingIOError:
                pass
            except BrokenPipeError:
                self._hung_up()

    def receive(self) -> bytes:
        """The next message. Raises CellDied where the cell ends, or says more than it may, before the message is complete."""
        length = int.from_bytes(self._take(4), "big")
        if length > self.limits.output_kib << 10:
            self._condemn("output", f"a message of {length} bytes, the limit is {self.limits.output_kib} KiB")
        return self._take(length)

    def close(self) -> Usage:
        """Kill the cell if it lives; nothing of it remains when this returns."""
        if self._closed is None:
            self._closed = Usage(cpu_s=0.0, max_rss_mib=0.0, ended_by="closed")
            self._kill()
            try:
                end = self._end or self._await_end()
                self._closed = Usage(cpu_s=end["cpu_s"], max_rss_mib=end["max_rss_mib"], ended_by=self._condemned or end["ended_by"])
            finally:
                self._release()
        return self._closed

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            self._wait(self._read_fd, select.POLLIN)
            try:
                chunk = os.read(self._read_fd, 1 << 16)
            except BlockingIOError:
                continue
            if not chunk:
                self._hung_up()
            self._received += chunk
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _wait(self, fd: int, event: int) -> None:
        """Until the pipe is ready or the cell has ended, in which case what is left in a pipe can still be read."""
        if self._closed is not None:
            raise CellDied("closed", "the cell was closed")
        poll = select.poll()
        poll.register(fd, event)
        if self._end is None:
            poll.register(self._status, select.POLLIN)
        ready = dict(poll.poll(max(0.0, self._until - time.monotonic()) * 1000))
        if not ready:
            self._condemn("wall", f"{self.limits.wall_s:g} s went by, and the sandbox did not report its end")
        if self._status.fileno() in ready and fd not in ready:
            self._die()

    def _hung_up(self) -> NoReturn:
        """A pipe's other end is closed: the cell is ending, and how is about to be told, or it has closed the pipe and lives on."""
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        if self._end is None and not poll.poll(HANG_UP_S * 1000):
            self._kill()
            if self._await_end()["ended_by"] == "closed":  # else it had ended by itself, and on a busy machine word of that took long
                self._condemn("exit", "it closed its pipe to the judge")
        self._die()

    def _condemn(self, reason: Reason, detail: str) -> NoReturn:
        self._kill()
        self._condemned = reason
        raise CellDied(reason, detail)

    def _die(self) -> NoReturn:
        end = self._end or self._await_end()
        raise CellDied(end["ended_by"], end["detail"])

    def _await_end(self) -> dict[str, Any]:
        """How the cell ended, from the process that watched it. Raises SandboxError where that is gone, or where the cell never began."""
        self._status.settimeout(self.limits.wall_s + GRACE_S)
        try:
            end = json.loads(self._status.recv(4096) or "{}")
        except OSError as error:
            raise SandboxError(f"no word from the sandbox's process on the end of a cell: {error}") from None
        if "cpu_s" not in end:
            raise SandboxError(f"a cell could not be set up: {end.get('detail', 'the sandbox has ended')}")
        self._end = end
        return end

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            self._status.shutdown(socket.SHUT_WR)  # a byte left unread would turn the report of its end into an error

    def _release(self) -> None:
        self._status.close()
        os.close(self._read_fd)
        os.close(self._write_fd)


class Sandbox:
    """Starts cells; any thread may ask it to. Belongs to the process that made it: after a fork, the child makes its own."""

    entry: ClassVar[str] = "posttrain.grading.zygote"
    """The module whose `main` the small process runs."""

    def __init__(self, backend: Backend | None = None, *, allow_unsafe: bool = False, guest: Path | None = None) -> None:
        """`backend` None takes zygote, else bwrap. Raises SandboxError where the kernel allows neither. `guest` is a script with a `main`.

        "unsafe" wants `allow_unsafe` as well: it sets resource limits and nothing else, so that the code can read, write, delete and
        connect to whatever its user can. For code that you trust, or inside a machine that is itself thrown away.
        """
        if backend == "unsafe" and not allow_unsafe:
            raise SandboxError(
                "backend 'unsafe' isolates nothing: it only limits resources; pass allow_unsafe=True if that is what you want"
            )
        self.owner = os.getpid()
        self._guest = (guest or Path(__file__).with_name("guest.py")).resolve(strict=True)
        self._lock = threading.Lock()
        refusals = []
        for name in (backend,) if backend else ("zygote", "bwrap"):
            try:
                self._start(name)
            except SandboxError as refusal:
                refusals.append(f"{name}: {refusal}")
            else:
                return
        raise SandboxError(
            f"no isolation to run untrusted code in ({'; '.join(refusals)}). Allow unprivileged user namespaces (sysctl "
            "user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns; in a container, its "
            "seccomp profile), or install bubblewrap (apt install bubblewrap, dnf install bubblewrap)"
        )

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cell(self, limits: CellLimits) -> Cell:
        """A fresh cell, running the guest. Raises SandboxError where the sandbox's own process is gone."""
        return self._cell(limits, {})

    def _cell(self, limits: CellLimits, more: dict[str, Any]) -> Cell:
        if os.getpid() != self.owner:
            raise SandboxError("this sandbox belongs to the process that made it: make another after a fork")
        if self._process.poll() is not None:
            raise SandboxError(f"the sandbox's process is gone: it ended with code {self._process.returncode}")
        status, far_status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        to_cell, from_cell = os.pipe(), os.pipe()
        far = (far_status.fileno(), to_cell[0], from_cell[1])
        try:
            with self._lock:
                socket.send_fds(self._control, [json.dumps(asdict(limits) | more).encode()], far)
        except OSError as error:
            status.close()
            os.close(to_cell[1])
            os.close(from_cell[0])
            raise SandboxError(f"the sandbox's process is gone: {error}") from None
        finally:
            far_status.close()
            os.close(to_cell[0])
            os.close(from_cell[1])
        return Cell(limits, status, from_cell[0], to_cell[1])

    def close(self) -> None:
        """End the sandbox's process, and with it every cell that is left."""
        if os.getpid() == self.owner and self._process.returncode is None:
            self._control.close()
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _start(self, backend: Backend) -> None:
        self._control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))  # what stands behind a virtual environment's
        code = f"import sys; sys.path.append({str(ROOT)!r}); from {self.entry} import main; sys.path.pop(); main(*sys.argv[1:])"
        command = [python, "-P", "-s", "-S", "-B", "-c", code, backend, str(self._guest), str(os.getpid())]
        with far:
            null = subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=far.fileno(), stdout=null, env=ENVIRONMENT, start_new_session=True)
        try:
            self.backend, self.layers = backend, self._greeting()
            with self._cell(CellLimits(), {"trial": True}) as trial:  # the steps that are made per cell may be forbidden, too
                end = trial._await_end()
            if end["ended_by"] != "exit" or end["detail"] != "exit code 0":
                raise SandboxError(f"a first cell ended by {end['ended_by']}: {end['detail']}")
        except SandboxError:
            self.close()
            raise

    def _greeting(self) -> tuple[str, ...]:
        self._control.settimeout(START_S)
        try:
            told = json.loads(self._control.recv(4096) or '{"error": "its process ended at once"}')
        except TimeoutError:
            told = {"error": f"its process said nothing in {START_S:g} s"}
        if "error" in told:
            raise SandboxError(told["error"])
        return tuple(told["layers"])
