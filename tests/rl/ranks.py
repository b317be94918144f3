"""Several ranks of one `posttrain` on this machine, as a launcher starts them, but forked from a server that has imported everything."""

import os
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from posttrain.rl.ranks import Ranks, join, leave
from tests.rl import forked
from tests.sampling.openai_server import free_port


def start(argv: Sequence[str], log: Path, num: int, **more: str) -> list[BaseProcess]:
    """`num` running ranks of `posttrain ARGV`; rank r appends what it says to LOG.r. One rank is a plain process."""
    if num == 1:
        return [forked.start(argv, log_of(log, 0))]
    port = str(free_port())
    where = {"WORLD_SIZE": str(num), "LOCAL_WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **more}
    return [forked.start(argv, log_of(log, rank), where | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(num)]


def wait(ranks: Sequence[BaseProcess], seconds: float = 500) -> list[int | None]:
    """The exit codes."""
    for process in ranks:
        process.join(seconds)
    return [process.exitcode for process in ranks]


def log_of(log: Path, rank: int) -> Path:
    return log.with_name(f"{log.name}.{rank}")


def results(function: Callable[[Ranks], Any], num: int, seconds: float = 300) -> list[Any]:
    """What `function`, of a module that can be imported, returns on each of `num` ranks, or the error that it raises there."""
    context, port = forked.server(), str(free_port())
    answers = context.Queue()
    where = {"WORLD_SIZE": str(num), "LOCAL_WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for rank in range(num):
        context.Process(target=_call, args=(function, where | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, answers), daemon=True).start()
    return [answer for _, answer in sorted((answers.get(timeout=seconds) for _ in range(num)), key=lambda pair: pair[0])]


def _call(function: Callable[[Ranks], Any], environment: dict[str, str], answers: Any) -> None:
    os.environ.update(environment)
    ranks = join("cpu")
    try:
        answer = function(ranks)
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    answers.put((ranks.rank, answer))
    leave(ranks)
