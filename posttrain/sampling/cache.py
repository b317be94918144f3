"""Completions kept on disk and given again when the very same row is asked for: an engine around another one.

A row's key is everything that decides it: the weights' identity, the engine's kind and precision, what ends a row, the prompt's ids, how
tokens are drawn, and the row's seed. A name that is not a folder (a hub's, a server's) identifies what it names, not the weights behind
it: who serves other weights under an old name must name another file.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from posttrain.config import ConfigError
from posttrain.types import Completion, Engine, EngineError, Sampling, TokenIds

if TYPE_CHECKING:
    from torch import Tensor

BUSY_S = 60.0
"""How long to wait for another process that writes to the file."""


class CachedEngine:
    """Asks `engine` only for rows that `file` lacks. Several processes may share a file; a kill loses at most the call under way."""

    def __init__(self, engine: Engine, file: Path, identity: str) -> None:
        """`identity` must tell engines apart that answer the same row differently. Raises `ConfigError` if the file cannot be used."""
        self.engine, self.file, self.identity, self.max_length = engine, file, identity, engine.max_length
        self.hits = self.misses = 0
        self._lock = threading.Lock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(file, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("CREATE TABLE IF NOT EXISTS completions (key BLOB PRIMARY KEY, completion TEXT NOT NULL) WITHOUT ROWID")
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"cache: {file}: cannot be used: {error}; name a file that this evaluation may create, or null") from None

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        keys = [self._key(prompt, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        found = self._read(keys)
        missing = [i for i, key in enumerate(keys) if key not in found]
        made = self.engine.generate([prompts[i] for i in missing], sampling, [seeds[i] for i in missing]) if missing else []
        self._write({keys[i]: completion for i, completion in zip(missing, made, strict=True)})
        found |= {keys[i]: completion for i, completion in zip(missing, made)}
        with self._lock:
            self.hits, self.misses = self.hits + len(keys) - len(missing), self.misses + len(missing)
        return [found[key] for key in keys]

    def load_weights(self, weights: "Iterable[tuple[str, Tensor]]") -> NoReturn:
        """Raises `EngineError`: what was kept is of the weights that it was opened with."""
        raise EngineError("cache: weights cannot be pushed into an engine whose completions are kept; it is for evaluation only")

    def close(self) -> None:
        self._base.close()
        self.engine.close()

    def _key(self, prompt: TokenIds, sampling: Sampling, seed: int) -> bytes:
        drawn = {**asdict(sampling), "seed": seed if sampling.temperature else None}  # greedy rows have no use for their seed
        told = json.dumps([self.identity, self.max_length, drawn, prompt], sort_keys=True)
        return hashlib.blake2b(told.encode(), digest_size=24).digest()

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        found = {}
        with self._lock:
            for key in dict.fromkeys(keys):
                if row := self._base.execute("SELECT completion FROM completions WHERE key = ?", (key,)).fetchone():
                    found[key] = _completion(row[0])
        return found

    def _write(self, made: dict[bytes, Completion]) -> None:
        rows = [(key, json.dumps([c.ids, c.logprobs, c.finish])) for key, c in made.items()]
        with self._lock:
            self._base.execute("BEGIN IMMEDIATE")
            self._base.executemany("INSERT OR IGNORE INTO completions VALUES (?, ?)", rows)
            self._base.execute("COMMIT")


def _completion(text: str) -> Completion:
    ids, logprobs, finish = json.loads(text)
    return Completion(ids=tuple(ids), logprobs=tuple(logprobs), finish=finish)
