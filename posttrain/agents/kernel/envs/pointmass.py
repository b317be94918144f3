"""A point mass in a walled room: push it to a goal, of which several ways are nearly the shortest. Read `moved`: it is the whole game.

The room is the square from -1 to 1. A wall across its middle has doors; the start is left of it, the goal right. A step of the agent holds
one of nine thrusts for two time steps. As both axes are pushed at once, the way through an outer door takes hardly longer. What a test may
change and training never showed: doors that are closed, motors that are weak, and friction.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

THRUST, TIME_STEPS = 0.04, 2  # a time step adds at most THRUST to either speed; so many make a step of the agent
WALL = 0.1  # half the thickness of the wall across the middle
DOOR = 0.12  # half the width of a door
START, GOAL, RADIUS = (-0.8, 0.0), (0.8, 0.0), 0.15
SPREAD = 0.05  # starts are drawn evenly from a square of this half side
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


class Physics(NamedTuple):
    """What pushes and what slows."""

    friction: float = 0.4
    """Share of the speed that a time step takes."""
    motors: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Strength of the thrust to the right, up, left and down."""


NORMAL = Physics()


class PointMass:
    """Observation: position and ten times the speed, x and y each. Reward 1 at the goal, which ends the episode; cut after `limit` steps.

    As the next episode begins at once, the average reward of a step is the number of trips that it makes.
    """

    num_actions = 9
    goal = (*GOAL, RADIUS)

    def __init__(
        self,
        num_envs: int,
        doors: Sequence[float] = (-0.75, -0.25, 0.25, 0.75),
        limit: int = 40,
        closed: Sequence[int] = (),
        physics: Physics = NORMAL,
        device: torch.device | str = "cpu",
    ) -> None:
        """`doors` are the heights of their middles, from bottom to top, `closed` numbers of those that are walls."""
        self.num_envs, self.limit, self.physics, self.device = num_envs, limit, physics, torch.device(device)
        self.doors = tuple(sorted(doors))
        if THRUST * max(physics.motors) / physics.friction >= 2 * WALL:
            raise ValueError(f"friction {physics.friction} lets the mass fly through walls; need more than {THRUST / (2 * WALL):g}")
        self.walls, self.closed = middle_wall(self.doors), [door_box(self.doors[i]) for i in closed]
        self.box_W4 = torch.tensor([*self.walls, *self.closed], device=self.device)
        self.obs_shape: tuple[int, ...] = (4,)
        self.state_B4 = torch.zeros(num_envs, 4, device=self.device)
        self.elapsed_B = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self.generator = torch.Generator(self.device)

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        self.state_B4 = self._first_states()
        self.elapsed_B.zero_()
        return self._observe()

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        state_B4 = self.state_B4
        for _ in range(TIME_STEPS):
            state_B4 = moved(state_B4, action_B, self.box_W4, self.physics)
        distance_B = (state_B4[:, :2] - torch.tensor(GOAL, device=self.device)).square().sum(1).sqrt()
        elapsed_B = self.elapsed_B + 1
        terminated_B = distance_B < RADIUS
        truncated_B = ~terminated_B & (elapsed_B >= self.limit)
        ended_B = terminated_B | truncated_B
        self.state_B4 = torch.where(ended_B[:, None], self._first_states(), state_B4)
        self.elapsed_B = elapsed_B * ~ended_B
        return self._observe(), terminated_B.float(), terminated_B, truncated_B

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state_B4.clone(), "elapsed": self.elapsed_B.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state_B4 = state["state"].to(self.device).clone()
        self.elapsed_B = state["elapsed"].to(self.device).clone()
        self.generator.set_state(state["generator"])

    def _first_states(self) -> Tensor:
        uniform_B2 = torch.rand(self.num_envs, 2, generator=self.generator, device=self.device)
        place_B2 = torch.tensor(START, device=self.device) + SPREAD * (2 * uniform_B2 - 1)
        return torch.cat([place_B2, torch.zeros_like(place_B2)], 1)

    def _observe(self) -> Tensor:
        return self.state_B4 * torch.tensor([1.0, 1.0, 10.0, 10.0], device=self.device)


def perturbed(env: PointMass, motor: float, frictions: Sequence[float]) -> dict[str, dict[str, PointMass]]:
    """Worlds that differ from that of `env`: every set of closed doors but none and all, one weak motor, other frictions."""
    num = len(env.doors)

    def world(closed: Sequence[int] = (), physics: Physics = env.physics) -> PointMass:
        return PointMass(env.num_envs, env.doors, env.limit, closed, physics, device=env.device)

    sets = [closed for size in range(1, num) for closed in combinations(range(num), size)]
    motors = [(motor, 1.0, 1.0, 1.0), (1.0, motor, 1.0, 1.0), (1.0, 1.0, motor, 1.0), (1.0, 1.0, 1.0, motor)]
    return {
        "doors": {"open: " + ", ".join(f"{env.doors[i]:g}" for i in range(num) if i not in closed): world(closed) for closed in sets},
        "motors": {f"weak {way}": world(physics=env.physics._replace(motors=m)) for way, m in zip(("right", "up", "left", "down"), motors)},
        "frictions": {f"friction {x:g}": world(physics=env.physics._replace(friction=x)) for x in frictions},
    }


def middle_wall(doors: Sequence[float]) -> list[Box]:
    """The boxes between the doors of the middle wall, from bottom to top; raises `ValueError` where doors overlap or reach out."""
    walls, bottom = [], -1.0
    for door in sorted(doors):
        if door - DOOR < bottom or door + DOOR > 1:
            raise ValueError(f"doors: found {tuple(doors)}, expected each within the room and {2 * DOOR:g} from the next")
        walls.append((-WALL, bottom, WALL, door - DOOR))
        bottom = door + DOOR
    return [*walls, (-WALL, bottom, WALL, 1.0)]


def door_box(door: float) -> Box:
    """The wall that closes a door."""
    return (-WALL, door - DOOR, WALL, door + DOOR)


def thrusts(action_B: Tensor, motors: tuple[float, float, float, float]) -> Tensor:
    """The push of actions 0 to 8, which number the pairs of -1, 0, 1 for x and y, row by row, [B] -> [B, 2]; 4 is none."""
    x_B, y_B = action_B // 3 - 1.0, action_B % 3 - 1.0
    right, up, left, down = motors
    return torch.stack([right * x_B.clamp(min=0) + left * x_B.clamp(max=0), up * y_B.clamp(min=0) + down * y_B.clamp(max=0)], 1)


def moved(state_B4: Tensor, action_B: Tensor, box_W4: Tensor, physics: Physics) -> Tensor:
    """The state a time step later: speed <- (1 - friction) speed + thrust, then a move along x, then along y, each if nothing is there.

    What runs into a wall or the edge stays before it and loses its speed along that axis, so it can slide.
    """
    x_B, y_B = state_B4[:, 0], state_B4[:, 1]
    right_B, up_B = ((1 - physics.friction) * state_B4[:, 2:] + THRUST * thrusts(action_B, physics.motors)).unbind(1)
    right_B = right_B * _free(x_B + right_B, y_B, box_W4)
    x_B = x_B + right_B
    up_B = up_B * _free(x_B, y_B + up_B, box_W4)
    return torch.stack([x_B, y_B + up_B, right_B, up_B], 1)


def _free(x_B: Tensor, y_B: Tensor, box_W4: Tensor) -> Tensor:
    """Whether each place is within the room and in no wall, [B]."""
    left_W1, bottom_W1, right_W1, top_W1 = box_W4.T[..., None]
    within_WB = (x_B > left_W1) & (x_B < right_W1) & (y_B > bottom_W1) & (y_B < top_W1)
    return ~within_WB.any(0) & (x_B.abs() <= 1) & (y_B.abs() <= 1)
