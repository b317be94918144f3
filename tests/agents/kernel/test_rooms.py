"""KeyRooms beside a slow twin that knows rooms as sets of cells; what is seen, what opens, and that every house can be walked through."""

import itertools
import random

import pytest
import torch

from posttrain.agents.kernel.envs.grids import STEPS
from posttrain.agents.kernel.envs.rooms import COLUMN, PROGRESS, ROW, KeyRooms


class House:
    """One episode in plain Python, begun from a first state of the tensors."""

    def __init__(self, state, rooms, side, view, limit, lure):
        self.side, self.view, self.limit, doors = side, view, limit, rooms - 1
        _, row, column, _, *things = state
        self.here, self.time, self.held = (row, column), 0, None
        self.keys = {(things[i], things[doors + i]): i for i in range(doors)}
        self.doors = {(things[2 * doors + i], i * (side + 1) + side): i for i in range(doors)}
        self.goal = (things[3 * doors], things[3 * doors + 1])
        self.lure, self.colour = ((things[-3], things[-2]), ["red", "blue"][things[-1]]) if lure else (None, None)
        self.free = {(r, room * (side + 1) + c) for room in range(rooms) for r in range(side) for c in range(side)} | set(self.doors)
        self.closed = set(self.doors)

    def step(self, action):
        there = (self.here[0] + STEPS[action][0], self.here[1] + STEPS[action][1])
        if there in self.closed and self.held == self.doors[there]:
            self.closed.remove(there)
            self.held = None
        if there in self.free and there not in self.closed:
            self.here = there
        if self.here in self.keys:
            self.held = self.keys.pop(self.here)
        self.time += 1
        over = self.here in (self.goal, self.lure)
        return float(self.here == self.goal), over, not over and self.time >= self.limit

    def rooms_of(self, column):
        """The rooms that a column is in, beside or between."""
        room, place = divmod(column, self.side + 1)
        return {room, room + 1} if place == self.side else {room}

    def observation(self):
        names = ["wall", "door", "key", "goal"] if not self.lure else ["wall", "door", "red key", "blue key", "goal"]
        standing = self.rooms_of(self.here[1])
        cells = [(self.here[0] + x, self.here[1] + y) for x, y in itertools.product(range(-self.view, self.view + 1), repeat=2)]
        planes = [[float(name in self.looks(cell)) if self.rooms_of(cell[1]) & standing else 0.0 for cell in cells] for name in names]
        return [x for plane in planes for x in plane] + [float(self.held is not None)]

    def looks(self, cell):
        """Names of what is in a cell."""
        key = f"{self.colour} key" if self.lure else "key"
        things = {
            "wall": cell not in self.free,
            "door": cell in self.closed,
            key: cell in self.keys,
            "goal": cell in (self.goal, self.lure),
        }
        return {name for name, there in things.items() if there}


@pytest.mark.parametrize(
    ("rooms", "side", "view", "lure"),
    [(1, 3, 1, False), (2, 4, 2, False), (3, 2, 3, False), (3, 3, 1, False), (2, 2, 2, True), (3, 2, 1, True)],
)
def test_houses_go_as_the_slow_twin_does(rooms, side, view, lure):
    env = KeyRooms(8, rooms, side, view, limit=60, lure=lure)
    obs = env.reset(torch.Generator().manual_seed(rooms))
    houses = [House(state, rooms, side, view, 60, lure) for state in env.state_BF.tolist()]
    rng, opened, ends = random.Random(0), 0, 0
    for _ in range(400):
        for house, seen in zip(houses, obs.tolist(), strict=True):
            assert seen == house.observation()
        actions = [rng.randrange(4) for _ in houses]
        expected = [house.step(action) for house, action in zip(houses, actions, strict=True)]
        obs, *found = env.step(torch.tensor(actions))
        assert list(zip(*(x.tolist() for x in found), strict=True)) == expected
        for i, (_, terminated, truncated) in enumerate(expected):
            opened, ends = opened + len(houses[i].doors) - len(houses[i].closed), ends + terminated
            if terminated or truncated:
                houses[i] = House(env.state_BF[i].tolist(), rooms, side, view, 60, lure)
    assert ends > 0 or (rooms, side) == (3, 3)
    assert opened > 0 or rooms == 1  # the walk met what the twin is for


def test_houses_differ_and_a_start_is_never_where_something_lies():
    env = KeyRooms(500, rooms=2, side=3)
    env.reset(torch.Generator().manual_seed(0))
    assert len({tuple(state) for state in env.state_BF.tolist()}) > 400
    key = env.state_BF[:, [4, 5]]
    assert not (env.state_BF[:, [ROW, COLUMN]] == key).all(1).any()


def test_a_house_that_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="need one room at least, of 2 cells or more a side, and a view of 1 or more; got 2, 1, 2"):
        KeyRooms(4, side=1)
    with pytest.raises(ValueError, match="need two rooms or more for a lure, as a key tells it from the goal; got 1"):
        KeyRooms(4, rooms=1, lure=True)


@pytest.mark.parametrize("side", [3, 4])
def test_the_keys_colour_alone_tells_the_goal_from_the_lure(side):
    env = KeyRooms(4000, rooms=2, side=side, lure=True)
    env.reset(torch.Generator().manual_seed(0))
    goal, lure, colour = env.state_BF[:, 7:9], env.state_BF[:, 9:11], env.state_BF[:, 11]
    upper, lower = torch.where(colour[:, None] == 0, torch.stack([goal, lure]), torch.stack([lure, goal]))
    assert set(upper[:, 0].tolist()) == set(range(side // 2))
    assert set(lower[:, 0].tolist()) == set(range(side - side // 2, side))
    for place in (upper, lower):
        assert set(place[:, 1].tolist()) == set(range(side + 1, 2 * side + 1))
    assert 1850 < colour.sum() < 2150
    swapped = torch.cat([env.state_BF[:, :7], lure, goal, 1 - colour[:, None]], 1)
    assert not torch.equal(env.observe(swapped), env.observe(env.state_BF))
    swapped[:, PROGRESS] = env.state_BF[:, PROGRESS] = 1  # with the key in hand
    assert torch.equal(env.observe(swapped), env.observe(env.state_BF))
