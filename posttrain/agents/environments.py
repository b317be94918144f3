"""Which environment and device a recipe names: the keys of each kind, and the environment itself by `make_env`."""

from typing import Literal, TypeAlias

import torch
from pydantic import Field, PositiveInt

from posttrain.agents.kernel.envs.bridge import GymnasiumEnv
from posttrain.agents.kernel.envs.cartpole import CartPole
from posttrain.agents.kernel.envs.catch import Catch
from posttrain.agents.kernel.envs.grids import Grid, goal_grid, key_grid
from posttrain.agents.kernel.envs.layouts import four_rooms, mazes, scattered_walls
from posttrain.agents.kernel.envs.memory import MemoryChain, RepeatPrevious, TMaze
from posttrain.agents.kernel.envs.pointmass import PointMass
from posttrain.agents.kernel.envs.rooms import KeyRooms
from posttrain.agents.kernel.envs.shapes import Shapes, draw_layouts
from posttrain.agents.kernel.envs.trials import TrialCartPole
from posttrain.agents.kernel.envs.vector import VectorEnv
from posttrain.agents.kernel.envs.worlds import Platformer, Sprites
from posttrain.config import ConfigError, config

HELD_OUT = 1_000_003  # added to the seed of layouts that no agent trains on


@config
class GoalGridConfig:
    """Walk to a goal in an open square room."""

    kind: Literal["goal_grid"] = "goal_grid"
    n: PositiveInt = 5
    """Side of the room, cells."""
    limit: PositiveInt = 20
    """Longest episode, steps."""


@config
class KeyGridConfig:
    """Fetch a key, then walk to a goal, in an open square room."""

    kind: Literal["key_grid"] = "key_grid"
    n: PositiveInt = 4
    """Side of the room, cells."""
    limit: PositiveInt = 20
    """Longest episode, steps."""


@config
class FourRoomsConfig:
    """Walk to a goal through four rooms."""

    kind: Literal["four_rooms"] = "four_rooms"
    n: PositiveInt = 11
    """Side of the square, cells, odd."""
    limit: PositiveInt = 60
    """Longest episode, steps."""
    slip: float = Field(default=0.0, ge=0, le=1)
    """Probability that a random action takes the place of the chosen one."""


@config
class MazeConfig:
    """Walk to a goal in mazes, a random depth-first tree each, of which every episode draws one."""

    kind: Literal["maze"] = "maze"
    n: PositiveInt = 9
    """Side of the maze, cells, odd."""
    limit: PositiveInt = 80
    """Longest episode, steps."""
    layouts: PositiveInt = 50
    """Mazes to train on."""


@config
class WallsConfig:
    """Walk to a goal between walls scattered at random; a layout has its own goal, and every episode draws a layout and a start."""

    kind: Literal["walls"] = "walls"
    n: PositiveInt = 7
    """Side of the square, cells."""
    limit: PositiveInt = 40
    """Longest episode, steps."""
    layouts: PositiveInt = 50
    """Layouts to train on."""
    density: float = Field(default=0.2, ge=0, lt=0.5)
    """Share of the cells that are walls, before layouts that are not connected are thrown away."""


@config
class CatchConfig:
    """Stand below a falling ball."""

    kind: Literal["catch"] = "catch"
    rows: PositiveInt = 10
    columns: PositiveInt = 5


@config
class CartPoleConfig:
    """Balance a pole on a cart."""

    kind: Literal["cartpole"] = "cartpole"
    limit: PositiveInt = 500
    """Longest episode, steps."""


@config
class PointMassConfig:
    """Push a mass through one of several doors to a goal."""

    kind: Literal["pointmass"] = "pointmass"
    doors: tuple[float, ...] = (-0.75, -0.25, 0.25, 0.75)
    """Heights of their middles in the wall, from -1 to 1."""
    limit: PositiveInt = 40
    """Longest episode, steps."""


@config
class ShapesConfig:
    """Walk to the one of three coloured objects that a goal names, in rooms of which every episode draws one."""

    kind: Literal["shapes"] = "shapes"
    n: int = Field(default=4, ge=2)
    """Side of the room, cells."""
    limit: PositiveInt = 10
    """Longest episode, steps."""
    layouts: PositiveInt = 400
    """Rooms to train in."""


@config
class KeyRoomsConfig:
    """Fetch keys, open doors and walk to a goal in a row of rooms seen through a small window, paid at the goal alone."""

    kind: Literal["key_rooms"] = "key_rooms"
    rooms: PositiveInt = 2
    side: PositiveInt = 4
    """Of a room, cells."""
    view: PositiveInt = 2
    """How many cells around the agent are seen on each side of it."""
    limit: PositiveInt = 80
    """Longest episode, steps."""
    lure: bool = False
    """Whether the last room has two goals, of which only one pays, and the keys' colour says which."""


@config
class SpritesConfig:
    """Seen from above, in pixels: walk between walls to coins, below a bouncing ball."""

    kind: Literal["sprites"] = "sprites"
    limit: PositiveInt = 32
    """Length of an episode, steps."""
    layouts: PositiveInt = 200
    """Pairs of walls."""


@config
class PlatformerConfig:
    """Seen from the side, in pixels: run, leap and fall between platforms to coins."""

    kind: Literal["platformer"] = "platformer"
    limit: PositiveInt = 32
    """Length of an episode, steps."""


@config
class MemoryChainConfig:
    """Say, some steps later, what the first observation was."""

    kind: Literal["memory_chain"] = "memory_chain"
    length: PositiveInt = 15
    """Steps between the cue and the question."""


@config
class RepeatPreviousConfig:
    """Name the symbol that was shown some steps before, at every step."""

    kind: Literal["repeat_previous"] = "repeat_previous"
    delay: PositiveInt = 4
    """How many steps before."""
    length: PositiveInt = 48
    """Steps of an episode."""


@config
class TMazeConfig:
    """Turn, at the end of a corridor, to the side that was named at its beginning."""

    kind: Literal["t_maze"] = "t_maze"
    length: PositiveInt = 10
    """Steps of the corridor."""


@config
class TrialCartPoleConfig:
    """Balance a pole seen and pushed through a random map, which is drawn anew for every trial of several episodes."""

    kind: Literal["trial_cartpole"] = "trial_cartpole"
    episodes: PositiveInt = 8
    """Of a trial."""
    limit: PositiveInt = 100
    """Longest episode, steps."""
    maps: Literal["orthogonal", "signs", "gaussian", "known"] = "orthogonal"
    """Matrices that the state is seen through: turns and mirrors, a sign for each coordinate, normal numbers; known: none, nor swaps."""
    start: float = 0.3
    """How far from 0 each coordinate may begin; at 1 are the position and the angle where an episode ends."""
    lean: tuple[float, float] | None = None
    """Between which shares of the steepest angle the pole begins, to either side; without, as the other coordinates."""
    half_length: tuple[float, float] = (0.5, 0.5)
    """Half the length of the pole, m: from, to."""
    pole_mass: tuple[float, float] = (0.1, 0.1)
    """kg: from, to."""


@config
class GymnasiumConfig:
    """A registered environment of Gymnasium: Atari, MinAtar, MiniGrid, dm-control; not resumed bit for bit."""

    kind: Literal["gymnasium"] = "gymnasium"
    name: str = "MinAtar/Breakout-v1"
    """The id it is registered by."""
    processes: bool = False
    """Step each copy in a process of its own."""


WorldConfig: TypeAlias = SpritesConfig | PlatformerConfig
MemoryConfig: TypeAlias = MemoryChainConfig | RepeatPreviousConfig | TMazeConfig
EnvConfig: TypeAlias = (
    GoalGridConfig
    | KeyGridConfig
    | FourRoomsConfig
    | MazeConfig
    | WallsConfig
    | CatchConfig
    | CartPoleConfig
    | PointMassConfig
    | ShapesConfig
    | KeyRoomsConfig
    | WorldConfig
    | MemoryConfig
    | TrialCartPoleConfig
    | GymnasiumConfig
)


def check_device(device: str) -> None:
    """Raises `ConfigError` where a recipe names a GPU and there is none."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: found {device}, but there is no GPU that torch can use here; cpu always works")


def make_env(
    cfg: EnvConfig, num_envs: int, device: torch.device | str = "cpu", *, layout_seed: int = 0, held_out: bool = False
) -> VectorEnv:
    """`num_envs` copies side by side. Mazes and walls are drawn from `layout_seed`, fewer of them being the first of more.

    With `held_out` they are ones that training from the same seed does not see. Raises `ConfigError` where there is no such environment.
    """
    try:
        return _made(cfg, num_envs, torch.device(device), layout_seed + HELD_OUT * held_out)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"env: {cfg.kind}: {error}") from error


def _made(cfg: EnvConfig, num_envs: int, device: torch.device, layout_seed: int) -> VectorEnv:
    draws = torch.Generator().manual_seed(layout_seed)
    match cfg:
        case GoalGridConfig():
            return goal_grid(cfg.n, cfg.limit, num_envs, device)
        case KeyGridConfig():
            return key_grid(cfg.n, cfg.limit, num_envs, device)
        case FourRoomsConfig():
            return Grid(four_rooms(cfg.n)[None], cfg.limit, num_envs, slip=cfg.slip, device=device)
        case MazeConfig():
            return Grid(mazes(cfg.layouts, cfg.n, draws), cfg.limit, num_envs, device=device)
        case WallsConfig():
            walls_LHW = scattered_walls(cfg.layouts, cfg.n, cfg.density, draws)
            goals = torch.Generator().manual_seed(layout_seed)
            goal_L = torch.stack([torch.randint(int((~walls_HW).sum()), (), generator=goals) for walls_HW in walls_LHW])
            return Grid(walls_LHW, cfg.limit, num_envs, waypoint_LW=goal_L[:, None], device=device)
        case CatchConfig():
            return Catch(num_envs, cfg.rows, cfg.columns, device)
        case CartPoleConfig():
            return CartPole(num_envs, cfg.limit, device)
        case PointMassConfig():
            return PointMass(num_envs, cfg.doors, cfg.limit, device=device)
        case ShapesConfig():
            return Shapes(draw_layouts(cfg.layouts, cfg.n, draws), cfg.limit, num_envs, device=device)
        case KeyRoomsConfig():
            return KeyRooms(num_envs, cfg.rooms, cfg.side, cfg.view, cfg.limit, cfg.lure, device)
        case SpritesConfig():
            return Sprites(num_envs, cfg.limit, cfg.layouts, draws, device)
        case PlatformerConfig():
            return Platformer(num_envs, cfg.limit, device)
        case MemoryChainConfig():
            return MemoryChain(num_envs, cfg.length, device)
        case RepeatPreviousConfig():
            return RepeatPrevious(num_envs, cfg.delay, cfg.length, device)
        case TMazeConfig():
            return TMaze(num_envs, cfg.length, device)
        case TrialCartPoleConfig():
            return TrialCartPole(num_envs, cfg.episodes, cfg.limit, cfg.maps, cfg.start, cfg.half_length, cfg.pole_mass, cfg.lean, device)
        case GymnasiumConfig():
            return GymnasiumEnv(cfg.name, num_envs, cfg.processes, device)
