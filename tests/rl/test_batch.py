import dataclasses

import pytest
import torch

from posttrain.rl.batch import collate
from tests.rl.episodes import episode


def test_the_turn_map_marks_sampled_tokens_by_attempt_even_where_they_equal_the_padding():
    batch = collate([episode([([0, 0], True), ([5], True)]), episode([([5], True), ([0], False)])], pad_id=0)
    assert batch.ids.tolist() == [[7, 7, 0, 0, 7, 7, 5], [7, 7, 5, 7, 7, 0, 0]]
    assert batch.turn.tolist() == [[0, 0, 1, 1, 0, 0, 2], [0, 0, 1, 0, 0, 2, 0]]
    assert batch.sampler_logp.tolist() == [[0, 0, -0.5, -0.5, 0, 0, -0.5], [0, 0, -0.5, 0, 0, -0.5, 0]]


def test_sums_per_attempt_and_spreading_are_each_others_mirror():
    batch = collate([episode([([1, 2, 3], True), ([4], True)])], pad_id=0)
    assert batch.per_attempt(torch.ones(batch.ids.shape)).tolist() == [[3, 1]]
    assert batch.spread(torch.tensor([[10.0, 20.0]])).tolist() == [[0, 0, 10, 10, 10, 0, 0, 20]]


def test_a_split_holds_every_row_once_cut_to_its_own_longest():
    episodes = [episode([([1] * n, True), ([2], True)]) for n in (9, 1, 5, 1, 7)]
    batch = collate(episodes, pad_id=0)
    parts = list(batch.split(28))
    assert sorted(int(i) for index, _ in parts for i in index) == [0, 1, 2, 3, 4]
    assert [micro.ids.shape[1] for _, micro in parts] == [6, 12, 14]


def test_a_second_prompt_that_does_not_extend_the_first_is_refused():
    good = episode([([1], True), ([2], True)])
    turn = dataclasses.replace(good.turns[1], prompt_ids=(7, 7, 3, 7, 7))
    with pytest.raises(ValueError, match="attempt 2 does not extend"):
        collate([dataclasses.replace(good, turns=(good.turns[0], turn))], pad_id=0)
