"""The filter, run by an interpreter of its instructions: what it allows and refuses on both machines, whichever this one is."""

import functools
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.grading import seccomp

ROOT = Path(__file__).parents[2]
ALLOWED, KILLED, EPERM, ENOSYS = "allowed", "killed", 1, 38
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
REFUSED = {  # numbers from the kernel's tables, x86_64 and aarch64
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "sendmsg": (46, 211), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "keyctl": (250, 219), "add_key": (248, 217), "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kexec_load": (246, 104), "setuid": (105, 146), "setgid": (106, 144),
    "setresuid": (117, 147), "setgroups": (116, 159), "capset": (126, 91), "prctl": (157, 167), "shmget": (29, 194), "msgget": (68, 186),
    "mq_open": (240, 180), "memfd_create": (319, 279), "execveat": (322, 281), "userfaultfd": (323, 282), "init_module": (175, 105),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "mknodat": (259, 33), "reboot": (169, 142), "sethostname": (170, 161),
    "personality": (135, 92), "setsid": (112, 157), "inotify_init1": (294, 26), "chown": (92, None), "fchownat": (260, 54),
    "seccomp": (317, 277),
}  # fmt: skip
NEWER = {"pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438,
         "process_madvise": 440, "mount_setattr": 442, "landlock_create_ruleset": 444, "a call of the future": 700}  # fmt: skip


@functools.cache
def program(machine: str) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("=HBBI", seccomp.program(machine)))


def decide(machine: str, number: int, *args: int, arch: int | None = None) -> str | int:
    """What the filter says of one call."""
    data = struct.pack("=iIQ6Q", number, ARCH[machine] if arch is None else arch, 0, *(args + (0,) * 6)[:6])
    instructions = program(machine)
    at, a = 0, 0
    while True:
        code, true, false, k = instructions[at]
        at += 1
        match code:
            case 0x20:
                (a,) = struct.unpack_from("=I", data, k)
            case 0x54:
                a &= k
            case 0x15:
                at += true if a == k else false
            case 0x35:
                at += true if a >= k else false
            case 0x06:
                return {0x7FFF0000: ALLOWED, 0x80000000: KILLED}.get(k, k & 0xFFFF)
            case _:
                raise AssertionError(f"instruction {code:#x}")


MACHINES = pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])


@MACHINES
def test_what_is_listed_is_allowed_and_nothing_else(machine: str, column: int):
    listed = set(seccomp.allowed_numbers(column))
    with_arguments = {calls[column] for calls in (seccomp.CLONE, seccomp.IOCTL, seccomp.SOCKETPAIR)}
    for number in set(range(800)) - with_arguments:
        assert decide(machine, number) == (ALLOWED if number in listed else EPERM if number < 424 else ENOSYS), number


@MACHINES
@pytest.mark.parametrize("name", REFUSED)
def test_a_dangerous_call_is_refused(name: str, machine: str, column: int):
    number = REFUSED[name][column]
    if number is None:
        pytest.skip(f"{machine} has no {name}")
    assert decide(machine, number) == EPERM


@MACHINES
@pytest.mark.parametrize("name", NEWER)
def test_a_newer_call_is_as_if_the_kernel_did_not_have_it(name: str, machine: str, column: int):
    assert decide(machine, NEWER[name]) == ENOSYS


@MACHINES
def test_clone_makes_threads_and_neither_processes_nor_namespaces(machine: str, column: int):
    clone, thread = seccomp.CLONE[column], 0x3D0F00
    assert decide(machine, clone, thread) == ALLOWED
    for flags in (
        17,
        0,
        0x4111,
        *(thread | namespace for namespace in (0x20000, 0x2000000, 0x4000000, 0x10000000, 0x20000000, 0x40000000)),
    ):
        assert decide(machine, clone, flags) == EPERM, hex(flags)


@MACHINES
def test_socketpairs_are_unix_and_ioctls_harmless(machine: str, column: int):
    assert [decide(machine, seccomp.SOCKETPAIR[column], family) for family in (1, 2, 16)] == [ALLOWED, EPERM, EPERM]
    tiocsti, tcgets = 0x5412, 0x5401
    assert [decide(machine, seccomp.IOCTL[column], 0, request) for request in (tcgets, tiocsti)] == [ALLOWED, EPERM]


@MACHINES
def test_a_call_in_another_architectures_numbering_kills(machine: str, column: int):
    assert decide(machine, 1, arch=0x40000003) == KILLED  # AUDIT_ARCH_I386, where 1 is exit
    assert decide(machine, 0x40000000 | 41) == ENOSYS  # x32


def test_a_machine_that_is_not_listed_is_refused_by_name():
    with pytest.raises(seccomp.FilterError, match="riscv64"):
        seccomp.program("riscv64")


@pytest.mark.skipif(os.uname().machine not in ARCH, reason="system calls of this machine are not listed")
def test_the_kernel_takes_the_filter_and_keeps_it_without_any_namespace():
    code = """
import os, socket
from posttrain.grading import seccomp
seccomp.for_this_machine().install()
for name, action in {"socket": socket.socket, "fork": os.fork, "exec": lambda: os.execv("/bin/true", ["true"])}.items():
    try:
        action()
    except PermissionError:
        print(name, end=" ")
print(socket.socketpair(socket.AF_UNIX) and "pair")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["socket", "fork", "exec", "pair"], done.stderr
