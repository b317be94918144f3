"""Trials: several episodes in a row of one task that is drawn anew for every trial, so that what is learnt in one helps in the next."""

from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from posttrain.agents.kernel.envs.cartpole import STEEPEST, WIDEST, swing
from posttrain.agents.kernel.envs.vector import VectorEnv

SCALE = (WIDEST, 2.0, STEEPEST, 2.0)  # of position, velocity, angle and angular velocity: each moves by about 1


@runtime_checkable
class TrialEnv(VectorEnv, Protocol):
    """An environment that says where a trial begins; in any other one every episode is a trial of its own."""

    episodes: int
    """Of each trial."""
    new_trial_B: Tensor
    """Whether the observation shown last is the first of a trial."""


class TrialCartPole:
    """Balance a pole that is seen and pushed through a random map: another one, and another pole, for every trial of `episodes` episodes.

    The state, scaled to about 1, is multiplied by a random matrix, and the two actions change places in half of the trials. The matrix of
    `maps` "orthogonal" is drawn evenly from all turns and mirrors of four dimensions, "signs" only gives each coordinate a sign, "gaussian"
    has normal numbers of variance 1/4; "known" leaves state and actions as they are, so that the pole alone is unknown. Half the pole's
    length (m) and its mass (kg) are drawn evenly from given ranges. An episode begins with every coordinate at most `start` of its scale
    away from 0: the further, the sooner a wrong push is the end. With a `lean` the angle begins between those shares of the steepest, to
    either side: near 1 the first push decides about a short pole, and as every map and order of actions is as likely as its opposite, half
    of the first pushes at an unknown pole are wrong. Reward 1 / `limit` for every step, so that an episode held up to its limit is worth 1.
    """

    num_actions = 2
    obs_shape: tuple[int, ...] = (4,)

    def __init__(
        self,
        num_envs: int,
        episodes: int,
        limit: int,
        maps: Literal["orthogonal", "signs", "gaussian", "known"],
        start: float,
        half_length: tuple[float, float],
        pole_mass: tuple[float, float],
        lean: tuple[float, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        for low, high in (half_length, pole_mass):
            if not 0 < low <= high:
                raise ValueError(f"need a range of positive numbers for the pole, got {low} to {high}")
        if not 0 < start < 1:
            raise ValueError(f"need a start between 0 and 1, where an episode ends, got {start}")
        if lean is not None and not 0 <= lean[0] <= lean[1] < 1:
            raise ValueError(f"need a lean from low to high, 0 or more and below 1, where an episode ends; got {lean[0]} to {lean[1]}")
        self.num_envs, self.episodes, self.limit, self.maps, self.lean = num_envs, episodes, limit, maps, lean
        self.device, self.generator = torch.device(device), torch.Generator(device)
        self.ranges_22 = torch.tensor([half_length, pole_mass], device=self.device)
        self.start, self.scale_4 = start, torch.tensor(SCALE, device=self.device)
        self.new_trial_B = torch.ones(num_envs, dtype=torch.bool, device=self.device)
        self.state_B4 = torch.zeros(num_envs, 4, device=self.device)
        self.count_B2 = torch.zeros(
            num_envs, 2, dtype=torch.long, device=self.device
        )  # steps of the episode, episodes of the trial before it
        self.map_B44 = torch.zeros(num_envs, 4, 4, device=self.device)
        self.swapped_B = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self.pole_B2 = torch.zeros(num_envs, 2, device=self.device)

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        self.state_B4 = self._first_states()
        self.count_B2.zero_()
        self.map_B44, self.swapped_B, self.pole_B2 = self._tasks()
        self.new_trial_B = torch.ones_like(self.new_trial_B)
        return self._observe()

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pushed_B = torch.bitwise_xor(action_B, self.swapped_B)
        state_B4 = swing(self.state_B4, pushed_B, *self.pole_B2.unbind(1))
        elapsed_B, episode_B = self.count_B2.unbind(1)
        elapsed_B = elapsed_B + 1
        terminated_B = (state_B4[:, 0].abs() > WIDEST) | (state_B4[:, 2].abs() > STEEPEST)
        truncated_B = ~terminated_B & (elapsed_B >= self.limit)
        ended_B = terminated_B | truncated_B
        episode_B = episode_B + ended_B
        self.new_trial_B = episode_B == self.episodes
        self.state_B4 = torch.where(ended_B[:, None], self._first_states(), state_B4)
        self.count_B2 = torch.stack([elapsed_B * ~ended_B, episode_B % self.episodes], 1)
        if bool(self.new_trial_B.any()):
            map_B44, swapped_B, pole_B2 = self._tasks()
            self.map_B44 = torch.where(self.new_trial_B[:, None, None], map_B44, self.map_B44)
            self.swapped_B = torch.where(self.new_trial_B, swapped_B, self.swapped_B)
            self.pole_B2 = torch.where(self.new_trial_B[:, None], pole_B2, self.pole_B2)
        return self._observe(), torch.full((self.num_envs,), 1 / self.limit, device=self.device), terminated_B, truncated_B

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).clone() for name in self._kept} | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self._kept:
            setattr(self, name, state[name].to(self.device).clone())
        self.generator.set_state(state["generator"])

    _kept = ("state_B4", "count_B2", "map_B44", "swapped_B", "pole_B2", "new_trial_B")

    def _first_states(self) -> Tensor:
        share_B4 = (2 * torch.rand(self.num_envs, 4, generator=self.generator, device=self.device) - 1) * self.start
        if self.lean is not None:
            side_B, angle_B = torch.rand(2, self.num_envs, generator=self.generator, device=self.device)
            low, high = self.lean
            share_B4[:, 2] = (low + (high - low) * angle_B) * torch.where(side_B < 0.5, -1.0, 1.0)
        return share_B4 * self.scale_4

    def _tasks(self) -> tuple[Tensor, Tensor, Tensor]:
        map_B44 = torch.randn(self.num_envs, 4, 4, generator=self.generator, device=self.device) / 2
        if self.maps == "orthogonal":
            q_B44, r_B44 = torch.linalg.qr(map_B44)
            map_B44 = q_B44 * r_B44.diagonal(dim1=1, dim2=2).sign()[:, None]  # even over all orthogonal matrices (Mezzadri 2007)
        if self.maps == "signs":
            map_B44 = torch.diag_embed(map_B44.diagonal(dim1=1, dim2=2).sign())
        swapped_B = torch.randint(2, (self.num_envs,), generator=self.generator, device=self.device)
        if self.maps == "known":
            map_B44, swapped_B = torch.eye(4, device=self.device).expand_as(map_B44), torch.zeros_like(swapped_B)
        low_2, high_2 = self.ranges_22.unbind(1)
        pole_B2 = low_2 + (high_2 - low_2) * torch.rand(self.num_envs, 2, generator=self.generator, device=self.device)
        return map_B44, swapped_B, pole_B2

    def _observe(self) -> Tensor:
        return torch.bmm(self.map_B44, (self.state_B4 / self.scale_4)[..., None])[..., 0]
