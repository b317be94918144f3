"""What hostile programs are to reach for: secrets, servers, a process, shared memory. It tells afterwards whether any was touched."""

import ctypes
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_IPC_CREAT, _IPC_RMID = 0o1000, 0


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    told: dict[str, Any]
    """What a program is told: `W`."""
    secret: str
    reached: list[str]
    """Servers that somebody connected to."""
    victim: subprocess.Popen[bytes]

    def touched(self) -> list[str]:
        """What has happened to it; nothing, if all is well."""
        folder = Path(self.told["open_folder"])
        changes = [f"{name} in the open folder" for name in sorted({"keep"} ^ {path.name for path in folder.iterdir()})]
        changes += [f"{server} was connected to" for server in self.reached]
        return changes + ["a process outside was killed"] * (self.victim.poll() is not None)


@contextmanager
def hostile_world(folder: Path) -> Iterator[World]:
    """Lay it out below the folder, and in the environment, the working folder and /tmp of this process."""
    secret = f"secret-{secrets.token_hex(8)}"
    reached: list[str] = []
    with ExitStack() as undo:
        home, open_folder = folder / "home", folder / "open"
        for path in (home, open_folder):
            path.mkdir()
        folder.chmod(0o755)
        open_folder.chmod(0o777)
        (open_folder / "keep").write_text(secret)
        places = [home / "secret", folder / "cwd_secret", Path("/tmp") / f"{secret[:12]}-of-tmp"]
        undo.callback(places[2].unlink)
        for place in places:
            place.write_text(secret)
        before = os.getcwd()
        os.chdir(folder)
        undo.callback(os.chdir, before)
        os.environ["HOSTILE_WORLD"] = secret
        undo.callback(os.environ.pop, "HOSTILE_WORLD")
        secret_fd = fcntl.fcntl(undo.enter_context(open(places[0])), fcntl.F_DUPFD, 200)  # inheritable, and no number that a cell uses
        undo.callback(os.close, secret_fd)
        victim = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"])
        undo.callback(victim.wait)
        undo.callback(victim.kill)
        segment = shared_memory.SharedMemory(create=True, size=64)
        undo.callback(segment.unlink)
        undo.callback(segment.close)
        segment.buf[: len(secret)] = secret.encode()
        key = secrets.randbelow(1 << 30)
        shm = _libc.shmget(key, 4096, _IPC_CREAT | 0o666)
        undo.callback(_libc.shmctl, shm, _IPC_RMID, None)
        unix_path = str(folder / "socket")
        abstract = f"posttrain-{secret}"
        addresses = {
            "tcp": (socket.AF_INET, ("127.0.0.1", 0)),
            "unix": (socket.AF_UNIX, unix_path),
            "abstract": (socket.AF_UNIX, f"\0{abstract}"),
        }
        servers = {name: undo.enter_context(_serve(name, *address, secret, reached)) for name, address in addresses.items()}
        told = {
            "secrets": [str(place) for place in places],
            "repository": __file__,
            "open_folder": str(open_folder),
            "parent": os.getpid(),
            "group": os.getpgrp(),
            "victim": victim.pid,
            "tcp_port": servers["tcp"].getsockname()[1],
            "unix_path": unix_path,
            "abstract": abstract,
            "secret_fd": secret_fd,
            "shm_key": key,
            "posix_shm": segment.name,
            "su": shutil.which("su") or "/bin/su",
            "disk": "/dev/vda",
        }
        yield World(told=told, secret=secret, reached=reached, victim=victim)


@contextmanager
def _serve(name: str, family: int, address: Any, secret: str, reached: list[str]) -> Iterator[socket.socket]:
    """A server that tells the secret to whoever connects."""
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                reached.append(name)
                with connection:
                    connection.sendall(secret.encode())

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
