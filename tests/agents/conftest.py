from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _threads_as_before() -> Iterator[None]:
    """A run of an agent computes in one thread; the tests after it do so in as many as before, as sums round differently."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
