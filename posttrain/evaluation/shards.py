"""Several workers for one evaluation: processes with an engine each, or threads that share a server's.

A worker is a `Sampler`: problems in, graded episodes out. Which worker samples a chunk changes nothing about it, so the number of workers
may be another one each time an evaluation is gone on with.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from posttrain.config import ConfigError
from posttrain.rollout.log import Sampler
from posttrain.types import DataError, EngineError, Episode, Problem

TELLING = (ConfigError, DataError, EngineError)
"""Errors that say all there is to say in one line, and so cross between processes as they are."""
CLOSE_S = 20.0


class Shard:
    """A process that opens a sampler of its own and serves one caller. It ends when its owner does, however that ends."""

    def __init__(self, number: int, opener: Callable[..., Sampler], arguments: Sequence[Any]) -> None:
        """`opener(*arguments)` runs in the process; both must be picklable. It starts at once; `wait` says when it is ready."""
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads, or with a GPU in use, is not safe
        self.number = number
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, number, opener, arguments), name=f"shard {number}")
        self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Until the sampler is open; raises what opening it raised."""
        self._answer()

    def __call__(self, problems: Sequence[Problem]) -> list[Episode]:
        with suppress(OSError):  # it has died: reading says how
            self._line.send(list(problems))
        return self._answer()

    def close(self) -> None:
        self._line.close()
        self._process.join(CLOSE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._line.recv()
        except (EOFError, OSError):
            self._process.join(CLOSE_S)
            raise EngineError(
                f"shard {self.number}: its process died (exit code {self._process.exitcode}; -9 often means: out of memory); "
                "the same command goes on from what is finished, --shards with fewer of them if memory was short"
            ) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def open_shards(num: int, opener: Callable[..., Sampler], arguments: Sequence[Any]) -> list[Shard]:
    """`num` processes, all ready; raises what the first that failed said, with none left running."""
    shards = [Shard(number, opener, arguments) for number in range(num)]
    try:
        for shard in shards:
            shard.wait()
    except BaseException:
        for shard in shards:
            shard.close()
        raise
    return shards


def _serve(line: Connection, number: int, opener: Callable[..., Sampler], arguments: Sequence[Any]) -> None:
    _take_device(number)
    sampler = _told(line, lambda: opener(*arguments), shown=False)
    while sampler is not None:
        try:
            problems = line.recv()
        except (EOFError, OSError):  # the owner has closed the line, or is gone
            return
        if _told(line, partial(sampler, problems)) is None:
            return


def _told(line: Connection, work: Callable[[], Any], shown: bool = True) -> Any:
    """What the work made, after telling the owner of it; None after telling of its failure."""
    try:
        made = work()
    except KeyboardInterrupt:  # Ctrl-C reaches the whole terminal: the owner tells it
        return None
    except BaseException as error:
        line.send(error if isinstance(error, TELLING) else EngineError(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"))
        return None
    line.send(made if shown else True)
    return made


def _take_device(number: int) -> None:
    """Each process sees one GPU, in turn, where there are any; to be called before CUDA is used."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = named.split(",") if named else [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
