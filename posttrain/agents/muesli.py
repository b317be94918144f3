"""Muesli (arXiv 2104.06159): policy optimisation with a learned model that is only ever looked one step into.

An agent of three functions, s_0 = h(o), (r, s') = g(s, a), (pi, v) = f(s), with parameters theta, and a moving average theta' of them whose
policy pi' acts and which makes every target:

    q'(s, a)   = r'(s, a) + gamma v'(s')                       one step of the model, all actions
    adv(s, a)  = (q'(s, a) - sum_b pi'(b|s) q'(s, b)) / sigma     sigma^2 a moving average of (G - v')^2
    pi_CMPO    ~ pi'(a|s) exp(clip(adv(s, a), -c, c))           Eq. 9: total variation to pi' at most tanh(c / 2)
    G_t        Retrace of q' along the experience, traces lambda min(1, pi' / mu)

    loss = - min(1, pi / mu) adv(G) log pi(a)  +  weight_kl KL(pi_CMPO || pi)                       policy, Eq. 10
           +  mean_k KL(pi_CMPO(s_{t+k}) || pi_k)  +  CE(reward_k, r_{t+k})  +  weight_value CE(v_k, G_{t+k})     model, Eq. 13

pi_k, reward_k and v_k are read from the state that k model steps along the actions taken lead to. What is left out: the recurrent core and
the action embedding by an LSTM (ours is a residual MLP), the sampled form of the regulariser (actions here are few enough to sum over),
the leave-one-out correction of the policy gradient, and bootstrapping past a time limit, whose steps teach no value at all. Expected: greedy
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

from posttrain.agents.environments import EnvConfig, GoalGridConfig, make_env
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.nets import WorldModel, lookahead, track, unroll
from posttrain.agents.kernel.replay import Replay
from posttrain.agents.kernel.returns import retrace
from posttrain.agents.kernel.rollout import returns_of
from posttrain.agents.kernel.transforms import Support
from posttrain.config import config
from posttrain.run import RunFolder, write_atomic


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
    env: EnvConfig = Field(default=GoalGridConfig(), discriminator="kind")
    env_steps: PositiveInt = 60_000
    """Steps of experience in all; a rollout that would go beyond is not begun."""
    num_envs: PositiveInt = 64
    rollout: PositiveInt = 16
    """Steps of each environment between learning phases, and the length of the sequences learnt from."""
    replay_steps: PositiveInt = 100_000
    """Steps of experience kept."""
    batch: PositiveInt = 64
    """Sequences in an update."""
    online: float = Field(default=0.25, ge=0, le=1)
    """Share of the batch from the newest rollout; the paper replays 75%, 95% at large scale."""
    updates: PositiveInt = 4
    """Updates after each rollout."""
    width: PositiveInt = 64
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
    """Greedy episodes of the evaluation at the end, on starts that no evaluation before it drew by choice."""
    device: str = "cpu"


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
    steps, first = len(targets.returns), len(targets.returns) - cfg.unroll
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
        if k + 1 + first <= steps:  # the last unrolled step of all has no target of its own
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
