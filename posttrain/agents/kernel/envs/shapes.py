"""Shapes: an agent walks to one of three coloured objects, named by a goal; a world to be looked at, as a picture or as planes of cells.

The picture is for a reward that sees (`kernel/clip.py`), the planes are for the policy. Whoever judges success ends the episode: the truth,
or a function of picture and goal. What the truth said of the last step stands in `last` all the same. Read `step`, then `frames`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from posttrain.agents.kernel.envs.grids import neighbours
from posttrain.agents.kernel.envs.layouts import open_room

COLOURS = {"red": (220, 60, 50), "green": (70, 180, 75), "blue": (65, 105, 225), "yellow": (235, 200, 50), "purple": (160, 70, 190)}
SHAPES = {  # row by row
    "square": "###### ###### ###### ###### ###### ######",
    "ring": ".####. ##..## #....# #....# ##..## .####.",
    "cross": "..##.. ..##.. ###### ###### ..##.. ..##..",
    "triangle": "..##.. ..##.. .####. .####. ###### ######",
    "diamond": "..##.. .####. ###### ###### .####. ..##..",
}
KINDS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""What an object can be; a goal is the number of one of them."""
OBJECTS = 3
CELL = 8  # pixels
LAYOUT, AGENT, GOAL, ELAPSED = range(4)  # columns of a state; the goal is one of the layout's objects
Judge: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Pictures [B, 3, H, W] and goals [B] -> probability of success [B], which counts as success from `threshold` on."""


class Layouts(NamedTuple):
    """Rooms of n x n cells with three objects in different cells: the second is of the first one's colour, the third of its shape."""

    n: int
    cell_LO: Tensor
    kind_LO: Tensor
    corner_L2: Tensor
    """Row and column of the room's upper left pixel in the picture: the camera stands a little elsewhere in each."""
    picture_L: Tensor
    """Without the agent, [L, 3, H, W] uint8."""


class Last(NamedTuple):
    """The steps just taken, before ended episodes begin anew."""

    state_BF: Tensor
    true_B: Tensor
    """Whether the agent stands at its goal."""
    prob_B: Tensor
    """What the judge gives success; without one 0 or 1, the truth."""


class Shapes:
    """B walks; standing at the goal, as far as the judge can tell, pays 1 and ends the episode."""

    num_actions = 4  # up, right, down, left

    def __init__(
        self,
        layouts: Layouts,
        limit: int,
        num_envs: int,
        judge: Judge | None = None,
        threshold: float = 0.5,
        device: torch.device | str = "cpu",
    ) -> None:
        """`limit` is the longest episode in steps. Without a judge the truth is one."""
        self.layouts = Layouts(layouts.n, *(part.to(device) for part in layouts[1:]))
        self.limit, self.num_envs, self.judge, self.threshold, self.device = limit, num_envs, judge, threshold, torch.device(device)
        self.n, self.num_cells = layouts.n, layouts.n**2
        self.next_CA = neighbours(open_room(self.n)[None])[0].to(self.device)
        self.planes_LPC = planes(self.layouts)
        self.obs_shape: tuple[int, ...] = (2 * (len(COLOURS) + len(SHAPES)) + 1, self.n, self.n)
        self.state_BF = torch.zeros(num_envs, 4, dtype=torch.long, device=self.device)
        nothing_B = torch.zeros(num_envs, device=self.device)
        self.last = Last(self.state_BF, nothing_B.bool(), nothing_B)
        self.generator = torch.Generator(self.device)

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        self.state_BF = self.draw_states(self.num_envs)
        return self.observe(self.state_BF)

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        state_BF = self.state_BF.clone()
        state_BF[:, AGENT] = self.next_CA[state_BF[:, AGENT], action_B]
        state_BF[:, ELAPSED] += 1
        true_B = self.true(state_BF)
        prob_B = self.judge(self.frames(state_BF), self.goal(state_BF)) if self.judge else true_B.float()
        self.last = Last(state_BF, true_B, prob_B)
        terminated_B = prob_B >= self.threshold
        truncated_B = ~terminated_B & (state_BF[:, ELAPSED] >= self.limit)
        self.state_BF = torch.where((terminated_B | truncated_B)[:, None], self.draw_states(self.num_envs), state_BF)
        return self.observe(self.state_BF), terminated_B.float(), terminated_B, truncated_B

    def goal(self, state_BF: Tensor) -> Tensor:
        """The kind of object to walk to, [B]."""
        return self.layouts.kind_LO[state_BF[:, LAYOUT], state_BF[:, GOAL]]

    def true(self, state_BF: Tensor) -> Tensor:
        """Whether the agent stands at its goal, [B]."""
        return self.layouts.cell_LO[state_BF[:, LAYOUT], state_BF[:, GOAL]] == state_BF[:, AGENT]

    def frames(self, state_BF: Tensor) -> Tensor:
        """The pictures of states, [B, 3, H, W] uint8: the agent is a white frame around its cell."""
        picture_B = self.layouts.picture_L[state_BF[:, LAYOUT]]
        width = picture_B.shape[-1]
        row_B, column_B = (self.layouts.corner_L2[state_BF[:, LAYOUT]] + CELL * _row_and_column(state_BF[:, AGENT], self.n)).unbind(1)
        side = torch.arange(CELL, device=self.device)
        edge = (side % (CELL - 1) == 0)[:, None] | (side % (CELL - 1) == 0)
        border_P = (side[:, None] * width + side)[edge]
        place_BP = (row_B * width + column_B)[:, None] + border_P
        picture_B.flatten(2).scatter_(2, place_BP[:, None].expand(-1, 3, -1), 255)
        return picture_B

    def observe(self, state_BF: Tensor) -> Tensor:
        """What the policy sees: planes of the colours and shapes in the cells and of the agent, and the goal's colour and shape in all."""
        row_B = torch.arange(len(state_BF), device=self.device)
        agent_BC = torch.zeros(len(state_BF), self.num_cells, device=self.device)
        agent_BC[row_B, state_BF[:, AGENT]] = 1.0
        planes_BPC = self.planes_LPC[state_BF[:, LAYOUT]]
        goal_cell_B = self.layouts.cell_LO[state_BF[:, LAYOUT], state_BF[:, GOAL]]
        goal_BPC = planes_BPC[row_B, :, goal_cell_B][..., None].expand_as(planes_BPC)
        return torch.cat([planes_BPC, agent_BC[:, None], goal_BPC], 1).unflatten(2, (self.n, self.n))

    def draw_states(self, num: int) -> Tensor:
        """First states of episodes: layout and goal evenly, the agent on any cell without an object."""
        uniform_N3 = torch.rand(num, 3, generator=self.generator, device=self.device)
        layout_N = (uniform_N3[:, 0] * len(self.layouts.cell_LO)).long()
        agent_N = (uniform_N3[:, 1] * (self.num_cells - OBJECTS)).long()  # among the free cells
        for taken_N in self.layouts.cell_LO[layout_N].sort(1).values.unbind(1):
            agent_N = agent_N + (agent_N >= taken_N)
        return torch.stack([layout_N, agent_N, (uniform_N3[:, 2] * OBJECTS).long(), torch.zeros_like(layout_N)], 1)

    def draw_judged(self, num: int, generator: torch.Generator) -> Tensor:
        """States to try a judge on: a third each with the agent at its goal, at another object, and on empty ground."""
        self.generator = generator
        state_NF = self.draw_states(num)
        object_N = (state_NF[:, GOAL] + torch.randint(1, OBJECTS, (num,), generator=generator, device=self.device)) % OBJECTS
        third = num // 3
        object_N[:third] = state_NF[:third, GOAL]
        state_NF[: 2 * third, AGENT] = self.layouts.cell_LO[state_NF[:, LAYOUT], object_N][: 2 * third]
        return state_NF

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state_BF.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state_BF = state["state"].to(self.device).clone()
        self.generator.set_state(state["generator"])


def draw_layouts(num: int, n: int, generator: torch.Generator) -> Layouts:
    """Random rooms: cells, kinds and the camera's place evenly, grounds of random greys with noise."""
    if n * n <= OBJECTS:
        raise ValueError(f"n: found {n}, expected a room of more cells than its {OBJECTS} objects")
    cell_LO = torch.rand(num, n * n, generator=generator).argsort(1)[:, :OBJECTS]
    colour_L2 = torch.rand(num, len(COLOURS), generator=generator).argsort(1)[:, :2]
    shape_L2 = torch.rand(num, len(SHAPES), generator=generator).argsort(1)[:, :2]
    kind_LO = len(SHAPES) * colour_L2[:, [0, 0, 1]] + shape_L2[:, [0, 1, 0]]
    corner_L2 = torch.randint(CELL + 1, (num, 2), generator=generator)
    side = picture_side(n)
    picture_L = torch.randint(20, 90, (num, 1, 1, 1), generator=generator).expand(-1, 3, side, side).clone()
    colour_K3 = torch.tensor(list(COLOURS.values())).repeat_interleave(len(SHAPES), 0)
    for kind_L, cell_L in zip(kind_LO.unbind(1), cell_LO.unbind(1), strict=True):
        row_L, column_L = (corner_L2 + CELL * _row_and_column(cell_L, n) + 1).unbind(1)
        sprite_L = _sprites()[kind_L % len(SHAPES)]
        layout_P, down_P, right_P = sprite_L.nonzero(as_tuple=True)
        picture_L[layout_P, :, row_L[layout_P] + down_P, column_L[layout_P] + right_P] = colour_K3[kind_L[layout_P]]
    noise_L = torch.randint(-18, 19, picture_L.shape, generator=generator)
    return Layouts(n, cell_LO, kind_LO, corner_L2, (picture_L + noise_L).clamp(0, 255).to(torch.uint8))


def picture_side(n: int) -> int:
    """Height and width of the pictures of rooms of n x n cells: one cell more, which the camera may be off by."""
    return (n + 1) * CELL


def planes(layouts: Layouts) -> Tensor:
    """One plane of cells for each colour and each shape, [L, P, C]."""
    planes_LPC = torch.zeros(len(layouts.cell_LO), len(COLOURS) + len(SHAPES), layouts.n**2, device=layouts.cell_LO.device)
    row_L1 = torch.arange(len(layouts.cell_LO), device=layouts.cell_LO.device)[:, None]
    planes_LPC[row_L1, layouts.kind_LO // len(SHAPES), layouts.cell_LO] = 1.0
    planes_LPC[row_L1, len(COLOURS) + layouts.kind_LO % len(SHAPES), layouts.cell_LO] = 1.0
    return planes_LPC


def _row_and_column(cell_B: Tensor, n: int) -> Tensor:
    return torch.stack([cell_B // n, cell_B % n], 1)


def _sprites() -> Tensor:
    """[SHAPES, CELL - 2, CELL - 2] bool."""
    return torch.tensor([[[dot == "#" for dot in row] for row in shape.split()] for shape in SHAPES.values()])
