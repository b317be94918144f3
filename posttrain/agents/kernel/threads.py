"""How many threads an agent computes in: one, as its tensors are too small for more; several runs side by side use the other cores."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, or in the function that it decorates; afterwards as many as before: another number rounds sums otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
