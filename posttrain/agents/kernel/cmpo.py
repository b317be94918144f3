"""Muesli's update (arXiv 2104.06159): a policy moved by clipped advantages of a model that is looked one step into.

    adv(s, a)  = (q'(s, a) - sum_b pi'(b|s) q'(s, b)) / sigma     sigma^2 a moving average of (G - v')^2
    pi_CMPO    ~ pi'(a|s) exp(clip(adv(s, a), -c, c))           Eq. 9: total variation to pi' at most tanh(c / 2)
    G_t        Retrace of q' along the experience, traces lambda min(1, pi' / mu)

    loss = - min(1, pi / mu) adv(G) log pi(a)  +  weight_kl KL(pi_CMPO || pi)                       policy, Eq. 10
           +  mean_k KL(pi_CMPO(s_{t+k}) || pi_k)  +  CE(reward_k, r_{t+k})  +  weight_value CE(v_k, G_{t+k})     model, Eq. 13

Primed is a moving average theta' of the parameters, which acts and makes every target; pi_k, reward_k and v_k are read from the state
that k model steps along the actions taken lead to. An action may take several steps of the environment, as an option does: the reward is
then theirs, discounted to where it began, and `discount` is gamma to the power of their number. Where states come from is up to the agent.
"""

import copy
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from posttrain.agents.kernel.nets import WorldModel, descend, lookahead, track, unroll
from posttrain.agents.kernel.returns import retrace

M = TypeVar("M", bound=nn.Module)


class Sequences(NamedTuple):
    """Experience of T + 1 actions, each [T+1, N]; the last one only tells the value after the T before it."""

    action: Tensor
    reward: Tensor
    discount: Tensor
    """What a value after the action counts before it, were the episode to go on."""
    terminated: Tensor
    truncated: Tensor
    logp: Tensor
    """log mu(a) of the policy that acted."""


class Targets(NamedTuple):
    """What the moving average theta' says of T actions of experience."""

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
def targets_of(
    average: WorldModel,
    state: Tensor,
    batch: Sequences,
    scale: Tensor,
    *,
    gamma: float | Tensor,
    retrace_lambda: float,
    clip: float,
) -> Targets:
    """Targets from theta' and its states, [T+1, N, D]; `scale` is sigma, `gamma` the model step's discount, [A] where actions differ in it.

    An action cut by the time limit is taught its own q', that is nothing.
    """
    logits = average.predict(state).policy_logits
    q_all = lookahead(average, state, gamma)
    value = (logits.softmax(-1) * q_all).sum(-1)
    q = q_all.gather(-1, batch.action[..., None])[..., 0]
    logp = logits.log_softmax(-1).gather(-1, batch.action[..., None])[..., 0]
    reward = torch.where(batch.truncated, q, batch.reward)
    discount = batch.discount * (~(batch.terminated | batch.truncated)).float()
    ratio = (logp - batch.logp).exp()
    returns = retrace(reward[:-1], discount[:-1], q[:-1], value[:-1], value[-1], ratio[:-1], retrace_lambda)
    error = returns - value[:-1]
    cmpo = cmpo_policy(logits[:-1], (q_all[:-1] - value[:-1, :, None]) / scale, clip)
    return Targets(cmpo, returns, error / scale, error.square().mean())


def muesli_loss(
    model: WorldModel, state: Tensor, batch: Sequences, targets: Targets, *, ahead: int, weight_kl: float, weight_value: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its parts, from the model's states, [T, N, D].

    The policy terms read every action; the model terms unroll `ahead` steps from those that have as many after them.
    """
    first = len(targets.returns) - ahead
    logits, value_logits = model.predict(state)
    logp = logits.log_softmax(-1).gather(-1, batch.action[:-1, :, None])[..., 0]
    weight = (logp.detach() - batch.logp[:-1]).exp().clamp(max=1.0)
    gradient = -(weight * targets.advantage * logp).mean()
    regulariser = kl(targets.cmpo, logits).mean()

    states, reward_logits = unroll(model, state[:first], [batch.action[k : k + first] for k in range(ahead)])
    logits_K, value_logits_K = model.predict(states[1:])
    alive = torch.ones(first, batch.reward.shape[1], device=state.device)  # the episode of step t goes on at t + k
    known = alive  # and no time limit hides what comes
    policy_loss, reward_loss, value_loss = [], [], [model.support.cross_entropy(value_logits, targets.returns).mean()]
    for k in range(ahead):
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
    total = gradient + weight_kl * regulariser + parts["model_policy"] + parts["model_reward"] + weight_value * parts["value"]
    return total, parts


class Learner(Generic[M]):
    """theta, theta', the optimiser and the moving variance of advantages: what an update changes."""

    def __init__(self, model: M, *, learning_rate: float, clip_update: float, target_rate: float, variance_decay: float) -> None:
        """The learning rate falls linearly to 0, `clip_update` bounds the gradient's norm, theta' moves by `target_rate` an update."""
        self.learning_rate, self.clip_update, self.target_rate = learning_rate, clip_update, target_rate
        self.variance_decay = variance_decay
        self.model, self.average = model, copy.deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
        self.variance = torch.zeros(2, device=next(model.parameters()).device)
        """Moving average of (G - v')^2, and of 1, which corrects it for its start at 0."""

    @property
    def scale(self) -> Tensor:
        """sigma, which advantages are divided by; 1 before there is any."""
        found = (self.variance[0] / self.variance[1]).sqrt() if self.variance[1] > 0 else torch.ones_like(self.variance[0])
        return found.clamp(min=1e-6)

    def remember(self, surprise: Tensor) -> None:
        """Move sigma^2 towards the mean of (G - v')^2 in a batch."""
        self.variance.mul_(self.variance_decay)
        self.variance += (1 - self.variance_decay) * torch.stack([surprise, torch.ones_like(surprise)])

    def descend(self, loss: Tensor, progress: float) -> None:
        """One step of the optimiser, then theta' follows; `progress` from 0 to 1 is how much of the run is over."""
        descend(self.optimiser, loss, self.clip_update, self.learning_rate * (1 - progress))
        track(self.average, self.model, self.target_rate)

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
        self.variance = state["variance"].to(self.variance.device).clone()
