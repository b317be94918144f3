"""Several servers of one model as one engine: rows are dealt out to them in turn; which one answers changes nothing but the time."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from posttrain.types import Completion, EngineError, Sampling, TokenIds

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.sampling.server import ServerEngine

R = TypeVar("R")


class SeveralServers:
    """Row i goes to server i mod their number. The first that fails ends the call."""

    def __init__(self, servers: "Sequence[ServerEngine]") -> None:
        self.servers = tuple(servers)
        self.max_length = min(server.max_length for server in servers)

    @property
    def cached_tokens(self) -> int:
        return sum(server.cached_tokens for server in self.servers)

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        return self._dealt(lambda server, rows: server.generate(rows[0], sampling, rows[1]), prompts, seeds)

    def score(self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[tuple[float, ...]]:
        return self._dealt(lambda server, rows: server.score(*rows), prompts, continuations)

    def load_weights(self, weights: "Iterable[tuple[str, Tensor]]") -> NoReturn:
        raise EngineError(
            "several servers: weights cannot be pushed to them, they are for evaluation only; train with engine.kind vllm or hf"
        )

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def _dealt(self, ask: "Callable[[ServerEngine, list[Any]], list[R]]", *columns: Sequence[Any]) -> list[R]:
        """`ask` of each server with every so many-th row of the columns; the answers in the rows' order."""
        num = len(self.servers)
        with ThreadPoolExecutor(num) as pool:
            parts = list(pool.map(lambda k: ask(self.servers[k], [column[k::num] for column in columns]), range(num)))
        return [parts[i % num][i // num] for i in range(len(columns[0]))]
