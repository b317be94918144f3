"""The point mass against steps worked by hand and a slow twin, its doors, and what its perturbed worlds change."""

import pytest
import torch

from posttrain.agents.kernel.envs.pointmass import DOOR, GOAL, THRUST, WALL, Physics, PointMass, middle_wall, moved, perturbed, thrusts

FREE = torch.zeros(0, 4)


def slow_moved(state, action, boxes, physics):
    """One mass, plain Python."""
    x, y, speed_x, speed_y = state
    push_x, push_y = action // 3 - 1, action % 3 - 1
    right, up, left, down = physics.motors
    speed_x = (1 - physics.friction) * speed_x + THRUST * push_x * (right if push_x > 0 else left)
    speed_y = (1 - physics.friction) * speed_y + THRUST * push_y * (up if push_y > 0 else down)

    def free(x, y):
        return abs(x) <= 1 and abs(y) <= 1 and not any(a < x < c and b < y < d for a, b, c, d in boxes)

    if free(x + speed_x, y):
        x += speed_x
    else:
        speed_x = 0.0
    if free(x, y + speed_y):
        y += speed_y
    else:
        speed_y = 0.0
    return [x, y, speed_x, speed_y]


def test_actions_push_along_both_axes_and_a_weak_motor_pushes_less():
    pushes = thrusts(torch.arange(9), (1.0, 1.0, 1.0, 1.0)).tolist()
    assert pushes == [[x, y] for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0)]
    assert thrusts(torch.tensor([0, 8]), (0.5, 1.0, 1.0, 0.25)).tolist() == [[-1.0, -0.25], [0.5, 1.0]]


def test_a_mass_moves_as_a_plain_loop_says():
    g = torch.Generator().manual_seed(0)
    walls, physics = middle_wall((-0.5, 0.4)), Physics(friction=0.35, motors=(1.0, 0.5, 0.8, 1.0))
    state_B4 = torch.cat([2 * torch.rand(500, 2, generator=g) - 1, 0.2 * torch.rand(500, 2, generator=g) - 0.1], 1).double()
    action_B = torch.randint(9, (500,), generator=g)
    got = moved(state_B4, action_B, torch.tensor(walls, dtype=torch.float64), physics).tolist()
    slow = [slow_moved(state, action, walls, physics) for state, action in zip(state_B4.tolist(), action_B.tolist(), strict=True)]
    assert [x for row in got for x in row] == pytest.approx([x for row in slow for x in row], abs=1e-6)


def test_a_step_by_hand_and_a_wall_stops_only_one_axis():
    assert moved(torch.tensor([[0.0, 0.0, 0.05, 0.0]]), torch.tensor([8]), FREE, Physics())[0].tolist() == pytest.approx(
        [0.07, 0.04, 0.07, 0.04]
    )
    ahead = torch.tensor([[0.05, -1.0, 0.5, 1.0]])
    assert moved(torch.tensor([[0.0, 0.0, 0.05, 0.0]]), torch.tensor([8]), ahead, Physics())[0].tolist() == pytest.approx(
        [0.0, 0.04, 0.0, 0.04]
    )
    assert moved(torch.tensor([[0.99, 0.0, 0.05, 0.0]]), torch.tensor([7]), FREE, Physics())[0, 0].item() == pytest.approx(0.99)


def test_the_wall_is_whole_but_for_its_doors():
    walls = middle_wall((0.5, -0.5))
    assert [y for box in walls for y in box[1::2]] == pytest.approx([-1, -0.5 - DOOR, -0.5 + DOOR, 0.5 - DOOR, 0.5 + DOOR, 1])
    with pytest.raises(ValueError, match="each within the room"):
        middle_wall((0.95,))
    with pytest.raises(ValueError, match="each within the room"):
        middle_wall((0.0, 0.1))


def pushed_through(env, door):
    """How far a mass gets that is pushed at a door's height from just before it."""
    env.reset(torch.Generator().manual_seed(0))
    env.state_B4 = torch.tensor([[-0.3, env.doors[door], 0.0, 0.0]])
    return max(env.step(torch.tensor([7]))[0][0, 0].item() for _ in range(8))


def test_a_door_lets_through_until_it_is_closed():
    assert pushed_through(PointMass(1), 2) > 0.5
    assert pushed_through(PointMass(1, closed=(2,)), 2) <= -WALL + 1e-6
    assert pushed_through(PointMass(1, closed=(1,)), 2) > 0.5


def test_the_goal_pays_and_ends_the_episode():
    env = PointMass(2)
    env.reset(torch.Generator().manual_seed(0))
    env.state_B4 = torch.tensor([[GOAL[0] - 0.2, 0.0, 0.0, 0.0], [-0.8, 0.0, 0.0, 0.0]])
    obs, reward, terminated, truncated = env.step(torch.tensor([7, 7]))
    assert (reward.tolist(), terminated.tolist(), truncated.tolist()) == ([1.0, 0.0], [True, False], [False, False])
    assert obs[0, :2].tolist() == pytest.approx([-0.8, 0.0], abs=0.051)


def test_a_mass_that_would_fly_through_walls_is_refused():
    with pytest.raises(ValueError, match="fly through walls"):
        PointMass(1, physics=Physics(friction=0.1))


def test_perturbed_worlds_close_every_set_of_doors_but_none_and_all():
    worlds = perturbed(PointMass(4), motor=0.2, frictions=(0.3, 0.7))
    assert {group: len(found) for group, found in worlds.items()} == {"doors": 14, "motors": 4, "frictions": 2}
    assert [box[1] for box in worlds["doors"]["open: -0.75, 0.75"].closed] == pytest.approx([-0.25 - DOOR, 0.25 - DOOR])
    assert worlds["motors"]["weak up"].physics == Physics(motors=(1.0, 0.2, 1.0, 1.0))
    assert worlds["frictions"]["friction 0.7"].physics.friction == 0.7
    assert worlds["frictions"]["friction 0.7"].closed == []
