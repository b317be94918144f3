import pytest
import torch

from posttrain.agents.kernel.threads import one_thread


def test_there_is_one_thread_inside_and_as_many_as_before_after_it_however_it_ends():
    @one_thread()
    def inside(fails):
        assert torch.get_num_threads() == 1
        if fails:
            raise KeyError

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(2):
            inside(False)
            assert torch.get_num_threads() == 2
        with pytest.raises(KeyError):
            inside(True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
