"""Muesli (arXiv 2104.06159): policy optimisation with a learned model that is only ever looked one step into.

An agent of three functions, s_0 = h(o), (r, s') = g(s, a), (pi, v) = f(s), with parameters theta, and a moving average theta' of them whose
policy pi' acts and which makes every target:

    q'(s, a)   = r'(s, a) + gamma v'(s')                       one step of the model, all actions
    adv(s, a)  = (q'(s, a) - sum_b pi'(b|s) q'(s, b)) / sigma     sigma^2 a moving average of (G - v')^2
    pi_CMPO    ~ pi'(a|s) exp(clip(adv(s, a), -c, c))           Eq. 9: total variation to pi' at most tanh(c / 2)
    G_t        Retrace of q' along the experience, traces lambda min(1, pi' / mu)

    loss = - min(1, pi / mu) adv(G) log pi(a)  +  weight_kl KL(pi_CMPO || pi)                       policy, Eq. 10
           +  mean_k KL(pi_CMPO(s_{t+k}) || pi_k)  +  CE(reward_k, r_{t+k})  +  weight_value CE(v_k, G_{t+k})     model, Eq. 13

pi_k, reward_k and v_k are read from the state that k model steps along the actions taken lead to. Left out: the recurrent core and the LSTM
that steps the model (ours is a residual MLP), the sampled form of the regulariser (actions here are few enough to sum over), the
leave-one-out correction of the policy gradient, and bootstrapping past a time limit, whose step teaches no value at all. Expected: greedy
success of at least .95 on GoalGrid(5) after 60k steps and .97 on GoalGrid(8) after 200k (recipes/muesli_grid).
"""

import copy
import json
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from posttrain.agents.environments import EnvConfig, GoalGridConfig, MazeConfig, WallsConfig, check_device, make_env
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.envs.vector import VectorEnv
from posttrain.agents.kernel.nets import WorldModel, lookahead, save_model, track, unroll
from posttrain.agents.kernel.replay import Replay
from posttrain.agents.kernel.returns import retrace
from posttrain.agents.kernel.rollout import returns_of
from posttrain.agents.kernel.threads import one_thread
from posttrain.agents.kernel.transforms import Support
from posttrain.config import config
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic


@config
class LossConfig:
    """The update, with the values of the paper's tables where they are known."""

    gamma: float = Field(default=0.97, gt=0, lt=1)
    """Discount a step; 0.995 on Atari."""
    retrace_lambda: float = Field(default=0.95, ge=0, le=1)
    clip: PositiveFloat = 1.0
    """Largest absolute advantage in the CMPO target."""
    weight_kl: PositiveFloat = 1.0
    """Of KL(pi_CMPO || pi)."""
    weight_value: PositiveFloat = 0.25
    unroll: PositiveInt = 4
    """Model steps that the loss looks ahead; 5 in the paper."""
    variance_decay: float = Field(default=0.99, ge=0, lt=1)
    """Of the moving average of (G - v')^2, which is corrected for its start."""


@config
class Config:
    """A run of Muesli."""

    kind: Literal["muesli"] = "muesli"
    seed: NonNegativeInt = 0
    """Of every draw, and of the layouts of an environment that has some."""
    member: NonNegativeInt = 0
    """Members of an ensemble differ in this: other draws and first weights, the same layouts."""
    env: EnvConfig = Field(default=GoalGridConfig(), discriminator="kind")
    env_steps: PositiveInt = 60_000
    """Steps of experience in all; a rollout that would go beyond is not begun."""
    num_envs: PositiveInt = 64
    rollout: PositiveInt = 16
    """Steps of each environment between learning phases, and the length of the sequences learnt from."""
    replay_steps: PositiveInt = 100_000
    """Steps of experience kept."""
    even: float = Field(default=0.0, ge=0, lt=1)
    """Share of actions drawn evenly instead of from pi', so that the model is also taught what pi' does not do; 0 in the paper."""
    batch: PositiveInt = 64
    """Sequences in an update."""
    online: float = Field(default=0.25, ge=0, le=1)
    """Share of the batch from the newest rollout; the paper replays 75%, 95% at large scale."""
    updates: PositiveInt = 4
    """Updates after each rollout."""
    width: PositiveInt = 128
    """Numbers in a model state."""
    hidden: PositiveInt = 128
    support: tuple[float, float, PositiveInt] = (-2.0, 2.0, 41)
    """Lowest and highest atom on the squashed scale of values and rewards, and how many there are; (-300, 300, 601) on Atari."""
    learning_rate: PositiveFloat = 2e-3
    """Of AdamW, falling linearly to 0 at the end of the run, which therefore ends with its last weights, not with chosen ones."""
    clip_update: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    target_rate: float = Field(default=0.05, gt=0, le=1)
    """How far theta' moves to theta after an update; 0.1 in the paper."""
    loss: LossConfig = LossConfig()
    log_every: PositiveInt = 8
    """Rollouts between rows of metrics, each with an evaluation."""
    checkpoint_every: PositiveInt = 32
    """Rollouts between checkpoints."""
    eval_episodes: PositiveInt = 512
    """Greedy episodes of an evaluation during the run."""
    final_episodes: PositiveInt = 4096
    """Greedy episodes of the evaluation at the end, drawn apart from those during the run."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        low, high, num_atoms = self.support
        Support(low=low, high=high, num_atoms=num_atoms)  # raises where it is none
        if self.rollout <= self.loss.unroll:
            raise ValueError(f"rollout: found {self.rollout} steps, expected more than the {self.loss.unroll} of loss.unroll")
        if self.replay_steps <= self.num_envs * self.rollout:
            raise ValueError(
                f"replay_steps: found {self.replay_steps}, expected more than num_envs * rollout = {self.num_envs * self.rollout}"
            )
        if self.env_steps < 2 * self.num_envs * self.rollout:
            raise ValueError(f"env_steps: found {self.env_steps}, expected two rollouts at least, {2 * self.num_envs * self.rollout} steps")


class Sequences(NamedTuple):
    """Experience of T + 1 steps; the last one only tells the value after the T before it."""

    obs: Tensor
    """[T+1, N, *obs_shape]"""
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    logp: Tensor
    """log mu(a) of the policy that acted, [T+1, N]."""


class Targets(NamedTuple):
    """What the moving average theta' says of T steps of experience."""

    cmpo: Tensor
    """pi_CMPO, [T, N, A]"""
    returns: Tensor
    """Retrace G, [T, N]"""
    advantage: Tensor
    """(G - v') / sigma, [T, N]"""
    surprise: Tensor
    """Mean of (G - v')^2, for the moving average."""


def cmpo_policy(prior_logits: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """pi_CMPO(a) = pi'(a) exp(clip(adv(a), -c, c)) / z, [..., A], [..., A] -> [..., A]."""
    return (prior_logits.log_softmax(-1) + advantage.clamp(-clip, clip)).softmax(-1)


def kl(probs: Tensor, logits: Tensor) -> Tensor:
    """KL(probs || softmax(logits)), [..., A] -> [...]."""
    return (torch.xlogy(probs, probs) - probs * logits.log_softmax(-1)).sum(-1)


@torch.no_grad()
def targets_of(average: WorldModel, batch: Sequences, scale: Tensor, cfg: LossConfig) -> Targets:
    """Targets from theta'; `scale` is sigma. A step cut by the time limit is taught its own q', that is nothing."""
    state = average.represent(batch.obs.flatten(0, 1)).unflatten(0, batch.obs.shape[:2])
    logits = average.predict(state).policy_logits
    q_all = lookahead(average, state, cfg.gamma)
    value = (logits.softmax(-1) * q_all).sum(-1)
    q = q_all.gather(-1, batch.action[..., None])[..., 0]
    logp = logits.log_softmax(-1).gather(-1, batch.action[..., None])[..., 0]
    reward = torch.where(batch.truncated, q, batch.reward)
    discount = cfg.gamma * (~(batch.terminated | batch.truncated)).float()
    ratio = (logp - batch.logp).exp()
    returns = retrace(reward[:-1], discount[:-1], q[:-1], value[:-1], value[-1], ratio[:-1], cfg.retrace_lambda)
    error = returns - value[:-1]
    cmpo = cmpo_policy(logits[:-1], (q_all[:-1] - value[:-1, :, None]) / scale, cfg.clip)
    return Targets(cmpo, returns, error / scale, error.square().mean())


def muesli_loss(model: WorldModel, batch: Sequences, targets: Targets, cfg: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its parts. The policy terms read every step; the model terms unroll from those with `unroll` steps after them."""
    first = len(targets.returns) - cfg.unroll
    state = model.represent(batch.obs[:-1].flatten(0, 1)).unflatten(0, targets.returns.shape)
    logits, value_logits = model.predict(state)
    logp = logits.log_softmax(-1).gather(-1, batch.action[:-1, :, None])[..., 0]
    weight = (logp.detach() - batch.logp[:-1]).exp().clamp(max=1.0)
    gradient = -(weight * targets.advantage * logp).mean()
    regulariser = kl(targets.cmpo, logits).mean()

    states, reward_logits = unroll(model, state[:first], [batch.action[k : k + first] for k in range(cfg.unroll)])
    logits_K, value_logits_K = model.predict(states[1:])
    alive = torch.ones(first, batch.reward.shape[1], device=state.device)  # the episode of step t goes on at t + k
    known = alive  # and no time limit hides what comes
    policy_loss, reward_loss, value_loss = [], [], [model.support.cross_entropy(value_logits, targets.returns).mean()]
    for k in range(cfg.unroll):
        here, after = slice(k, k + first), slice(k + 1, k + 1 + first)
        reward_loss.append((known * model.support.cross_entropy(reward_logits[k], alive * batch.reward[here])).mean())
        known = known * (1 - alive * batch.truncated[here].float())
        alive = alive * (~batch.terminated[here]).float()
        value_loss.append((known * model.support.cross_entropy(value_logits_K[k], alive * targets.returns[after])).mean())
        policy_loss.append((known * alive * kl(targets.cmpo[after], logits_K[k])).mean())
    parts = {
        "policy_gradient": gradient,
        "regulariser": regulariser,
        "model_policy": torch.stack(policy_loss).mean(),
        "model_reward": torch.stack(reward_loss).mean(),
        "value": torch.stack(value_loss).mean(),
    }
    total = gradient + cfg.weight_kl * regulariser + parts["model_policy"] + parts["model_reward"] + cfg.weight_value * parts["value"]
    return total, parts


@torch.no_grad()
def act(average: WorldModel, obs: Tensor, even: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Actions drawn from mu = (1 - even) pi' + even / A, with their log-probabilities, each [B]."""
    probs = average.predict(average.represent(obs)).policy_logits.softmax(-1)
    probs = (1 - even) * probs + even / average.num_actions
    action = torch.multinomial(probs, 1, generator=draws)
    return action[:, 0], probs.gather(-1, action)[:, 0].log()


def greedy(average: WorldModel, obs: Tensor) -> Tensor:
    """The likeliest action of pi', [B]: no look ahead."""
    return average.predict(average.represent(obs)).policy_logits.argmax(-1)


class Learner:
    """theta, theta', the optimiser and the moving variance of advantages: what an update changes."""

    def __init__(self, cfg: Config, obs_shape: tuple[int, ...], num_actions: int) -> None:
        low, high, num_atoms = cfg.support
        support = Support(low=low, high=high, num_atoms=num_atoms)
        self.cfg = cfg
        self.model = WorldModel(obs_shape, num_actions, support, cfg.width, cfg.hidden).to(cfg.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=cfg.learning_rate, weight_decay=0.0)
        self.variance = torch.zeros(2, device=cfg.device)
        """Moving average of (G - v')^2, and of 1, which corrects it for its start at 0."""

    def update(self, batch: Sequences, progress: float) -> dict[str, Tensor]:
        """One step of the optimiser; `progress` from 0 to 1 is how much of the run is over."""
        cfg = self.cfg.loss
        scale = (self.variance[0] / self.variance[1]).sqrt() if self.variance[1] > 0 else torch.ones((), device=self.cfg.device)
        targets = targets_of(self.average, batch, scale.clamp(min=1e-6), cfg)
        self.variance.mul_(cfg.variance_decay)
        self.variance += (1 - cfg.variance_decay) * torch.stack([targets.surprise, torch.ones_like(targets.surprise)])
        loss, parts = muesli_loss(self.model, batch, targets, cfg)
        for group in self.optimiser.param_groups:
            group["lr"] = self.cfg.learning_rate * (1 - progress)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.clip_update)
        self.optimiser.step()
        track(self.average, self.model, self.cfg.target_rate)
        return parts | {"loss": loss.detach(), "surprise": targets.surprise}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "variance": self.variance,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.variance = state["variance"].to(self.cfg.device).clone()


def collect(env: VectorEnv, obs: Tensor, average: WorldModel, replay: Replay, cfg: Config, draws: torch.Generator) -> Tensor:
    """A rollout into `replay`; returns the observations after it."""
    for _ in range(cfg.rollout):
        action, logp = act(average, obs, cfg.even, draws)
        next_obs, reward, terminated, truncated = env.step(action)
        replay.append(obs=obs, action=action, reward=reward, terminated=terminated, truncated=truncated, logp=logp)
        obs = next_obs
    return obs


def draw(replay: Replay, cfg: Config, draws: torch.Generator) -> Sequences:
    """A batch of sequences, a share of them from the newest rollout."""
    newest, length = round(cfg.online * cfg.batch), cfg.rollout + 1
    old = replay.sample(cfg.batch - newest, length, draws).fields
    column = torch.randint(cfg.num_envs, (newest,), generator=draws, device=draws.device)
    new = {name: x[:, column] for name, x in replay.latest(length).items()}
    return Sequences(**{name: torch.cat([old[name], new[name]], 1) for name in Sequences._fields})


def evaluate(average: WorldModel, cfg: Config, episodes: int, when: int | str, held_out: bool = False) -> float:
    """Mean return of greedy episodes, the success rate where reaching the goal is all that pays; their starts depend on `when`."""
    env = make_env(cfg.env, episodes, cfg.device, layout_seed=cfg.seed, held_out=held_out)
    starts = torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, cfg.member, "evaluation", when))
    return returns_of(env, lambda obs: greedy(average, obs), starts).mean().item()


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, evaluate, write `result.json` and the weights of theta'; returns the exit code."""
    check_device(cfg.device)
    env = make_env(cfg.env, cfg.num_envs, cfg.device, layout_seed=cfg.seed)
    run, saved = RunFolder(out, cfg, resume=resume, free=("checkpoint_every",)), out / "checkpoint.pt"
    draws = checkpoint.seeded(seed_for(cfg.seed, cfg.member), cfg.device)
    replay = Replay(cfg.replay_steps // cfg.num_envs, cfg.num_envs, cfg.device)
    learner = Learner(cfg, env.obs_shape, env.num_actions)
    obs, done = env.reset(torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, cfg.member, "env"))), 0
    parts = {"learner": learner, "env": env, "replay": replay, "draws": draws}
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        obs, done = numbers["obs"].to(cfg.device), numbers["done"]
    run.forget_after(done)
    steps_each, before_s = cfg.num_envs * cfg.rollout, time.process_time()
    rollouts = cfg.env_steps // steps_each
    with StopSignal() as stop:
        for number in range(done + 1, rollouts + 1):
            obs = collect(env, obs, learner.average, replay, cfg, draws)
            rows = []
            if len(replay) > cfg.rollout:
                rows = [learner.update(draw(replay, cfg, draws), (number - 1) / rollouts) for _ in range(cfg.updates)]
            if rows and (number % cfg.log_every == 0 or number == rollouts):
                means = {name: torch.stack([row[name] for row in rows]).mean().item() for name in rows[0]}
                cpu_s = time.process_time() - before_s
                score = evaluate(learner.average, cfg, cfg.eval_episodes, when=number)
                run.log(number, {"env_steps": number * steps_each, "score": score, **means, "cpu_s": cpu_s})
            if number % cfg.checkpoint_every == 0 or number == rollouts or stop.came:
                checkpoint.save(saved, parts, obs=obs, done=number)
            if stop.came:
                return INTERRUPTED
    result = {"env_steps": rollouts * steps_each, "score": evaluate(learner.average, cfg, cfg.final_episodes, when="end")}
    if isinstance(cfg.env, MazeConfig | WallsConfig):
        result["score_held_out"] = evaluate(learner.average, cfg, cfg.final_episodes, when="end", held_out=True)
    save_model(out / "model.pt", learner.average)
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0
