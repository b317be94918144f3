"""A model behind a memory: a stretch read at once is what was read step by step, and it forgets where an episode begins."""

import pytest
import torch

from posttrain.agents.kernel.cores import GRU, LSTM
from posttrain.agents.kernel.remembering import RememberingModel, packed, unpacked
from posttrain.agents.kernel.s5 import S5
from posttrain.agents.kernel.transforms import Support

SUPPORT = Support(low=-1.0, high=1.0, num_atoms=5)
CORES = {"gru": lambda: GRU(8, 2), "lstm": lambda: LSTM(8, 1), "s5": lambda: S5(8, 2, 6)}


def remembering(core):
    return RememberingModel((3,), 4, 6, SUPPORT, width=8, hidden=8, core=CORES[core]())


@pytest.mark.parametrize("core", CORES)
def test_a_stretch_gives_the_states_that_single_steps_gave(core):
    torch.manual_seed(0)
    model = remembering(core)
    fresh = torch.rand(9, 5) < 0.3
    fields = {"obs": torch.randn(9, 5, 3), "last": torch.randint(4, (9, 5)), "fresh": fresh}
    memory, kept, states = torch.randn_like(model.first_memory(5)), [], []
    for t in range(9):
        kept.append(memory)
        state, memory = model.state(fields["obs"][t], fields["last"][t], fresh[t], memory)
        states.append(state)
    fields["memory"] = torch.stack(kept)
    step = torch.stack([torch.randperm(9)[:4].sort().values for _ in range(5)], 1)
    expected = torch.stack(states)[step, torch.arange(5)]
    assert torch.allclose(model.states(fields, step), expected, atol=1e-5)
    later = {name: x[3:] for name, x in fields.items()}  # from the memory that was kept
    assert torch.allclose(model.states(later, torch.full((1, 5), 2))[0], states[5], atol=1e-5)


@pytest.mark.parametrize("core", CORES)
def test_at_the_first_step_of_an_episode_nothing_before_counts(core):
    model = remembering(core)
    memory = model.first_memory(2)
    obs, yes = torch.randn(2, 3), torch.ones(2, dtype=torch.bool)
    state, _ = model.state(obs, torch.tensor([0, 1]), yes, torch.randn_like(memory))
    other, _ = model.state(obs, torch.tensor([2, 3]), yes, torch.randn_like(memory))
    assert torch.equal(state, other)
    assert not torch.equal(state, model.state(obs, torch.tensor([2, 3]), ~yes, torch.randn_like(memory))[0])


def test_without_a_memory_it_is_the_world_model_alone():
    model = RememberingModel((3,), 4, 6, SUPPORT, width=8, hidden=8, core=None)
    obs = torch.randn(7, 2, 3)
    step = torch.tensor([[0, 1], [4, 6]])
    assert torch.equal(model.states({"obs": obs}, step)[1, 1], model.world.represent(obs[6, 1][None])[0])
    assert model.first_memory(2).shape == (2, 0)


@pytest.mark.parametrize("core", CORES)
def test_a_state_comes_back_from_its_row_of_numbers(core):
    like = CORES[core]().first_state(3)
    state = tuple(torch.randn_like(x) for x in like)
    row = packed(state)
    assert row.shape == (3, sum(x[0].numel() * (2 if x.is_complex() else 1) for x in like))
    assert row.dtype == torch.float32
    assert all(torch.equal(x, y) for x, y in zip(unpacked(row, CORES[core]().first_state(1)), state, strict=True))
