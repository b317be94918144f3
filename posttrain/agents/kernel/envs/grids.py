"""Gridworlds: walk to a goal, by way of a key, between walls. Read `transition`: it is the whole game.

A state is a row of integers, so that a planner can step any state it likes (`transition`, `observe` are functions of it) and a table can
hold them all (`neighbours`, `transition_table`). Cells are numbered row by row; actions are up, right, down, left; a move into a wall or
over the edge stays. With several layouts every episode draws one.
"""

from typing import Any

import torch
from torch import Tensor

from posttrain.agents.kernel.envs.layouts import open_room

LAYOUT, ELAPSED, AGENT, PROGRESS, WAYPOINTS = 0, 1, 2, 3, 4  # columns of a state; the waypoints take the rest
NUM_ACTIONS = 4
STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))


class Grid:
    """A walk along waypoints: reaching waypoint i, in order, pays `rewards[i]`, and the last one ends the episode.

    The observation is one plane of cells for the agent, one for each waypoint, one for the walls if any layout has some, then one number
    for each waypoint but the last that says if it was reached. Start and waypoints are different free cells, drawn evenly.
    """

    num_actions = NUM_ACTIONS

    def __init__(
        self,
        walls_LHW: Tensor,
        limit: int,
        num_envs: int,
        rewards: tuple[float, ...] = (1.0,),
        slip: float = 0.0,
        waypoint_LW: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """`limit` is the longest episode in steps; with probability `slip` a random action takes the place of the chosen one.

        `waypoint_LW` fixes the waypoints of each layout, as places among its free cells in order; without it they are drawn.
        """
        self.num_envs, self.limit, self.slip, self.device = num_envs, limit, slip, torch.device(device)
        self.walls_LC = walls_LHW.flatten(1).to(self.device)
        self.num_layouts, self.num_cells = self.walls_LC.shape
        self.num_waypoints = len(rewards)
        self.next_LCA = neighbours(walls_LHW).to(self.device)
        self.count_L = (~self.walls_LC).sum(1)
        if int(self.count_L.min()) <= self.num_waypoints:
            raise ValueError(f"need more than {self.num_waypoints} free cells in every layout, found one with {int(self.count_L.min())}")
        self.free_LC = torch.argsort(self.walls_LC.int(), dim=1, stable=True)  # the free cells first, in order
        self.waypoint_LW = None if waypoint_LW is None else waypoint_LW.to(self.device)
        self.reward_W = torch.tensor(rewards, device=self.device)
        self.shows_walls = bool(self.walls_LC.any())
        num_planes = 1 + self.num_waypoints + self.shows_walls
        self.obs_shape: tuple[int, ...] = (num_planes * self.num_cells + self.num_waypoints - 1,)
        self.state_BF = torch.zeros(num_envs, WAYPOINTS + self.num_waypoints, dtype=torch.long, device=self.device)
        self.generator = torch.Generator(self.device)

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        self.state_BF = self.draw_states(self.num_envs)
        return self.observe(self.state_BF)

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.slip:
            slips_B = torch.rand(self.num_envs, generator=self.generator, device=self.device) < self.slip
            other_B = torch.randint(NUM_ACTIONS, (self.num_envs,), generator=self.generator, device=self.device)
            action_B = torch.where(slips_B, other_B, action_B)
        state_BF, reward_B, terminated_B = self.transition(self.state_BF, action_B)
        truncated_B = ~terminated_B & (state_BF[:, ELAPSED] >= self.limit)
        ended_B = terminated_B | truncated_B
        self.state_BF = torch.where(ended_B[:, None], self.draw_states(self.num_envs), state_BF)
        return self.observe(self.state_BF), reward_B, terminated_B, truncated_B

    def transition(self, state_BF: Tensor, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The state after an action that does not slip, its reward [B], and whether the last waypoint was reached [B]."""
        agent_B = self.next_LCA[state_BF[:, LAYOUT], state_BF[:, AGENT], action_B]
        progress_B = state_BF[:, PROGRESS]
        target_B = state_BF[:, WAYPOINTS:].gather(1, progress_B.clamp(max=self.num_waypoints - 1)[:, None])[:, 0]
        reached_B = (agent_B == target_B) & (progress_B < self.num_waypoints)
        reward_B = torch.where(reached_B, self.reward_W[progress_B.clamp(max=self.num_waypoints - 1)], 0.0)
        after_BF = state_BF.clone()
        after_BF[:, ELAPSED] += 1
        after_BF[:, AGENT] = agent_B
        after_BF[:, PROGRESS] += reached_B
        return after_BF, reward_B, after_BF[:, PROGRESS] == self.num_waypoints

    def observe(self, state_BF: Tensor) -> Tensor:
        """What the agent sees of a state, [B, *obs_shape] float."""
        layout_B, cells = state_BF[:, LAYOUT], self.num_cells
        obs_BD = torch.zeros(len(state_BF), self.obs_shape[0], device=self.device)
        obs_BD.scatter_(1, state_BF[:, AGENT, None], 1.0)
        planes_W = torch.arange(1, 1 + self.num_waypoints, device=self.device) * cells
        obs_BD.scatter_(1, state_BF[:, WAYPOINTS:] + planes_W, 1.0)
        if self.shows_walls:
            start = (1 + self.num_waypoints) * cells
            obs_BD[:, start : start + cells] = self.walls_LC[layout_B].float()
        for i in range(self.num_waypoints - 1):
            obs_BD[:, 1 - self.num_waypoints + i] = (state_BF[:, PROGRESS] > i).float()
        return obs_BD

    def draw_states(self, num: int) -> Tensor:
        """First states of episodes, [num, F]: the layout evenly, then start and waypoints evenly among different free cells."""
        uniform_NU = torch.rand(num, 2 + self.num_waypoints, generator=self.generator, device=self.device)
        layout_N = (uniform_NU[:, 0] * self.num_layouts).long()
        picks = [] if self.waypoint_LW is None else list(self.waypoint_LW[layout_N].unbind(1))  # places among the free cells
        while len(picks) < self.num_waypoints + 1:
            pick_N = (uniform_NU[:, 1 + len(picks)] * (self.count_L[layout_N] - len(picks))).long()  # among those not yet taken
            for taken_N in torch.stack(picks).sort(0).values if picks else ():
                pick_N = pick_N + (pick_N >= taken_N)
            picks.append(pick_N)
        waypoints, agent_N = [self.free_LC[layout_N, pick_N] for pick_N in picks[:-1]], self.free_LC[layout_N, picks[-1]]
        zero_N = torch.zeros_like(layout_N)
        return torch.stack([layout_N, zero_N, agent_N, zero_N, *waypoints], 1)

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state_BF.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state_BF = state["state"].to(self.device).clone()
        self.generator.set_state(state["generator"])


def goal_grid(n: int, limit: int, num_envs: int, device: torch.device | str = "cpu") -> Grid:
    """GoalGrid: an open room of n x n cells, reward 1 at the goal."""
    return Grid(open_room(n)[None], limit, num_envs, device=device)


def key_grid(n: int, limit: int, num_envs: int, device: torch.device | str = "cpu") -> Grid:
    """KeyGrid: fetch the key, reward 0.3, then reach the goal, reward 1; the goal is worth nothing without the key."""
    return Grid(open_room(n)[None], limit, num_envs, rewards=(0.3, 1.0), device=device)


def neighbours(walls_LHW: Tensor) -> Tensor:
    """The cell that each action leads to, [L, C, A]; walls block. A wall's own rows stay where they are."""
    layouts, height, width = walls_LHW.shape
    row_C, column_C = torch.arange(height * width) // width, torch.arange(height * width) % width
    walls_LC = walls_LHW.flatten(1)
    here_C = row_C * width + column_C
    ways = []
    for down, right in STEPS:
        there_C = (row_C + down).clamp(0, height - 1) * width + (column_C + right).clamp(0, width - 1)
        ways.append(torch.where(walls_LC[:, there_C] | walls_LC, here_C.expand(layouts, -1), there_C.expand(layouts, -1)))
    return torch.stack(ways, -1)


def transition_table(walls_HW: Tensor, slip: float = 0.0) -> Tensor:
    """P(cell' | cell, action) of one layout, exact, [C, A, C] in float64. With probability `slip` the action is a random one."""
    next_CA = neighbours(walls_HW[None])[0]
    chosen_CAC = torch.nn.functional.one_hot(next_CA, walls_HW.numel()).double()
    return (1 - slip) * chosen_CAC + slip * chosen_CAC.mean(1, keepdim=True)
