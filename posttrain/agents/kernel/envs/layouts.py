"""Walls: True where nobody can stand. Every layout made here has all its free cells connected."""

import torch
from torch import Tensor

DIRECTIONS = ((-1, 0), (0, 1), (1, 0), (0, -1))


def open_room(n: int) -> Tensor:
    """No walls at all, [n, n]."""
    return torch.zeros(n, n, dtype=torch.bool)


def four_rooms(n: int) -> Tensor:
    """Four rooms of one size in an n x n square, n odd, with a door in the middle of each of the four walls between them, [n, n]."""
    if n < 5 or n % 2 == 0:
        raise ValueError(f"four rooms need an odd n of at least 5, got {n}")
    half, walls_HW = n // 2, open_room(n)
    walls_HW[half, :] = True
    walls_HW[:, half] = True
    for door in (half // 2, half + 1 + half // 2):
        walls_HW[half, door] = False
        walls_HW[door, half] = False
    return walls_HW


def mazes(num: int, n: int, generator: torch.Generator, loops: float = 0.1) -> Tensor:
    """Random mazes of n x n cells, n odd: corridors of a random depth-first tree, [num, n, n].

    Rooms stand at even rows and columns. A share `loops` of the walls left between neighbouring rooms is then opened, so that there is
    more than one way.
    """
    if n < 3 or n % 2 == 0:
        raise ValueError(f"a maze needs an odd n of at least 3, got {n}")
    return torch.stack([_maze(n, generator, loops) for _ in range(num)])


def scattered_walls(num: int, n: int, density: float, generator: torch.Generator) -> Tensor:
    """Layouts with a share `density` of cells walled at random, drawn again until the free ones are connected, [num, n, n]."""
    found: list[Tensor] = []
    while len(found) < num:
        walls_HW = torch.rand(n, n, generator=generator, device=generator.device).cpu() < density
        if connected(walls_HW) and int((~walls_HW).sum()) >= n:
            found.append(walls_HW)
    return torch.stack(found)


def connected(walls_HW: Tensor) -> bool:
    """Whether every free cell can be reached from every other."""
    free = {(int(r), int(c)) for r, c in (~walls_HW).nonzero()}
    if not free:
        return False
    todo = [next(iter(free))]
    free.remove(todo[0])
    while todo:
        r, c = todo.pop()
        for down, right in DIRECTIONS:
            if (there := (r + down, c + right)) in free:
                free.remove(there)
                todo.append(there)
    return not free


def _maze(n: int, generator: torch.Generator, loops: float) -> Tensor:
    walls_HW = torch.ones(n, n, dtype=torch.bool)
    walls_HW[0, 0] = False
    path = [(0, 0)]
    while path:
        r, c = path[-1]
        ways = [(r + 2 * down, c + 2 * right, r + down, c + right) for down, right in DIRECTIONS]
        ways = [way for way in ways if 0 <= way[0] < n and 0 <= way[1] < n and walls_HW[way[0], way[1]]]
        if not ways:
            path.pop()
            continue
        to_r, to_c, door_r, door_c = ways[int(torch.randint(len(ways), (), generator=generator))]
        walls_HW[to_r, to_c] = walls_HW[door_r, door_c] = False
        path.append((to_r, to_c))
    row_HW, column_HW = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    between_HW = walls_HW & ((row_HW + column_HW) % 2 == 1)
    return walls_HW & ~(between_HW & (torch.rand(n, n, generator=generator) < loops))
