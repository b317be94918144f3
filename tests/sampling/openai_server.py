"""vLLM's own OpenAI server on loopback, as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def served(folder: Path, log: Path) -> Iterator[str]:
    """The address of a server of the model as "tiny"; a start takes 20 s to 2 minutes."""
    with running(folder, log, [], {}) as (url, _):
        yield url


@contextmanager
def trainable(folder: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address and the process (the first of its group) of a server that takes weights."""
    extension = ["--worker-extension-cls", "posttrain.sampling.pushed.PushedWeights"]
    root = str(Path(__file__).parents[2])
    with running(folder, log, extension, {"VLLM_SERVER_DEV_MODE": "1", "PYTHONPATH": root}) as found:
        yield found


@contextmanager
def running(folder: Path, log: Path, more: list[str], environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen]]:
    port = free_port()
    options = ["--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", "--max-model-len", "512"]
    options += ["--enable-prompt-tokens-details", "--block-size", "32", *more]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *options]
    with open(log, "w") as out:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=out,
            env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_WORKER_MULTIPROCESSING_METHOD": "fork"} | environment,
            start_new_session=True,
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log, seconds=500)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        with suppress(ProcessLookupError):  # where the test has killed it
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_healthy(url: str, process: subprocess.Popen, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"vLLM's server did not start (exit code {process.poll()}):\n{log.read_text()[-3000:]}")
