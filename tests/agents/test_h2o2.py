"""H2O2: without options it is Muesli; when choices begin and end, that it learns, that a resumed run is the same run."""

import json

import pytest
import torch

from posttrain.agents import h2o2, muesli
from posttrain.agents.cores import GRUConfig, S5Config
from posttrain.agents.environments import GoalGridConfig, KeyRoomsConfig, WallsConfig, make_env
from posttrain.agents.h2o2 import Agent, Config, FirstConfig, OptionsConfig, beginning, collect, decide, needed, update
from posttrain.agents.kernel.nets import lookahead
from posttrain.agents.kernel.replay import Replay
from posttrain.config import ConfigError, build
from tests.agents.resumed import assert_resumes

GRID = GoalGridConfig(n=4, limit=12)
TINY = {"num_envs": 8, "rollout": 8, "batch": 8, "sequence": 6, "width": 16, "hidden": 16, "eval_episodes": 8, "final_episodes": 64}


def collected(options, env=GRID, rollouts=6):
    """An agent whose weights are random, its replay, and its configuration."""
    cfg = Config(env=env, options=options, **TINY)
    world = make_env(cfg.env, cfg.num_envs)
    torch.manual_seed(0)
    agent = Agent(cfg, world, options.codes, cfg.sequence)
    for net in (agent.learner.average, agent.acting):
        for parameter in net.parameters() if net else ():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    replay, draws = Replay(200, cfg.num_envs), torch.Generator().manual_seed(1)
    now = beginning(agent, world.reset(torch.Generator().manual_seed(2)))
    for _ in range(rollouts):
        now = collect(world, now, agent, replay, cfg, draws)
    return agent, replay.latest(rollouts * cfg.rollout), cfg, now


def stretches_of(fields, column):
    """The choices of one environment, as lists of the steps they took; the last may go on."""
    steps: list[list[int]] = []
    for t, begins in enumerate(fields["begins"][:, column].tolist()):
        if begins:
            steps.append([])
        steps[-1].append(t)
    return steps[:-1]


def test_without_options_it_is_muesli_to_the_last_bit(tmp_path):
    small = {name: x for name, x in TINY.items() if name != "sequence"} | {
        "env": GRID,
        "env_steps": 12 * 64,
        "replay_steps": 400,
        "batch": 6,
    }
    assert muesli.main(muesli.Config(**small), tmp_path / "muesli", False) == 0
    cfg = Config(**small, window=400, sequence=8, options=OptionsConfig(codes=0))
    assert h2o2.main(cfg, tmp_path / "flat", False) == 0
    expected = torch.load(tmp_path / "muesli" / "model.pt", weights_only=True)["weights"]
    found = torch.load(tmp_path / "flat" / "agent.pt", weights_only=True)["controller"]
    assert all(torch.equal(x, found[f"world.{name}"]) for name, x in expected.items())
    scores = [json.loads((tmp_path / name / "result.json").read_text())["score"] for name in ("muesli", "flat")]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("primitives", [False, True])
def test_an_option_is_followed_for_its_steps_or_to_the_end_of_the_episode_and_an_action_once(primitives):
    agent, fields, _, _ = collected(OptionsConfig(codes=3, steps=4, primitives=primitives))
    ended, seen = fields["terminated"] | fields["truncated"], set()
    for column in range(8):
        for steps in stretches_of(fields, column):
            choices = set(fields["choice"][steps, column].tolist())
            assert len(choices) == 1
            single = choices.pop() < agent.primitives
            cut = bool(ended[steps[-1], column])
            assert not ended[steps[:-1], column].any()
            assert len(steps) == (1 if single else 4) or (cut and not single and len(steps) < 4)
            seen.add((single, cut))
    assert seen == {(x, y) for x in ({False, True} if primitives else {False}) for y in (False, True)}


def test_an_option_is_interrupted_exactly_where_going_on_is_worth_less():
    agent, fields, _, now = collected(OptionsConfig(codes=3, steps=4, interrupt=0.0))
    lengths = [len(steps) for column in range(8) for steps in stretches_of(fields, column)]
    assert set(lengths) == {1, 2, 3, 4}
    now = now._replace(age=torch.full_like(now.age, 2))
    net = agent.learner.average
    state, _ = net.state(now.obs, now.last, now.fresh, now.memory)
    q = lookahead(net.world, state, agent.gamma_Z)
    value = (net.world.predict(state).policy_logits.softmax(-1) * q).sum(-1)
    worse = q[torch.arange(8), now.choice] < value
    assert decide(agent, now, "sampled", torch.Generator())["begins"].tolist() == worse.tolist()
    assert worse.any()
    assert not worse.all()
    agent.interrupt = 1e6
    assert not decide(agent, now, "sampled", torch.Generator())["begins"].any()


def test_the_controller_remembers_by_the_core_asked_for():
    for memory, numbers in ((None, 0), (GRUConfig(layers=2), 2 * 16), (S5Config(layers=3, states=8), 3 * 8)):
        cfg = Config(env=GRID, memory=memory, **(TINY | {"width": 16}))
        agent = Agent(cfg, make_env(GRID, 8), 3, cfg.sequence)
        assert agent.learner.average.first_memory(5).shape == (5, numbers)


def test_at_first_an_option_is_as_many_nats_less_likely_than_an_action_as_is_doubted():
    cfg = Config(env=GRID, options=OptionsConfig(codes=3, primitives=True, doubt=2.0), **TINY)
    world = make_env(GRID, 8)
    agent = Agent(cfg, world, 3, cfg.sequence)
    net = agent.learner.average.world
    logits = net.predict(net.represent(world.reset(torch.Generator().manual_seed(0)))).policy_logits
    assert torch.allclose(logits[:, :4] - logits[:, 4:5], torch.tensor(2.0))
    assert torch.equal(logits[:, 4:], logits[:, 4:5].expand(-1, 3))


def test_the_controller_learns_from_the_window_alone_and_options_from_all_of_replay(tmp_path, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(h2o2, "update", lambda agent, replay, since, *rest: asked.append(since) or update(agent, replay, since, *rest))
    options = OptionsConfig(codes=3, steps=2, batch=8, hidden=8)
    cfg = Config(**TINY, env=GRID, options=options, env_steps=12 * 64, replay_steps=800, window=240)
    assert h2o2.main(cfg, tmp_path / "run", False) == 0
    assert asked[0] == 16
    assert max(asked) == asked[-1] == 240 // 8


def test_a_discount_follows_how_long_options_have_been():
    """Interrupted at every step, options come to be worth a single step's discount, and without interruption they keep that of all."""
    for interrupt, expected in ((None, 0.97**4), (0.0, 0.97)):
        agent, fields, cfg, _ = collected(OptionsConfig(codes=3, steps=4, interrupt=interrupt))
        fields["begins"] = fields["begins"] | (interrupt is not None)
        replay, draws = Replay(48, cfg.num_envs), torch.Generator().manual_seed(0)
        for t in range(48):
            replay.append(**{name: x[t] for name, x in fields.items()})
        for _ in range(200):
            update(agent, replay, needed(agent), cfg, draws, 0.999)
        assert agent.gamma_Z.tolist() == pytest.approx([expected] * 3, abs=2e-2)


def test_options_from_a_first_agent_let_a_new_controller_act_well_in_few_choices(tmp_path):
    cfg = Config(
        env=GoalGridConfig(n=3, limit=8), first=FirstConfig(env_steps=16_000, sequence=8), env_steps=8_000, num_envs=32, rollout=8,
        options=OptionsConfig(codes=4, steps=2, fit=150, hidden=32), width=32, hidden=32, window=8_000, eval_episodes=64, log_every=99,
        final_episodes=512, sequence=8,
    )  # fmt: skip
    assert h2o2.main(cfg, tmp_path / "run", False) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["first"]["known"]["score"] > 0.9
    assert result["score"] > 0.9
    assert result["training_decisions"] < 0.75 * cfg.env_steps
    assert result["options"]["nll"] < 0.75 * 1.386  # of log 4, an even policy's


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sequence": 4}, "sequence: found 4 choices, expected more than the 4 of loss.unroll"),
        ({"first": {"sequence": 4}}, "first.sequence: found 4, expected more than the 4 of loss.unroll"),
        ({"window": 200_000}, "window: found 200000 steps, expected at most the 100000 of replay_steps"),
        ({"window": 4000}, "window: found 4000, expected a sequence of every environment at least, 4352 steps"),
        ({"env_steps": 4000}, "env_steps: found 4000, expected a sequence of every environment at least, 4352 steps"),
        ({"first": {}, "options": {"codes": 0}}, "first: found a first stage, but options.codes is 0"),
        ({"options": {"sees": 51}}, "options.sees: .*vectors of at least 51 numbers, got shape \\(50,\\)"),
        ({"device": "cuda"}, "device: found cuda, .*no GPU"),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_folder_is_taken(changed, said, tmp_path):
    if changed.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=said):
        h2o2.main(build(Config, [("r", {"kind": "h2o2"} | changed)]), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


HYBRID = OptionsConfig(codes=3, steps=2, primitives=True, relabel=True, interrupt=0.1, batch=8, rate=0.1, hidden=8)
WALLS = WallsConfig(n=4, limit=9, layouts=3)
STAGED = OptionsConfig(codes=3, steps=2, batch=8, fit=5, hidden=8)


@pytest.mark.parametrize(
    "changed",
    [
        {"env": GRID, "options": HYBRID},
        {
            "env": WallsConfig(n=4, limit=9, layouts=3),
            "options": STAGED,
            "first": FirstConfig(env_steps=6 * 64, sequence=6),
            "held_out": True,
        },
        {"env": KeyRoomsConfig(side=2, limit=9), "options": HYBRID, "memory": GRUConfig()},
        {"env": KeyRoomsConfig(side=2, limit=9, lure=True), "options": HYBRID, "memory": S5Config(layers=1, states=8)},
    ],
    ids=["hybrid", "two stages", "memory", "memory by S5"],
)
def test_a_resumed_run_is_the_same_run(changed, tmp_path, monkeypatch):
    cfg = Config(**TINY, **changed, env_steps=14 * 64, replay_steps=800, window=800, log_every=2, checkpoint_every=3)
    rows = assert_resumes(h2o2, cfg, tmp_path, monkeypatch, ends_in="collect", call=11)
    assert len(rows) == (10 if cfg.first else 7)
