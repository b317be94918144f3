"""Worlds to film: what is drawn, slow twins of what moves, a ceiling worked by hand, and exact resumption."""

import math

import pytest
import torch

from posttrain.agents.kernel.envs.worlds import (
    DROP,
    LEAP,
    LEFT,
    PLATFORMS,
    RIGHT,
    SIZE,
    Filmed,
    Platformer,
    Runner,
    Sprites,
    ceiling_bits,
    colour,
    distances,
    fallen,
    moved,
    with_rest,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sprites(num=64, limit=1000):
    env = Sprites(num, limit, 20, seeded(5))
    env.reset(seeded(1))
    return env


def platformer(num=64, limit=1000):
    env = Platformer(num, limit)
    env.reset(seeded(1))
    return env


def draw_actions(num, seed=0):
    return torch.randint(5, (num,), generator=seeded(seed))


@pytest.mark.parametrize("make", [sprites, platformer])
def test_outcomes_say_where_every_action_leads(make):
    for action in range(5):
        env = make()
        assert isinstance(env, Filmed)
        for t in range(6):
            env.step(draw_actions(64, t))
        expected = env.outcomes()[:, action]
        env.step(torch.full((64,), action))
        now = env._pixels(env.agent_B) if make is sprites else (env.now.top_B, env.now.left_B)
        assert torch.equal(torch.stack(now, 1), expected)


@pytest.mark.parametrize("make", [sprites, platformer])
def test_actions_that_lead_elsewhere_are_seen_and_others_are_not(make):
    """What `ceiling_bits` rests on: the pictures after two actions are alike just where their outcomes are."""
    after = []
    for action in range(5):
        env = make()
        env.step(draw_actions(64))
        outcome_BA2 = env.outcomes()
        coin = env.coin_B if make is sprites else env.coin_B2
        obs, reward, *_ = env.step(torch.full((64,), action))
        after.append((obs, reward))
    for one in range(5):
        for other in range(one):
            alike = (outcome_BA2[:, one] == outcome_BA2[:, other]).all(1)
            nobody_paid = (after[one][1] == 0) & (after[other][1] == 0)  # a coin that was taken lies at random
            same = (after[one][0] == after[other][0]).all(1).all(1).all(1)
            assert torch.equal(same[nobody_paid], alike[nobody_paid])
    assert len(coin) == 64


def test_the_ceiling_by_hand():
    four_ways = torch.tensor([[[0, 0], [0, 1], [1, 0], [1, 1]]])
    two_alike = torch.tensor([[[0, 0], [0, 0], [1, 0], [1, 1]]])
    assert ceiling_bits(four_ways, torch.tensor([2])) == pytest.approx(2.0)
    assert ceiling_bits(two_alike, torch.tensor([0])) == pytest.approx(1.0)
    assert ceiling_bits(two_alike.repeat(4, 1, 1), torch.arange(4)) == pytest.approx(1.5)


def test_a_ball_turns_around_at_both_ends():
    ball = torch.tensor([[0, 12, -2, 2]])
    seen = [ball := moved(ball, 14) for _ in range(3)]
    assert [x[0].tolist() for x in seen] == [[2, 14, 2, 2], [4, 12, 2, -2], [6, 10, 2, -2]]


def test_what_is_seen_from_above():
    env = sprites(8)
    obs, (top, left) = env.observe(), env._pixels(env.agent_B)
    for i in range(8):
        agent = obs[i, :, top[i] : top[i] + 4, left[i] : left[i] + 4]
        blue = (agent == colour("blue", obs.device)[:, None, None]).all(0)
        assert 8 <= int(blue.sum()) <= 12  # twelve, less what the ball covers
    assert obs.min() >= 0
    assert obs.max() <= 1


def test_distances_are_those_of_a_breadth_first_search():
    table = with_rest(torch.tensor([[[0, 1, 0, 0], [1, 2, 1, 0], [2, 2, 2, 1], [3, 3, 3, 3]]]))  # a corridor of three, and one apart
    assert distances(table)[0].tolist() == [[0, 1, 2, 4], [1, 0, 1, 4], [2, 1, 0, 4], [4, 4, 4, 0]]


def test_the_expert_goes_nearer_with_every_step_and_is_paid_far_more_than_chance():
    env = sprites(256)
    rewards = 0.0
    for _ in range(20):
        before = env.distance_LCC[env.layout_B, env.agent_B, env.coin_B]
        _, reward, *_ = env.step(env.expert())
        after = env.distance_LCC[env.layout_B, env.agent_B, env.coin_B]
        assert ((after == before - 1) | (reward == 1)).all()
        rewards += reward.mean().item()
    assert rewards > 2.5


def slow_fallen(top, left, speed, platforms, action):
    """One runner, plain Python."""
    left = min(max(left + (2 if action == RIGHT else -2 if action == LEFT else 0), 0), SIZE - 4)

    def platform(top):
        return next((i for i, (a, b) in enumerate(platforms) if top + 4 == PLATFORMS[i] and left + 4 > a and left < b), None)

    below = platform(top)
    drops = action == DROP and below != 2
    if below is not None and speed >= 0:
        speed = 0
    if below is not None and action == LEAP:
        speed = -4
    if drops:
        speed = 4
    if speed < 0:
        top += speed
        if top <= 0:
            top, speed = 0, 0
    else:
        for pixel in range(speed):
            if platform(top) is not None and not (drops and pixel == 0):
                speed = 0
                break
            top += 1
    if platform(top) is not None and speed >= 0:
        return top, left, 0
    return top, left, min(speed + 2, 4)


def test_a_runner_moves_as_a_plain_loop_says():
    env = platformer(200)
    for t in range(40):
        now, action_B = env.now, draw_actions(200, t)
        after = fallen(now, action_B)
        for i in range(200):
            platforms = list(zip(now.left_BP[i].tolist(), now.right_BP[i].tolist(), strict=True))
            slow = slow_fallen(int(now.top_B[i]), int(now.left_B[i]), int(now.speed_B[i]), platforms, int(action_B[i]))
            assert (int(after.top_B[i]), int(after.left_B[i]), int(after.speed_B[i])) == slow
        env.step(action_B)


def test_a_leap_rises_six_pixels_and_lands_where_it_began():
    ground = torch.tensor([[0, 0, 0]]), torch.tensor([[0, 0, 16]])  # no other platform
    now, heights = Runner(torch.tensor([10]), torch.tensor([6]), torch.tensor([0]), *ground), []
    for action in (LEAP, 0, 0, 0, 0, 0):
        now = fallen(now, torch.tensor([action]))
        heights.append(int(now.top_B))
    assert heights == [6, 4, 4, 6, 10, 10]


@pytest.mark.parametrize("make", [sprites, platformer])
def test_a_restored_world_goes_on_as_the_saved_one(make):
    one, other = make(16, limit=7), make(16, limit=7)
    for t in range(5):
        one.step(draw_actions(16, t))
    other.load_state_dict(one.state_dict())
    for t in range(12):
        for x, y in zip(one.step(draw_actions(16, t)), other.step(draw_actions(16, t)), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("make", [sprites, platformer])
def test_an_episode_ends_after_its_limit_and_another_begins(make):
    env = make(16, limit=3)
    ends = [env.step(draw_actions(16, t))[3].all().item() for t in range(6)]
    assert ends == [False, False, True, False, False, True]


def test_evenly_drawn_actions_leave_most_of_their_information_in_the_frames():
    env, outcomes, done = sprites(2000), [], []
    for t in range(4):
        outcomes.append(env.outcomes())
        done.append(draw_actions(2000, t))
        env.step(done[-1])
    assert 1.5 < ceiling_bits(torch.cat(outcomes), torch.cat(done)) < math.log2(5)
