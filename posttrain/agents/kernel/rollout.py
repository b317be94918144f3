"""How well a policy does: whole episodes, many at once."""

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.agents.kernel.envs.trials import TrialEnv
from posttrain.agents.kernel.envs.vector import VectorEnv


@torch.no_grad()
def returns_of(env: VectorEnv, policy: Callable[[Tensor], Tensor], generator: torch.Generator, gamma: float = 1.0) -> Tensor:
    """The (discounted) return of the first episode of every environment, [B]; `policy` maps observations to actions."""
    obs = env.reset(generator)
    total_B = torch.zeros(env.num_envs, device=env.device)
    weight_B = torch.ones(env.num_envs, device=env.device)
    while bool((weight_B > 0).any()):
        obs, reward_B, terminated_B, truncated_B = env.step(policy(obs))
        total_B += weight_B * reward_B
        weight_B *= gamma * (~(terminated_B | truncated_B)).float()
    return total_B


@torch.no_grad()
def returns_by_episode(
    env: VectorEnv, act: Callable[[Tensor, Tensor, Tensor], Tensor], episodes: int, generator: torch.Generator
) -> Tensor:
    """The returns of the first `episodes` episodes of every environment, in their order, [episodes, B].

    `act` maps an observation, and whether it is the first of an episode and of a trial, to actions; it may remember.
    """
    obs = env.reset(generator)
    first_B = new_trial_B = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    number_B = torch.zeros(env.num_envs, dtype=torch.long, device=env.device)
    total_EB = torch.zeros(episodes, env.num_envs, device=env.device)
    while bool((number_B < episodes).any()):
        obs, reward_B, terminated_B, truncated_B = env.step(act(obs, first_B, new_trial_B))
        total_EB.scatter_add_(0, number_B.clamp(max=episodes - 1)[None], (reward_B * (number_B < episodes))[None])
        first_B = terminated_B | truncated_B
        new_trial_B = begins_trial(env, first_B)
        number_B = number_B + first_B
    return total_EB


def begins_trial(env: VectorEnv, first_B: Tensor) -> Tensor:
    """Which of the observations shown last begin a trial; `first_B` are those that begin an episode."""
    return env.new_trial_B if isinstance(env, TrialEnv) else first_B
