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
import struct

CELL_UID = 65534
"""The uid a guest sees."""
UNUSED_UID = 1_900_000_000
"""What that is outside, for a sandbox started by root: in the range that no allocation scheme uses (systemd's UIDS-GIDS)."""
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWCGROUP = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x2000000
SHARED = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET | NEWCGROUP

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 1 << 14, 1 << 18
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_NO_NEW_PRIVS = 1, 4, 38

_CAPABILITIES_OF_THIS_THREAD, _NO_CAPABILITIES = struct.pack("=Ii", 0x20080522, 0), bytes(24)  # _LINUX_CAPABILITY_VERSION_3

libc = ctypes.CDLL(None, use_errno=True)
_functions = {name: getattr(libc, name) for name in ("capset", "mount", "prctl", "setns", "umount2", "unshare")}


class IsolationError(OSError):
    """The kernel refused a step; the message names it."""


def call(name: str, *args: object) -> int:
    """The C library's function of that name. Raises IsolationError where it returns -1."""
    return checked(name, _functions[name](*args))


def separate() -> bool:
    """Enter new shared namespaces, to which the next child belongs; whether that was done as root of the machine."""
    proc = os.open("/proc", os.O_PATH)
    try:
        if os.geteuid() == 0 and _has_uid(UNUSED_UID):
            try:
                call("unshare", SHARED)
                return True
            except IsolationError as error:  # root of a container, with less than root's capabilities
                if error.errno != errno.EPERM:
                    raise
        uid, gid = os.geteuid(), os.getegid()
        call("unshare", SHARED | NEWUSER)
        _map_ids(proc, (0, uid), (0, gid))
        return False
    finally:
        os.close(proc)


def enter_cell(*, proc: int, as_root: bool, file_mib: int) -> None:
    """What a cell has to itself, and all privileges gone. The pid namespace is its parent's to make, as it holds from birth."""
    owner = UNUSED_UID if as_root else 0
    call("unshare", NEWNS)
    _write(proc, "self/oom_score_adj", "1000")  # where memory runs out all the same, a cell goes before the program that wanted it
    options = f"size={file_mib}m,nr_inodes={64 * file_mib + 64},mode=700,uid={owner},gid={owner}".encode()
    call("mount", b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    os.chdir("/tmp")
    if as_root:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
        call("prctl", _SET_DUMPABLE, 1, 0, 0, 0)  # lost with the uid, and without it /proc/self belongs to root
    call("unshare", NEWUSER)
    _map_ids(proc, (CELL_UID, owner), (CELL_UID, owner))
    call("prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    drop_capabilities()


def drop_capabilities() -> None:
    """Give up every capability, for good once `no_new_privs` is set as well."""
    call("capset", _CAPABILITIES_OF_THIS_THREAD, _NO_CAPABILITIES)


def die_with_parent(signal: int) -> None:
    """Ask the kernel for the signal when the thread that forked this process ends."""
    call("prctl", _SET_PDEATHSIG, signal, 0, 0, 0)


def _has_uid(uid: int) -> bool:
    """Whether this user namespace knows the uid: the one that a machine starts with knows all."""
    with open("/proc/self/uid_map") as extents:
        return any(int(first) <= uid < int(first) + int(count) for first, _, count in map(str.split, extents))


def _map_ids(proc: int, uid: tuple[int, int], gid: tuple[int, int]) -> None:
    """Say which outer uid and gid the inner ones of this process's new user namespace are."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid[0]} {uid[1]} 1"), ("gid_map", f"{gid[0]} {gid[1]} 1")):
        _write(proc, f"self/{name}", text)


def _write(folder: int, path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def checked(name: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise IsolationError(number, f"{name}: {os.strerror(number)}")
    return result
