"""A small Python process that answers each line with a line, and that its owner can kill: what workers and judges have in common.

It is started anew (never a fork of the caller, which may hold torch and gigabytes), with hardly any environment, and in a session of its
own, so that a Ctrl-C in the terminal reaches the run alone, which then closes its children. It must end itself, by SIGPROF, when a
question has used up its CPU time. Not for two threads at once.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

START_S = 120.0
"""Wall time to start in: a busy machine takes many seconds to import sympy."""


class ChildFailed(Exception):
    """No answer came: `end` is "cpu" or "wall" for the limit that was met, "died" otherwise; the message is what is known of it."""

    def __init__(self, end: Literal["cpu", "wall", "died"], said: str) -> None:
        super().__init__(said)
        self.end = end


class Child:
    """One process, made by `start`; `answered` counts its answers since then."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        """`arguments` are the interpreter's, e.g. ["-P", "-m", "a.module"]."""
        self.arguments = arguments
        self.env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.environ.get("PATH", ""), **env}
        self.process: subprocess.Popen[bytes] | None = None
        self.answered = 0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> bytes:
        """Start it, in place of the one before; returns its first line. Raises `ChildFailed`."""
        self.close()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,
            env=self.env,
            start_new_session=True,
        )
        os.set_blocking(self._pipes()[0].fileno(), False)
        self.answered = 0
        return self._exchange(b"", START_S)

    def ask(self, line: bytes, wall_s: float) -> bytes:
        """The line that comes back. Raises `ChildFailed`, after which it must be started again."""
        answer = self._exchange(line + b"\n", wall_s)
        self.answered += 1
        return answer

    def close(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for stream in self._pipes():
            stream.close()
        self.errors.close()
        self.process = None

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self.process is not None  # `start` has been called
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin, self.process.stdout

    def _exchange(self, sent: bytes, wall_s: float) -> bytes:
        into, out = (stream.fileno() for stream in self._pipes())
        line, until = b"", time.monotonic() + wall_s
        while not line.endswith(b"\n"):
            readable, writable, _ = select.select([out], [into] if sent else [], [], max(0.0, until - time.monotonic()))
            if not readable and not writable:
                raise ChildFailed("wall", f"gave no answer in {wall_s:g} s")
            try:
                if writable:
                    sent = sent[os.write(into, sent) :]
                chunk = os.read(out, 65536) if readable else None
            except OSError:
                chunk = b""
            if chunk == b"":
                raise self._cause_of_death()
            line += chunk or b""
        return line

    def _cause_of_death(self) -> ChildFailed:
        assert self.process is not None
        code = self.process.wait()
        if code == -signal.SIGPROF:
            return ChildFailed("cpu", "out of CPU time")
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]
        return ChildFailed("died", f"died with {f'signal {-code}' if code < 0 else f'exit code {code}'}{': ' if said else ''}{said}")
