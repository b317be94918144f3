"""Namespaces, for a process that forks cells: what all cells share is made once, what a cell must not share with another, per cell.

Shared: the network namespace (no interface, and the filter allows no socket but a pair), ipc and uts (the filter allows neither System V
objects nor sethostname), and the read-only tree of files. Per cell: a pid namespace, in which the guest is process 1, so that all of a
cell dies with it; a mount namespace with an empty /tmp of its own; and a user namespace, made last, in which the guest has an ordinary
uid, no capability, and a process count of its own. The other namespaces belong to the user namespace above, so that even capabilities
regained in the cell's would open none of them.

Started by root, files are arranged as root, and cells run as a uid that nobody has; started by anyone else, everything happens inside a
user namespace where that user is root. Linux 5.12 or later.
"""

import ctypes
import errno
import os
import sys
import sysconfig

CELL_UID = 65534
"""The uid a guest sees."""
UNUSED_UID = 1_900_000_000
"""What that is outside, for a sandbox started by root: in the range that no allocation scheme uses (systemd's UIDS-GIDS)."""
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWCGROUP = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x2000000
SHARED = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET | NEWCGROUP
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 32, 1 << 14, 1 << 18
_MNT_DETACH, _AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE, _OPEN_TREE_CLONE = 2, -100, 0x1000, 0x8000, 1
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # numbers on every machine
_SET_PDEATHSIG, _SET_DUMPABLE = 1, 4

_libc = ctypes.CDLL(None, use_errno=True)


class IsolationError(OSError):
    """The kernel refused a step; the message names it."""


def call(name: str, *args: object) -> int:
    """The C library's function of that name. Raises IsolationError where it returns -1."""
    return _checked(name, getattr(_libc, name)(*args))


def separate() -> bool:
    """Enter new shared namespaces, to which the next child belongs; whether that was done as root of the machine."""
    if os.geteuid() == 0:
        try:
            call("unshare", SHARED)
            return True
        except IsolationError as error:  # root of a container, with less than root's capabilities
            if error.errno != errno.EPERM:
                raise
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", SHARED | NEWUSER)
    _map_ids(os.open("/proc/self", os.O_PATH), (0, uid), (0, gid))
    return False


def confine_to(folders: list[str], links: dict[str, str]) -> int:
    """Replace the whole tree of files by an empty one with the folders in it, read-only; the descriptor of the /proc left behind."""
    call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    trees = {path: _copy_of_mount(path, read_only=path not in DEVICES) for path in [*folders, *DEVICES] if os.path.exists(path)}
    call("mount", b"tmpfs", b"/proc", b"tmpfs", _MS_NOSUID | _MS_NODEV, b"size=1m,mode=755")  # over any folder that is sure to exist
    os.chdir("/proc")
    for path, tree in trees.items():
        _place(tree, path)
    for path, target in links.items():
        os.makedirs(os.path.dirname(path.lstrip("/")) or ".", exist_ok=True)
        os.symlink(target, path.lstrip("/"))
    os.mkdir("tmp")
    call("pivot_root", b".", b".")
    call("umount2", b".", _MNT_DETACH)
    call("mount", b"tmpfs", b"/", None, _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV, b"size=1m,mode=755")
    os.chdir("/")
    return proc


def enter_cell(*, proc: int, as_root: bool, file_mib: int) -> None:
    """What a cell has to itself, and all privileges gone. The pid namespace is its parent's to make, as it holds from birth."""
    owner = UNUSED_UID if as_root else 0
    call("unshare", NEWNS)
    options = f"size={file_mib}m,nr_inodes={64 * file_mib + 64},mode=700,uid={owner},gid={owner}".encode()
    call("mount", b"tmpfs", b"/tmp", b"tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    os.chdir("/tmp")
    if as_root:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
        call("prctl", _SET_DUMPABLE, 1, 0, 0, 0)  # lost with the uid, and without it /proc/self belongs to root
    call("unshare", NEWUSER)
    _map_ids(os.open("self", os.O_PATH, dir_fd=proc), (CELL_UID, owner), (CELL_UID, owner))
    drop_capabilities()


def drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    call("capset", header, (ctypes.c_uint32 * 6)())


def die_with_parent(signal: int) -> None:
    """Ask the kernel for the signal when the thread that forked this process ends."""
    call("prctl", _SET_PDEATHSIG, signal, 0, 0, 0)


def python_folders() -> tuple[list[str], dict[str, str]]:
    """What an interpreter that is running already reads: its library, C libraries, time zones; and the links on the way there."""
    wanted = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime"]
    wanted += ["/lib64", *(os.path.dirname(path) for path in _mapped_libraries())]
    folders = sorted({os.path.realpath(path) for path in wanted if os.path.exists(path)})
    outermost = [path for path in folders if not any(path != other and path.startswith(other + "/") for other in folders)]
    links = {path: os.readlink(path) for path in ("/lib", "/lib64", "/usr/lib64") if os.path.islink(path)}
    return outermost, links


def _mapped_libraries() -> set[str]:
    with open("/proc/self/maps") as maps:
        return {line.split(None, 5)[5].strip() for line in maps if ".so" in line}


def _copy_of_mount(path: str, *, read_only: bool) -> int:
    """A detached copy of what is mounted from `path` down, to be placed elsewhere."""
    number = ctypes.c_long
    fd = _libc.syscall(number(_OPEN_TREE), _AT_FDCWD, path.encode(), number(_OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC))
    _checked(f"open_tree({path})", fd)
    attributes = (ctypes.c_uint64 * 4)(_MS_NOSUID | (_MS_RDONLY | _MS_NODEV if read_only else 0), 0, 0, 0)
    flags = number(_AT_EMPTY_PATH | _AT_RECURSIVE)
    done = _libc.syscall(number(_MOUNT_SETATTR), fd, b"", flags, attributes, number(ctypes.sizeof(attributes)))
    _checked(f"mount_setattr({path})", done)
    return fd


def _place(tree: int, path: str) -> None:
    inside = path.lstrip("/")
    os.makedirs(os.path.dirname(inside), exist_ok=True)
    if os.path.isdir(path) and not os.path.islink(path):
        os.makedirs(inside, exist_ok=True)
    else:
        os.close(os.open(inside, os.O_CREAT | os.O_WRONLY, 0o644))
    done = _libc.syscall(ctypes.c_long(_MOVE_MOUNT), tree, b"", _AT_FDCWD, inside.encode(), ctypes.c_long(4))  # MOVE_MOUNT_F_EMPTY_PATH
    _checked(f"move_mount({path})", done)
    os.close(tree)


def _map_ids(process: int, uid: tuple[int, int], gid: tuple[int, int]) -> None:
    """Say which outer uid and gid the inner ones of a new user namespace are; closes `process`, a descriptor of its /proc folder."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid[0]} {uid[1]} 1"), ("gid_map", f"{gid[0]} {gid[1]} 1")):
        fd = os.open(name, os.O_WRONLY, dir_fd=process)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    os.close(process)


def _checked(name: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise IsolationError(number, f"{name}: {os.strerror(number)}")
    return result


def interpreter() -> str:
    """The real binary behind a virtual environment's."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))
