"""MuZero: its targets by hand, what its losses teach, which search does what, that it learns, and that a resumed run is the same run."""

import json
import math

import pytest
import torch

from posttrain.agents import muzero
from posttrain.agents.environments import GoalGridConfig, KeyGridConfig, MazeConfig, make_env
from posttrain.agents.kernel.nets import WorldModel, load_model
from posttrain.agents.kernel.transforms import Support
from posttrain.agents.muzero import (
    Asked,
    Config,
    Experience,
    Planner,
    QNetwork,
    SearchConfig,
    act,
    muzero_loss,
    n_step_targets,
    q_loss,
)
from posttrain.config import ConfigError, build
from tests.agents.resumed import assert_resumes

SUPPORT = Support(low=-2.0, high=2.0, num_atoms=17)
SMALL = {"unroll": 2, "n_step": 2, "gamma": 0.5}


def made(kind=WorldModel, obs=3, actions=2, seed=0):
    torch.manual_seed(seed)
    network = kind((obs,), actions, SUPPORT, 16, 32)
    for parameter in network.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return network


def experience(columns=1, steps=5):
    torch.manual_seed(1)
    return Experience(
        obs=torch.randn(steps, columns, 3),
        action=torch.randint(2, (steps, columns)),
        reward=torch.arange(1.0, steps + 1)[:, None].expand(-1, columns).clone(),
        ended=torch.zeros(steps, columns, dtype=torch.bool),
        policy=torch.full((steps, columns, 2), 0.5),
        value=10 * torch.arange(1.0, steps + 1)[:, None].expand(-1, columns).clone(),
    )


def test_targets_by_hand():
    cfg, batch = Config(**SMALL), experience()
    expected = [1 + 0.5 * 2 + 0.25 * 30, 2 + 0.5 * 3 + 0.25 * 40, 3 + 0.5 * 4 + 0.25 * 50]
    assert n_step_targets(batch, cfg)[:, 0].tolist() == expected
    batch.ended[1] = True
    assert n_step_targets(batch, cfg)[:, 0].tolist() == [1 + 0.5 * 2, 2, expected[2]]


def losses(model, batch, **changes):
    cfg = Config(**SMALL)
    batch = batch._replace(**changes)
    parts = muzero_loss(model, batch, n_step_targets(batch, cfg), torch.ones(batch.action.shape[1]), cfg)[1]
    return {name: part.item() for name, part in parts.items()}


def test_after_an_end_rewards_and_values_are_nothing_and_the_policy_teaches_nothing():
    model, batch = made(), experience()
    other = batch.reward + torch.tensor([0.0, 3.0, 3.0, 3.0, 3.0])[:, None]
    policy = batch.policy + torch.tensor([0.0, 0.3, 0.3, 0.3, 0.3])[:, None, None] * torch.tensor([1.0, -1.0])
    assert losses(model, batch) != losses(model, batch, reward=other)
    assert losses(model, batch)["policy"] != losses(model, batch, policy=policy)["policy"]
    batch.ended[0] = True
    assert losses(model, batch) == losses(model, batch, reward=other, policy=policy)


def test_minimising_the_loss_on_one_stretch_finds_its_targets():
    cfg, batch, model = Config(**SMALL), experience(), made()
    batch = batch._replace(policy=torch.tensor([0.9, 0.1]).expand(5, 1, 2), value=batch.value / 10, reward=batch.reward / 5)
    z = n_step_targets(batch, cfg)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        muzero_loss(model, batch, z, torch.ones(1), cfg)[0].backward()
        optimiser.step()
    state = model.represent(batch.obs[0])
    after, reward = model.step(state, batch.action[0])
    assert model.predict(state).policy_logits.softmax(-1)[0, 0].item() == pytest.approx(0.9, abs=0.03)
    assert model.values(state).item() == pytest.approx(z[0].item(), abs=0.1)
    assert model.values(after).item() == pytest.approx(z[1].item(), abs=0.1)
    assert model.rewards(reward).item() == pytest.approx(batch.reward[0].item(), abs=0.1)


def test_the_weight_of_a_stretch_multiplies_its_loss():
    cfg, batch, model = Config(**SMALL), experience(columns=2), made()
    z = n_step_targets(batch, cfg)
    first, second, both = (
        muzero_loss(model, batch, z, torch.tensor(weight), cfg)[0].item() for weight in ([1.0, 0.0], [0.0, 1.0], [1.0, 0.5])
    )
    assert both == pytest.approx(first + 0.5 * second, rel=1e-5)


def test_the_policy_without_a_model_follows_q_and_q_follows_the_targets():
    cfg, batch, network = Config(**SMALL), experience(), made(QNetwork)
    batch = batch._replace(value=batch.value / 10, reward=batch.reward / 5)
    z, optimiser = n_step_targets(batch, cfg), torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        q_loss(network, batch, z, torch.ones(1), entropy=0.1)[0].backward()
        optimiser.step()
    logits, q_logits = network(batch.obs[0])
    q = SUPPORT.mean(q_logits)[0]
    assert q[batch.action[0, 0]].item() == pytest.approx(z[0, 0].item(), abs=0.1)
    assert logits.softmax(-1)[0].tolist() == pytest.approx((q / 0.1).softmax(-1).tolist(), abs=0.02)  # what entropy 0.1 asks for


def test_one_step_targets_come_from_a_search_of_depth_one_and_actions_from_the_policy():
    """The policy's logits here say action 0; the search, whichever its depth, decides what is taught."""
    cfg = Config(env=GoalGridConfig(), learn=SearchConfig(depth=1), act=SearchConfig(kind="prior"), noise=0.0, num_envs=32)
    model = made(obs=3, actions=4)
    obs, planner = torch.randn(32, 3), Planner(model, cfg, torch.Generator().manual_seed(0))
    action, taught = act(planner, obs, 0.5)
    deep = planner.look(obs, SearchConfig())
    assert torch.equal(taught.policy, planner.look(obs, SearchConfig(depth=1)).policy)
    assert not torch.equal(taught.policy, deep.policy)
    prior = model.predict(model.represent(obs)).policy_logits.softmax(-1)
    again = torch.multinomial(prior / prior.amax(-1, keepdim=True), 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(action, again[:, 0])


def test_acting_cools_down_in_equal_parts_of_the_run():
    cfg = Config(temperature=(1.0, 0.01), noise=0.0)
    model, obs = made(actions=4), torch.randn(400, 3)
    shares = []
    for progress in (0.0, 0.49, 0.5, 0.99):
        action, taught = act(Planner(model, cfg, torch.Generator().manual_seed(0)), obs, progress)
        shares.append((taught.policy.gather(1, action[:, None])[:, 0] == taught.policy.amax(-1)).double().mean().item())
    assert shares[0] == shares[1] < 0.95
    assert shares[2] == shares[3] == 1.0


def test_the_simulator_knows_what_the_model_does_not():
    """An untrained model and a search of the environment itself, which finds a goal four steps away."""
    cfg = Config(env=GoalGridConfig(n=3, limit=8))
    env = make_env(cfg.env, 100)
    model = WorldModel(env.obs_shape, env.num_actions, SUPPORT, 16, 16)
    planner = Planner(model, cfg, torch.Generator().manual_seed(0))
    imagined = muzero.evaluate(planner, Asked(simulations=100, depth=4), env, 0)
    simulated = muzero.evaluate(planner, Asked(simulations=100, depth=4, simulator=True), env, 0)
    assert imagined < 0.7
    assert simulated > 0.9


def test_drawn_actions_come_from_where_the_best_one_is_stuck():
    """An untrained policy is even: its best action is the same everywhere, and reaches goals straight ahead alone."""
    cfg = Config(env=GoalGridConfig(n=3, limit=8))
    env = make_env(cfg.env, 400)
    planner = Planner(WorldModel(env.obs_shape, env.num_actions, SUPPORT, 16, 16), cfg, torch.Generator().manual_seed(0))
    best, drawn = (muzero.evaluate(planner, Asked(kind="prior", drawn=drawn), env, 0) for drawn in (False, True))
    assert best < 0.3 < 0.4 < drawn


def small(**changes):
    """Seconds of training in a room of three by three cells, where a policy that knows nothing scores about .12."""
    recipe = {"kind": "muzero", "env": {"kind": "goal_grid", "n": 3, "limit": 8}, "env_steps": 8_000, "num_envs": 64, "updates": 6}
    recipe |= {"batch": 128, "replay_steps": 4_000, "log_every": 999, "final_episodes": 400}
    return build(Config, [("r", recipe | changes)])


def test_muzero_learns_to_walk_to_a_goal(tmp_path):
    assert muzero.main(small(), tmp_path / "run", False) == 0
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["test"]
    assert scores["policy"] > 0.7
    assert scores["search"] > 0.85


def test_the_model_free_agent_learns_to_walk_to_a_goal(tmp_path):
    prior = {"kind": "prior"}
    cfg = small(learn={"kind": "q"}, act=prior, test={"policy": prior})
    assert muzero.main(cfg, tmp_path / "run", False) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"]["policy"] > 0.85
    assert not (tmp_path / "run" / "model.pt").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": 0.6},
        {"reanalyse": 0.5},
        {"learn": {"kind": "gumbel"}, "act": {"kind": "gumbel"}},
        {"learn": {"kind": "breadth_first"}, "act": {"kind": "breadth_first"}},
        {"learn": {"kind": "puct", "uct_depth": 1}},
        {"learn": {"kind": "puct", "least_spread": 1e-8}, "act": {"least_spread": 1e-8}},
    ],
)
def test_every_way_to_plan_and_to_replay_trains_and_changes_what_is_learnt(changes, tmp_path):
    recipe = {
        "kind": "muzero",
        "env": {"kind": "goal_grid", "n": 3, "limit": 8},
        "env_steps": 320,
        "num_envs": 16,
        "batch": 16,
        "updates": 1,
    }
    recipe |= {"width": 16, "hidden": 16, "final_episodes": 16, "log_every": 40, "eval_episodes": 8}
    scores = []
    for name, more in (("plain", {}), ("changed", changes)):
        muzero.main(build(Config, [("r", recipe | more)]), tmp_path / name, False)
        scores.append(load_model(tmp_path / name / "model.pt").policy_head[-1].weight)
    assert all(math.isfinite(x) for x in scores[1].flatten().tolist())
    assert not torch.equal(*scores)


def test_mazes_are_asked_of_known_and_of_held_out_layouts(tmp_path):
    env = MazeConfig(n=5, limit=10, layouts=3)
    cfg = Config(env=env, env_steps=640, num_envs=32, batch=16, updates=1, width=16, hidden=16, final_episodes=16)
    muzero.main(cfg, tmp_path / "run", False)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test"].keys() == result["held_out"].keys() == {"policy", "search"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"learn": {"kind": "prior"}}, "learn.kind: found prior, .*expected puct"),
        ({"learn": {"kind": "q"}}, "act.kind: found puct, expected prior"),
        ({"learn": {"kind": "q"}, "act": {"kind": "prior"}}, "test.search.kind: found puct, expected prior"),
        ({"env": {"kind": "catch"}, "test": {"true": {"simulator": True}}}, "test.true.simulator: found true, but catch cannot"),
        ({"env_steps": 100}, r"env_steps: found 100, expected one stretch at least, num_envs \* 10"),
        ({"replay_steps": 100}, "replay_steps: found 100, expected one stretch at least"),
        ({"support": [1.0, 0.0, 41]}, "support: found .*expected a lower and a higher atom"),
        ({"device": "cuda"}, "device: found cuda, .*no GPU"),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_folder_is_taken(changed, said, tmp_path):
    if changed.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=said):
        muzero.main(build(Config, [("r", {"kind": "muzero"} | changed)]), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("priority", [0.0, 0.6])
def test_a_resumed_run_is_the_same_run(priority, tmp_path, monkeypatch):
    cfg = Config(
        env=KeyGridConfig(n=3, limit=8), env_steps=40 * 8, num_envs=8, batch=8, log_every=1, checkpoint_every=5, replay_steps=200,
        updates=2, eval_episodes=8, final_episodes=64, width=16, hidden=16, priority=priority,
    )  # fmt: skip
    assert_resumes(muzero, cfg, tmp_path, monkeypatch, ends_in="act", call=29)
