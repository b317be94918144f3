"""The world of shapes against its rules: what is true, what is drawn, what may be said of it, and who ends an episode."""

import random

import pytest
import torch

from posttrain.agents.kernel.captions import AT, NEXT_TO, NOWHERE, WHO, caption, words
from posttrain.agents.kernel.envs.shapes import AGENT, CELL, COLOURS, GOAL, KINDS, LAYOUT, SHAPES, Shapes, draw_layouts

RIGHT = 1


def world(num_envs=6, n=4, limit=10, **judged):
    env = Shapes(draw_layouts(20, n, torch.Generator().manual_seed(0)), limit, num_envs, **judged)
    env.reset(torch.Generator().manual_seed(1))
    return env


def test_the_second_object_has_the_firsts_colour_and_the_third_its_shape():
    layouts = draw_layouts(200, 4, torch.Generator().manual_seed(0))
    for kinds, cells in zip(layouts.kind_LO.tolist(), layouts.cell_LO.tolist(), strict=True):
        (colour, shape), (second_colour, second_shape), (third_colour, third_shape) = (KINDS[kind].split() for kind in kinds)
        assert colour == second_colour != third_colour
        assert shape == third_shape != second_shape
        assert len(set(cells)) == 3
    assert len(layouts.kind_LO.unique()) == len(KINDS)


def test_a_picture_shows_every_object_in_its_colour_and_a_frame_around_the_agent():
    env = world(num_envs=40)
    frame = env.frames(env.state_BF)
    for i, (layout, agent, *_) in enumerate(env.state_BF.tolist()):
        top, left = env.layouts.corner_L2[layout].tolist()
        for kind, cell in zip(env.layouts.kind_LO[layout].tolist(), env.layouts.cell_LO[layout].tolist(), strict=True):
            colour, shape = KINDS[kind].split()
            down, right = top + CELL * (cell // 4) + 1, left + CELL * (cell % 4) + 1
            for r, row in enumerate(SHAPES[shape].split()):
                for c, dot in enumerate(row):
                    near = all(abs(int(frame[i, k, down + r, right + c]) - COLOURS[colour][k]) <= 18 for k in range(3))
                    assert near is (dot == "#")
        down, right = top + CELL * (agent // 4), left + CELL * (agent % 4)
        white = (frame[i] == 255).all(0)
        assert white[down, right : right + CELL].all()
        assert white[down : down + CELL, right + CELL - 1].all()
        assert white.sum() == 4 * (CELL - 1)


def test_pictures_are_drawn_anew_and_leave_the_layouts_alone():
    env = world()
    before = env.layouts.picture_L.clone()
    env.frames(env.state_BF)
    assert torch.equal(env.layouts.picture_L, before)


def test_the_truth_pays_at_the_goal_and_nowhere_else():
    env = world(num_envs=200, limit=99)
    for _ in range(30):
        _, reward, terminated, truncated = env.step(torch.randint(4, (200,)))
        state = env.last.state_BF
        at = env.layouts.cell_LO[state[:, LAYOUT], state[:, GOAL]] == state[:, AGENT]
        assert torch.equal(terminated, at)
        assert torch.equal(reward, at.float())
        assert not truncated.any()
        assert not env.true(env.state_BF[at]).any()  # the next episode begins away from its objects


def test_a_judge_ends_episodes_in_place_of_the_truth_which_is_still_told():
    asked = []

    def judge(frames, goal):
        asked.append((frames, goal))
        return torch.tensor([0.7, 0.3, 0.69])

    env = world(num_envs=3, judge=judge, threshold=0.7)
    env.state_BF = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]])
    env.layouts.cell_LO[:] = torch.tensor([1, 2, 3])
    _, reward, terminated, _ = env.step(torch.tensor([RIGHT] * 3))  # all three walk to their goal
    assert terminated.tolist() == [True, False, False]
    assert reward.tolist() == [1, 0, 0]
    assert env.last.true_B.tolist() == [True] * 3
    ((frames, goal),) = asked
    assert torch.equal(frames, env.frames(env.last.state_BF))
    assert goal.tolist() == env.layouts.kind_LO[:3, 0].tolist()


def test_pictures_to_try_a_judge_on_are_a_third_true_and_a_third_at_another_object():
    env = world(1)
    state = env.draw_judged(300, torch.Generator().manual_seed(5))
    at_any = (env.layouts.cell_LO[state[:, LAYOUT]] == state[:, AGENT, None]).any(1)
    assert env.true(state).sum() == 100
    assert at_any.sum() == 200


def test_what_the_policy_sees_is_in_its_place():
    env = world()
    obs = env.observe(env.state_BF)
    colours, shapes = list(COLOURS), list(SHAPES)
    for i, (layout, agent, goal, _) in enumerate(env.state_BF.tolist()):
        expected = torch.zeros(21, 16)
        for kind, cell in zip(env.layouts.kind_LO[layout].tolist(), env.layouts.cell_LO[layout].tolist(), strict=True):
            colour, shape = KINDS[kind].split()
            expected[[colours.index(colour), 5 + shapes.index(shape)], cell] = 1
        expected[10, agent] = 1
        colour, shape = KINDS[env.layouts.kind_LO[layout, goal]].split()
        expected[[11 + colours.index(colour), 16 + shapes.index(shape)]] = 1
        assert torch.equal(obs[i].flatten(1), expected)


def test_a_caption_is_true():
    rng, kinds, cells = random.Random(0), [0, 1, 5], [0, 6, 15]  # red square, red ring, green square
    at = {caption(6, cells, kinds, 4, rng) for _ in range(400)}
    beside = {caption(5, cells, kinds, 4, rng) for _ in range(400)}
    far = {caption(9, cells, kinds, 4, rng) for _ in range(400)}
    there = {f"a {KINDS[a]}" for a in kinds} | {f"a {KINDS[a]} and a {KINDS[b]}" for a in kinds for b in kinds if a != b}
    nowhere = {f"{who} {where}" for who in WHO for where in NOWHERE}
    assert at == there | {f"{who} {where.format('red ring')}" for who in WHO for where in AT}
    assert beside == there | nowhere | {f"{who} {where.format('red ring')}" for who in WHO for where in NEXT_TO}
    assert far == there | nowhere
    known = set(" ".join(words()).split())
    assert set(" ".join(at | beside | far).split()) <= known


def test_a_room_too_small_for_its_objects_is_refused():
    with pytest.raises(ValueError, match="n: found 1, expected a room of more cells than its 3 objects"):
        draw_layouts(1, 1, torch.Generator())
