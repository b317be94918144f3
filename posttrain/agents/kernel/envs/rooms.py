"""KeyRooms: a row of rooms behind locked doors, seen through a small window; several skills in order, and a reward at the very end.

In every room but the last lies the key to its door. Walking onto it takes it, walking into the door with it opens the door, and the goal in
the last room pays 1 and ends the episode. Keys, doors, goal and start are drawn anew for every episode: nothing can be known by heart.
Cells are (row, column) of the whole house, `side` rows high; between rooms is one column of wall with the door in it. A move up, right,
down or left that is blocked stays.

With a `lure` the last room has two things that look like goals, one in its upper and one in its lower half. Keys have one of two colours:
with red ones the upper thing is the goal and the other ends the episode unpaid, with blue ones it is the other way round. No key is in
sight where the choice comes, so that without memory it is a guess.
"""

import torch
from torch import Tensor

from posttrain.agents.kernel.envs.grids import NUM_ACTIONS, STEPS
from posttrain.agents.kernel.envs.memory import Remembering

ELAPSED, ROW, COLUMN, PROGRESS, THINGS = 0, 1, 2, 3, 4  # columns of a state; progress counts keys taken and doors opened, in their order
WALL, DOOR, KEY, GOAL = range(4)  # planes of the view; with a lure two of keys, one of each colour


class KeyRooms(Remembering):
    """The window is 2 view + 1 cells wide, around the agent; walls block the sight of what is behind. Shown too is whether it holds a key.

    Not shown: where in the house the agent is, and what it saw before.
    """

    num_actions = NUM_ACTIONS

    def __init__(
        self,
        num_envs: int,
        rooms: int = 2,
        side: int = 4,
        view: int = 2,
        limit: int = 80,
        lure: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if rooms < 1 or side < 2 or view < 1:
            raise ValueError(f"need one room at least, of 2 cells or more a side, and a view of 1 or more; got {rooms}, {side}, {view}")
        if lure and rooms < 2:
            raise ValueError(f"need two rooms or more for a lure, as a key tells it from the goal; got {rooms}")
        super().__init__(num_envs, device)
        self.rooms, self.side, self.view, self.limit, self.lure = rooms, side, view, limit, lure
        self.doors = rooms - 1
        self.goal = THINGS + 3 * self.doors  # its column of a state
        self.obs_shape = ((5 if lure else 4) * (2 * view + 1) ** 2 + 1,)
        self.steps_A2 = torch.tensor(STEPS, device=self.device)
        reach = torch.arange(-view, view + 1, device=self.device)
        self.window_V2 = torch.cartesian_prod(reach, reach)

    def first(self) -> Tensor:
        """States: elapsed, row, column, progress; rows of keys, columns of keys, rows of doors; row and column of the goal.

        With a lure its row and column and the keys' colour besides.
        """
        cells, doors = self.side**2, self.doors
        uniform_BU = torch.rand(self.num_envs, 2 * doors + 2 + 2 * self.lure, generator=self.generator, device=self.device)
        key_BD = (uniform_BU[:, :doors] * cells).long()
        door_BD = (uniform_BU[:, doors : 2 * doors] * self.side).long()
        goals, colour = [(uniform_BU[:, 2 * doors] * cells).long()], []
        if self.lure:
            half = self.side // 2 * self.side  # cells of the upper rows; as many lower ones are behind the other `cells - half`
            low_B = (uniform_BU[:, -1] * 2).long()
            goal_B, lure_B = ((uniform_BU[:, column] * half).long() for column in (2 * doors, -2))
            goals, colour = [goal_B + low_B * (cells - half), lure_B + (1 - low_B) * (cells - half)], [low_B[:, None]]
        taken_B = key_BD[:, 0] if doors else goals[0]  # what lies in the first room already
        start_B = (uniform_BU[:, 2 * doors + 1] * (cells - 1)).long()
        start_B = start_B + (start_B >= taken_B)
        west_D = torch.arange(doors, device=self.device) * (self.side + 1)
        zero_B1 = torch.zeros_like(start_B)[:, None]
        start_B2 = torch.stack([start_B // self.side, start_B % self.side], 1)
        things = [key_BD // self.side, key_BD % self.side + west_D, door_BD, *map(self._in_last_room, goals), *colour]
        return torch.cat([zero_B1, start_B2, zero_B1, *things], 1)

    def advance(self, state_BF: Tensor, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        here_B2, progress_B = state_BF[:, [ROW, COLUMN]], state_BF[:, PROGRESS]
        there_B2 = here_B2 + self.steps_A2[action_B]
        wall_B, door_B = self._built(state_BF, there_B2[:, None])
        opens_B = door_B[:, 0] & (progress_B % 2 == 1)  # the only closed door in reach is the one of the key held
        moves_B = ~wall_B[:, 0] & (~door_B[:, 0] | opens_B)
        here_B2 = torch.where(moves_B[:, None], there_B2, here_B2)
        takes_B = self._at_key(state_BF, here_B2[:, None])[:, 0]
        after_BF = state_BF.clone()
        after_BF[:, ELAPSED] += 1
        after_BF[:, [ROW, COLUMN]] = here_B2
        after_BF[:, PROGRESS] += opens_B.long() + takes_B.long()
        at_BG = self._at_goals(state_BF, here_B2[:, None])[:, 0]
        terminated_B = at_BG.any(1)
        return after_BF, at_BG[:, 0].float(), terminated_B, ~terminated_B & (after_BF[:, ELAPSED] >= self.limit)

    def observe(self, state_BF: Tensor) -> Tensor:
        cell_BV2 = state_BF[:, None, [ROW, COLUMN]] + self.window_V2
        wall_BV, door_BV = self._built(state_BF, cell_BV2)
        key_BV, goal_BV = self._at_key(state_BF, cell_BV2), self._at_goals(state_BF, cell_BV2).any(-1)
        keys = [key_BV]
        if self.lure:
            blue_B1 = state_BF[:, -1:] == 1
            keys = [key_BV & ~blue_B1, key_BV & blue_B1]
        room_B1 = state_BF[:, COLUMN, None] // (self.side + 1)
        in_door_B1 = state_BF[:, COLUMN, None] % (self.side + 1) == self.side  # both rooms are seen from there
        low_B1 = room_B1 * (self.side + 1) - 1
        high_B1 = low_B1 + (self.side + 1) * (1 + in_door_B1.long())
        column_BV = cell_BV2[..., 1]
        seen_BV = (column_BV >= low_B1) & (column_BV <= high_B1)
        planes_BPV = torch.stack([wall_BV, door_BV, *keys, goal_BV], 1) & seen_BV[:, None]
        holds_B1 = state_BF[:, PROGRESS, None] % 2 == 1
        return torch.cat([planes_BPV.flatten(1), holds_B1], 1).float()

    def _in_last_room(self, cell_B: Tensor) -> Tensor:
        """Row and column of the house, [B, 2]."""
        return torch.stack([cell_B // self.side, cell_B % self.side + self.doors * (self.side + 1)], 1)

    def _at_goals(self, state_BF: Tensor, cell_BV2: Tensor) -> Tensor:
        """Where the goal is, and the lure if there is one, [B, V, 2] -> [B, V, G]."""
        place_BG2 = state_BF[:, self.goal : self.goal + 2 + 2 * self.lure].unflatten(1, (-1, 2))
        return (cell_BV2[:, :, None] == place_BG2[:, None]).all(-1)

    def _built(self, state_BF: Tensor, cell_BV2: Tensor) -> tuple[Tensor, Tensor]:
        """Which cells are wall, and which are closed doors, [B, V, 2] -> [B, V] each."""
        row_BV, column_BV = cell_BV2.unbind(-1)
        width = self.rooms * (self.side + 1) - 1
        outside_BV = (row_BV < 0) | (row_BV >= self.side) | (column_BV < 0) | (column_BV >= width)
        between_BV = ~outside_BV & (column_BV % (self.side + 1) == self.side)
        if not self.doors:
            return outside_BV, between_BV
        number_BV = (column_BV // (self.side + 1)).clamp(0, self.doors - 1)
        doorway_BV = between_BV & (row_BV == state_BF[:, THINGS + 2 * self.doors : self.goal].gather(1, number_BV))
        closed_BV = doorway_BV & (state_BF[:, PROGRESS, None] // 2 <= number_BV)
        return outside_BV | (between_BV & ~doorway_BV), closed_BV

    def _at_key(self, state_BF: Tensor, cell_BV2: Tensor) -> Tensor:
        """Where the keys lie that are not yet taken, [B, V, 2] -> [B, V]."""
        rows_BD, columns_BD = state_BF[:, THINGS : THINGS + 2 * self.doors].unflatten(1, (2, -1)).unbind(1)
        lies_BD = torch.arange(self.doors, device=self.device) >= (state_BF[:, PROGRESS, None] + 1) // 2
        at_BVD = (cell_BV2[..., :1] == rows_BD[:, None]) & (cell_BV2[..., 1:] == columns_BD[:, None])
        return (at_BVD & lies_BD[:, None]).any(-1)
