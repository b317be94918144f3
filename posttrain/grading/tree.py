"""The files of a cell: what an interpreter reads, read-only, and nothing else of the machine.

The mounts are copied and sealed while they are detached (open_tree, mount_setattr: Linux 5.12), then placed in an empty tree that takes
the place of the old one (pivot_root), which is let go. What was not copied has no name any more.
"""

import ctypes
import errno
import os
import sysconfig
from dataclasses import dataclass

from posttrain.grading.isolation import (
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    IsolationError,
    call,
    checked,
    libc,
)

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_MNT_DETACH, _AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE, _OPEN_TREE_CLONE, _MOVE_EMPTY_PATH = 2, -100, 0x1000, 0x8000, 1, 4
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # numbers on every machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """What of the machine's files a cell can read, and nothing else."""

    readable: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    """(path, what it points to): links on the way to the above."""
    hidden: tuple[str, ...]
    """Folders inside the readable ones that a cell finds empty."""


def python_tree() -> Tree:
    """What an interpreter that is running already reads: its library without installed packages, C libraries, time zones."""
    library = [os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    wanted = {*library, *(os.path.realpath(path) for path in ("/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache") if os.path.exists(path))}
    for path in _mapped_libraries():
        folder = os.path.dirname(path)
        holds_more = any(other.startswith(folder + "/") for other in library)  # the folder of libpython may be that of the library, too
        wanted.add(path if holds_more else folder)
    if lost := [path for path in wanted if path.startswith("/tmp/")]:
        raise IsolationError(errno.EINVAL, f"{lost[0]}: a cell has a /tmp of its own, so python must be installed elsewhere")
    readable = tuple(sorted(path for path in wanted if not any(path.startswith(other + "/") for other in wanted)))
    links = tuple((path, os.readlink(path)) for path in ("/lib", "/lib64", "/usr/lib64") if os.path.islink(path))
    packages = [os.path.join(path, name) for path in library for name in ("site-packages", "dist-packages")]
    return Tree(readable=readable, links=links, hidden=tuple(sorted({path for path in packages if os.path.isdir(path)})))


def confine_to(tree: Tree) -> int:
    """Leave of all files only the tree, read-only, and an empty /tmp; returns a descriptor of the /proc left behind."""
    call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    copies = {path: _copy_of_mount(path, read_only=path not in DEVICES) for path in [*tree.readable, *DEVICES] if os.path.exists(path)}
    call("mount", b"tmpfs", b"/proc", b"tmpfs", MS_NOSUID | MS_NODEV, b"size=1m,mode=755")  # over any folder that is sure to exist
    os.chdir("/proc")
    for path, copy in copies.items():
        _place(copy, path)
    for path in tree.hidden:
        call("mount", b"tmpfs", path.lstrip("/").encode(), b"tmpfs", MS_RDONLY, b"size=4k,mode=755")
    for path, target in tree.links:
        os.makedirs(os.path.dirname(path.lstrip("/")) or ".", exist_ok=True)
        os.symlink(target, path.lstrip("/"))
    os.mkdir("tmp", 0o755)
    checked("pivot_root", libc.pivot_root(b".", b"."))
    call("umount2", b".", _MNT_DETACH)
    call("mount", b"tmpfs", b"/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, b"size=1m,mode=755")
    os.chdir("/")
    return proc


def _mapped_libraries() -> set[str]:
    with open("/proc/self/maps") as maps:
        return {os.path.realpath(line.split(None, 5)[5].strip()) for line in maps if ".so" in line}


def _copy_of_mount(path: str, *, read_only: bool) -> int:
    """A detached copy of what is mounted from `path` down, to be placed elsewhere."""
    number = ctypes.c_long
    fd = libc.syscall(number(_OPEN_TREE), _AT_FDCWD, path.encode(), number(_OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC))
    checked(f"open_tree({path})", fd)
    attributes = (ctypes.c_uint64 * 4)(MS_NOSUID | (MS_RDONLY | MS_NODEV if read_only else 0), 0, 0, 0)
    flags = number(_AT_EMPTY_PATH | _AT_RECURSIVE)
    done = libc.syscall(number(_MOUNT_SETATTR), fd, b"", flags, attributes, number(ctypes.sizeof(attributes)))
    checked(f"mount_setattr({path})", done)
    return fd


def _place(copy: int, path: str) -> None:
    inside = path.lstrip("/")
    os.makedirs(os.path.dirname(inside), exist_ok=True)
    if os.path.isdir(path) and not os.path.islink(path):
        os.makedirs(inside, exist_ok=True)
    else:
        os.close(os.open(inside, os.O_CREAT | os.O_WRONLY, 0o644))
    done = libc.syscall(ctypes.c_long(_MOVE_MOUNT), copy, b"", _AT_FDCWD, inside.encode(), ctypes.c_long(_MOVE_EMPTY_PATH))
    checked(f"move_mount({path})", done)
    os.close(copy)
