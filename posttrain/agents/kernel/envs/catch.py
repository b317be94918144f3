"""Catch: a ball falls straight down a board, and a paddle on the last row must stand below it."""

from typing import Any

import torch
from torch import Tensor


class Catch:
    """Actions left, stay, right. Reward 1 for a ball caught, -1 for one missed; either ends the episode after rows - 1 steps.

    The observation is the board with a 1 for the ball and one for the paddle, flat.
    """

    num_actions = 3

    def __init__(self, num_envs: int, rows: int = 10, columns: int = 5, device: torch.device | str = "cpu") -> None:
        self.num_envs, self.rows, self.columns, self.device = num_envs, rows, columns, torch.device(device)
        self.obs_shape: tuple[int, ...] = (rows * columns,)
        self.state_B3 = torch.zeros(num_envs, 3, dtype=torch.long, device=self.device)  # row and column of the ball, column of the paddle
        self.generator = torch.Generator(self.device)

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        self.state_B3 = self._first_states()
        return self._observe()

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        row_B, ball_B, paddle_B = self.state_B3.unbind(1)
        row_B = row_B + 1
        paddle_B = (paddle_B + action_B - 1).clamp(0, self.columns - 1)
        terminated_B = row_B == self.rows - 1
        reward_B = torch.where(terminated_B, torch.where(ball_B == paddle_B, 1.0, -1.0), 0.0)
        after_B3 = torch.stack([row_B, ball_B, paddle_B], 1)
        self.state_B3 = torch.where(terminated_B[:, None], self._first_states(), after_B3)
        return self._observe(), reward_B, terminated_B, torch.zeros_like(terminated_B)

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state_B3.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state_B3 = state["state"].to(self.device).clone()
        self.generator.set_state(state["generator"])

    def _first_states(self) -> Tensor:
        ball_B = torch.randint(self.columns, (self.num_envs,), generator=self.generator, device=self.device)
        return torch.stack([torch.zeros_like(ball_B), ball_B, torch.full_like(ball_B, self.columns // 2)], 1)

    def _observe(self) -> Tensor:
        row_B, ball_B, paddle_B = self.state_B3.unbind(1)
        board_BC = torch.zeros(self.num_envs, self.rows * self.columns, device=self.device)
        board_BC.scatter_(1, (row_B * self.columns + ball_B)[:, None], 1.0)
        return board_BC.scatter_(1, ((self.rows - 1) * self.columns + paddle_B)[:, None], 1.0)
