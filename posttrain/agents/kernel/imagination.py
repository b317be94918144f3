"""What a search walks through: a world model's own states, or the true ones of a gridworld with the network's policy and value."""

import torch
from torch import Tensor

from posttrain.agents.kernel.envs.grids import Grid
from posttrain.agents.kernel.mcts import Model, Outcome, Root
from posttrain.agents.kernel.nets import WorldModel


def root_of(network: WorldModel, state: Tensor) -> Root:
    """Policy and value of states of the network, [B, D]."""
    policy_logits, value_logits = network.predict(state)
    return Root(policy_logits, network.support.mean(value_logits), state)


def imagined(network: WorldModel, gamma: float) -> Model:
    """Search in the network's states. No end is foreseen: what is behind it, the value has to know."""

    def step(state: Tensor, action: Tensor) -> Outcome:
        after, reward_logits = network.step(state, action)
        reward = network.rewards(reward_logits)
        return Outcome(reward, torch.full_like(reward, gamma), *root_of(network, after))

    return step


def simulated(network: WorldModel, env: Grid, gamma: float) -> Model:
    """Search in the environment's states, [B, F], which are seen through its observations; a time limit is not foreseen."""

    def step(state_BF: Tensor, action: Tensor) -> Outcome:
        after_BF, reward, ended = env.transition(state_BF, action)
        there = root_of(network, network.represent(env.observe(after_BF)))
        return Outcome(reward, gamma * (~ended).float(), there.prior_logits, there.value, after_BF)

    return step
