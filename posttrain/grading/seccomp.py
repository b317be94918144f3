"""The filter on system calls: a cell may compute, use its own files and threads, and end; whatever is not named here is refused.

A list of what is allowed, not of what is forbidden: a cell runs one Python interpreter that starts no program, so the list is short, and
a call that a later kernel brings is off until somebody adds it. Refused calls fail with EPERM, those newer than Linux 5.1 with ENOSYS, at
which a C library takes the older way. Classic BPF, as `seccomp(2)` has it; nothing but ctypes is needed.
"""

import ctypes
import platform
import struct

NAMED = """
# reading and writing what is open
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70, preadv2 327 286,
pwritev2 328 287, lseek 8 62, sendfile 40 71, copy_file_range 326 285, fadvise64 221 223, close 3 57, close_range 436 436,
dup 32 23, dup2 33 -, dup3 292 24, fcntl 72 25, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441,
eventfd 284 -, eventfd2 290 19
# files: the mount namespace decides which
open 2 -, openat 257 56, openat2 437 437, creat 85 -, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291,
statfs 137 43, fstatfs 138 44, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78, getdents 78 -,
getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35,
rename 82 -, renameat 264 38, renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, truncate 76 45,
ftruncate 77 46, fallocate 285 47, fsync 74 82, fdatasync 75 83, chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452,
umask 95 166, utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88, flock 73 32, getxattr 191 8, lgetxattr 192 9,
fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13
# memory and threads
mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214, msync 26 227, mincore 27 232,
membarrier 324 283, futex 202 98, futex_waitv 449 449, set_robust_list 273 99, get_robust_list 274 100, rseq 334 293,
set_tid_address 218 96, sched_yield 24 124, sched_getaffinity 204 123, sched_getparam 143 121, sched_getscheduler 145 120,
sched_get_priority_max 146 125, sched_get_priority_min 147 126, getpriority 140 141, getcpu 309 168, arch_prctl 158 -
# clocks, numbers about itself, chance
nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -,
times 100 153, getrusage 98 165, getrlimit 97 163, setrlimit 160 164, prlimit64 302 261, sysinfo 99 179, uname 63 160,
getpid 39 172, gettid 186 178, getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156, getuid 102 174, geteuid 107 175,
getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158, getrandom 318 278, getitimer 36 102,
setitimer 38 103, alarm 37 -
# signals and the end: the pid namespace decides whom they reach
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigsuspend 130 133,
rt_sigtimedwait 128 137, sigaltstack 131 132, pause 34 -, kill 62 129, tkill 200 130, tgkill 234 131, restart_syscall 219 128,
wait4 61 260, waitid 247 95, exit 60 93, exit_group 231 94
# a socketpair's two ends, which event loops talk to themselves with
sendto 44 206, recvfrom 45 207, shutdown 48 210, getsockname 51 204, getpeername 52 205, getsockopt 55 209, setsockopt 54 208
"""
"""Names with their numbers on x86_64 and aarch64; "-" where that machine has no such call."""
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The column above, and AUDIT_ARCH_* of linux/audit.h."""
CLONE, IOCTL, SOCKETPAIR = (56, 220), (16, 29), (53, 199)  # allowed with certain arguments only

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_NUMBER, _ARCH, _ARG_0, _ARG_1 = 0, 4, 16, 24  # offsets in struct seccomp_data, of the arguments' low halves
_CLONE_THREAD, _CLONE_NAMESPACES = 0x10000, 0x7E020080
_HARMLESS_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_AF_UNIX = 1
_FIRST_SHARED = 424  # from here on a call has one number on all machines, and C libraries know how to do without it
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _MODE_FILTER = 38, 22, 2


class FilterError(OSError):
    """The kernel took no filter, or the machine is one whose system calls are not listed."""


def allowed_numbers(column: int) -> list[int]:
    """The system calls allowed whatever their arguments, in order."""
    rows = [part.split() for line in NAMED.splitlines() if not line.startswith("#") for part in line.split(",") if part.strip()]
    return sorted(int(row[1 + column]) for row in rows if row[1 + column] != "-")


def program(machine: str) -> bytes:
    """The filter for `platform.machine()`, an array of struct sock_filter. Raises FilterError where the machine is not listed."""
    if machine not in ARCHITECTURES:
        raise FilterError(f"system calls of {machine!r} are not listed; those of {', '.join(ARCHITECTURES)} are")
    column, arch = ARCHITECTURES[machine]
    code = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    code += _allow_with(CLONE[column], _ARG_0, [_CLONE_THREAD], mask=_CLONE_THREAD | _CLONE_NAMESPACES)
    code += _allow_with(IOCTL[column], _ARG_1, _HARMLESS_IOCTLS)
    code += _allow_with(SOCKETPAIR[column], _ARG_0, [_AF_UNIX])
    code += _look_up(_segments(allowed_numbers(column)))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


class Filter:
    """A program ready to be put in force. Made once and before a fork, so that a child does not spend its time on making it."""

    def __init__(self, code: bytes) -> None:
        self._instructions = ctypes.create_string_buffer(code, len(code))
        self._head = struct.pack("@HP", len(code) // 8, ctypes.addressof(self._instructions))
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def install(self) -> None:
        """Put this thread, and all that it starts, under the filter for good; `no_new_privs` is set first, as the kernel asks for it."""
        if self._prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or self._prctl(_SET_SECCOMP, _MODE_FILTER, self._head, 0, 0):
            raise FilterError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP) refused the filter")


def _allow_with(number: int, argument: int, values: list[int] | tuple[int, ...], mask: int = 0xFFFFFFFF) -> list[tuple[int, int, int, int]]:
    """One call allowed if its argument under the mask is one of the values, else refused."""
    body = [(_LOAD, 0, 0, argument), (_AND, 0, 0, mask)]
    for value in values:
        body += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    body += [(_RETURN, 0, 0, _EPERM)]
    return [(_EQUAL, 0, len(body), number), *body]


def _segments(allowed: list[int]) -> list[tuple[int, int]]:
    """(first number, action) of each stretch of numbers that are treated alike, in order."""
    actions = [_ALLOW if n in set(allowed) else _EPERM if n < _FIRST_SHARED else _ENOSYS for n in range(allowed[-1] + 1)] + [_ENOSYS]
    return [(n, action) for n, action in enumerate(actions) if n == 0 or action != actions[n - 1]]


def _look_up(segments: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """A balanced search for the number's stretch: the kernel walks the filter for every call there is when a cell installs it."""

    def tree(part: list[tuple[int, int]], at: int) -> tuple[int, list[tuple[int, int, int]]]:
        """Where to jump for these stretches, and the comparisons placed from `at` on: (number, where if at least that, where if less)."""
        if len(part) == 1:
            return -part[0][1], []  # the negative of an action stands for the instruction that returns it
        middle = len(part) // 2
        less, below = tree(part[:middle], at + 1)
        more, above = tree(part[middle:], at + 1 + len(below))
        return at, [(part[middle][0], more, less), *below, *above]

    _, comparisons = tree(segments, 0)
    returns = [_ALLOW, _EPERM, _ENOSYS]
    place = {-action: len(comparisons) + i for i, action in enumerate(returns)}
    code = [
        (_AT_LEAST, place.get(more, more) - at - 1, place.get(less, less) - at - 1, number)
        for at, (number, more, less) in enumerate(comparisons)
    ]
    return code + [(_RETURN, 0, 0, action) for action in returns]


def for_this_machine() -> Filter:
    return Filter(program(platform.machine()))
