"""DOMiNO (arXiv 2205.13521): a set of policies of which each must be nearly the best and none like another, learnt from samples.

    max Diversity(psi_1 ... psi_N)    such that    v_i >= alpha v*    for every policy i

One network is told by a latent which policy it is, pi(a | s, z_i). psi_i = E[phi(s)] and v_i = E[r] are running averages of what rollouts
meet; Diversity and its force f are those of `kernel.diversity`. Two critics look ahead, V of the task's reward and Psi of the features,
and their advantages are mixed, not their rewards, as the mixture moves faster than a critic can follow:

    A_i = sigmoid(mu_i) A_V / std(A_V)  +  (1 - sigmoid(mu_i)) f(l_i) A_Psi . u_i / std(A_Psi . u),    u_i = (psi_i - psi_j*) / l_i
    mu_i <- mu_i - rate d/dmu_i sigmoid(mu_i) (v_i - alpha v_1)          policy 1 has the task alone, v_1 stands for v*

Psi is what one policy will meet, so it need not follow the neighbours, which turn u. The policy is improved by PPO's clipped surrogate
(arXiv 1707.06347). Beside the bound: a fixed share of the task in place of sigmoid(mu), 1 being no diversity, and in place of features the
reward of a discriminator that is taught to tell policies by what they meet (DIAYN, arXiv 1802.06070), whose own critic takes Psi's place.

At the end each policy plays in the world it was trained in; a point mass also where doors are closed, motors weak or friction changed: the
set is tried k times a policy, and the one that did best is judged on further trials. Left out: the paper's agent, which learns off policy
from replay, and recurrent cores.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from posttrain.agents.environments import EnvConfig, PointMassConfig, check_device, make_env
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.diversity import (
    discrimination_reward,
    force,
    nearest,
    places,
    running,
    stepped_multipliers,
    task_share,
)
from posttrain.agents.kernel.envs.pointmass import PointMass, perturbed
from posttrain.agents.kernel.envs.vector import VectorEnv
from posttrain.agents.kernel.maps import Scene, draw_paths
from posttrain.agents.kernel.nets import descend, mlp, set_rate
from posttrain.agents.kernel.ppo import clipped_loss
from posttrain.agents.kernel.returns import lambda_return
from posttrain.agents.kernel.sets import PolicySet, act, by_policy, play, tried
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import ConfigError, config
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic


@config
class DiversityConfig:
    """What makes policies different, and what they may pay for it."""

    alpha: float | None = Field(default=0.9, gt=0, le=1)
    """Each policy must keep this share of the first one's value; null where `share` is given."""
    share: float | None = Field(default=None, ge=0, le=1)
    """A fixed share of the task in what all but the first maximise, in place of the bound; 1 is no diversity."""
    rest: float | None = Field(default=None, gt=0)
    """l_0 of the van der Waals force; without it neighbours only repel each other."""
    reward: Literal["features", "discrimination"] = "features"
    """From distances of features, or from a discriminator."""
    phi: Literal["places", "observation"] = "places"
    """Features: how close the first two numbers of an observation are to each of a grid of places, or the observation itself."""
    places: int = Field(default=6, ge=2)
    """Side of that grid, from -1 to 1."""
    value_decay: float = Field(default=0.7, ge=0, lt=1)
    """Of the running average of v, a rollout."""
    features_decay: float = Field(default=0.9, ge=0, lt=1)
    """Of the running average of psi, a rollout."""
    multiplier: float = 2.0
    """Every mu at first: high, so that policies learn the task before they part."""
    multiplier_rate: PositiveFloat = 15.0
    largest: PositiveFloat = 4.0
    """Bound of the multipliers."""

    def __post_init__(self) -> None:
        if (self.alpha is None) == (self.share is None):
            raise ValueError(f"found alpha {self.alpha} and share {self.share}, expected one of the two and null for the other")
        if self.rest is not None and self.reward == "discrimination":
            raise ValueError(f"rest: found {self.rest} with reward discrimination, expected it with features, which have distances")


@config
class TrialConfig:
    """What trained policies are asked; the last two are for a point mass."""

    steps: PositiveInt = 100
    """Length of a trial; episodes follow each other in it."""
    k: PositiveInt = 4
    """Trials of each policy before one is chosen."""
    judged: PositiveInt = 60
    """Further trials of each policy in each world."""
    motor: float = Field(default=0.2, ge=0, le=1)
    """Strength of a weak motor, one of the four at a time."""
    frictions: tuple[PositiveFloat, ...] = (0.3, 0.7)
    """In place of the friction of training."""


@config
class Config:
    """A run of DOMiNO or of what it is compared with."""

    kind: Literal["domino"] = "domino"
    seed: NonNegativeInt = 0
    env: EnvConfig = Field(default=PointMassConfig(), discriminator="kind")
    policies: int = Field(default=8, ge=2)
    diversity: DiversityConfig = DiversityConfig()
    env_steps: PositiveInt = 1_500_000
    num_envs: PositiveInt = 1024
    """Divided evenly among the policies."""
    rollout: PositiveInt = 10
    """Steps of each environment between learning phases."""
    epochs: PositiveInt = 4
    """Passes over a rollout."""
    minibatches: PositiveInt = 4
    """Updates a pass."""
    gamma: float = Field(default=0.97, gt=0, lt=1)
    lambda_: float = Field(default=0.95, ge=0, le=1)
    """Of the generalised advantage estimates."""
    clip: PositiveFloat = 0.2
    """Largest change of a probability ratio that the surrogate pays for."""
    entropy: NonNegativeFloat = 0.02
    """Weight of the policies' entropy."""
    hidden: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-3
    """Of Adam, falling linearly to 0 at the end of the run, as the multipliers' rate does."""
    clip_update: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    trials: TrialConfig = TrialConfig()
    log_every: PositiveInt = 20
    """Rollouts between rows of metrics."""
    checkpoint_every: PositiveInt = 50
    """Rollouts between checkpoints."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.num_envs % self.policies:
            raise ValueError(f"num_envs: found {self.num_envs}, expected a multiple of the {self.policies} policies")
        if self.env_steps < self.num_envs * self.rollout:
            raise ValueError(f"env_steps: found {self.env_steps}, expected a rollout at least, {self.num_envs * self.rollout} steps")
        if (self.num_envs * self.rollout) % self.minibatches:
            raise ValueError(
                f"minibatches: found {self.minibatches}, expected a divisor of the {self.num_envs * self.rollout} steps of a rollout"
            )


class Rollout(NamedTuple):
    """T steps of B environments, environment b being policy `policy[b]`'s."""

    obs: Tensor
    """[T, B, D]"""
    action: Tensor
    logp: Tensor
    reward: Tensor
    ended: Tensor
    """[T, B]"""
    last_obs: Tensor
    """[B, D]"""


def features(obs: Tensor, cfg: DiversityConfig) -> Tensor:
    """phi, [..., D] -> [..., F]."""
    return places(obs, cfg.places) if cfg.phi == "places" else obs


class Learner:
    """Networks, optimiser, running averages and multipliers: all that learning changes."""

    def __init__(self, cfg: Config, env: VectorEnv) -> None:
        self.cfg = cfg
        num_obs = env.obs_shape[0]
        num_phi = features(torch.zeros(num_obs), cfg.diversity).shape[-1]
        discriminates = cfg.diversity.reward == "discrimination"
        self.net = PolicySet(num_obs, env.num_actions, cfg.policies, 1 if discriminates else num_phi, cfg.hidden).to(cfg.device)
        self.discriminator = mlp([num_phi, cfg.hidden, cfg.policies]).to(cfg.device) if discriminates else None
        parameters = [*self.net.parameters(), *(self.discriminator.parameters() if self.discriminator else ())]
        self.optimiser = torch.optim.Adam(parameters, lr=cfg.learning_rate)
        self.policy_B = torch.arange(cfg.num_envs, device=cfg.device) % cfg.policies
        self.value_N = torch.full((cfg.policies,), torch.nan, device=cfg.device)
        self.psi_NF = torch.full((cfg.policies, num_phi), torch.nan, device=cfg.device)
        self.multiplier_N = torch.full((cfg.policies,), cfg.diversity.multiplier, device=cfg.device)

    def shares(self) -> Tensor:
        """Share of the task of each policy, [N]."""
        if self.cfg.diversity.share is None:
            return task_share(self.multiplier_N)
        share_N = torch.full_like(self.multiplier_N, self.cfg.diversity.share)
        share_N[0] = 1
        return share_N

    @torch.no_grad()
    def average(self, rollout: Rollout) -> None:
        """Let the running averages of v and psi follow a rollout."""
        cfg, num = self.cfg.diversity, self.cfg.policies
        self.value_N = running(self.value_N, by_policy(rollout.reward, num), cfg.value_decay)
        self.psi_NF = running(self.psi_NF, by_policy(features(rollout.obs, cfg), num), cfg.features_decay)

    @torch.no_grad()
    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """The mixed advantage [T, B], and what V and Psi are taught, [T, B] and [T, B, F]; returns are times 1 - gamma."""
        cfg, near = self.cfg, nearest(self.psi_NF)
        phi = features(rollout.obs, cfg.diversity)
        force_N, unit_NF = force(near.distance, cfg.diversity.rest), near.difference / near.distance[:, None].clamp(min=1e-6)
        if self.discriminator:
            phi = discrimination_reward(self.discriminator(phi), self.policy_B.expand(rollout.action.shape))[..., None]
            force_N, unit_NF = torch.ones_like(force_N), torch.ones_like(unit_NF[:, :1])
        scale, discount = 1 - cfg.gamma, cfg.gamma * (~rollout.ended).float()
        inputs, last = (
            self.net.inputs(rollout.obs, self.policy_B.expand(rollout.action.shape)),
            self.net.inputs(rollout.last_obs, self.policy_B),
        )
        value, ahead = self.net.value(inputs)[..., 0], self.net.ahead(inputs)
        returns = lambda_return(scale * rollout.reward, discount, value, self.net.value(last)[..., 0], cfg.lambda_)
        ahead_returns = lambda_return(scale * phi, discount[..., None], ahead, self.net.ahead(last), cfg.lambda_)
        task = returns - value
        other = ((ahead_returns - ahead) * unit_NF[self.policy_B]).sum(-1)
        share_B = self.shares()[self.policy_B]
        mixed = share_B * _standardised(task) + (1 - share_B) * force_N[self.policy_B] * _standardised(other)
        return mixed, returns, ahead_returns

    def update(self, rollout: Rollout, progress: float, draws: torch.Generator) -> dict[str, Tensor]:
        """Averages, all passes over the rollout, then the multipliers; `progress` from 0 to 1 is how much of the run is over."""
        cfg = self.cfg
        self.average(rollout)
        advantage, returns, ahead_returns = (x.flatten(0, 1) for x in self.advantages(rollout))
        obs, action, logp = (x.flatten(0, 1) for x in (rollout.obs, rollout.action, rollout.logp))
        policy = self.policy_B.repeat(cfg.rollout)
        set_rate(self.optimiser, cfg.learning_rate * (1 - progress))
        sums: dict[str, Tensor] = {}
        for _ in range(cfg.epochs):
            for at in torch.randperm(len(obs), generator=draws, device=obs.device).chunk(cfg.minibatches):
                parts = self._losses(obs[at], action[at], policy[at], logp[at], advantage[at], returns[at], ahead_returns[at])
                loss = parts["surrogate"] - cfg.entropy * parts["entropy"] + sum(parts[x] for x in parts if x.startswith("error"))
                descend(self.optimiser, loss, cfg.clip_update)
                sums = {name: sums.get(name, 0) + x.detach() / (cfg.epochs * cfg.minibatches) for name, x in parts.items()}
        bound = cfg.diversity
        if bound.alpha is not None:
            rate = (1 - progress) * bound.multiplier_rate
            self.multiplier_N = stepped_multipliers(self.multiplier_N, self.value_N, bound.alpha, rate, bound.largest)
        return sums

    def _losses(
        self, obs: Tensor, action: Tensor, policy: Tensor, logp: Tensor, advantage: Tensor, returns: Tensor, ahead: Tensor
    ) -> dict[str, Tensor]:
        """What one minibatch is worth: the surrogate, the entropy, and the errors of the critics and the discriminator."""
        inputs = self.net.inputs(obs, policy)
        logps = self.net.actor(inputs).log_softmax(-1)
        new_logp = logps.gather(-1, action[:, None])[:, 0]
        parts = {
            "surrogate": clipped_loss(new_logp, logp, advantage, self.cfg.clip),
            "entropy": -(logps.exp() * logps).sum(-1).mean(),
            "error_value": (self.net.value(inputs)[:, 0] - returns).square().mean(),
            "error_ahead": (self.net.ahead(inputs) - ahead).square().sum(-1).mean(),
        }
        if self.discriminator:
            parts["error_discriminator"] = nn.functional.cross_entropy(self.discriminator(features(obs, self.cfg.diversity)), policy)
        return parts

    def summary(self) -> dict[str, float]:
        """Running values and the mean distance to a neighbour, of the set as the averages see it."""
        worst, best = self.value_N.min(), self.value_N.max()
        found = {
            "value_worst": worst,
            "value_best": best,
            "distance": nearest(self.psi_NF).distance.mean(),
            "share": self.shares()[1:].mean(),
        }
        return {name: x.item() for name, x in found.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "discriminator": self.discriminator.state_dict() if self.discriminator else {},
            "optimiser": self.optimiser.state_dict(),
            "averages": [self.value_N, self.psi_NF, self.multiplier_N],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        if self.discriminator:
            self.discriminator.load_state_dict(state["discriminator"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.value_N, self.psi_NF, self.multiplier_N = (x.to(self.cfg.device).clone() for x in state["averages"])


def _standardised(x: Tensor) -> Tensor:
    """x over its spread around 0, which keeps the sign of an advantage."""
    return x / x.square().mean().sqrt().clamp(min=1e-8)


def collect(env: VectorEnv, obs: Tensor, learner: Learner, draws: torch.Generator) -> Rollout:
    """A rollout from `obs` on."""
    steps: list[tuple[Tensor, ...]] = []
    for _ in range(learner.cfg.rollout):
        action, logp = act(learner.net, obs, learner.policy_B, draws)
        next_obs, reward, terminated, truncated = env.step(action)
        steps.append((obs, action, logp, reward, terminated | truncated))
        obs = next_obs
    seen, action, logp, reward, ended = map(torch.stack, zip(*steps, strict=True))
    return Rollout(seen, action, logp, reward, ended, last_obs=obs)


def trials(cfg: Config, net: PolicySet, out: Path) -> dict[str, Any]:
    """What the set is like where it was trained, and, for a point mass, how it does in every perturbed world; draws `paths.png`."""
    num, ask = cfg.policies, cfg.trials

    def streams(name: str) -> tuple[torch.Generator, torch.Generator]:
        return tuple(torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, name, what)) for what in ("draws", "starts"))  # type: ignore[return-value]

    env = make_env(cfg.env, num * (ask.k + ask.judged), cfg.device, layout_seed=cfg.seed)
    value_NE, obs = play(net, env, ask.steps, *streams("trained"))
    value_N = value_NE.mean(1)
    distance_N = nearest(features(obs, cfg.diversity).mean((0, 2))).distance
    result: dict[str, Any] = {
        "first": value_N[0].item(),
        "best": value_N.max().item(),
        "worst_over_best": (value_N.min() / value_N.max()).item(),
        "mean_over_best": (value_N.mean() / value_N.max()).item(),
        "distance": distance_N.mean().item(),
        "least_distance": distance_N.min().item(),
        "values": dict(enumerate(value_N.tolist())),
    }
    if not isinstance(env, PointMass):
        return result
    scenes = [scene_of("as trained", env, obs, range(num))]
    for group, worlds in perturbed(env, ask.motor, ask.frictions).items():
        found = []
        for name, world in worlds.items():
            value_NE, obs = play(net, world, ask.steps, *streams(name))
            found.append(tried(value_NE, ask.k))
            if group == "doors" and len(world.closed) == len(env.doors) - 1:
                picked = int(value_NE[:, : ask.k].mean(1).argmax())
                scenes.append(scene_of(name, world, obs, [0] if picked == 0 else [0, picked]))
        means = {key: sum(x[key] for x in found) / len(found) for key in found[0]}
        result[group] = means | {"picked_over_single": means["picked"] / max(means["single"], 1e-6)}
    draw_paths(out / "paths.png", scenes, columns=len(scenes))
    return result


def scene_of(title: str, env: PointMass, obs: Tensor, policies: Iterable[int], trips: int = 3) -> Scene:
    """The first episode of some trials of some policies."""
    place_TNE2 = obs[..., :2].cpu()
    jumps_TNE = (place_TNE2[1:] - place_TNE2[:-1]).norm(dim=-1) > 0.5  # back to the start
    first_NE = torch.where(jumps_TNE.any(0), jumps_TNE.int().argmax(0), env.limit - 1) + 1
    paths = {i: [place_TNE2[: first_NE[i, e], i, e].numpy() for e in range(trips)] for i in policies}
    return Scene(title, paths, env.walls, env.goal, env.closed)


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, try the set, write `result.json`, its weights and, for a point mass, `paths.png`; returns the exit code."""
    check_device(cfg.device)
    env = make_env(cfg.env, cfg.num_envs, cfg.device, layout_seed=cfg.seed)
    if len(env.obs_shape) != 1:
        raise ConfigError(f"env: {cfg.env.kind}: shows {env.obs_shape}, expected vectors: the networks here are MLPs")
    run, saved = RunFolder(out, cfg, resume=resume, free=("checkpoint_every",)), out / "checkpoint.pt"
    draws = checkpoint.seeded(seed_for(cfg.seed, "domino"), cfg.device)
    learner = Learner(cfg, env)
    obs, done = env.reset(torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "env"))), 0
    parts = {"learner": learner, "env": env, "draws": draws}
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        obs, done = numbers["obs"].to(cfg.device), numbers["done"]
    run.forget_after(done)
    steps_each, before_s = cfg.num_envs * cfg.rollout, time.process_time()
    rollouts = cfg.env_steps // steps_each
    with StopSignal() as stop:
        for number in range(done + 1, rollouts + 1):
            rollout = collect(env, obs, learner, draws)
            obs = rollout.last_obs
            means = learner.update(rollout, (number - 1) / rollouts, draws)
            if number % cfg.log_every == 0 or number == rollouts:
                row = {name: x.item() for name, x in means.items()} | learner.summary()
                run.log(number, {"env_steps": number * steps_each, **row, "cpu_s": time.process_time() - before_s})
            if number % cfg.checkpoint_every == 0 or number == rollouts or stop.came:
                checkpoint.save(saved, parts, obs=obs, done=number)
            if stop.came:
                return INTERRUPTED
    torch.save(learner.net.state_dict(), out / "policies.pt")
    write_atomic(out / "result.json", json.dumps({"env_steps": rollouts * steps_each, **trials(cfg, learner.net, out)}, indent=1) + "\n")
    return 0
