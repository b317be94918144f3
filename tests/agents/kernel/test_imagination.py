"""What a search walks through: the network's states, or true ones."""

import torch

from posttrain.agents.kernel.envs.grids import key_grid
from posttrain.agents.kernel.imagination import imagined, root_of, simulated
from posttrain.agents.kernel.nets import WorldModel
from posttrain.agents.kernel.transforms import Support


def made():
    torch.manual_seed(0)
    env = key_grid(3, 10, 50)
    network = WorldModel(env.obs_shape, env.num_actions, Support(low=-1.0, high=1.0, num_atoms=11), 16, 16)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return env, network.requires_grad_(False), env.reset(torch.Generator().manual_seed(0))


def test_an_imagined_step_is_the_networks():
    _, network, obs = made()
    state, action = network.represent(obs), torch.arange(50) % 4
    got = imagined(network, 0.9)(state, action)
    after, reward_logits = network.step(state, action)
    assert torch.equal(got.state, after)
    assert torch.equal(got.reward, network.rewards(reward_logits))
    assert torch.equal(got.value, network.values(after))
    assert torch.equal(got.prior_logits, network.predict(after).policy_logits)
    assert (got.discount == 0.9).all()


def test_a_simulated_step_is_the_environments_seen_by_the_network_and_ends_where_it_ends():
    env, network, obs = made()
    model, state_BF, ended = simulated(network, env, 0.9), env.state_BF, 0
    assert torch.equal(root_of(network, network.represent(obs)).value, network.values(network.represent(env.observe(state_BF))))
    for i in range(300):
        action = torch.arange(50).add(i) % 4
        got = model(state_BF, action)
        state_BF, reward, terminated = env.transition(state_BF, action)
        assert torch.equal(got.state, state_BF)
        assert torch.equal(got.reward, reward)
        assert torch.equal(got.discount == 0, terminated)
        assert torch.equal(got.value, network.values(network.represent(env.observe(state_BF))))
        ended += int(terminated.sum())
        state_BF = torch.where(terminated[:, None], env.state_BF, state_BF)
    assert ended
