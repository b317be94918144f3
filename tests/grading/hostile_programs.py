"""Programs that try to get out of a cell, or to take more than it has: what each tries, and how that has to end.

Every program sees `W`, what the test has laid out for it (`hostile_world.py`), and `tries`, which maps a label to the error that an
action raised, or to "ESCAPED" and what it returned. None does harm where nothing holds it: signals are 0 or go to a process of the
test's own, and what is written lands in the test's own folders.
"""

# ruff: noqa: E501 - the programs keep related attempts on one line
from dataclasses import dataclass

PRELUDE = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def c(name, *args):
    returned = getattr(libc, name)(*args)
    if returned == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return returned

def tries(**actions):
    told = {}
    for label, action in actions.items():
        try:
            told[label] = "ESCAPED " + repr(action())[:200]
        except Exception as error:
            told[label] = f"{type(error).__name__}: {error}"
    return told

def child(then):
    pid = os.fork()
    if pid == 0:
        then()
        os._exit(0)
    return pid
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    name: str
    tries: str
    source: str
    held_by: str
    """Layers, the first one met first."""
    ends: tuple[str, ...] = ()
    """How the cell may end for it; () where it goes on living, and every attempt has failed."""
    limits_alone: bool = False
    """Whether resource limits suffice, so that the "unsafe" backend must hold it, too."""
    escapes_unsafe: bool = False
    """Whether it succeeds where nothing isolates, with no harm done: that proves it able to."""
    filter_alone: bool = False
    """Whether nothing but the filter stops it."""


ATTACKS = (
    Attack(
        name="files outside",
        tries="read secrets in the home, in the parent's working folder and in /tmp, /etc/passwd, the repository",
        source="result = tries(**{path: lambda path=path: open(path).read() for path in [*W['secrets'], '/etc/passwd', W['repository']]})",
        held_by="mount namespace",
        escapes_unsafe=True,
    ),
    Attack(
        name="writing outside",
        tries="write to a folder open to all, to /, to the interpreter's library; remove a file; make a folder",
        source="""
result = tries(
    open_folder=lambda: open(W["open_folder"] + "/mark", "w").write("x"), remove=lambda: os.remove(W["open_folder"] + "/keep"),
    root=lambda: os.mkdir("/mark") or os.rmdir("/mark"), library=lambda: os.open(os.__file__, os.O_RDWR), dev=lambda: os.mkdir("/dev/mark"))
""",
        held_by="mount namespace, read-only mounts",
    ),
    Attack(
        name="links",
        tries="reach a secret through a symbolic link, a hard link, `..` past the root, chroot and an open folder",
        source="""
def symbolic():
    os.symlink(W["secrets"][0], "s")
    return open("s").read()
def up():
    return open("/tmp" + "/.." * 40 + W["secrets"][0]).read()
def down():
    here = os.open("/", os.O_RDONLY)
    os.mkdir("d"); os.chroot("d"); os.fchdir(here); os.chdir("../../..")
    return open(W["secrets"][0][1:]).read()
result = tries(symbolic=symbolic, hard=lambda: os.link(W["secrets"][0], "h"), up=up, chroot=down)
""",
        held_by="mount namespace; seccomp (chroot)",
    ),
    Attack(
        name="environment",
        tries="find a variable of the parent in os.environ, in the C library and in /proc",
        source="""
block = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
def some(found):
    if not found:
        raise LookupError("empty")
    return found
result = tries(os=lambda: some(dict(os.environ)), libc=lambda: some(block and block[0]),
    own=lambda: open("/proc/self/environ").read(), parent=lambda: open(f"/proc/{W['parent']}/environ").read())
""",
        held_by="empty environment; no /proc",
        escapes_unsafe=True,
    ),
    Attack(
        name="network",
        tries="TCP and UDP to a loopback server, a raw socket",
        source="""
import socket
result = tries(tcp=lambda: socket.create_connection(("127.0.0.1", W["tcp_port"]), 2).recv(20),
    udp=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", W["tcp_port"])),
    tcp6=lambda: socket.create_connection(("::1", W["tcp_port"]), 2), raw=lambda: socket.socket(17, 3, 3))
""",
        held_by="seccomp; net namespace",
        escapes_unsafe=True,
    ),
    Attack(
        name="unix sockets",
        tries="connect to a server at a path and at an abstract address",
        source="""
import socket
def connect(address):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(address)
        return s.recv(20)
result = tries(path=lambda: connect(W["unix_path"]), abstract=lambda: connect("\\0" + W["abstract"]))
""",
        held_by="seccomp; mount and net namespaces",
        escapes_unsafe=True,
    ),
    Attack(
        name="fork bomb",
        tries="start 200 processes by fork, by a raw clone, by posix_spawn",
        source="""
def many(start):
    for i in range(200):
        start()
    return "200 processes"
def idle():
    time.sleep(0.3)
def raw():
    if c("syscall", *map(ctypes.c_long, ({"x86_64": 56, "aarch64": 220}[os.uname().machine], 17, 0, 0, 0, 0))) == 0:
        idle()
        os._exit(0)
result = tries(fork=lambda: many(lambda: child(idle)), clone=lambda: many(raw),
    spawn=lambda: many(lambda: os.posix_spawn(sys.executable, ["x", "-V"], {})))
""",
        held_by="seccomp; process limit; pid namespace",
    ),
    Attack(
        name="threads",
        tries="start 1,000 threads that never end, and answer while they run",
        source="""
import threading
def many():
    for i in range(1000):
        threading.Thread(target=time.sleep, args=(1000,)).start()
result = tries(threads=many)
""",
        held_by="process limit; pid namespace",
    ),
    Attack(
        name="memory bomb",
        tries="take 8 GiB as objects, as a shared mapping, from C",
        source="""
import mmap
size = 8 << 30
def in_c():
    libc.malloc.restype = ctypes.c_void_p
    if not libc.malloc(ctypes.c_size_t(size)):
        raise MemoryError
    return size
result = tries(objects=lambda: len([bytearray(1 << 24) for _ in range(512)]), shared=lambda: mmap.mmap(-1, size), c=in_c)
""",
        held_by="address-space limit",
        limits_alone=True,
    ),
    Attack(
        name="disk bomb",
        tries="100 MiB in many files in every folder that can be written to",
        source="""
written, full = 0, []
def fill():
    global written
    for folder, _, _ in list(os.walk("/tmp")) + [(f, 0, 0) for f in ("/dev", "/dev/shm", "/var/tmp", "/run", "/", "/cell", "/root")]:
        try:
            for i in range(100):
                with open(f"{folder}/{i}", "wb", buffering=0) as file:
                    for _ in range(16):
                        written += file.write(bytes(1 << 16))
        except OSError as error:
            if written and not full:
                full.append(error)
    if written < 48 << 20:
        raise full[0]
    return written
result = tries(fill=fill)
""",
        held_by="size of /tmp, file-size limit, read-only mounts",
    ),
    Attack(
        name="sparse file",
        tries="make a file of 1 TiB by truncating, seeking, allocating",
        source="""
def truncate():
    with open("big", "wb") as file:
        file.truncate(1 << 40)
def seek():
    with open("big", "wb") as file:
        file.seek(1 << 40)
        file.write(b"x")
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
result = tries(truncate=truncate, seek=seek, allocate=lambda: os.posix_fallocate(os.open("a", 66), 0, 1 << 40))
""",
        held_by="file-size limit",
    ),
    Attack(
        name="countless files",
        tries="make empty files without end",
        source="""
def empty():
    i = 0
    while True:
        os.close(os.open(f"empty{i}", os.O_CREAT))
        i += 1
result = tries(empty=empty)
""",
        held_by="inodes of /tmp (zygote), CPU limit (bwrap)",
        ends=("", "cpu"),
    ),
    Attack(
        name="endless output",
        tries="print to stdout and stderr for ever",
        source="while True:\n    print('x' * 10_000)\n    print('x' * 10_000, file=sys.stderr)\n    os.write(1, b'x' * 10_000)",
        held_by="both lead to /dev/null; CPU limit",
        ends=("cpu",),
        limits_alone=True,
    ),
    Attack(
        name="endless reply",
        tries="write to the reply pipe for ever",
        source="while True: os.write(4, b'x' * 65536)",
        held_by="longest message",
        ends=("output",),
        limits_alone=True,
    ),
    Attack(
        name="forged length",
        tries="announce a message of 4 GiB",
        source="os.write(4, b'\\xff' * 4)\ntime.sleep(1000)",
        held_by="longest message",
        ends=("output",),
        limits_alone=True,
    ),
    Attack(
        name="closed pipe",
        tries="close the reply pipe and live on",
        source="os.close(4)\ntime.sleep(1000)",
        held_by="end of the pipe",
        ends=("exit",),
        limits_alone=True,
    ),
    Attack(
        name="signals",
        tries="reach the parent, its group, another process, any process near, all",
        source="""
def near():
    for pid in range(2, 300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        return pid
    raise ProcessLookupError("none of 2 to 299")
result = tries(parent=lambda: os.kill(W["parent"], 0), group=lambda: os.killpg(W["group"], 0), other=lambda: os.kill(W["victim"], 9),
    all=lambda: os.kill(-1, 0), near=near)
""",
        held_by="pid namespace",
        escapes_unsafe=True,
    ),
    Attack(
        name="ptrace",
        tries="attach to another process, read its memory",
        source="""
result = tries(attach=lambda: c("ptrace", 16, W["victim"], 0, 0),
    read=lambda: c("process_vm_readv", W["victim"], b"", 1, b"", 1, 0), memory=lambda: open(f"/proc/{W['victim']}/mem", "rb"))
""",
        held_by="seccomp; pid namespace; no /proc",
    ),
    Attack(
        name="/proc of others",
        tries="list /proc, read the parent's arguments, its root and open files, mount a /proc",
        source="""
result = tries(list=lambda: os.listdir("/proc"), arguments=lambda: open(f"/proc/{W['parent']}/cmdline").read(),
    root=lambda: os.listdir(f"/proc/{W['parent']}/root"), files=lambda: os.listdir(f"/proc/{W['parent']}/fd"),
    mount=lambda: c("mount", b"proc", b"/tmp", b"proc", 0, None) or os.listdir("/tmp"))
""",
        held_by="mount namespace; no capabilities; seccomp",
    ),
    Attack(
        name="root",
        tries="become root by setuid, setgroups, capabilities, a file marked setuid, su; make a device",
        source="""
import struct
def marked():
    open("m", "w").close()
    os.chmod("m", 0o6755)
    os.chown("m", 0, 0)
result = tries(setuid=lambda: os.setuid(0), setresuid=lambda: os.setresuid(0, 0, 0), setgroups=lambda: os.setgroups([0]),
    setgid=lambda: os.setgid(0),
    capset=lambda: c("capset", struct.pack("=Ii", 0x20080522, 0), b"\\xff" * 24), marked=marked,
    su=lambda: os.execv(W["su"], ["su", "-c", "id"]),
    device=lambda: os.mknod("d", 0o60600, os.makedev(254, 0)), disk=lambda: open(W["disk"], "rb").read(1))
""",
        held_by="user namespace, no capabilities; no-new-privs, nosuid; seccomp",
    ),
    Attack(
        name="namespaces",
        tries="unshare and join namespaces, mount, pivot_root, set the host's name, and clone into a user namespace",
        source="""
result = tries(user=lambda: c("unshare", 0x10000000), mounts=lambda: c("unshare", 0x20000), net=lambda: c("unshare", 0x40000000),
    join=lambda: c("setns", 0, 0),
    tmpfs=lambda: c("mount", b"t", b"/tmp", b"tmpfs", 0, None), name=lambda: c("sethostname", b"x", 1),
    bind=lambda: c("mount", b"/", b"/tmp", None, 4096, None), writable=lambda: c("mount", None, b"/", None, 32 | 4096, None), unmount=lambda: c("umount2", b"/tmp", 2),
    pivot=lambda: c("pivot_root", b".", b"."), clone=lambda: c("syscall", *map(ctypes.c_long, (56, 0x10000000 | 17, 0, 0, 0, 0))))
""",
        held_by="seccomp; no capabilities",
        filter_alone=True,
    ),
    Attack(
        name="inherited files",
        tries="look for descriptors that are not its own, among them one of the parent's that a child would inherit",
        source="""
import stat
held = {}
for fd in range(4096):
    try:
        held[fd] = os.fstat(fd)
    except OSError:
        pass
own = {fd for fd, s in held.items() if (stat.S_ISCHR(s.st_mode) and s.st_rdev == os.makedev(1, 3)) or (fd in (3, 4) and stat.S_ISFIFO(s.st_mode))}
assert set(range(5)) <= set(held), held
result = {fd: "ESCAPED " + oct(s.st_mode) for fd, s in held.items() if fd not in own} | tries(read=lambda: os.pread(W["secret_fd"], 100, 0))
""",
        held_by="descriptors closed",
        limits_alone=True,
    ),
    Attack(
        name="shared memory",
        tries="attach the parent's System V segment, make one, a semaphore, a queue; POSIX shared memory and queues",
        source="""
from multiprocessing import shared_memory
libc.shmat.restype = ctypes.c_void_p
result = tries(theirs=lambda: c("shmget", W["shm_key"], 0, 0), mine=lambda: c("shmget", 0, 4096, 0o1600), semaphore=lambda: c("semget", 0, 1, 0o1600),
    queue=lambda: c("msgget", 0, 0o1600), posix=lambda: shared_memory.SharedMemory(W["posix_shm"]).buf[:5].tobytes(),
    posix_mine=lambda: shared_memory.SharedMemory(create=True, size=1), mq=lambda: c("mq_open", b"/q", 66, 0o600, None))
""",
        held_by="seccomp; ipc namespace; no /dev/shm",
        filter_alone=True,
    ),
    Attack(
        name="other programs",
        tries="run a shell, python, env, a program of its own in /tmp and one in memory",
        source="""
import subprocess
def own():
    with open("p", "w") as file:
        file.write("#!/bin/sh\\n")
    os.chmod("p", 0o755)
    return subprocess.run(["/tmp/p"])
def system():
    if status := os.system("exit 0"):
        raise OSError(f"exit status {status}")
result = tries(shell=system, run=lambda: subprocess.run(["/bin/sh", "-c", "exit 3"]), own=own,
    python=lambda: os.execv(sys.executable, ["python", "-c", "0"]), env=lambda: os.execv("/usr/bin/env", ["env"]),
    loader=lambda: os.execv("/lib64/ld-linux-x86-64.so.2", ["ld", "/usr/bin/env"]), memory=lambda: os.execve(os.memfd_create("m"), ["m"], {}))
""",
        held_by="seccomp; mount namespace, noexec",
        filter_alone=True,
    ),
    Attack(
        name="left behind",
        tries="leave a daemon (double fork, setsid), a thread and an atexit hook that write a file after the end",
        source="""
import atexit, threading
def later():
    time.sleep(0.4)
    open(W["open_folder"] + "/later", "w").close()
def daemon():
    os.setsid()
    child(later)
atexit.register(later)
threading.Thread(target=later).start()
try:
    result = {"daemon": f"process {child(daemon)}"}
except OSError as error:
    result = {"daemon": f"{type(error).__name__}: {error}"}
""",
        held_by="seccomp; pid namespace killed as a whole",
    ),
    Attack(
        name="kernel interfaces",
        tries="call bpf, perf_event_open, keyctl, io_uring, userfaultfd, kexec, modules, fanotify, memory files and 12 more",
        source="""
calls = dict(bpf=(321, 0, 0, 0), netlink=(41, 16, 3, 0), memory=(319, 0, 0), traced=(101, 0, 0, 0, 0), perf=(298, 0, 0, -1, -1, 0), keyctl=(250, 0, -3, 1), add_key=(248, 0, 0, 0, 0, 0), io_uring=(425, 8, 0), userfaultfd=(323, 0),
    kexec=(246, 0, 0, 0, 0), module=(175, 0, 0, 0), fanotify=(300, 0, 0), handle=(304, -100, 0, 0), personality=(135, 0x40000), open_tree=(428, -100, 0, 0),
    landlock=(444, 0, 0, 1), pidfd=(434, 1, 0), process_madvise=(440, 0, 0, 0, 0, 0), quotactl=(179, 0, 0, 0, 0), acct=(163, 0), swap=(168, 0), clone3=(435, 0, 0))
result = tries(**{name: lambda call=call: c("syscall", *map(ctypes.c_long, call)) for name, call in calls.items()})
""",
        held_by="seccomp",
        filter_alone=True,
    ),
    Attack(
        name="terminal",
        tries="push a key into a terminal, open one, make one",
        source="""
import fcntl
result = tries(push=lambda: fcntl.ioctl(0, 0x5412, b"x"), tty=lambda: open("/dev/tty"), make=lambda: os.openpty())
""",
        held_by="no terminal; seccomp (ioctl)",
    ),
    Attack(
        name="raised limits",
        tries="lift its own limits",
        source="""
import resource as r
result = tries(**{name: lambda name=name: r.setrlimit(getattr(r, name), (r.RLIM_INFINITY, r.RLIM_INFINITY))
    for name in ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")})
""",
        held_by="hard limits, no capabilities",
    ),
    Attack(
        name="CPU, signals ignored",
        tries="compute for ever with every signal ignored",
        source="import signal\nfor s in set(signal.valid_signals()) - {9, 19, 32, 33}:\n    signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        held_by="CPU limit",
        ends=("cpu",),
        limits_alone=True,
    ),
    Attack(
        name="CPU, many threads",
        tries="compute on all cores at once, outside the interpreter's lock",
        source="""
import hashlib, threading
def burn():
    while True: hashlib.sha256(bytes(1 << 22))
for _ in range(4): threading.Thread(target=burn).start()
time.sleep(1000)
""",
        held_by="CPU limit over all threads",
        ends=("cpu",),
        limits_alone=True,
    ),
    Attack(name="sleep", tries="sleep for ever", source="time.sleep(10_000)", held_by="wall limit", ends=("wall",), limits_alone=True),
    Attack(
        name="deep recursion",
        tries="exhaust the C stack",
        source="sys.setrecursionlimit(10**9)\nx, y = [], []\nfor _ in range(1_000_000): x, y = [x], [y]\nresult = 'ESCAPED' if x == y else ''",
        held_by="stack limit",
        ends=("signal", "memory", ""),
        limits_alone=True,
    ),
    Attack(
        name="crash",
        tries="write to address 0 from C",
        source="ctypes.memset(0, 1, 1)",
        held_by="process of its own",
        ends=("signal",),
        limits_alone=True,
    ),
)
