"""Several ranks of one `posttrain` on this machine, as a launcher starts them, but forked from a server that has imported everything."""

from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.rl import forked
from tests.sampling.openai_server import free_port


def start(argv: Sequence[str], log: Path, num: int, **more: str) -> list[BaseProcess]:
    """`num` running ranks of `posttrain ARGV`; rank r appends what it says to LOG.r. One rank is a plain process."""
    if num == 1:
        return [forked.start(argv, log_of(log, 0))]
    port = str(free_port())
    where = {"WORLD_SIZE": str(num), "LOCAL_WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **more}
    return [forked.start(argv, log_of(log, rank), where | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(num)]


def wait(ranks: Sequence[BaseProcess], seconds: float = 240) -> list[int | None]:
    """The exit codes."""
    for process in ranks:
        process.join(seconds)
    return [process.exitcode for process in ranks]


def log_of(log: Path, rank: int) -> Path:
    return log.with_name(f"{log.name}.{rank}")
