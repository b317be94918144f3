"""A model behind a memory: a stretch read at once is what was read step by step, and it forgets where an episode begins."""

import torch

from posttrain.agents.kernel.remembering import RememberingModel
from posttrain.agents.kernel.transforms import Support

SUPPORT = Support(low=-1.0, high=1.0, num_atoms=5)


def test_a_stretch_gives_the_states_that_single_steps_gave():
    torch.manual_seed(0)
    model = RememberingModel((3,), 4, 6, SUPPORT, width=8, hidden=8, memory=True)
    fresh = torch.rand(9, 5) < 0.3
    fields = {"obs": torch.randn(9, 5, 3), "last": torch.randint(4, (9, 5)), "fresh": fresh}
    memory, kept, states = torch.randn(5, 1, 8), [], []
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


def test_at_the_first_step_of_an_episode_nothing_before_counts():
    model = RememberingModel((3,), 4, 6, SUPPORT, width=8, hidden=8, memory=True)
    obs, yes = torch.randn(2, 3), torch.ones(2, dtype=torch.bool)
    state, _ = model.state(obs, torch.tensor([0, 1]), yes, torch.randn(2, 1, 8))
    other, _ = model.state(obs, torch.tensor([2, 3]), yes, torch.randn(2, 1, 8))
    assert torch.equal(state, other)
    assert not torch.equal(state, model.state(obs, torch.tensor([2, 3]), ~yes, torch.randn(2, 1, 8))[0])


def test_without_a_memory_it_is_the_world_model_alone():
    model = RememberingModel((3,), 4, 6, SUPPORT, width=8, hidden=8, memory=False)
    obs = torch.randn(7, 2, 3)
    step = torch.tensor([[0, 1], [4, 6]])
    assert torch.equal(model.states({"obs": obs}, step)[1, 1], model.world.represent(obs[6, 1][None])[0])
    assert model.first_memory(2).shape == (2, 0)
