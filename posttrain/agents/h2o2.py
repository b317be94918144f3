"""Hierarchical Hybrid Offline-Online (after arXiv 2302.14451): options learnt from the agent's own replay, used by Muesli while it trains.

Offline, a variational model cuts experience into stretches of n steps with one of K codes (`kernel/options.py`): encoder q(z | stretch),
prior p(z | o), option pi(a | o, z), and a price of beta for every nat of code. Online, a controller chooses among the codes:

    z ~ pi'(z | s),  then a_i ~ pi(a | o_i, z) for n steps, or until the episode ends, or until going on is worth less than choosing anew:
    (q'(s, z) - v'(s)) / sigma < - interrupt
    R = sum_{i<d} gamma^i r_i,  discount gamma^d,  d <= n steps taken                  a semi-Markov decision process

and learns by Muesli (`kernel/cmpo.py`) with codes in place of actions; single actions may be choices too. Replay keeps single steps, and
both learn from it. Three regimes:

    first = null                  hybrid: options are learnt from replay while the controller trains, and change under its feet
    first = {env_steps: N}        two stages: flat Muesli for N steps, options from its replay, then a new controller with options that stay
    options.codes = 0             flat: single actions are the choices, and the agent is `muesli` to the last bit

Against change there are: few updates at a time, a moving average of the options that acts, a controller that learns from the newest
steps alone (`window`), choices of old experience replaced by what the encoder now calls them (`relabel`), single actions among the choices,
experience of options read as single actions (`single`), and options that are unlikely at first (`doubt`). Left out: continuous codes, and a
core shared by both levels: memory is the controller's, options see the present observation. The paper's agent is known here from its
abstract and outline, so the parts are after its idea, not its tables. Expected: recipes/h2o2.
"""

import copy
import json
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from posttrain.agents.cores import RecurrentConfig, make_core
from posttrain.agents.environments import EnvConfig, GoalGridConfig, check_device, make_env
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.cmpo import Learner, Sequences
from posttrain.agents.kernel.envs.grids import Grid
from posttrain.agents.kernel.envs.vector import VectorEnv
from posttrain.agents.kernel.maps import draw_paths, option_scenes
from posttrain.agents.kernel.nets import lookahead, track
from posttrain.agents.kernel.options import OptionModel, Segments, decisions_of, followed, option_loss, relabelled, segments_at
from posttrain.agents.kernel.ppo import drawn
from posttrain.agents.kernel.remembering import RememberingModel
from posttrain.agents.kernel.replay import Replay
from posttrain.agents.kernel.rollout import returns_by_episode
from posttrain.agents.kernel.threads import one_thread
from posttrain.agents.kernel.transforms import Support
from posttrain.agents.muesli_update import LossConfig, Reading, improve
from posttrain.config import ConfigError, config
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic


@config
class OptionsConfig:
    """What is chosen among, and how it is learnt."""

    codes: NonNegativeInt = 8
    """Options; without any the agent is flat."""
    steps: PositiveInt = 4
    """Longest option."""
    sees: PositiveInt | None = None
    """How many numbers of an observation, from its first on, an option sees; without, all. On GoalGrid n * n tell the agent's cell."""
    primitives: bool = False
    """Whether single actions are choices beside them."""
    beta: NonNegativeFloat = 0.05
    """Price of a nat of code."""
    usage: NonNegativeFloat = 0.5
    """Price of a nat that the codes in use fall short of all."""
    hidden: PositiveInt = 64
    batch: PositiveInt = 256
    """Stretches in an update."""
    learning_rate: PositiveFloat = 3e-3
    """Of Adam."""
    fit: NonNegativeInt = 500
    """Updates between the two stages."""
    updates: NonNegativeInt = 4
    """Updates at a time where options are learnt while the controller trains."""
    every: PositiveInt = 1
    """Rollouts from one such time to the next."""
    rate: float = Field(default=1.0, gt=0, le=1)
    """How far the options that act move to the learnt ones at an update."""
    relabel: bool = False
    """Whether the controller learns from choices that the encoder reads from what was done, in place of those that were made."""
    doubt: NonNegativeFloat = 0.0
    """How many nats less likely than a single action an option is at first."""
    single: float = Field(default=0.0, ge=0, le=1)
    """Share of sequences that the controller reads as single actions, whatever option took them; needs `primitives`."""
    interrupt: NonNegativeFloat | None = None
    """How many sigma going on may be worth less than choosing anew; without, an option is never interrupted."""


@config
class FirstConfig:
    """A flat agent before, whose replay the options are learnt from."""

    env_steps: PositiveInt = 200_000
    sequence: PositiveInt = 16
    """Steps of a sequence learnt from."""
    updates: NonNegativeInt = 4
    """After each rollout; with 0 it acts evenly to the end."""


@config
class Config:
    """A run of H2O2."""

    kind: Literal["h2o2"] = "h2o2"
    seed: NonNegativeInt = 0
    """Of every draw, and of the layouts of an environment that has some."""
    env: EnvConfig = Field(default=GoalGridConfig(), discriminator="kind")
    held_out: bool = False
    """Whether the controller meets layouts that the first agent did not; those of walls and mazes are drawn from the seed."""
    options: OptionsConfig = OptionsConfig()
    first: FirstConfig | None = None
    env_steps: PositiveInt = 200_000
    """Single steps of the controller's experience in all."""
    num_envs: PositiveInt = 64
    rollout: PositiveInt = 16
    """Single steps of each environment between learning phases."""
    replay_steps: PositiveInt = 100_000
    window: PositiveInt = 100_000
    """Newest steps of replay that the controller learns from; options learn from all."""
    sequence: PositiveInt = 16
    """Choices of a sequence learnt from."""
    batch: PositiveInt = 64
    online: float = Field(default=0.25, ge=0, le=1)
    """Share of the batch that ends now."""
    updates: PositiveInt = 4
    """Updates of the controller after each rollout."""
    memory: RecurrentConfig | None = Field(default=None, discriminator="kind")
    """What the controller remembers by; it reads every single step."""
    width: PositiveInt = 128
    hidden: PositiveInt = 128
    support: tuple[float, float, PositiveInt] = (-2.0, 2.0, 41)
    learning_rate: PositiveFloat = 2e-3
    """Of AdamW, falling linearly to 0 at the end."""
    clip_update: PositiveFloat = 1.0
    target_rate: float = Field(default=0.05, gt=0, le=1)
    loss: LossConfig = LossConfig()
    log_every: PositiveInt = 16
    """Rollouts between rows of metrics, each with an evaluation."""
    checkpoint_every: PositiveInt = 64
    eval_episodes: PositiveInt = 512
    final_episodes: PositiveInt = 4096
    device: str = "cpu"

    def __post_init__(self) -> None:
        low, high, num_atoms = self.support
        Support(low=low, high=high, num_atoms=num_atoms)  # raises where it is none
        if self.sequence <= self.loss.unroll:
            raise ValueError(f"sequence: found {self.sequence} choices, expected more than the {self.loss.unroll} of loss.unroll")
        if self.window > self.replay_steps:
            raise ValueError(f"window: found {self.window} steps, expected at most the {self.replay_steps} of replay_steps")
        needed = (self.sequence + 1) * (self.options.steps if self.options.codes else 1)
        for name, steps in (("window", self.window), ("env_steps", self.env_steps)):
            if steps < needed * self.num_envs:
                found = f"{name}: found {steps}"
                raise ValueError(f"{found}, expected a sequence of every environment at least, {needed * self.num_envs} steps")
        if self.options.single and not self.options.primitives:
            raise ValueError(f"options.single: found {self.options.single}, expected options.primitives: true, so that actions are choices")
        if self.first and self.first.sequence <= self.loss.unroll:
            raise ValueError(f"first.sequence: found {self.first.sequence}, expected more than the {self.loss.unroll} of loss.unroll")
        if self.first and not self.options.codes:
            raise ValueError("first: found a first stage, but options.codes is 0, so nothing would be learnt from it")


class Agent:
    """What acts and learns in one stage: a controller, and options if it has any."""

    def __init__(self, cfg: Config, env: VectorEnv, codes: int, sequence: int) -> None:
        ask, gamma = cfg.options, cfg.loss.gamma
        self.sequence = sequence
        self.longest, self.interrupt = (ask.steps, ask.interrupt) if codes else (1, None)
        self.primitives = env.num_actions if ask.primitives or not codes else 0
        """Choices that are single actions; those after them are codes."""
        low, high, num_atoms = cfg.support
        support = Support(low=low, high=high, num_atoms=num_atoms)
        choices = self.primitives + codes
        core = make_core(cfg.memory, cfg.width) if cfg.memory else None
        controller = RememberingModel(env.obs_shape, env.num_actions, choices, support, cfg.width, cfg.hidden, core).to(cfg.device)
        if codes:
            controller.world.policy_head[-1].bias.data[self.primitives :] -= ask.doubt  # type: ignore[index, operator]
        self.learner = Learner(
            controller,
            learning_rate=cfg.learning_rate,
            clip_update=cfg.clip_update,
            target_rate=cfg.target_rate,
            variance_decay=cfg.loss.variance_decay,
        )
        self.gamma_Z = torch.tensor([gamma] * self.primitives + [gamma**self.longest] * codes, device=cfg.device)
        """The discount that each choice has had, a moving average: an interrupted option is shorter than its longest."""
        self.options = self.acting = None
        if codes:
            self.options = OptionModel(env.obs_shape, env.num_actions, codes, ask.steps, ask.hidden, ask.sees).to(cfg.device)
            self.acting = copy.deepcopy(self.options).requires_grad_(False)
            self.adam = torch.optim.Adam(self.options.parameters(), lr=ask.learning_rate)

    def state_dict(self) -> dict[str, Any]:
        state = {"learner": self.learner.state_dict(), "gamma": self.gamma_Z}
        if self.options and self.acting:
            state |= {"options": self.options.state_dict(), "acting": self.acting.state_dict(), "adam": self.adam.state_dict()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.gamma_Z = state["gamma"].to(self.gamma_Z.device).clone()
        if self.options and self.acting:
            self.options.load_state_dict(state["options"])
            self.acting.load_state_dict(state["acting"])
            self.adam.load_state_dict(state["adam"])


class Doing(NamedTuple):
    """Where every environment is in what it does, each [B, ...]."""

    obs: Tensor
    fresh: Tensor
    """Whether it is the first step of an episode."""
    last: Tensor
    """The action before."""
    choice: Tensor
    age: Tensor
    """Steps that the choice has been followed; 0 asks for a new one."""
    memory: Tensor


Way = Literal["sampled", "greedy", "prior", "even"]
"""How choices are made: drawn from pi', its likeliest, drawn from the prior of the codes, or drawn evenly. Actions of options are drawn."""


def beginning(agent: Agent, obs: Tensor) -> Doing:
    zero = torch.zeros(len(obs), dtype=torch.long, device=obs.device)
    return Doing(obs, torch.ones_like(zero, dtype=torch.bool), zero, zero, zero, agent.learner.average.first_memory(len(obs)))


@torch.no_grad()
def decide(agent: Agent, now: Doing, way: Way, draws: torch.Generator) -> dict[str, Tensor]:
    """The action of every environment, by a choice that goes on or a new one; with what replay keeps of the step."""
    net = agent.learner.average
    state, memory = net.state(now.obs, now.last, now.fresh, now.memory)
    logits = net.world.predict(state).policy_logits
    begins, probs = now.age == 0, logits.softmax(-1)
    if agent.interrupt is not None:
        q = lookahead(net.world, state, agent.gamma_Z)
        behind = (probs * q).sum(-1) - q.gather(-1, now.choice[:, None])[:, 0]
        begins = begins | (behind > agent.interrupt * agent.learner.scale)
    if way == "prior" and agent.acting:
        probs = torch.cat([torch.zeros_like(probs[:, : agent.primitives]), agent.acting.prior(now.obs).softmax(-1)], 1)
    elif way == "even":
        probs = torch.full_like(probs, 1 / probs.shape[1])
    new = probs.argmax(-1) if way == "greedy" else torch.multinomial(probs, 1, generator=draws)[:, 0]
    choice = torch.where(begins, new, now.choice)
    logp = probs.gather(-1, choice[:, None])[:, 0].log()
    action, action_logp = choice, logp
    if agent.acting:
        by_option, by_option_logp = drawn(agent.acting.act(now.obs, (choice - agent.primitives).clamp(min=0)), draws)
        single = choice < agent.primitives
        action, action_logp = torch.where(single, choice, by_option), torch.where(single, logp, by_option_logp)
    return {"action": action, "choice": choice, "begins": begins, "logp": logp, "action_logp": action_logp, "memory": memory}


def after(agent: Agent, now: Doing, done: dict[str, Tensor], obs: Tensor, ended: Tensor) -> Doing:
    """What every environment does after a step."""
    age = torch.where(done["begins"], 0, now.age) + 1
    over = ended | (done["choice"] < agent.primitives) | (age >= agent.longest)
    return Doing(obs, ended, done["action"], done["choice"], torch.where(over, 0, age), done["memory"])


def collect(env: VectorEnv, now: Doing, agent: Agent, replay: Replay, cfg: Config, draws: torch.Generator) -> Doing:
    """A rollout of single steps into `replay`."""
    for _ in range(cfg.rollout):
        done = decide(agent, now, "sampled", draws)
        obs, reward, terminated, truncated = env.step(done["action"])
        seen = {"obs": now.obs, "fresh": now.fresh, "last": now.last, "memory": now.memory}
        replay.append(reward=reward, terminated=terminated, truncated=truncated, **{**done, **seen})
        now = after(agent, now, done, obs, terminated | truncated)
    return now


def learn_options(agent: Agent, replay: Replay, cfg: Config, updates: int, draws: torch.Generator) -> dict[str, Tensor]:
    """Some updates of the options from all of replay, the acting ones following; the parts of the last loss."""
    ask, options, acting = cfg.options, agent.options, agent.acting
    assert options
    assert acting
    parts: dict[str, Tensor] = {}
    for _ in range(updates):
        fields = replay.sample(ask.batch, ask.steps + 1, draws).fields
        loss, parts = option_loss(options, stretches(fields, ask.steps), ask.beta, ask.usage)
        agent.adam.zero_grad()
        loss.backward()
        agent.adam.step()
        track(acting, options, ask.rate)
    return parts


def stretches(fields: dict[str, Tensor], steps: int) -> Segments:
    """Whole stretches of replay."""
    column = torch.arange(fields["action"].shape[1], device=fields["action"].device)
    return segments_at(fields["obs"], fields["action"], fields["terminated"] | fields["truncated"], torch.zeros_like(column), column, steps)


def update(agent: Agent, replay: Replay, since: int, cfg: Config, draws: torch.Generator, progress: float) -> dict[str, Tensor]:
    """One step of Muesli from the newest `since` steps of replay."""
    fields = replay.sample_mixed(cfg.batch, needed(agent), cfg.online, draws, since)
    if cfg.options.single:
        single_N = torch.rand(cfg.batch, generator=draws, device=draws.device) < cfg.options.single
        fields["begins"] = fields["begins"] | single_N
        for name, of_action in (("choice", "action"), ("logp", "action_logp")):
            fields[name] = torch.where(single_N, fields[of_action], fields[name])
    found = decisions_of(fields["begins"], fields["reward"], fields["terminated"], fields["truncated"], agent.sequence + 1, cfg.loss.gamma)
    chosen = {name: fields[name].gather(0, found.step) for name in ("choice", "logp")}
    if cfg.options.relabel and agent.acting:
        code, logp = relabelled(agent.acting, fields, found, draws)
        was_option = chosen["choice"] >= agent.primitives
        read = {"choice": code + agent.primitives, "logp": logp}
        chosen = {name: torch.where(was_option, read[name], x) for name, x in chosen.items()}
    batch = Sequences(chosen["choice"], found.reward, found.discount, found.terminated, found.truncated, chosen["logp"])
    if agent.interrupt is not None:
        went_on = ~(batch.terminated | batch.truncated)[:-1]
        agent.gamma_Z = followed(agent.gamma_Z, batch.action[:-1][went_on], batch.discount[:-1][went_on], rate=0.01)
    nets = ((agent.learner.average, found.step), (agent.learner.model, found.step[:-1]))
    average, model = (Reading(net.world, net.states(fields, step)) for net, step in nets)
    parts = improve(agent.learner, average, model, batch, agent.gamma_Z, cfg.loss, progress)
    return parts | {"length": found.length[:-1].float().mean()}


def needed(agent: Agent) -> int:
    """Single steps that always hold `sequence` + 1 choices."""
    return (agent.sequence + 1) * agent.longest


def evaluate(agent: Agent, cfg: Config, episodes: int, when: int | str, way: Way = "greedy", held_out: bool = False) -> dict[str, float]:
    """Mean return of the first episode of every environment, and what was chosen in it; starts depend on `when` alone."""
    env = make_env(cfg.env, episodes, cfg.device, layout_seed=cfg.seed, held_out=held_out)
    streams = [torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, 0, "evaluation", x)) for x in (when, f"{when} draws")]
    now: Doing | None = None
    done: dict[str, Tensor] = {}
    alive = torch.ones(episodes, dtype=torch.bool, device=cfg.device)
    count_Z = torch.zeros(len(agent.gamma_Z), device=cfg.device)
    steps = 0

    def act(obs: Tensor, first: Tensor, new_trial: Tensor) -> Tensor:
        nonlocal now, done, alive, count_Z, steps
        if now is None:
            now = beginning(agent, obs)
        else:
            now = after(agent, now, done, obs, first)
            alive = alive & ~first
        done = decide(agent, now, way, streams[1])
        chosen = done["choice"][alive & done["begins"]]
        count_Z = count_Z.index_add(0, chosen, torch.ones_like(chosen, dtype=count_Z.dtype))
        steps += int(alive.sum())
        return done["action"]

    score = returns_by_episode(env, act, 1, streams[0]).mean().item()
    share_Z = count_Z / count_Z.sum()
    of_options = count_Z[agent.primitives :] / count_Z[agent.primitives :].sum().clamp(min=1)
    return {
        "score": score,
        "decisions": count_Z.sum().item() / episodes,
        "mean_steps": steps / count_Z.sum().item(),
        "share_options": share_Z[agent.primitives :].sum().item(),
        "codes_used": torch.exp(-torch.xlogy(of_options, of_options).sum()).item(),
    }


@torch.no_grad()
def quality(agent: Agent, replay: Replay, cfg: Config, draws: torch.Generator) -> dict[str, float]:
    """How the acting options explain stretches of replay."""
    assert agent.acting
    fields = replay.sample(4096, cfg.options.steps + 1, draws).fields
    parts = option_loss(agent.acting, stretches(fields, cfg.options.steps), cfg.options.beta, cfg.options.usage)[1]
    return {name: x.item() for name, x in parts.items()}


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train by stages, evaluate, write `result.json` and weights; returns the exit code."""
    check_device(cfg.device)
    env, later_env = (make_env(cfg.env, cfg.num_envs, cfg.device, layout_seed=cfg.seed, held_out=x) for x in (False, cfg.held_out))
    if cfg.options.sees and (len(env.obs_shape) != 1 or cfg.options.sees > env.obs_shape[0]):
        wanted = f"vectors of at least {cfg.options.sees} numbers"
        raise ConfigError(f"options.sees: expected observations that are {wanted}, got shape {env.obs_shape}")
    run, saved = RunFolder(out, cfg, resume=resume, free=("checkpoint_every",)), out / "checkpoint.pt"
    draws = checkpoint.seeded(seed_for(cfg.seed, 0), cfg.device)
    starts = [torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, 0, name)) for name in ("env", "later env")]
    replay = Replay(cfg.replay_steps // cfg.num_envs, cfg.num_envs, cfg.device)
    steps_each, before_s = cfg.num_envs * cfg.rollout, time.process_time()
    first = cfg.first.env_steps // steps_each if cfg.first else 0
    rollouts = first + cfg.env_steps // steps_each
    agent = Agent(cfg, later_env, cfg.options.codes, cfg.sequence)
    flat = Agent(cfg, env, 0, (cfg.first or FirstConfig()).sequence)
    parts = {"agent": agent, "flat": flat, "env": env, "later_env": later_env, "replay": replay, "draws": draws}
    now = beginning(flat, env.reset(starts[0])) if first else beginning(agent, later_env.reset(starts[0]))
    done, decisions = 0, 0
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        now, done, decisions = Doing(*(x.to(cfg.device) for x in numbers["now"])), numbers["done"], numbers["decisions"]
    run.forget_after(done)
    with StopSignal() as stop:
        for number in range(done + 1, rollouts + 1):
            early = number <= first
            who, begun, end = (flat, 0, first) if early else (agent, first, rollouts)
            learnt: dict[str, Tensor] = {}
            if number == first + 1 and first:
                learnt = learn_options(agent, replay, cfg, cfg.options.fit, draws)
                now = beginning(agent, later_env.reset(starts[1]))
            now = collect(env if early else later_env, now, who, replay, cfg, draws)
            decisions += 0 if early else int(replay.latest(cfg.rollout)["begins"].sum())
            if not first and agent.options and number % cfg.options.every == 0:
                learnt = learn_options(agent, replay, cfg, cfg.options.updates, draws)
            rows, since = [], min((number - begun) * cfg.rollout, cfg.window // cfg.num_envs, len(replay))
            if since >= needed(who):
                updates = cfg.first.updates if cfg.first and early else cfg.updates
                progress = (number - begun - 1) / (end - begun)
                rows = [update(who, replay, since, cfg, draws, progress) for _ in range(updates)]
            if number % cfg.log_every == 0 or number == rollouts:
                means = {name: torch.stack([row[name] for row in rows]).mean().item() for name in (rows[0] if rows else ())}
                row = {"stage": "first" if early else "agent", "env_steps": number * steps_each, **means}
                row |= {f"option_{name}": x.item() for name, x in learnt.items()}
                row |= evaluate(who, cfg, cfg.eval_episodes, number, held_out=cfg.held_out and not early)
                run.log(number, row | {"cpu_s": time.process_time() - before_s})
            if number % cfg.checkpoint_every == 0 or number == rollouts or stop.came:
                checkpoint.save(saved, parts, now=tuple(now), done=number, decisions=decisions)
            if stop.came:
                return INTERRUPTED
    result: dict[str, Any] = {"env_steps": rollouts * steps_each, "training_decisions": decisions}
    result |= evaluate(agent, cfg, cfg.final_episodes, "end", held_out=cfg.held_out)
    result["sampled"] = evaluate(agent, cfg, cfg.eval_episodes, "end", "sampled", cfg.held_out)
    places = ("known", "held_out") if cfg.held_out else ("known",)
    if first:
        result["first"] = {where: evaluate(flat, cfg, cfg.final_episodes, "end", held_out=where == "held_out") for where in places}
    weights = {"controller": agent.learner.average.state_dict()}
    if agent.acting:
        ways: tuple[Way, ...] = ("prior", "even")
        result |= {way: evaluate(agent, cfg, cfg.eval_episodes, "end", way, cfg.held_out) for way in ways}
        result["options"] = quality(agent, replay, cfg, draws)
        weights["options"] = agent.acting.state_dict()
        if isinstance(cfg.env, GoalGridConfig) and isinstance(env, Grid):
            draw_paths(out / "options.png", option_scenes(agent.acting, env, cfg.env.n, draws))
    torch.save(weights, out / "agent.pt")
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0
