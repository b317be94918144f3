"""In-context RL with S5 (arXiv 2303.03982): an agent that remembers by a state space, trained by recurrent PPO.

At every step the network reads the observation, the action before, and whether a new episode begins:

    x_t = encoder(o_t, a_{t-1}, d_t)      y_t, state = core(x_t, reset_t, state)      pi(.|y_t), v(y_t)

The core is S5, or a GRU, an LSTM or a causal transformer instead. reset_t = 1 clears its state before x_t is read. In a memory task it
does so at every first step of an episode. In a trial of several episodes of one unknown task, `in_context` clears it at the first step of
a trial alone, so that what was found out about the task in one episode is still known in the next: learning without a change of weights.

    r = pi(a_t) / pi_old(a_t)      loss = - E min(r A, clip(r) A)  +  weight_value E (v - G)^2 / 2  -  weight_entropy E H(pi)

G_t are lambda returns and A = G - v_old. A rollout is learnt from several times, in minibatches of whole columns: time is never cut, and
every pass starts from the state the rollout began with, which older weights made. Left out: observation normalisation, separate networks
for policy and value, continuous actions. Expected: MemoryChain(127) solved where a GRU is at chance, and returns that rise within a trial
(recipes/icrl_s5).
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot

from posttrain.agents.cores import CoreConfig, S5Config, TransformerConfig, make_core
from posttrain.agents.environments import EnvConfig, MemoryChainConfig, check_device, make_env
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.cores import Core, State, Step
from posttrain.agents.kernel.envs.trials import TrialEnv
from posttrain.agents.kernel.envs.vector import VectorEnv
from posttrain.agents.kernel.nets import descend, mlp, set_rate, torso
from posttrain.agents.kernel.ppo import clipped_loss, drawn, entropy, normalised
from posttrain.agents.kernel.returns import lambda_return
from posttrain.agents.kernel.rollout import begins_trial, returns_by_episode
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import ConfigError, config
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic


@config
class LossConfig:
    """PPO's."""

    gamma: float = Field(default=0.99, ge=0, le=1)
    """Discount a step."""
    lambda_: float = Field(default=0.95, ge=0, le=1)
    """1.0 in the paper's POPGym runs."""
    clip: PositiveFloat = 0.2
    """How far a probability may move, as a share of the old one."""
    weight_value: PositiveFloat = 0.5
    weight_entropy: NonNegativeFloat = 0.01


@config
class Config:
    """A run of recurrent PPO."""

    kind: Literal["icrl_s5"] = "icrl_s5"
    seed: NonNegativeInt = 0
    """Of every draw."""
    env: EnvConfig = Field(default=MemoryChainConfig(), discriminator="kind")
    elsewhere: dict[str, Annotated[EnvConfig, Field(discriminator="kind")]] = Field(default_factory=dict)
    """Name -> another environment, with observations and actions like those of `env`, which the finished agent is evaluated in."""
    core: CoreConfig = S5Config()
    in_context: bool = True
    """Whether the core's state outlasts the episodes of a trial; without, an episode is all that is remembered."""
    width: PositiveInt = 32
    """Features that the core reads and gives."""
    env_steps: PositiveInt = 500_000
    """Steps of experience in all; a rollout that would go beyond is not begun."""
    num_envs: PositiveInt = 32
    rollout: PositiveInt = 128
    """Steps of each environment between learning phases, through which gradients flow."""
    epochs: PositiveInt = 4
    """Times a rollout is learnt from."""
    minibatches: PositiveInt = 4
    """Parts that the environments are split into, for an update each."""
    learning_rate: PositiveFloat = 1e-3
    """Of Adam, falling linearly to 0 at the end of the run."""
    clip_update: PositiveFloat = 0.5
    """Largest norm of the gradient."""
    loss: LossConfig = LossConfig()
    log_every: PositiveInt = 10
    """Rollouts between rows of metrics, each with an evaluation."""
    checkpoint_every: PositiveInt = 50
    """Rollouts between checkpoints."""
    eval_trials: PositiveInt = 128
    """Greedy trials of an evaluation during the run."""
    final_trials: PositiveInt = 1024
    """Greedy trials of the evaluation at the end, drawn apart from those during the run."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.num_envs % self.minibatches:
            raise ValueError(f"minibatches: found {self.minibatches}, expected a divisor of num_envs = {self.num_envs}")
        if self.env_steps < self.num_envs * self.rollout:
            raise ValueError(f"env_steps: found {self.env_steps}, expected one rollout at least, {self.num_envs * self.rollout} steps")
        if isinstance(self.core, TransformerConfig) and self.width % (2 * self.core.heads):
            raise ValueError(f"width: found {self.width}, expected a multiple of 2 * core.heads = {2 * self.core.heads}")


class Inputs(NamedTuple):
    """What the network reads at a step, each [..., B, *]."""

    obs: Tensor
    last_action: Tensor
    first: Tensor
    """Whether it is the first step of an episode, when no action was before."""
    reset: Tensor
    """Whether the state is cleared before."""


class ActorCritic(nn.Module):
    """Encoder, core and heads."""

    def __init__(self, cfg: Config, env: VectorEnv) -> None:
        super().__init__()
        self.num_actions = env.num_actions
        image = len(env.obs_shape) > 1
        self.see: nn.Module = torso(env.obs_shape, cfg.width) if image else nn.Identity()
        seen = cfg.width if image else env.obs_shape[0]
        self.encode = nn.Linear(seen + env.num_actions + 1, cfg.width)
        self.core = make_core(cfg.core, cfg.width)
        self.heads = mlp([cfg.width, 2 * cfg.width, env.num_actions + 1])
        *_, last_weight, _ = self.heads.parameters()
        last_weight.data.mul_(0.01)  # starts from a nearly even policy and values near 0

    @property
    def memory(self) -> Core:
        return self.core  # type: ignore[return-value]

    def forward(self, x: Inputs, state: State) -> tuple[Tensor, Tensor, State]:
        """Logits [T, B, A], values [T, B] and the state after a stretch of inputs, each [T, B, *]."""
        y_TBH, state = self.memory(self._encoded(x), x.reset, state)
        return *self._read(y_TBH), state

    def stepper(self) -> Callable[[Inputs, State], tuple[Tensor, Tensor, State]]:
        """The same for one step after another, inputs [B, *], as long as the weights stay as they are."""
        core_step: Step = self.memory.stepper()

        def step(x: Inputs, state: State) -> tuple[Tensor, Tensor, State]:
            y_BH, state = core_step(self._encoded(x), x.reset, state)
            return *self._read(y_BH), state

        return step

    def _encoded(self, x: Inputs) -> Tensor:
        lead = x.first.shape
        obs = self.see(x.obs.flatten(0, len(lead) - 1)).unflatten(0, lead)
        last = one_hot(x.last_action, self.num_actions) * ~x.first[..., None]
        return leaky_relu(self.encode(torch.cat([obs, last.to(obs.dtype), x.first[..., None].to(obs.dtype)], -1)))

    def _read(self, y: Tensor) -> tuple[Tensor, Tensor]:
        out = self.heads(y)
        return out[..., :-1], out[..., -1]


class Rollout(NamedTuple):
    """T steps of B environments."""

    state: State
    """Before the first step."""
    inputs: Inputs
    """[T, B, *]"""
    action: Tensor
    logp: Tensor
    value: Tensor
    reward: Tensor
    discount: Tensor
    """gamma, or 0 where an episode ended."""


def beginning(obs: Tensor) -> Inputs:
    """The inputs at the start of everything."""
    yes = torch.ones(len(obs), dtype=torch.bool, device=obs.device)
    return Inputs(obs, torch.zeros_like(yes, dtype=torch.long), yes, yes)


def next_inputs(env: VectorEnv, obs: Tensor, action: Tensor, ended: Tensor, in_context: bool) -> Inputs:
    return Inputs(obs, action, ended, begins_trial(env, ended) if in_context else ended)


@torch.no_grad()
def collect(
    env: VectorEnv, net: ActorCritic, x: Inputs, state: State, cfg: Config, draws: torch.Generator
) -> tuple[Rollout, Tensor, Inputs, State]:
    """A rollout with actions drawn from pi, and v, inputs and state after it."""
    step, first_state, kept = net.stepper(), state, []
    for _ in range(cfg.rollout):
        logits, value, state = step(x, state)
        action, logp = drawn(logits, draws)
        obs, reward, terminated, truncated = env.step(action)
        ended = terminated | truncated
        kept.append((*x, action, logp, value, reward, cfg.loss.gamma * ~ended))
        x = next_inputs(env, obs, action, ended, cfg.in_context)
    columns = [torch.stack(column) for column in zip(*kept, strict=True)]
    return Rollout(first_state, Inputs(*columns[:4]), *columns[4:]), step(x, state)[1], x, state


def loss_of(net: ActorCritic, part: Rollout, advantage: Tensor, returns: Tensor, cfg: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its parts over some columns of a rollout."""
    logits, value, _ = net(part.inputs, part.state)
    logp = logits.log_softmax(-1).gather(-1, part.action[..., None])[..., 0]
    parts = {
        "policy": clipped_loss(logp, part.logp, normalised(advantage), cfg.clip),
        "value": 0.5 * (value - returns).square().mean(),
        "entropy": entropy(logits).mean(),
    }
    return parts["policy"] + cfg.weight_value * parts["value"] - cfg.weight_entropy * parts["entropy"], parts


def columns_of(rollout: Rollout, column: Tensor) -> Rollout:
    """Some environments of a rollout."""
    state, inputs, *steps = rollout
    chosen = Inputs(*(x[:, column] for x in inputs))
    return Rollout(tuple(x[column] for x in state), chosen, *(x[:, column] for x in steps))


def learn(
    net: ActorCritic, optimiser: torch.optim.Optimizer, rollout: Rollout, after_B: Tensor, cfg: Config, draws: torch.Generator
) -> dict[str, float]:
    """Several passes over a rollout, `after_B` being the values after it; the means of the loss's parts."""
    returns = lambda_return(rollout.reward, rollout.discount, rollout.value, after_B, cfg.loss.lambda_)
    advantage, rows = returns - rollout.value, []
    for _ in range(cfg.epochs):
        order = torch.randperm(cfg.num_envs, generator=draws, device=draws.device)
        for column in order.chunk(cfg.minibatches):
            loss, parts = loss_of(net, columns_of(rollout, column), advantage[:, column], returns[:, column], cfg.loss)
            descend(optimiser, loss, cfg.clip_update)
            rows.append(parts)
    return {name: torch.stack([row[name].detach() for row in rows]).mean().item() for name in rows[0]}


def evaluate(net: ActorCritic, env_cfg: EnvConfig, cfg: Config, trials: int, when: int | str) -> dict[str, Any]:
    """Mean return of greedy episodes, and where trials have several, of the first, second ... of them; draws depend on `when`."""
    env = make_env(env_cfg, trials, cfg.device, layout_seed=cfg.seed)
    episodes = env.episodes if isinstance(env, TrialEnv) else 1
    step, state = net.stepper(), net.memory.first_state(trials)
    last = torch.zeros(trials, dtype=torch.long, device=cfg.device)

    def act(obs: Tensor, first: Tensor, new_trial: Tensor) -> Tensor:
        nonlocal state, last
        logits, _, state = step(Inputs(obs, last, first, new_trial if cfg.in_context else first), state)
        last = logits.argmax(-1)
        return last

    draws = torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "evaluation", when))
    with torch.no_grad():
        return_E = returns_by_episode(env, act, episodes, draws).mean(1)
    score = {"score": return_E.mean().item()}
    if episodes == 1:
        return score
    return score | {"episode": {str(i + 1): value for i, value in enumerate(return_E.tolist())}}


def environments(cfg: Config) -> VectorEnv:
    """The one to train in; raises `ConfigError` if it cannot be made, or one of `elsewhere` looks otherwise than it."""
    env = make_env(cfg.env, cfg.num_envs, cfg.device, layout_seed=cfg.seed)
    for name, env_cfg in cfg.elsewhere.items():
        other = make_env(env_cfg, 1, cfg.device)
        found, expected = (other.obs_shape, other.num_actions), (env.obs_shape, env.num_actions)
        if found != expected:
            raise ConfigError(
                f"elsewhere.{name}: found observations of shape {found[0]} and {found[1]} actions, expected {expected[0]} and "
                f"{expected[1]} as in env: name an environment that looks like it"
            )
    return env


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, evaluate, write `result.json` and the weights; returns the exit code."""
    check_device(cfg.device)
    env = environments(cfg)
    run, saved = RunFolder(out, cfg, resume=resume, free=("checkpoint_every",)), out / "checkpoint.pt"
    draws = checkpoint.seeded(seed_for(cfg.seed), cfg.device)
    net = ActorCritic(cfg, env).to(cfg.device)
    optimiser = torch.optim.Adam(net.parameters(), lr=cfg.learning_rate, eps=1e-5)
    x = beginning(env.reset(torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "env"))))
    state, done, spent_s = net.memory.first_state(cfg.num_envs), 0, 0.0
    parts = {"net": net, "optimiser": optimiser, "env": env, "draws": draws}
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        x, done, spent_s = Inputs(*(part.to(cfg.device) for part in numbers["x"])), numbers["done"], numbers["spent_s"]
        state = tuple(part.to(cfg.device) for part in numbers["state"])
    run.forget_after(done)
    steps_each = cfg.num_envs * cfg.rollout
    rollouts = cfg.env_steps // steps_each
    with StopSignal() as stop:
        for number in range(done + 1, rollouts + 1):
            before_s = time.process_time()
            set_rate(optimiser, cfg.learning_rate * (1 - (number - 1) / rollouts))
            rollout, after, x, state = collect(env, net, x, state, cfg, draws)
            means = learn(net, optimiser, rollout, after, cfg, draws)
            spent_s += time.process_time() - before_s
            if number % cfg.log_every == 0 or number == rollouts:
                score = evaluate(net, cfg.env, cfg, cfg.eval_trials, when=number)
                run.log(number, {"env_steps": number * steps_each, **score, **means, "train_cpu_s": spent_s})
            if number % cfg.checkpoint_every == 0 or number == rollouts or stop.came:
                checkpoint.save(saved, parts, x=tuple(x), state=state, done=number, spent_s=spent_s)
            if stop.came:
                return INTERRUPTED
    result = {"env_steps": rollouts * steps_each, **evaluate(net, cfg.env, cfg, cfg.final_trials, when="end")}
    for name, env_cfg in cfg.elsewhere.items():
        result[name] = evaluate(net, env_cfg, cfg, cfg.final_trials, when="end")
    result["train_cpu_s"] = spent_s
    torch.save(net.state_dict(), out / "model.pt")
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0
