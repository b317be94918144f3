"""Which rows of a data set are shots and which are test items: an order by hash, the same on every machine and for every row order."""

import hashlib
from collections.abc import Sequence

from posttrain.types import Problem


def shuffled(problems: Sequence[Problem], seed: int) -> list[Problem]:
    """The problems in the order of a hash of seed and id: adding or dropping one moves no other past another."""
    return sorted(problems, key=lambda problem: draw(f"{seed}/{problem.id}"))


def draw(key: str) -> int:
    """64 bits that look random and depend on `key` alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())
