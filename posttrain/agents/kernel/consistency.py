"""The implicit value ensemble of one model and one value function (arXiv 2112.04153): how far they agree with each other.

Value v and model m predict the value of a state once for every number k of model steps taken before v is asked:

    v^k = (T^pi_m)^k v,   v^0 = v,   v^k(s) = E_pi,m[r_1 + gamma r_2 + ... + gamma^(k-1) r_k + gamma^k v(s_k)]

Where both were learnt well they satisfy Bellman's equation, so all k agree; where they were not, nothing makes them. The first axis of
every ensemble here is k.
"""

from typing import Protocol

import torch
from torch import Tensor

from posttrain.agents.kernel.nets import Prediction


class ValueModel(Protocol):
    """A model of states with a policy and a value, as `nets.WorldModel` is."""

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]: ...

    def step_all(self, state: Tensor) -> tuple[Tensor, Tensor]: ...

    def predict(self, state: Tensor) -> Prediction: ...

    def values(self, state: Tensor) -> Tensor: ...

    def rewards(self, reward_logits: Tensor) -> Tensor: ...


def under_policy(model_SAS: Tensor, reward_SA: Tensor, policy_SA: Tensor) -> tuple[Tensor, Tensor]:
    """P^pi(s' | s) and r^pi(s) of a table, [..., S, S] and [..., S]."""
    return (policy_SA[..., None] * model_SAS).sum(-2), (policy_SA * reward_SA).sum(-1)


def backed_up_values(step_SS: Tensor, reward_S: Tensor, value_S: Tensor, gamma: float, depth: int) -> Tensor:
    """v^0 ... v^depth of every state of a table, exact: v^{k+1} = r^pi + gamma P^pi v^k, [depth + 1, ..., S].

    Leading axes are tables side by side.
    """
    values = [value_S]
    for _ in range(depth):
        values.append(reward_S + gamma * (step_SS @ values[-1][..., None])[..., 0])
    return torch.stack(values)


@torch.no_grad()
def expected_values(model: ValueModel, state_ND: Tensor, gamma: float, depth: int) -> Tensor:
    """v^0 ... v^depth of learned states, exact over the policy's actions, [depth + 1, N]; the last step visits A^depth states for each."""
    state, prob = state_ND[:, None], torch.ones(len(state_ND), 1, device=state_ND.device)
    earned, weight = torch.zeros(len(state_ND), device=state_ND.device), 1.0
    values = [model.values(state_ND)]
    for _ in range(depth):
        prob_NMA = prob[..., None] * model.predict(state).policy_logits.softmax(-1)
        next_state, reward_logits = model.step_all(state)
        earned = earned + weight * (prob_NMA * model.rewards(reward_logits)).sum((1, 2))
        weight *= gamma
        state, prob = next_state.flatten(1, 2), prob_NMA.flatten(1)
        values.append(earned + weight * (prob * model.values(state)).sum(1))
    return torch.stack(values)


@torch.no_grad()
def rolled_out_values(model: ValueModel, state_ND: Tensor, gamma: float, depth: int, rollouts: int, draws: torch.Generator) -> Tensor:
    """v^0 ... v^depth of learned states, each the mean of `rollouts` walks of the model with actions of its policy, [depth + 1, N].

    One walk serves every k: v^k = sum_{i<k} gamma^i r_{i+1} + gamma^k v(s_k).
    """
    state = state_ND.repeat(rollouts, 1)
    earned, weight = torch.zeros(len(state), device=state.device), 1.0
    values = [model.values(state)]
    for _ in range(depth):
        probs = model.predict(state).policy_logits.softmax(-1)
        state, reward_logits = model.step(state, torch.multinomial(probs, 1, generator=draws)[:, 0])
        earned = earned + weight * model.rewards(reward_logits)
        weight *= gamma
        values.append(earned + weight * model.values(state))
    return torch.stack(values).unflatten(1, (rollouts, -1)).mean(1)


@torch.no_grad()
def rolled_out_action_values(
    model: ValueModel, state_ND: Tensor, gamma: float, depth: int, rollouts: int, draws: torch.Generator
) -> Tensor:
    """q^1 ... q^depth of every action: the first step takes it, the others follow the model's policy, [depth, N, A]."""
    next_state, reward_logits = model.step_all(state_ND)
    values_KM = rolled_out_values(model, next_state.flatten(0, 1), gamma, depth - 1, rollouts, draws)
    return model.rewards(reward_logits) + gamma * values_KM.unflatten(1, next_state.shape[:2])


def disagreement(values: Tensor) -> Tensor:
    """sigma: the standard deviation over the ensemble, [K, ...] -> [...]. 0 where model and value are consistent."""
    return values.std(0, correction=0)


def optimism(values: Tensor, beta: float) -> Tensor:
    """mu + beta sigma over the ensemble, [K, ...] -> [...]: seeks what is unknown with beta > 0, avoids it with beta < 0."""
    return values.mean(0) + beta * disagreement(values)
