"""Muesli: its targets by hand, what each loss teaches, that it learns, and that a resumed run is the same run."""

import json
import math

import pytest
import torch

from posttrain.agents import muesli
from posttrain.agents.environments import CatchConfig, GoalGridConfig
from posttrain.agents.kernel.nets import WorldModel, lookahead
from posttrain.agents.kernel.transforms import Support
from posttrain.agents.muesli import Config, LossConfig, Sequences, Targets, cmpo_policy, kl, muesli_loss, targets_of
from posttrain.config import ConfigError, build
from tests.agents.resumed import assert_resumes

LOSS = LossConfig(unroll=2, gamma=0.9)


def model(seed=0):
    torch.manual_seed(seed)
    made = WorldModel((3,), 2, Support(low=-2.0, high=2.0, num_atoms=17), width=16, hidden=32)
    for parameter in made.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return made


def experience(steps=5, columns=2):
    return Sequences(
        obs=torch.randn(steps, columns, 3),
        action=torch.randint(2, (steps, columns)),
        reward=torch.randn(steps, columns),
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
    net, batch = model(), experience()
    batch.terminated[1, 0] = batch.truncated[1, 1] = True
    targets = targets_of(net, batch, torch.tensor(2.0), LOSS)
    q = lookahead(net, net.represent(batch.obs[1]), LOSS.gamma)
    assert targets.returns[1, 0].item() == pytest.approx(batch.reward[1, 0].item(), abs=1e-5)
    assert targets.returns[1, 1].item() == pytest.approx(q[1, batch.action[1, 1]].item(), abs=1e-5)
    value = (net.predict(net.represent(batch.obs[1])).policy_logits.softmax(-1) * q).sum(-1)
    assert targets.advantage[1].tolist() == pytest.approx(((targets.returns[1] - value) / 2).tolist(), abs=1e-5)


def test_the_loss_teaches_nothing_across_an_end():
    """Rewards and values after a terminal step count as 0; after a time limit no model term counts at all."""
    net, batch = model(), experience(steps=4, columns=1)
    targets = Targets(torch.full((3, 1, 2), 0.5), torch.randn(3, 1), torch.randn(3, 1), torch.tensor(1.0))

    def parts(batch, targets):
        return {name: x.item() for name, x in muesli_loss(net, batch, targets, LOSS)[1].items()}

    batch.terminated[0, 0] = True
    other = batch._replace(reward=batch.reward + torch.tensor([0.0, 3.0, 3.0, 3.0])[:, None])
    assert parts(batch, targets)["model_reward"] == parts(other, targets)["model_reward"]
    batch.terminated[0, 0], batch.truncated[0, 0] = False, True
    policies = targets.cmpo + torch.tensor([[0.0, 0.0], [0.3, -0.3], [0.3, -0.3]])[:, None]
    assert parts(batch, targets)["model_policy"] == parts(batch, targets._replace(cmpo=policies))["model_policy"]
    batch.truncated[0, 0] = False
    assert parts(batch, targets)["model_policy"] != parts(batch, targets._replace(cmpo=policies))["model_policy"]
    assert parts(batch, targets)["model_reward"] != parts(other._replace(terminated=batch.terminated), targets)["model_reward"]


def test_minimising_the_loss_on_one_batch_finds_its_targets():
    net, batch = model(), experience(steps=4, columns=1)
    targets = Targets(torch.tensor([[[0.9, 0.1]]] * 3), torch.tensor([[0.5], [1.0], [-0.5]]), torch.zeros(3, 1), torch.tensor(1.0))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        muesli_loss(net, batch, targets, LOSS)[0].backward()
        optimiser.step()
    state = net.represent(batch.obs[0])
    assert net.values(state).item() == pytest.approx(0.5, abs=0.05)
    assert net.predict(state).policy_logits.softmax(-1)[0, 0].item() == pytest.approx(0.9, abs=0.03)
    after, reward = net.step(state, batch.action[0])
    assert net.rewards(reward).item() == pytest.approx(batch.reward[0].item(), abs=0.1)
    assert net.values(after).item() == pytest.approx(1.0, abs=0.1)


def test_muesli_learns_catch(tmp_path):
    cfg = Config(env=CatchConfig(rows=6, columns=5), env_steps=16_000, num_envs=32, rollout=8, updates=2, final_episodes=500, log_every=99)
    assert muesli.main(cfg, tmp_path / "run", False) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["score"] > 0.9  # a random paddle scores -0.5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"env": {"kind": "four_rooms", "n": 10}}, "env: four_rooms: .*odd n of at least 5, got 10"),
        ({"env": {"kind": "goal_grid", "n": 1}}, "env: goal_grid: .*free cells"),
        ({"env": {"kind": "gymnasium", "name": "Nope-v9"}}, "env: gymnasium: Nope-v9: .*doesn't exist"),
        ({"device": "cuda"}, "device: found cuda, .*no GPU"),
        ({"support": [1.0, 0.0, 41]}, "support: found .*expected a lower and a higher atom"),
        ({"rollout": 4}, "rollout: found 4 steps, expected more than the 4 of loss.unroll"),
        ({"replay_steps": 1024}, "replay_steps: found 1024, expected more than .* 1024"),
        ({"env_steps": 2047}, "env_steps: found 2047, expected two rollouts at least, 2048 steps"),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_folder_is_taken(changed, said, tmp_path):
    if changed.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=said):
        muesli.main(build(Config, [("r", {"kind": "muesli"} | changed)]), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_is_the_same_run(tmp_path, monkeypatch):
    cfg = Config(
        env=GoalGridConfig(n=3, limit=8), env_steps=12 * 64, num_envs=8, rollout=8, batch=8, log_every=1, checkpoint_every=5,
        replay_steps=400, eval_episodes=8, final_episodes=64, width=16, hidden=16,
    )  # fmt: skip
    assert len(assert_resumes(muesli, cfg, tmp_path, monkeypatch, ends_in="collect", call=9)) == 11
