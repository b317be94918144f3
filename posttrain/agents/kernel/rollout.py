"""How well a policy does: whole episodes, many at once."""

from collections.abc import Callable

import torch
from torch import Tensor

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
