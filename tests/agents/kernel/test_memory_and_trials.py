"""Tasks of memory and trials of several episodes: their rules by hand, exact restores, what a trial keeps and what it draws anew."""

import pytest
import torch

from posttrain.agents.environments import CartPoleConfig, TrialCartPoleConfig, make_env
from posttrain.agents.kernel.envs.cartpole import CartPole, swing
from posttrain.agents.kernel.envs.memory import MemoryChain, RepeatPrevious, TMaze
from posttrain.agents.kernel.envs.trials import TrialCartPole, TrialEnv
from posttrain.agents.kernel.rollout import begins_trial, returns_by_episode
from posttrain.config import ConfigError


def trial_cartpole(num_envs, episodes=3, limit=12, maps="orthogonal", start=0.05, half_length=(0.5, 0.5), pole_mass=(0.1, 0.1), lean=None):
    return TrialCartPole(num_envs, episodes, limit, maps, start, half_length, pole_mass, lean)


def test_a_chain_shows_its_cue_once_and_asks_at_the_end():
    env = MemoryChain(1, 3)
    env.reset(torch.Generator().manual_seed(0))
    env.state_BF = torch.tensor([[0, 1]])
    shown, paid = [env.observe(env.state_BF)[0].tolist()], []
    for action in (0, 0, 0, 1):
        obs, reward, over, cut = env.step(torch.tensor([action]))
        shown.append(obs[0].tolist())
        paid.append((reward.item(), over.item(), cut.item()))
    assert torch.allclose(torch.tensor(shown[:4]), torch.tensor([[1, 0, 1], [2 / 3, 0, 0], [1 / 3, 0, 0], [0, 1, 0]]))
    assert paid == [(0, False, False), (0, False, False), (0, False, False), (1, True, False)]
    assert abs(shown[4][2]) == 1
    env.state_BF = torch.tensor([[3, 1]])
    assert env.step(torch.tensor([0]))[1].item() == -1


def test_the_cue_is_even_and_what_is_remembered_is_all_that_helps():
    env = MemoryChain(10_000, 2)
    env.reset(torch.Generator().manual_seed(0))
    assert env.state_BF[:, 1].float().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("action_of", "expected"), [(lambda shown, t: shown[t - 2], 1.0), (lambda shown, t: shown[t], 0.25 - 0.75)])
def test_repeating_with_the_right_delay_earns_one_and_with_another_chance(action_of, expected):
    env, n = RepeatPrevious(2000, 2, 8), 2000
    shown = [env.reset(torch.Generator().manual_seed(0)).argmax(-1)]
    total = torch.zeros(n)
    for t in range(8):
        obs, reward, over, _ = env.step(action_of(shown, t) if t >= 2 else torch.zeros(n, dtype=torch.long))
        shown.append(obs.argmax(-1))
        total += reward
        assert bool((over == (t == 7)).all())
    assert total.mean().item() == pytest.approx(expected, abs=0.05)


def test_a_delay_as_long_as_the_episode_is_refused():
    with pytest.raises(ValueError, match="shorter than the episode of 5 steps, got 5"):
        RepeatPrevious(1, 5, 5)


def test_a_t_maze_by_hand():
    env = TMaze(2, 2)
    env.reset(torch.Generator().manual_seed(0))
    env.state_BF = torch.tensor([[0, 0, 1], [0, 0, 0]])
    assert env.observe(env.state_BF).tolist() == [[0, 1], [0, -1]]
    steps = [env.step(torch.tensor(a)) for a in ([0, 1], [0, 0], [2, 0], [0, 2])]
    assert steps[0][0].tolist() == [[0, 0], [0, 0]]
    assert steps[1][0].tolist() == [[1, 0], [0, 0]]
    assert [s[1].tolist() for s in steps] == [[0, 0], [0, 0], [1, 0], [0, -1]]
    assert [s[2].tolist() for s in steps] == [[False, False], [False, False], [True, False], [False, True]]


def test_who_never_turns_is_cut_at_twice_the_way():
    env = TMaze(1, 2)
    env.reset(torch.Generator().manual_seed(0))
    assert [env.step(torch.tensor([0]))[3].item() for _ in range(6)] == [False] * 5 + [True]


def test_a_trial_keeps_its_task_over_its_episodes_and_the_next_draws_another():
    env = trial_cartpole(50, episodes=3, limit=4, half_length=(0.3, 0.9))
    env.reset(torch.Generator().manual_seed(0))
    before = (env.map_B44.clone(), env.pole_B2.clone())
    for t in range(11):
        *_, cut = env.step(torch.zeros(50, dtype=torch.long))
        assert bool((cut == (t % 4 == 3)).all())
        assert not bool(env.new_trial_B.any())
    assert torch.equal(env.map_B44, before[0])
    assert torch.equal(env.pole_B2, before[1])
    env.step(torch.zeros(50, dtype=torch.long))
    assert bool(env.new_trial_B.all())
    assert bool((env.map_B44 != before[0]).flatten(1).any(1).all())
    assert bool((env.pole_B2[:, 0] != before[1][:, 0]).all())


def test_trials_end_each_at_its_own_time_and_only_they_draw_anew():
    env, g = trial_cartpole(40, episodes=2, limit=30, half_length=(0.3, 0.9), start=0.4), torch.Generator().manual_seed(5)
    env.reset(torch.Generator().manual_seed(0))
    ended_B, alone = torch.zeros(40, dtype=torch.long), 0
    for _ in range(60):
        map_B44, pole_B2 = env.map_B44.clone(), env.pole_B2.clone()
        _, _, over, cut = env.step(torch.randint(2, (40,), generator=g))
        ended_B += over | cut
        new_B = (over | cut) & (ended_B % 2 == 0)
        assert torch.equal(env.new_trial_B, new_B)
        assert torch.equal((env.map_B44 != map_B44).flatten(1).any(1), new_B)
        assert torch.equal((env.pole_B2 != pole_B2).any(1), new_B)
        alone += bool(new_B.any()) and bool(((over | cut) & ~new_B).any())
    assert alone  # of episodes that end at one time some end a trial and others do not


def test_a_map_is_orthogonal_and_even_over_turns_and_mirrors():
    env = trial_cartpole(4000)
    env.reset(torch.Generator().manual_seed(0))
    eye = env.map_B44 @ env.map_B44.mT
    assert torch.allclose(eye, torch.eye(4).expand_as(eye), atol=1e-5)
    assert (torch.linalg.det(env.map_B44) > 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert env.map_B44.mean(0).abs().max() < 0.03


def test_a_map_of_signs_is_one_of_sixteen():
    env = trial_cartpole(4000, maps="signs")
    env.reset(torch.Generator().manual_seed(0))
    signs_B4 = env.map_B44.diagonal(dim1=1, dim2=2)
    assert torch.equal(torch.diag_embed(signs_B4), env.map_B44)
    code = ((signs_B4 > 0) * torch.tensor([1, 2, 4, 8])).sum(1)
    assert bool(((torch.bincount(code, minlength=16) / 4000 - 1 / 16).abs() < 0.02).all())
    assert signs_B4.abs().unique().tolist() == [1.0]


def test_with_the_map_undone_a_trial_is_cartpole():
    env, plain = trial_cartpole(20, episodes=100, limit=500), CartPole(20, 500)
    env.reset(torch.Generator().manual_seed(0))
    plain.reset(torch.Generator().manual_seed(0))
    plain.state_B4 = env.state_B4.clone()
    for t in range(8):
        action = (torch.arange(20) + t) % 2  # to and fro, which no pole falls by so soon
        obs, reward, *_ = env.step(action)
        expected, *_ = plain.step(torch.where(env.swapped_B.bool(), 1 - action, action))
        undone = (env.map_B44.mT @ obs[..., None])[..., 0] * env.scale_4
        assert torch.allclose(undone, expected, atol=1e-5)
        assert reward[0].item() == pytest.approx(1 / 500)


def test_a_longer_pole_falls_more_slowly_and_the_usual_one_as_before():
    state, push = torch.tensor([[0.0, 0.0, 0.1, 0.0]]), torch.tensor([1])
    assert torch.equal(swing(state, push), swing(state, push, torch.tensor([0.5]), torch.tensor([0.1])))
    assert swing(state, push, half_length=1.0)[0, 3].abs() < swing(state, push)[0, 3].abs()


def test_returns_come_by_episode_and_count_no_further_ones():
    env = trial_cartpole(7, episodes=3, limit=4)
    flags = []

    def act(obs, first, new_trial):
        flags.append((first[0].item(), new_trial[0].item()))
        return torch.zeros(7, dtype=torch.long)

    total_EB = returns_by_episode(env, act, 2, torch.Generator().manual_seed(0))
    assert torch.allclose(total_EB, torch.ones(2, 7))
    assert flags == [(True, True)] + [(False, False)] * 3 + [(True, False)] + [(False, False)] * 3


def test_returns_by_episode_are_those_of_one_environment_after_another():
    play = lambda obs, first, new_trial: (obs[:, 0] > 0).long()  # noqa: E731
    env, twin = (trial_cartpole(9, episodes=4, limit=20, start=0.4) for _ in range(2))
    got_EB = returns_by_episode(env, play, 3, torch.Generator().manual_seed(0))
    obs, totals = twin.reset(torch.Generator().manual_seed(0)), [[0.0] for _ in range(9)]
    for _ in range(80):
        obs, reward, over, cut = twin.step(play(obs, None, None))
        for b in range(9):
            totals[b][-1] += reward[b].item()
            if over[b] or cut[b]:
                totals[b].append(0.0)
    assert len({len(total) for total in totals}) > 1
    assert torch.allclose(got_EB.T, torch.tensor([total[:3] for total in totals]))


def test_every_episode_is_a_trial_where_an_environment_knows_none():
    first = torch.tensor([True, False])
    assert isinstance(make_env(TrialCartPoleConfig(), 2), TrialEnv)
    assert begins_trial(make_env(CartPoleConfig(), 2), first) is first


def test_an_episode_begins_anywhere_in_a_share_of_the_scale():
    env = trial_cartpole(5000, start=0.5)
    env.reset(torch.Generator().manual_seed(0))
    assert env.state_B4.abs().max(0).values.tolist() == pytest.approx([1.2, 1.0, 0.1047, 1.0], rel=0.01)
    assert (env.state_B4 / env.scale_4).mean(0).abs().max() < 0.02
    with pytest.raises(ConfigError, match=r"start between 0 and 1, where an episode ends, got 1.0"):
        make_env(TrialCartPoleConfig(start=1.0), 2)


def test_a_pole_leans_to_either_side_between_two_shares_and_all_else_begins_as_before():
    env = trial_cartpole(5000, lean=(0.8, 0.95), start=0.5, limit=2)
    env.reset(torch.Generator().manual_seed(0))
    for _ in range(2):
        share_B4 = env.state_B4 / env.scale_4
        assert share_B4[:, 2].abs().aminmax() == (pytest.approx(0.8, abs=1e-3), pytest.approx(0.95, abs=1e-3))
        assert (share_B4[:, 2] > 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
        assert share_B4[:, [0, 1, 3]].abs().max(0).values.tolist() == pytest.approx([0.5, 0.5, 0.5], rel=0.01)
        env.count_B2[:, 0] = 1  # the next step is the last of the episode
        env.step(torch.zeros(5000, dtype=torch.long))


@pytest.mark.parametrize("lean", [(-0.1, 0.5), (0.6, 0.5), (0.9, 1.0)])
def test_a_lean_that_is_no_range_below_the_end_is_refused(lean):
    with pytest.raises(ConfigError, match=rf"env: trial_cartpole: need a lean from low to high, .*; got {lean[0]} to {lean[1]}"):
        make_env(TrialCartPoleConfig(lean=lean), 2)


def test_a_known_map_shows_the_state_and_leaves_actions_in_place():
    env, plain = trial_cartpole(20, episodes=2, limit=3, maps="known"), CartPole(20, 500)
    env.reset(torch.Generator().manual_seed(0))
    plain.reset(torch.Generator().manual_seed(0))
    for _ in range(14):  # over trials' ends too
        plain.state_B4 = env.state_B4.clone()
        obs, *_, cut = env.step(action := torch.arange(20) % 2)
        expected, *_ = plain.step(action)
        assert torch.allclose(obs * env.scale_4, env.state_B4, atol=1e-6)
        assert torch.allclose(env.state_B4[~cut], expected[~cut], atol=1e-6)


def share_balanced(weights, unknown_pushes, **setting):
    """What a controller that knows state and actions holds of an episode, its first pushes drawn evenly as if it knew nothing."""
    env, g = trial_cartpole(1000, episodes=1, pole_mass=(0.05, 0.2), maps="known", **setting), torch.Generator().manual_seed(1)
    pushes = 0

    def act(obs, first, new_trial):
        nonlocal pushes
        pushes += 1
        return torch.randint(2, (1000,), generator=g) if pushes <= unknown_pushes else (obs @ torch.tensor(weights) > 0).long()

    return returns_by_episode(env, act, 1, torch.Generator().manual_seed(0)).mean().item()


def test_the_first_push_decides_about_a_short_pole_that_leans_and_hardly_about_a_long_one():
    short = {"limit": 30, "start": 0.3, "half_length": (0.06, 0.08), "lean": (0.8, 0.95)}
    assert share_balanced([0.5, 0.4, 1.0, 0.9], 0, **short) > 0.99
    assert 0.52 < share_balanced([0.5, 0.4, 1.0, 0.9], 1, **short) < 0.6
    long = {"limit": 100, "start": 0.8, "half_length": (0.4, 0.7)}
    ceiling = share_balanced([0.72, 0.5, 1.0, 1.48], 0, **long)
    assert 0.83 < ceiling < 0.92
    assert ceiling < 1.25 * share_balanced([0.72, 0.5, 1.0, 1.48], 2, **long)


def test_a_pole_without_length_is_refused():
    with pytest.raises(ConfigError, match=r"env: trial_cartpole: .*positive numbers for the pole, got 0.0 to 1.0"):
        make_env(TrialCartPoleConfig(half_length=(0.0, 1.0)), 2)
