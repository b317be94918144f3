"""CartPole: balance a pole on a cart by pushing the cart left or right (Barto, Sutton & Anderson 1983)."""

import math
from typing import Any

import torch
from torch import Tensor

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, FORCE, TIME_STEP_S = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
WIDEST, STEEPEST = 2.4, 12 * math.pi / 180  # an episode ends beyond this position (m) or angle (rad)


class CartPole:
    """Observation: position (m), velocity (m/s), angle (rad), angular velocity (rad/s). Reward 1 each step; cut after `limit` steps."""

    num_actions = 2

    def __init__(self, num_envs: int, limit: int = 500, device: torch.device | str = "cpu") -> None:
        self.num_envs, self.limit, self.device = num_envs, limit, torch.device(device)
        self.obs_shape: tuple[int, ...] = (4,)
        self.state_B4 = torch.zeros(num_envs, 4, device=self.device)
        self.elapsed_B = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self.generator = torch.Generator(self.device)

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        self.state_B4 = self._first_states()
        self.elapsed_B.zero_()
        return self.state_B4.clone()

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        state_B4 = swing(self.state_B4, action_B)
        elapsed_B = self.elapsed_B + 1
        terminated_B = (state_B4[:, 0].abs() > WIDEST) | (state_B4[:, 2].abs() > STEEPEST)
        truncated_B = ~terminated_B & (elapsed_B >= self.limit)
        ended_B = terminated_B | truncated_B
        self.state_B4 = torch.where(ended_B[:, None], self._first_states(), state_B4)
        self.elapsed_B = elapsed_B * ~ended_B
        return self.state_B4.clone(), torch.ones(self.num_envs, device=self.device), terminated_B, truncated_B

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state_B4.clone(), "elapsed": self.elapsed_B.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state_B4 = state["state"].to(self.device).clone()
        self.elapsed_B = state["elapsed"].to(self.device).clone()
        self.generator.set_state(state["generator"])

    def _first_states(self) -> Tensor:
        return torch.rand(self.num_envs, 4, generator=self.generator, device=self.device) * 0.1 - 0.05


def swing(state_B4: Tensor, action_B: Tensor, half_length: Tensor | float = HALF_LENGTH, pole_mass: Tensor | float = POLE_MASS) -> Tensor:
    """The state one time step later, by Euler's method; action 0 pushes left, 1 right. The pole is a number or one for each state."""
    total_mass, pole_moment = CART_MASS + pole_mass, pole_mass * half_length
    x_B, speed_B, angle_B, spin_B = state_B4.unbind(1)
    force_B = FORCE * (2.0 * action_B - 1.0)
    sine_B, cosine_B = angle_B.sin(), angle_B.cos()
    push_B = (force_B + pole_moment * spin_B**2 * sine_B) / total_mass
    turn_B = (GRAVITY * sine_B - cosine_B * push_B) / (half_length * (4.0 / 3.0 - pole_mass * cosine_B**2 / total_mass))
    pull_B = push_B - pole_moment * turn_B * cosine_B / total_mass
    dt = TIME_STEP_S
    return torch.stack([x_B + dt * speed_B, speed_B + dt * pull_B, angle_B + dt * spin_B, spin_B + dt * turn_B], 1)
