"""Muesli's update: its targets by hand, what each loss teaches, and actions of several steps."""

import math

import pytest
import torch

from posttrain.agents.kernel.cmpo import Learner, Sequences, Targets, cmpo_policy, kl, muesli_loss, targets_of
from posttrain.agents.kernel.nets import WorldModel, lookahead
from posttrain.agents.kernel.transforms import Support

GAMMA = 0.9
TARGETS = {"gamma": GAMMA, "retrace_lambda": 0.95, "clip": 1.0}
LOSS = {"ahead": 2, "weight_kl": 1.0, "weight_value": 0.25}


def model(seed=0):
    torch.manual_seed(seed)
    made = WorldModel((3,), 2, Support(low=-2.0, high=2.0, num_atoms=17), width=16, hidden=32)
    for parameter in made.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return made


def experience(steps=5, columns=2):
    """Observations and what was done there."""
    obs = torch.randn(steps, columns, 3)
    return obs, Sequences(
        action=torch.randint(2, (steps, columns)),
        reward=torch.randn(steps, columns),
        discount=torch.full((steps, columns), GAMMA),
        terminated=torch.zeros(steps, columns, dtype=torch.bool),
        truncated=torch.zeros(steps, columns, dtype=torch.bool),
        logp=torch.full((steps, columns), math.log(0.5)),
    )


def test_the_cmpo_policy_by_hand():
    got = cmpo_policy(torch.tensor([0.2, 0.3, 0.5]).log(), torch.tensor([5.0, 0.5, -3.0]), clip=1.0)
    weights = [0.2 * math.e, 0.3 * math.exp(0.5), 0.5 / math.e]
    assert got.tolist() == pytest.approx([w / sum(weights) for w in weights])


def test_the_cmpo_policy_is_never_further_than_tanh_of_half_the_clip():
    prior, advantage = torch.randn(5000, 4) * 3, torch.randn(5000, 4) * 10
    distance = 0.5 * (cmpo_policy(prior, advantage, 1.0) - prior.softmax(-1)).abs().sum(-1)
    assert distance.max() <= math.tanh(0.5) + 1e-6
    assert distance.max() > 0.9 * math.tanh(0.5)  # and the bound is nearly met


def test_kl_is_zero_only_between_equals_and_takes_a_probability_of_zero():
    probs = torch.tensor([0.0, 0.25, 0.75])
    assert kl(probs, probs.clamp(min=1e-30).log()).item() == pytest.approx(0, abs=1e-6)
    assert kl(probs, torch.zeros(3)).item() == pytest.approx(math.log(3) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75))


def test_an_episode_that_ends_at_once_returns_its_reward_and_one_that_is_cut_its_own_value():
    net, (obs, batch) = model(), experience()
    batch.terminated[1, 0] = batch.truncated[1, 1] = True
    targets = targets_of(net, net.represent(obs), batch, torch.tensor(2.0), **TARGETS)
    q = lookahead(net, net.represent(obs[1]), GAMMA)
    assert targets.returns[1, 0].item() == pytest.approx(batch.reward[1, 0].item(), abs=1e-5)
    assert targets.returns[1, 1].item() == pytest.approx(q[1, batch.action[1, 1]].item(), abs=1e-5)
    value = (net.predict(net.represent(obs[1])).policy_logits.softmax(-1) * q).sum(-1)
    assert targets.advantage[1].tolist() == pytest.approx(((targets.returns[1] - value) / 2).tolist(), abs=1e-5)


def test_the_loss_teaches_nothing_across_an_end():
    """Rewards and values after a terminal step count as 0; after a time limit no model term counts at all."""
    net, (obs, batch) = model(), experience(steps=4, columns=1)
    targets = Targets(torch.full((3, 1, 2), 0.5), torch.randn(3, 1), torch.randn(3, 1), torch.tensor(1.0))

    def parts(batch, targets):
        return {name: x.item() for name, x in muesli_loss(net, net.represent(obs[:-1]), batch, targets, **LOSS)[1].items()}

    batch.terminated[0, 0] = True
    other = batch._replace(reward=batch.reward + torch.tensor([0.0, 3.0, 3.0, 3.0])[:, None])
    assert parts(batch, targets)["model_reward"] == parts(other, targets)["model_reward"]
    batch.terminated[0, 0], batch.truncated[0, 0] = False, True
    policies = targets.cmpo + torch.tensor([[0.0, 0.0], [0.3, -0.3], [0.3, -0.3]])[:, None]
    assert parts(batch, targets)["model_policy"] == parts(batch, targets._replace(cmpo=policies))["model_policy"]
    batch.truncated[0, 0] = False
    assert parts(batch, targets)["model_policy"] != parts(batch, targets._replace(cmpo=policies))["model_policy"]
    assert parts(batch, targets)["model_reward"] != parts(other._replace(terminated=batch.terminated), targets)["model_reward"]


def test_an_action_that_has_become_likelier_weighs_no_more_than_once():
    net, (obs, batch) = model(), experience(steps=4, columns=1)
    targets = Targets(torch.full((3, 1, 2), 0.5), torch.zeros(3, 1), torch.tensor([[1.0], [-2.0], [0.5]]), torch.tensor(1.0))
    state = net.represent(obs[:-1])
    logp = net.predict(state).policy_logits.log_softmax(-1).gather(-1, batch.action[:-1, :, None])[:, 0, 0].tolist()
    behind = [logp[0] - 2.0, logp[1] + 1.0, logp[2]]  # what the policy that acted gave: far less, more, the same
    batch = batch._replace(logp=torch.tensor([*behind, 0.0])[:, None])
    expected = -(1.0 * 1.0 * logp[0] + math.exp(-1.0) * -2.0 * logp[1] + 1.0 * 0.5 * logp[2]) / 3
    assert muesli_loss(net, state, batch, targets, **LOSS)[1]["policy_gradient"].item() == pytest.approx(expected, abs=1e-5)


def test_minimising_the_loss_on_one_batch_finds_its_targets():
    net, (obs, batch) = model(), experience(steps=4, columns=1)
    targets = Targets(torch.tensor([[[0.9, 0.1]]] * 3), torch.tensor([[0.5], [1.0], [-0.5]]), torch.zeros(3, 1), torch.tensor(1.0))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        muesli_loss(net, net.represent(obs[:-1]), batch, targets, **LOSS)[0].backward()
        optimiser.step()
    state = net.represent(obs[0])
    assert net.values(state).item() == pytest.approx(0.5, abs=0.05)
    assert net.predict(state).policy_logits.softmax(-1)[0, 0].item() == pytest.approx(0.9, abs=0.03)
    after, reward = net.step(state, batch.action[0])
    assert net.rewards(reward).item() == pytest.approx(batch.reward[0].item(), abs=0.1)
    assert net.values(after).item() == pytest.approx(1.0, abs=0.1)


def test_an_action_of_several_steps_counts_what_follows_by_its_own_discount():
    """With every trace 1, Retrace is G = r + discount (v' + G' - q'), and the first discount here is that of three steps."""
    net, (obs, batch) = model(), experience(steps=4, columns=1)
    batch = batch._replace(discount=torch.tensor([[GAMMA**3], [GAMMA], [GAMMA], [GAMMA]]), logp=torch.full((4, 1), -50.0))
    targets = targets_of(net, net.represent(obs), batch, torch.tensor(1.0), gamma=GAMMA, retrace_lambda=1.0, clip=1.0)
    q = lookahead(net, net.represent(obs[3, 0]), GAMMA)
    last = (net.predict(net.represent(obs[3, 0])).policy_logits.softmax(-1) * q).sum().item()

    def value_and_q(step):
        here = net.represent(obs[step, 0])
        q_here = lookahead(net, here, GAMMA)
        return (net.predict(here).policy_logits.softmax(-1) * q_here).sum().item(), q_here[batch.action[step, 0]].item()

    returns, after = [], last
    for step in (2, 1, 0):
        value, q_taken = value_and_q(step)
        returns.insert(0, batch.reward[step, 0].item() + batch.discount[step, 0].item() * after)
        after = value + returns[0] - q_taken
    assert targets.returns[:, 0].tolist() == pytest.approx(returns, abs=1e-4)


def test_each_action_may_have_a_discount_of_its_own_in_the_model():
    net, (obs, _) = model(), experience()
    state = net.represent(obs[0])
    both = lookahead(net, state, torch.tensor([0.9, 0.5]))
    assert torch.equal(both[:, 0], lookahead(net, state, 0.9)[:, 0])
    assert torch.equal(both[:, 1], lookahead(net, state, 0.5)[:, 1])


def test_the_variance_is_a_mean_from_its_first_batch_on_and_the_average_follows():
    learner = Learner(model(), learning_rate=0.1, clip_update=1.0, target_rate=0.25, variance_decay=0.9)
    assert learner.scale.item() == 1.0
    learner.remember(torch.tensor(4.0))
    assert learner.scale.item() == pytest.approx(2.0)
    learner.remember(torch.tensor(1.0))
    assert learner.scale.item() == pytest.approx(math.sqrt((0.9 * 4 + 1) / 1.9))
    before = learner.model.from_state.weight.detach().clone()
    learner.descend(learner.model.from_state.weight.square().sum(), progress=0.5)
    after = learner.model.from_state.weight.detach()
    assert learner.optimiser.param_groups[0]["lr"] == pytest.approx(0.05)
    assert torch.allclose(learner.average.from_state.weight, before + 0.25 * (after - before))
    assert not torch.allclose(before, after)
