"""Two small worlds to film, 16 x 16 pixels in colour: squares seen from above, and platforms with gravity. Read `moved` and `fallen`.

An observation is the picture, [3, 16, 16] from 0 to 1. Both worlds say by `outcomes` where each action would lead, and so what a film
holds of the actions at most: two actions that lead to one place cannot be told apart (`ceiling_bits`).
"""

from math import log2
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from posttrain.agents.kernel.envs.grids import neighbours
from posttrain.agents.kernel.envs.layouts import connected
from posttrain.agents.kernel.envs.vector import VectorEnv

SIZE = 16
INK = {
    "night": (24, 26, 44),
    "stone": (96, 100, 120),
    "blue": (86, 156, 255),
    "white": (250, 250, 250),
    "gold": (255, 205, 60),
    "red": (232, 72, 72),
    "sky": (122, 190, 235),
    "earth": (96, 66, 44),
    "grass": (74, 150, 70),
}
LETTERS = {"b": "blue", "w": "white", "r": "red", "g": "gold", "s": "stone"}
SPRITES = {  # a letter a pixel
    "agent": ("bbww", "bbww", "bbbb", "bbbb"),
    "runner": ("rrww", "rrww", "rrrr", "rrrr"),
    "coin": ("gg", "gg"),
    "ball": ("rr", "rr"),
    "wall": ("ssss", "ssss", "ssss", "ssss"),
}


@runtime_checkable
class Filmed(VectorEnv, Protocol):
    """A world that knows what its films hold of the actions."""

    def outcomes(self) -> Tensor:
        """Where each action would put the agent, [B, A, 2] int."""
        ...


class Sprites:
    """From above: a square that walks between walls and collects coins, while a ball bounces over everything.

    Actions are up, right, down, left and none; a step is two pixels, half the agent. Each coin pays 1, and the next lies elsewhere at once.
    An episode ends after `limit` steps. Every episode draws one of `layouts` pairs of walls.
    """

    num_actions = 5
    obs_shape: tuple[int, ...] = (3, SIZE, SIZE)
    cells = SIZE // 2 - 1
    """Places of the agent's corner along an axis, two pixels apart."""

    def __init__(
        self, num_envs: int, limit: int, layouts: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> None:
        """`generator` draws the layouts."""
        self.num_envs, self.limit, self.device = num_envs, limit, torch.device(device)
        wall_LW, blocked_LHW = walled(layouts, self.cells, generator)
        self.next_LCA = with_rest(neighbours(blocked_LHW)).to(self.device)
        self.free_LC = torch.argsort(blocked_LHW.flatten(1).int(), dim=1, stable=True).to(self.device)  # the free cells first
        self.count_L = (~blocked_LHW).flatten(1).sum(1).to(self.device)
        self.distance_LCC = distances(self.next_LCA)
        self.background_LCHW = picture("night", layouts, self.device)
        for wall_L in wall_LW.to(self.device).T:
            paste(self.background_LCHW, "wall", *self._pixels(wall_L))
        self.layout_B = self.agent_B = self.coin_B = self.elapsed_B = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self.ball_B4 = torch.zeros(num_envs, 4, dtype=torch.long, device=self.device)
        self.generator = torch.Generator(self.device)

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        self._begin(torch.ones(self.num_envs, dtype=torch.bool, device=self.device))
        return self.observe()

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self.agent_B = self.next_LCA[self.layout_B, self.agent_B, action_B]
        self.ball_B4 = moved(self.ball_B4, SIZE - 2)
        self.elapsed_B = self.elapsed_B + 1
        took_B = self.agent_B == self.coin_B
        self.coin_B = torch.where(took_B, self._another(), self.coin_B)
        ended_B = self.elapsed_B >= self.limit
        self._begin(ended_B)
        return self.observe(), took_B.float(), torch.zeros_like(ended_B), ended_B

    def observe(self) -> Tensor:
        frame_BCHW = self.background_LCHW[self.layout_B]
        top_B, left_B = self._pixels(self.coin_B)
        paste(frame_BCHW, "coin", top_B + 1, left_B + 1)
        paste(frame_BCHW, "agent", *self._pixels(self.agent_B))
        return paste(frame_BCHW, "ball", self.ball_B4[:, 0], self.ball_B4[:, 1])

    def outcomes(self) -> Tensor:
        return torch.stack(self._pixels(self.next_LCA[self.layout_B, self.agent_B]), -1)

    def expert(self) -> Tensor:
        """An action on a shortest way to the coin, the first of several, [B]."""
        ahead_BA = self.next_LCA[self.layout_B, self.agent_B]
        return self.distance_LCC[self.layout_B[:, None], ahead_BA, self.coin_B[:, None]].argmin(1)

    def state_dict(self) -> dict[str, Any]:
        names = ("layout_B", "agent_B", "coin_B", "elapsed_B", "ball_B4")
        return {name: getattr(self, name).clone() for name in names} | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, x in state.items():
            if name == "generator":
                self.generator.set_state(x)
            else:
                setattr(self, name, x.to(self.device).clone())

    def _pixels(self, cell: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * (cell // self.cells), 2 * (cell % self.cells)

    def _begin(self, which_B: Tensor) -> None:
        """Start new episodes in some environments."""
        uniform_B6 = torch.rand(self.num_envs, 6, generator=self.generator, device=self.device)
        layout_B = (uniform_B6[:, 0] * len(self.count_L)).long()
        agent_B = self.free_LC[layout_B, (uniform_B6[:, 1] * self.count_L[layout_B]).long()]
        speed_B2 = 4 * (uniform_B6[:, 4:] < 0.5).long() - 2
        ball_B4 = torch.cat([2 * (uniform_B6[:, 2:4] * (SIZE // 2)).long(), speed_B2], 1)
        self.layout_B, self.agent_B = torch.where(which_B, layout_B, self.layout_B), torch.where(which_B, agent_B, self.agent_B)
        self.ball_B4 = torch.where(which_B[:, None], ball_B4, self.ball_B4)
        self.coin_B = torch.where(which_B, self._another(), self.coin_B)
        self.elapsed_B = self.elapsed_B * ~which_B

    def _another(self) -> Tensor:
        """A free cell other than the agent's, evenly."""
        uniform_B = torch.rand(self.num_envs, generator=self.generator, device=self.device)
        pick_B = (uniform_B * (self.count_L[self.layout_B] - 1)).long()
        place_B = (self.free_LC[self.layout_B] == self.agent_B[:, None]).int().argmax(1)
        return self.free_LC[self.layout_B, pick_B + (pick_B >= place_B)]


class Runner(NamedTuple):
    """Platformer's agent and its platforms."""

    top_B: Tensor
    left_B: Tensor
    speed_B: Tensor
    """Pixels a step, downwards."""
    left_BP: Tensor
    """Where each platform begins."""
    right_BP: Tensor
    """The first pixel behind it."""


PLATFORMS = (6, 10, 14)  # the rows of their tops; the lowest is the ground
TALL, JUMP, GRAVITY, FASTEST, STRIDE = 4, -4, 2, 4, 2  # pixels, and pixels a step
LEFT, RIGHT, LEAP, DROP = range(1, 5)


class Platformer:
    """From the side: a square that runs, leaps and falls onto platforms drawn anew for every episode, and collects coins.

    Actions are none, left, right, leap and drop. A leap works from the ground or a platform, a drop lets the agent through a platform, or
    fall at full speed: in the air, or above the ground, several actions look alike. Platforms are passed from below. Each coin pays 1.
    """

    num_actions = 5
    obs_shape: tuple[int, ...] = (3, SIZE, SIZE)

    def __init__(self, num_envs: int, limit: int, device: torch.device | str = "cpu") -> None:
        self.num_envs, self.limit, self.device = num_envs, limit, torch.device(device)
        zero_B = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        zero_BP = zero_B[:, None].expand(-1, len(PLATFORMS))
        self.now = Runner(zero_B, zero_B, zero_B, zero_BP, zero_BP)
        self.coin_B2, self.elapsed_B = zero_BP[:, :2], zero_B
        self.generator = torch.Generator(self.device)

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        self._begin(torch.ones(self.num_envs, dtype=torch.bool, device=self.device))
        return self.observe()

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self.now = fallen(self.now, action_B)
        self.elapsed_B = self.elapsed_B + 1
        apart_B2 = torch.stack([self.now.top_B, self.now.left_B], 1) - self.coin_B2
        took_B = ((apart_B2 > -TALL) & (apart_B2 < 2)).all(1)
        self.coin_B2 = torch.where(took_B[:, None], self._coin(self.now), self.coin_B2)
        ended_B = self.elapsed_B >= self.limit
        self._begin(ended_B)
        return self.observe(), took_B.float(), torch.zeros_like(ended_B), ended_B

    def observe(self) -> Tensor:
        frame_BCHW = picture("sky", self.num_envs, self.device)
        column_W = torch.arange(SIZE, device=self.device)
        for i, row in enumerate(PLATFORMS):
            on_BW = (column_W >= self.now.left_BP[:, i, None]) & (column_W < self.now.right_BP[:, i, None])
            for ink, at in (("grass", row), ("earth", row + 1)) if row == PLATFORMS[-1] else (("earth", row),):
                frame_BCHW[:, :, at] = torch.where(on_BW[:, None], colour(ink, self.device)[:, None], frame_BCHW[:, :, at])
        paste(frame_BCHW, "coin", *self.coin_B2.unbind(1))
        return paste(frame_BCHW, "runner", self.now.top_B, self.now.left_B)

    def outcomes(self) -> Tensor:
        ways = [fallen(self.now, torch.full_like(self.elapsed_B, action)) for action in range(self.num_actions)]
        return torch.stack([torch.stack([way.top_B, way.left_B], 1) for way in ways], 1)

    def state_dict(self) -> dict[str, Any]:
        kept = self.now._asdict() | {"coin_B2": self.coin_B2, "elapsed_B": self.elapsed_B}
        return {name: x.clone() for name, x in kept.items()} | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        kept = {name: x.to(self.device).clone() for name, x in state.items() if name != "generator"}
        self.coin_B2, self.elapsed_B = kept.pop("coin_B2"), kept.pop("elapsed_B")
        self.now = Runner(**kept)

    def _begin(self, which_B: Tensor) -> None:
        """Start new episodes in some environments, each standing on the ground."""
        uniform_BU = torch.rand(self.num_envs, 2 * len(PLATFORMS), generator=self.generator, device=self.device)
        length_BP = 4 + 2 * (uniform_BU[:, : len(PLATFORMS)] * 4).long()
        left_BP = 2 * (uniform_BU[:, len(PLATFORMS) :] * (SIZE // 2 + 1 - length_BP // 2)).long()
        left_B = STRIDE * (uniform_BU[:, -1] * ((SIZE - TALL) // STRIDE + 1)).long()  # the ground has no use for its draw
        length_BP[:, -1], left_BP[:, -1] = SIZE, 0
        top_B = torch.full_like(left_B, PLATFORMS[-1] - TALL)
        fresh = Runner(top_B, left_B, torch.zeros_like(top_B), left_BP, left_BP + length_BP)
        self.coin_B2 = torch.where(which_B[:, None], self._coin(fresh), self.coin_B2)
        chosen = [torch.where(which_B.view(-1, *[1] * (x.dim() - 1)), x, old) for x, old in zip(fresh, self.now, strict=True)]
        self.now, self.elapsed_B = Runner(*chosen), self.elapsed_B * ~which_B

    def _coin(self, now: Runner) -> Tensor:
        """A place on top of some platform, [B, 2]."""
        uniform_B2 = torch.rand(self.num_envs, 2, generator=self.generator, device=self.device)
        platform_B1 = (uniform_B2[:, :1] * len(PLATFORMS)).long()
        left_B, right_B = now.left_BP.gather(1, platform_B1)[:, 0], now.right_BP.gather(1, platform_B1)[:, 0]
        top_B = torch.tensor(PLATFORMS, device=self.device)[platform_B1[:, 0]] - 2
        return torch.stack([top_B, left_B + 2 * (uniform_B2[:, 1] * (right_B - left_B) / 2).long()], 1)


def moved(ball_B4: Tensor, last: int) -> Tensor:
    """A ball (row, column, and what each changes by) a step on; at 0 and at `last` it turns around."""
    place_B2, speed_B2 = ball_B4[:, :2], ball_B4[:, 2:]
    out_B2 = (place_B2 + speed_B2 < 0) | (place_B2 + speed_B2 > last)
    speed_B2 = torch.where(out_B2, -speed_B2, speed_B2)
    return torch.cat([place_B2 + speed_B2, speed_B2], 1)


def stands(now: Runner, top_B: Tensor, left_B: Tensor) -> tuple[Tensor, Tensor]:
    """Whether an agent there has a platform below its feet, and whether that is the ground, [B] each."""
    row_P = torch.tensor(PLATFORMS, device=top_B.device)
    over_BP = (left_B[:, None] + TALL > now.left_BP) & (left_B[:, None] < now.right_BP)
    on_BP = over_BP & (top_B[:, None] + TALL == row_P)
    return on_BP.any(1), on_BP[:, -1]


def fallen(now: Runner, action_B: Tensor) -> Runner:
    """A step: sideways, then a leap or a drop, then up or down pixel by pixel until something is stood on; then gravity."""
    left_B = (now.left_B + STRIDE * ((action_B == RIGHT).long() - (action_B == LEFT).long())).clamp(0, SIZE - TALL)
    stood_B, ground_B = stands(now, now.top_B, left_B)
    drops_B = (action_B == DROP) & ~ground_B
    speed_B = torch.where(stood_B & (now.speed_B >= 0), 0, now.speed_B)
    speed_B = torch.where(stood_B & (action_B == LEAP), JUMP, speed_B)
    speed_B = torch.where(drops_B, FASTEST, speed_B)
    top_B = (now.top_B + speed_B.clamp(max=0)).clamp(min=0)
    speed_B = torch.where((top_B == 0) & (speed_B < 0), 0, speed_B)  # the head is at the top of the picture
    for pixel in range(FASTEST):
        held_B = stands(now, top_B, left_B)[0] & ~(drops_B & (pixel == 0))
        top_B = top_B + ((pixel < speed_B) & ~held_B)
        speed_B = torch.where(held_B & (speed_B > 0), 0, speed_B)
    stood_B, _ = stands(now, top_B, left_B)
    speed_B = torch.where(stood_B & (speed_B >= 0), 0, (speed_B + GRAVITY).clamp(max=FASTEST))
    return now._replace(top_B=top_B, left_B=left_B, speed_B=speed_B)


def ceiling_bits(outcome_NA2: Tensor, action_N: Tensor) -> float:
    """What the picture after an evenly drawn action tells of it at most, in bits: log2 A - E log2 #{actions that lead there}."""
    there_N2 = outcome_NA2[torch.arange(len(action_N), device=action_N.device), action_N]
    alike_N = (outcome_NA2 == there_N2[:, None]).all(2).sum(1)
    return log2(outcome_NA2.shape[1]) - alike_N.double().log2().mean().item()


def colour(name: str, device: torch.device) -> Tensor:
    return torch.tensor(INK[name], device=device) / 255


def picture(name: str, num: int, device: torch.device) -> Tensor:
    """Pictures of one colour, [num, 3, SIZE, SIZE]."""
    return colour(name, device)[None, :, None, None].repeat(num, 1, SIZE, SIZE)


def paste(frame_BCHW: Tensor, sprite: str, top_B: Tensor, left_B: Tensor) -> Tensor:
    """The same pictures with a sprite drawn into them."""
    device = frame_BCHW.device
    ink_CHW = torch.stack([torch.stack([colour(LETTERS[x], device) for x in row], -1) for row in SPRITES[sprite]], 1)
    _, height, width = ink_CHW.shape
    row_BK, column_BK = top_B[:, None] + torch.arange(height, device=device), left_B[:, None] + torch.arange(width, device=device)
    each_B = torch.arange(len(frame_BCHW), device=device)[:, None, None]
    frame_BCHW[each_B, :, row_BK[:, :, None], column_BK[:, None]] = ink_CHW.permute(1, 2, 0)
    return frame_BCHW


def with_rest(next_LCA: Tensor) -> Tensor:
    """The table of next cells with a last action that stays."""
    stay_C = torch.arange(next_LCA.shape[1])
    return torch.cat([next_LCA, stay_C.expand(len(next_LCA), -1)[..., None]], -1)


def walled(num: int, cells: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Layouts of two walls as large as the agent: their cells [num, 2], and where the agent cannot stand, [num, cells, cells]."""
    walls: list[Tensor] = []
    blocked: list[Tensor] = []
    row_C, column_C = torch.arange(cells**2) // cells, torch.arange(cells**2) % cells
    while len(walls) < num:
        wall_W = torch.randint(cells**2, (2,), generator=generator)
        near_WC = ((row_C - row_C[wall_W][:, None]).abs() < 2) & ((column_C - column_C[wall_W][:, None]).abs() < 2)
        blocked_HW = near_WC.any(0).view(cells, cells)
        if connected(blocked_HW):
            walls.append(wall_W)
            blocked.append(blocked_HW)
    return torch.stack(walls), torch.stack(blocked)


def distances(next_LCA: Tensor) -> Tensor:
    """Steps of the shortest way between any two cells, [L, C, C] int; C where there is none."""
    num = next_LCA.shape[1]
    far_LCC = torch.full((len(next_LCA), num, num), num, device=next_LCA.device)
    far_LCC.diagonal(dim1=1, dim2=2).fill_(0)
    each_L = torch.arange(len(next_LCA), device=next_LCA.device)[:, None, None]
    while True:
        nearer_LCC = torch.minimum(far_LCC, far_LCC[each_L, next_LCA].amin(2) + 1)
        if torch.equal(nearer_LCC, far_LCC):
            return far_LCC
        far_LCC = nearer_LCC
