"""The ring gives back consecutive steps, never across its seam, in proportion to priority, and goes on exactly after a restore."""

import pytest
import torch

from posttrain.agents.kernel.replay import Replay


def filled(steps, capacity=8, num_envs=3):
    replay = Replay(capacity, num_envs)
    for t in range(steps):
        replay.append(time=torch.full((num_envs,), t), who=torch.arange(num_envs), pair=torch.randn(num_envs, 2))
    return replay


@pytest.mark.parametrize("steps", [3, 8, 9, 21])
@pytest.mark.parametrize("draw", ["even", "prioritised"])
def test_a_stretch_is_consecutive_steps_of_one_environment_still_held(steps, draw):
    replay, g = filled(steps), torch.Generator().manual_seed(0)
    got = replay.sample(500, 3, g) if draw == "even" else replay.sample_prioritised(500, 3, 1.0, g)
    time, who = got.fields["time"], got.fields["who"]
    assert bool((time[1:] == time[:-1] + 1).all())
    assert bool((who == who[0]).all())
    assert set(time[0].tolist()) == set(range(max(0, steps - 8), steps - 2))
    assert set(who[0].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("steps", [7, 8, 30])
def test_a_draw_from_the_newest_steps_meets_all_of_them_and_no_others(steps):
    time = filled(steps).sample(500, 3, torch.Generator().manual_seed(0), newest=5).fields["time"]
    assert set(time.flatten().tolist()) == set(range(steps - 5, steps))


def test_a_mixed_draw_is_by_its_share_of_what_ends_now():
    fields = filled(21).sample_mixed(400, 3, 0.25, torch.Generator().manual_seed(0), newest=6)
    time, who = fields["time"], fields["who"]
    assert time.shape == (3, 400)
    assert bool((time[1:] == time[:-1] + 1).all())
    assert bool((who == who[0]).all())
    assert (time[-1, 300:] == 20).all()
    assert set(who[0, 300:].tolist()) == {0, 1, 2}
    assert set(time[0, :300].tolist()) == {15, 16, 17, 18}
    assert (time[-1, :300] == 20).float().mean() < 0.4  # one start of four


def test_stretches_are_drawn_in_proportion_to_priority():
    replay, g = filled(11, num_envs=2), torch.Generator().manual_seed(0)
    for slot in range(8):
        replay.prioritise(torch.tensor([slot, slot]), torch.tensor([0, 1]), torch.tensor([1.0 + slot, 0.0]))
    got = replay.sample_prioritised(20_000, 2, 0.5, g)
    starts = [slot for slot in range(8) if slot != 2]  # the newest step is in slot 2: nothing of length 2 starts there
    weights = torch.tensor([(1.0 + slot) ** 0.5 for slot in starts])
    share = torch.stack([(got.slot_N == slot).float().mean() for slot in starts])
    assert got.column_N.max() == 0
    assert torch.allclose(share, weights / weights.sum(), atol=0.015)
    assert got.prob_N[0].item() == pytest.approx(((1.0 + got.slot_N[0]) ** 0.5 / weights.sum()).item(), rel=1e-5)


def test_the_latest_steps_come_oldest_first():
    assert filled(10).latest(4)["time"][:, 1].tolist() == [6, 7, 8, 9]


def test_a_restored_ring_draws_and_overwrites_as_the_saved_one():
    one, other = filled(10), Replay(8, 3)
    other.load_state_dict(one.state_dict())
    for replay in (one, other):
        replay.append(time=torch.full((3,), 10), who=torch.arange(3), pair=torch.zeros(3, 2))
    a, b = (replay.sample(50, 4, torch.Generator().manual_seed(1)) for replay in (one, other))
    assert all(torch.equal(a.fields[name], b.fields[name]) for name in a.fields)


def test_a_length_longer_than_what_is_held_is_refused():
    with pytest.raises(ValueError, match="2 steps held"):
        filled(2).sample(1, 3, torch.Generator())
