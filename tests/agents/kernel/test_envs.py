"""Environments against their rules worked by hand, against a slow twin, and restored in mid-episode."""

import pytest
import torch

from posttrain.agents.kernel.envs.cartpole import CartPole, swing
from posttrain.agents.kernel.envs.catch import Catch
from posttrain.agents.kernel.envs.grids import AGENT, PROGRESS, WAYPOINTS, Grid, goal_grid, key_grid, neighbours, transition_table
from posttrain.agents.kernel.envs.layouts import connected, four_rooms, mazes, open_room, scattered_walls
from posttrain.agents.kernel.envs.memory import MemoryChain, RepeatPrevious, TMaze
from posttrain.agents.kernel.envs.pointmass import PointMass
from posttrain.agents.kernel.envs.rooms import KeyRooms
from posttrain.agents.kernel.envs.shapes import Shapes, draw_layouts
from posttrain.agents.kernel.envs.trials import TrialCartPole

UP, RIGHT, DOWN, LEFT = range(4)
MAKERS = {
    "goal": lambda b: goal_grid(4, 9, b),
    "key": lambda b: key_grid(4, 12, b),
    "slippery maze": lambda b: Grid(mazes(3, 7, torch.Generator().manual_seed(0)), 15, b, slip=0.3),
    "catch": lambda b: Catch(b),
    "cartpole": lambda b: CartPole(b, limit=30),
    "pointmass": lambda b: PointMass(b, limit=25),
    "shapes": lambda b: Shapes(draw_layouts(9, 3, torch.Generator().manual_seed(0)), 8, b),
    "rooms": lambda b: KeyRooms(b, limit=25),
    "chain": lambda b: MemoryChain(b, 9),
    "repeat": lambda b: RepeatPrevious(b, 3, 11),
    "t-maze": lambda b: TMaze(b, 5),
    "trials": lambda b: TrialCartPole(b, 3, 12, "orthogonal", 0.05, (0.3, 0.9), (0.1, 0.1)),
    "trials, gaussian": lambda b: TrialCartPole(b, 3, 12, "gaussian", 0.05, (0.5, 0.5), (0.1, 0.1)),
    "trials, leaning": lambda b: TrialCartPole(b, 3, 12, "known", 0.05, (0.06, 0.08), (0.1, 0.1), (0.8, 0.9)),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_environment_keeps_the_protocol_and_goes_on_exactly_after_a_restore(make):
    env, other, g = make(6), make(6), torch.Generator().manual_seed(3)
    obs = env.reset(torch.Generator().manual_seed(1))
    other.reset(torch.Generator().manual_seed(2))
    assert obs.shape == (6, *env.obs_shape)
    seen_end = False
    for t in range(80):
        if t == 40:
            other.load_state_dict(env.state_dict())
        action = torch.randint(env.num_actions, (6,), generator=g)
        got = env.step(action)
        assert [x.dtype for x in got] == [torch.float32, torch.float32, torch.bool, torch.bool]
        assert not bool((got[2] & got[3]).any())
        seen_end |= bool((got[2] | got[3]).any())
        if t >= 40:
            assert all(torch.equal(x, y) for x, y in zip(got, other.step(action), strict=True))
    assert seen_end


def test_a_move_is_blocked_by_walls_and_edges():
    walls = torch.tensor([[0, 1, 0], [0, 0, 0]]).bool()
    table = neighbours(walls[None])[0]
    assert table[0].tolist() == [0, 0, 3, 0]
    assert table[4].tolist() == [4, 5, 4, 3]  # the wall above it, the edge below


def test_an_exact_table_is_a_distribution_and_slips_evenly():
    table = transition_table(four_rooms(5), slip=0.4)
    assert torch.allclose(table.sum(-1), torch.ones(25, 4, dtype=torch.float64))
    assert table[0, RIGHT].nonzero().flatten().tolist() == [0, 1, 5]
    assert table[0, RIGHT, 1].item() == pytest.approx(0.6 + 0.1)
    assert table[0, RIGHT, 0].item() == pytest.approx(0.2)  # up and left stay in the corner


def test_the_table_is_what_a_slipping_walk_does():
    grid = Grid(four_rooms(5)[None], 1000, 20_000, slip=0.4)
    grid.reset(torch.Generator().manual_seed(0))
    before = grid.state_BF.clone()
    before[:, AGENT], before[:, WAYPOINTS] = 6, 24
    grid.state_BF = before
    grid.step(torch.full((20_000,), DOWN))
    share = torch.bincount(grid.state_BF[:, AGENT], minlength=25) / 20_000
    assert torch.allclose(share.double(), transition_table(four_rooms(5), slip=0.4)[6, DOWN], atol=0.015)


def test_the_goal_is_worth_nothing_without_the_key():
    grid = key_grid(3, 50, 1)
    grid.reset(torch.Generator().manual_seed(0))
    state = torch.tensor([[0, 0, 0, 0, 2, 1]])  # at cell 0, key in cell 2, goal in cell 1
    rewards, ends = [], []
    for action in (RIGHT, RIGHT, LEFT):
        state, reward, end = grid.transition(state, torch.tensor([action]))
        rewards.append(round(reward.item(), 6))
        ends.append(end.item())
    assert rewards == [0.0, 0.3, 1.0]
    assert ends == [False, False, True]
    assert state[0, PROGRESS].item() == 2


def test_an_observation_shows_agent_waypoints_walls_and_key():
    walls = torch.tensor([[0, 0, 0], [0, 1, 0]]).bool()
    grid = Grid(walls[None], 9, 1, rewards=(0.3, 1.0))
    obs = grid.observe(torch.tensor([[0, 0, 5, 1, 2, 0]]))[0]
    agent, key, goal, wall, flag = obs.split([6, 6, 6, 6, 1])
    assert [plane.argmax().item() for plane in (agent, key, goal, wall)] == [5, 2, 0, 4]
    assert obs.sum().item() == 5
    assert flag.item() == 1


def test_start_and_waypoints_are_even_over_different_free_cells():
    walls = torch.tensor([[0, 1, 0], [0, 0, 1]]).bool()
    grid = Grid(walls[None], 9, 30_000, rewards=(0.3, 1.0))
    grid.reset(torch.Generator().manual_seed(0))
    cells = grid.state_BF[:, [AGENT, WAYPOINTS, WAYPOINTS + 1]]
    assert set(cells.unique().tolist()) == {0, 2, 3, 4}
    codes = (cells * torch.tensor([36, 6, 1])).sum(1).unique(return_counts=True)[1]
    assert len(codes) == 4 * 3 * 2
    assert bool(((codes / 30_000 - 1 / 24).abs() < 0.006).all())


def test_a_walk_without_end_is_truncated_at_its_limit():
    grid = goal_grid(3, 4, 1)
    grid.reset(torch.Generator().manual_seed(0))
    grid.state_BF = torch.tensor([[0, 0, 0, 0, 8]])
    ends = [grid.step(torch.tensor([UP]))[3].item() for _ in range(4)]
    assert ends == [False, False, False, True]


@pytest.mark.parametrize("n", [5, 9, 13])
def test_mazes_are_connected_and_differ(n):
    made = mazes(6, n, torch.Generator().manual_seed(n))
    assert all(connected(walls) for walls in made)
    assert len({tuple(walls.flatten().tolist()) for walls in made}) > 1
    assert not bool(made[:, ::2, ::2].any())


def rooms_of(walls_HW):
    """The room of each cell of `four_rooms`: 0 north-west, 1 north-east, 2 south-west, 3 south-east, -1 for walls and doors, [n, n]."""
    n = len(walls_HW)
    side_N = (torch.arange(n) > n // 2).long()
    room_HW = 2 * side_N[:, None] + side_N
    room_HW[n // 2, :] = -1
    room_HW[:, n // 2] = -1
    return room_HW


def test_four_rooms_are_four_and_connected():
    walls, room = four_rooms(11), rooms_of(four_rooms(11))
    assert connected(walls)
    assert [int((room == i).sum()) for i in range(4)] == [25] * 4
    assert int(walls.sum()) == 21 - 4
    closed = walls.clone()
    closed[5, :], closed[:, 5] = True, True
    assert not connected(closed)


def test_scattered_walls_are_connected_at_about_their_density():
    made = scattered_walls(20, 7, 0.2, torch.Generator().manual_seed(0))
    assert all(connected(walls) for walls in made)
    assert 0.1 < made.float().mean() < 0.25
    assert not bool(open_room(4).any())


def test_catch_pays_for_the_paddle_below_the_ball():
    env = Catch(2, rows=3, columns=3)
    env.reset(torch.Generator().manual_seed(0))
    env.state_B3 = torch.tensor([[0, 0, 1], [0, 2, 1]])
    obs, reward, terminated, _ = env.step(torch.tensor([0, 0]))
    assert obs[0].nonzero().flatten().tolist() == [3, 6]
    assert reward.tolist() == [0, 0]
    _, reward, terminated, _ = env.step(torch.tensor([1, 1]))
    assert reward.tolist() == [1, -1]
    assert terminated.tolist() == [True, True]


def test_a_cart_at_rest_that_is_pushed_right_moves_by_the_textbook_numbers():
    state = swing(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.05, -0.1]], dtype=torch.float64), torch.tensor([1, 0]))
    # at rest: push = 10 / 1.1, turn = -push / (0.5 (4/3 - 0.1/1.1)), pull = push - 0.05 turn / 1.1
    push = 10 / 1.1
    turn = -push / (0.5 * (4 / 3 - 0.1 / 1.1))
    assert state[0].tolist() == pytest.approx([0, 0.02 * (push - 0.05 * turn / 1.1), 0, 0.02 * turn])
    assert state[1, 0].item() == pytest.approx(0.104)
    assert state[1, 2].item() == pytest.approx(0.048)
    assert state[1, 1] < 0.2
    assert state[1, 3] > -0.1


def test_a_pole_that_nobody_balances_falls():
    env = CartPole(50)
    env.reset(torch.Generator().manual_seed(0))
    lengths = torch.zeros(50)
    alive = torch.ones(50, dtype=torch.bool)
    for _ in range(100):
        _, _, terminated, _ = env.step(torch.ones(50, dtype=torch.long))
        lengths += alive
        alive &= ~terminated
    assert not bool(alive.any())
    assert 8 <= lengths.mean() <= 11  # always pushing one way lasts nine or ten steps


def test_a_layout_can_have_its_own_waypoints():
    walls = torch.tensor([[[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]]).bool()
    grid = Grid(walls, 9, 5_000, waypoint_LW=torch.tensor([[1], [4]]))  # the second and the fifth free cell: 2 and 4
    grid.reset(torch.Generator().manual_seed(0))
    layout, agent, goal = grid.state_BF[:, [0, AGENT, WAYPOINTS]].unbind(1)
    assert torch.equal(goal, torch.where(layout == 0, 2, 4))
    for i, free in enumerate(({0, 3, 4, 5}, {0, 1, 2, 3})):
        counts = torch.bincount(agent[layout == i], minlength=6)
        assert set(counts.nonzero()[:, 0].tolist()) == free
        assert bool((counts[counts > 0] > 500).all())
