from dataclasses import replace

import pytest
import torch

from posttrain.rl.reward import returns_to_go, rewards, sampled_attempts, shaped_reward
from tests.rl.episodes import episode

OUTCOMES_BK = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])


def test_stage_two_pays_11_for_a_fix_and_fines_10_for_a_break():
    shaped_BK = shaped_reward(OUTCOMES_BK, (1.0, 1.0), bonus=10.0)
    assert shaped_BK.tolist() == [[0, 0], [0, 11], [1, 1], [1, -10]]


def test_stage_one_pays_the_second_attempt_only():
    assert shaped_reward(OUTCOMES_BK, (0.0, 1.0), bonus=0.0).tolist() == [[0, 0], [0, 1], [0, 1], [0, 0]]


def test_plain_rl_pays_each_attempt_what_it_earned():
    assert torch.equal(shaped_reward(OUTCOMES_BK, (1.0, 1.0), bonus=0.0), OUTCOMES_BK)


def test_with_three_attempts_progress_is_measured_from_the_attempt_before():
    assert shaped_reward(torch.tensor([[0.0, 1.0, 0.0]]), (1.0, 1.0, 1.0), bonus=2.0).tolist() == [[0, 3, -2]]


def test_a_reward_of_the_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"\[B, 2\].*\[4, 2\]|one column per attempt"):
        shaped_reward(OUTCOMES_BK, (1.0,), bonus=0.0)


def test_an_unscored_verdict_marks_the_whole_episode():
    reward_BK, scored_B = rewards([episode([([1], True), ([2], None)]), episode([([1], False), ([2], True)])])
    assert reward_BK.tolist() == [[1, 0], [0, 1]]
    assert scored_B.tolist() == [False, True]


def test_a_bonus_paid_to_the_earlier_attempt_pays_it_to_fail():
    assert shaped_reward(OUTCOMES_BK, (1.0, 1.0), bonus=10.0, bonus_to="earlier").tolist() == [[0, 0], [10, 1], [1, 1], [-9, 0]]


def test_without_discounting_to_zero_a_right_first_attempt_is_worth_one_less_the_bonus():
    shaped_BK = shaped_reward(OUTCOMES_BK, (1.0, 1.0), bonus=10.0)
    assert returns_to_go(shaped_BK, 0.0).tolist() == shaped_BK.tolist()
    assert returns_to_go(shaped_BK, 1.0)[:, 0].tolist() == [0, 11, 2, -9]  # wrong then right earns 11, right twice only 2
    assert returns_to_go(torch.tensor([[1.0, 2.0, 4.0]]), 0.5).tolist() == [[3, 4, 4]]


def test_an_attempt_that_was_given_is_not_the_policys():
    own, given = episode([([1], True), ([2], True)]), episode([([1], True), ([2], True)])
    given = replace(given, turns=(replace(given.turns[0], given=True), given.turns[1]))
    assert sampled_attempts([own, given]).tolist() == [[True, True], [False, True]]
