"""Three ways to start a cell: forked inside namespaces made here, through bubblewrap, or with resource limits alone."""

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from posttrain.grading import cell, isolation, seccomp
from posttrain.grading.cell import Fds
from posttrain.grading.tree import confine_to, python_tree


class Starter(Protocol):
    """A backend: how a cell comes to be."""

    layers: tuple[str, ...]

    def start(self, limits: dict[str, Any], fds: tuple[int, int, int]) -> "Started": ...


@dataclass(slots=True)
class Started:
    """A process that is a cell, or whose only child is one."""

    pid: int
    kill: Callable[[], None]
    clock_pid: int
    """Whose CPU clock is the cell's."""
    clean: Callable[[], None] = lambda: None
    codes_for_signals: bool = False
    """Whether a death by signal n shows as exit code 128 + n."""


class Forked:
    """Cells forked from this process, in namespaces shared and their own: `isolation.py` says which, and why that is safe."""

    layers: tuple[str, ...] = (
        "user namespace",
        "pid namespace",
        "mount namespace: python read-only, empty /tmp",
        "net namespace",
        "ipc namespace",
        "uts namespace",
        "uid of nobody",
        "no capabilities",
        "no-new-privs",
        "seccomp allowlist",
        "rlimits",
    )

    def __init__(self, guest: str) -> None:
        _import_familiar()
        self.guest = cell.load_guest(guest).main
        self.filter = seccomp.for_this_machine()
        tree = python_tree()
        self.as_root = isolation.separate()
        _continue_in_child()
        self.proc = confine_to(tree)
        self.own_pids = os.open("self/ns/pid", os.O_RDONLY, dir_fd=self.proc)

    def start(self, limits: dict[str, Any], fds: Fds) -> Started:
        def enter() -> None:
            isolation.enter_cell(proc=self.proc, as_root=self.as_root, file_mib=int(limits["file_mib"]))

        isolation.call("unshare", isolation.NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                cell.run(self.guest, fds, limits, enter=enter, filter=self.filter)
        finally:
            isolation.call("setns", self.own_pids, isolation.NEWPID)  # else the next cell would be born into this one's
        return Started(pid=pid, kill=lambda: os.kill(pid, signal.SIGKILL), clock_pid=pid)


class Bubblewrapped:
    """Each cell a bwrap with a fresh interpreter, which then puts itself under the limits and the filter."""

    layers: tuple[str, ...] = (
        "bwrap: user, pid, mount, net, ipc, uts and cgroup namespaces",
        "python read-only, empty /tmp",
        "uid of nobody",
        "no capabilities",
        "no-new-privs",
        "seccomp allowlist",
        "rlimits",
    )

    def __init__(self, guest: str) -> None:
        program = shutil.which("bwrap", path=os.defpath + ":/usr/local/bin:/usr/sbin")
        if program is None:
            raise FileNotFoundError("no bwrap in /bin, /usr/bin, /usr/local/bin")
        tree, python = python_tree(), os.path.realpath(sys.executable)
        inside = {path: f"/cell/{name}" for name, path in _own_files(guest).items()} | {guest: "/cell/guest.py"}
        self.head = [program, "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
        self.head += ["--unshare-user", "--uid", str(isolation.CELL_UID), "--gid", str(isolation.CELL_UID), "--hostname", "cell"]
        self.head += ["--setenv", "PYTHONHASHSEED", "0", "--setenv", "PYTHONUTF8", "1", "--dev", "/dev"]
        self.head += [word for path in [*tree.readable, python] for word in ("--ro-bind", path, path)]
        self.head += [word for path, target in tree.links for word in ("--symlink", target, path)]
        self.head += [word for path in tree.hidden for word in ("--tmpfs", path, "--remount-ro", path)]
        self.head += [word for path, place in inside.items() for word in ("--ro-bind", path, place)]
        self.tail = ["--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/", "--remount-ro", "/dev"]
        self.run = [python, "-P", "-s", "-S", "-B", "-c"]
        self.run += ["import sys; sys.path.append('/cell'); from posttrain.grading import cell; cell.main()"]

    def start(self, limits: dict[str, Any], fds: Fds) -> Started:
        heard, told = os.pipe()
        told_cell = json.dumps({"guest": "/cell/guest.py", "fds": fds, "limits": limits})
        size = str(int(limits["file_mib"]) << 20)
        command = [*self.head, "--size", size, *self.tail, "--info-fd", str(told), *self.run, told_cell]
        with open(heard, "rb") as info:
            try:
                null = subprocess.DEVNULL
                process = subprocess.Popen(command, pass_fds=(*fds, told), stdin=null, stdout=null, stderr=subprocess.PIPE, env={})
            finally:
                os.close(told)
            text = info.read()
        if not text:
            said = process.communicate()[1].decode(errors="replace").strip()
            raise OSError(f"bwrap: {said or 'ended without a word'}")
        assert process.stderr is not None  # a pipe
        process.stderr.close()
        child = json.loads(text)["child-pid"]
        pidfd = os.pidfd_open(child)

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself, and bwrap is about to
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

        def clean() -> None:
            os.close(pidfd)
            process.returncode = 0  # it has been waited for: subprocess, which would wait again, need not

        return Started(pid=process.pid, kill=kill, clock_pid=child, clean=clean, codes_for_signals=True)


class Limited:
    """Cells with resource limits and a folder to be in, and nothing that keeps them from reading, writing or connecting elsewhere."""

    layers: tuple[str, ...] = ("rlimits",)

    def __init__(self, guest: str) -> None:
        _import_familiar()
        self.guest = cell.load_guest(guest).main

    def start(self, limits: dict[str, Any], fds: Fds) -> Started:
        folder = tempfile.mkdtemp(prefix="cell-")

        def enter() -> None:
            isolation.die_with_parent(signal.SIGKILL)
            os.setsid()
            os.chdir(folder)

        pid = os.fork()
        if pid == 0:
            cell.run(self.guest, fds, limits, enter=enter, filter=None)

        def kill_group() -> None:
            with contextlib.suppress(ProcessLookupError):  # it is there only once the cell has made it
                os.killpg(pid, signal.SIGKILL)

        def kill() -> None:
            kill_group()
            os.kill(pid, signal.SIGKILL)

        def clean() -> None:
            kill_group()  # children of the cell outlive it
            shutil.rmtree(folder, ignore_errors=True)

        return Started(pid=pid, kill=kill, clock_pid=pid, clean=clean)


BACKENDS: dict[str, Callable[[str], Starter]] = {"zygote": Forked, "bwrap": Bubblewrapped, "unsafe": Limited}


def _import_familiar() -> None:
    for name in cell.FAMILIAR.split():
        importlib.import_module(name)


def _own_files(guest: str) -> dict[str, str]:
    """Where our modules lie that a cell and its guest import, by their places below the root."""
    before = set(sys.modules)
    cell.load_guest(guest)
    names = {name for name in set(sys.modules) - before if name.startswith("posttrain.")}
    names |= {"posttrain", "posttrain.grading", cell.__name__, seccomp.__name__}
    files = [Path(str(sys.modules[name].__file__)) for name in sorted(names)]
    root = Path(__file__).parents[2]
    return {str(file.relative_to(root)): str(file) for file in files}


def _continue_in_child() -> None:
    """Fork into the new pid namespace; this process stays behind, waits, and ends as the child does."""
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    isolation.die_with_parent(signal.SIGKILL)
