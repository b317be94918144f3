"""Sequential parity (arXiv 2404.11018, section 4.4): the running XOR of a row of bits.

    Input: 1 0 1 1
    Output: 1 1 0 1         (output i is the XOR of inputs 1 to i)

All outputs must match. Nearest neighbours do not help: no item is near enough to a shot for its answer to be of use.
"""

import random
from collections.abc import Sequence
from itertools import accumulate
from operator import xor
from typing import Literal

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.types import DataError, FinalAnswer, Problem

LAYOUT = Layout(question_label="Input: ", answer_label="\nOutput: ", divider="\n\n")


@config
class ParityInContext:
    """Running XOR of random bits, every row of bits different."""

    kind: Literal["parity"] = "parity"
    bits: int = 20
    pool_size: int = 8192
    test_size: int = 200
    data_seed: int = 0
    """Seed of the rows; the paper averages over three."""

    def __post_init__(self) -> None:
        if min(self.bits, self.pool_size, self.test_size) < 1:
            raise ValueError(f"bits, pool_size and test_size must be >= 1, got {self.bits}, {self.pool_size} and {self.test_size}")
        if self.pool_size + self.test_size > 2**self.bits:
            raise ValueError(f"{self.pool_size} + {self.test_size} different rows asked for, but {self.bits} bits make {2**self.bits}")


def make_icl(cfg: ParityInContext) -> InContextTask:
    return InContextTask(
        name=f"parity{cfg.bits}",
        load=lambda split: load(cfg, split),
        layout=LAYOUT,
        score=lambda pairs: [float(first_line(text) == problem.solution) for problem, text in pairs],
        max_tokens=2 * cfg.bits,
        stop=("\n",),
    )


def load(cfg: ParityInContext, split: str) -> list[Problem]:
    """The split's rows, all different; the test rows are the same for every size of pool."""
    if split not in ("pool", "test"):
        raise DataError(f"parity: no split {split!r}; expected pool or test")
    rng = random.Random(f"{cfg.data_seed}/{cfg.bits}")
    rows: dict[int, None] = {}
    while len(rows) < cfg.test_size + cfg.pool_size:
        rows[rng.getrandbits(cfg.bits)] = None
    first, last = (0, cfg.test_size) if split == "test" else (cfg.test_size, len(rows))
    return [problem(cfg, row) for row in list(rows)[first:last]]


def problem(cfg: ParityInContext, row: int) -> Problem:
    bits = [int(bit) for bit in f"{row:0{cfg.bits}b}"]
    answer = written(running_parity(bits))
    return Problem(id=f"parity-{row:0{cfg.bits}b}", question=written(bits), reference=FinalAnswer(text=answer), solution=answer)


def running_parity(bits: Sequence[int]) -> list[int]:
    return list(accumulate(bits, xor))


def written(bits: Sequence[int]) -> str:
    return " ".join(map(str, bits))


def first_line(text: str) -> str:
    """The first line that says something, its words one space apart."""
    return " ".join((text.strip().splitlines() or [""])[0].split())
