"""`posttrain` in a process of its own that starts at once: a server imports everything beforehand and forks for each call."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import peft  # noqa: F401 - imported here, or each process would do it

import posttrain.rl.score  # noqa: F401
from posttrain.cli import main


def start(argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """A running `posttrain ARGV`, its output appended to `log`, with more in its environment."""
    process = server().Process(target=_run, args=(list(argv), str(log), dict(environment or {})))
    process.start()
    return process


def server() -> Any:
    """The context whose processes are forked from one that has everything imported."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # the server does not know pytest's sys.path
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _run(argv: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    with open(log, "a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.exit(main(argv))
