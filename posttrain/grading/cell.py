"""The last steps of a process before it runs model-written code: limits, no descriptors but its own, the filter; then the guest.

Every backend ends here. Standard library only, and no more of it than needed: this runs in the small process that cells are forked from.
"""

import importlib.util
import json
import os
import resource
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

from posttrain.grading import seccomp
from posttrain.grading.seccomp import Filter

Fds: TypeAlias = tuple[int, int, int]
"""The pipe to read, the pipe to write, and the socket on which the cell's end is told."""
Enter: TypeAlias = Callable[[], None]
READ_FD, WRITE_FD = 3, 4
"""Where a guest finds the two pipes to the judge; 0, 1 and 2 lead nowhere."""
EXIT_MEMORY = 97
"""Exit code of a guest that let a MemoryError through."""
STACK_MIB = 64

FAMILIAR = (
    "abc array ast base64 bisect calendar cmath collections contextlib copy csv dataclasses datetime decimal enum fractions functools "
    "hashlib heapq inspect io itertools json math operator pickle queue random re statistics string struct textwrap threading time "
    "traceback types typing unicodedata"
)
"""Modules that solutions like to import: a cell forked from a process that has them starts at once."""


def load_guest(path: str) -> ModuleType:
    """The guest's module; its `main(read_fd, write_fd)` is what runs in a cell."""
    spec = importlib.util.spec_from_file_location("guest", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(guest: Callable[[int, int], Any], fds: Fds, limits: dict[str, Any], *, enter: Enter, filter: Filter | None) -> None:
    """Isolate this process, run the guest in it, end; never returns.

    `enter` is the part of the isolation that needs descriptors and privileges which are gone afterwards. Whatever fails before the guest
    begins is told on the third descriptor, which the guest never sees. A trial ends where the guest would begin.
    """
    status, report, begun = 1, fds[2], False
    try:
        enter()
        report = keep_only(fds)
        limit(limits)
        if filter is not None:
            filter.install()
        os.close(report)
        begun = True
        if not limits.get("trial"):
            guest(READ_FD, WRITE_FD)
        status = 0
    except MemoryError:
        status = EXIT_MEMORY
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException as error:
        if not begun:
            os.write(report, json.dumps({"ended_by": "setup", "detail": f"{type(error).__name__}: {error}"[:500]}).encode())
    finally:
        os._exit(status & 0xFF)


def keep_only(fds: Fds) -> int:
    """Leave 0-2 on /dev/null, the two pipes at their places and, as returned, the third; close everything else."""
    nowhere = os.open("/dev/null", os.O_RDWR)
    high = [os.dup(fd) for fd in (nowhere, nowhere, nowhere, *fds)]
    while min(high) < 6:  # none of the copies may lie where another is to go
        high = [os.dup(fd) for fd in high]
    for place, fd in enumerate(high):
        os.dup2(fd, place)
    os.closerange(6, 1 << 20)
    return 5


def limit(limits: dict[str, Any]) -> None:
    """Resource limits of the kernel's own; the CPU limit is to the second, and whoever started the cell is more exact."""
    mib = 1 << 20
    for what, most in (
        (resource.RLIMIT_CPU, int(limits["cpu_s"]) + 2),
        (resource.RLIMIT_AS, int(limits["memory_mib"]) * mib),
        (resource.RLIMIT_STACK, STACK_MIB * mib),
        (resource.RLIMIT_NPROC, int(limits["threads"])),
        (resource.RLIMIT_FSIZE, int(limits["file_mib"]) * mib),
        (resource.RLIMIT_NOFILE, int(limits["open_files"])),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        ceiling = resource.getrlimit(what)[1]
        most = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
        resource.setrlimit(what, (most, most))


def main() -> None:
    """Be a cell in a fresh interpreter, already isolated by the program that started it; the one argument is JSON."""
    told = json.loads(sys.argv[1])
    os.environ.clear()
    guest = load_guest(told["guest"])
    run(guest.main, tuple(told["fds"]), told["limits"], enter=lambda: None, filter=seccomp.for_this_machine())
