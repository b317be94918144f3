import pytest
import torch

from posttrain.rl.advantage import informative_rows, leave_one_out, leave_one_out_by_outcome, standardise, zero_variance_share


def slow_leave_one_out(rewards: list[list[float]], group: int, scored: list[bool]) -> list[list[float]]:
    """The definition, one number at a time."""
    result = []
    for i, row in enumerate(rewards):
        start = i // group * group
        others = [j for j in range(start, start + group) if j != i and scored[j]]
        if not scored[i] or not others:
            result.append([0.0] * len(row))
        else:
            result.append([r - sum(rewards[j][k] for j in others) / len(others) for k, r in enumerate(row)])
    return result


def test_leave_one_out_equals_its_definition_with_and_without_unscored_rows():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        reward_BK = torch.randn(12, 2, generator=generator)
        scored_B = torch.rand(12, generator=generator) > 0.3
        expected = torch.tensor(slow_leave_one_out(reward_BK.tolist(), 4, scored_B.tolist()))
        torch.testing.assert_close(leave_one_out(reward_BK, 4, scored_B), expected)


def test_each_attempt_has_a_baseline_of_its_own():
    reward_BK = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert leave_one_out(reward_BK, 2, torch.tensor([True, True])).tolist() == [[1, 0], [-1, 0]]


def test_an_unscored_sample_moves_nothing_and_is_nobodys_baseline():
    reward_BK = torch.tensor([[1.0], [0.0], [1.0]])
    assert leave_one_out(reward_BK, 3, torch.tensor([True, False, True])).tolist() == [[0], [0], [0]]


def test_groups_without_signal_do_not_count_in_the_denominator():
    advantage_BK = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert informative_rows(advantage_BK, 2).tolist() == [2, 1]  # attempt 2 has no live group: 1 only avoids a division by 0


def test_the_share_of_groups_with_equal_rewards_is_told_per_attempt():
    assert zero_variance_share(torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 2) == [0.5, 0.5]


@pytest.mark.parametrize("group", [1, 3])
def test_groups_that_do_not_fill_the_batch_are_refused(group):
    with pytest.raises(ValueError, match="leave-one-out needs groups"):
        leave_one_out(torch.zeros(4, 2), group, torch.ones(4, dtype=torch.bool))


def test_an_outcome_baseline_compares_second_attempts_that_follow_the_same_outcome():
    reward_BK = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    advantage_BK = leave_one_out_by_outcome(reward_BK, reward_BK, 5, torch.ones(5, dtype=torch.bool))
    assert advantage_BK[:, 1].tolist() == [1, -1, 1, -0.5, -0.5]
    torch.testing.assert_close(advantage_BK[:, 0], leave_one_out(reward_BK, 5, torch.ones(5, dtype=torch.bool))[:, 0])


def test_a_sample_alone_with_its_outcome_or_unscored_falls_back_or_moves_nothing():
    reward_BK = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    alone = leave_one_out_by_outcome(reward_BK, reward_BK, 3, torch.ones(3, dtype=torch.bool))[:, 1]
    assert alone.tolist() == [0.5, -1, 1]
    unscored = leave_one_out_by_outcome(reward_BK, reward_BK, 3, torch.tensor([True, True, False]))[:, 1]
    assert unscored.tolist() == [1, -1, 0]


def test_an_attempt_that_does_not_count_leaves_the_other_attempt_of_its_row_alone():
    reward_BK = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    counts_BK = torch.tensor([[False, True], [True, True], [True, True]])
    assert leave_one_out(reward_BK, 3, counts_BK).tolist() == [[0, 1], [-1, -0.5], [1, -0.5]]
    by_outcome_BK = leave_one_out_by_outcome(reward_BK, reward_BK, 3, counts_BK)
    assert by_outcome_BK.tolist() == [[0, 1], [-1, -0.5], [1, -1]]  # rows 0 and 2 follow a right attempt, row 1 is alone


def test_standardised_advantages_are_those_of_grpo_up_to_the_leave_one_out_factor():
    group, reward_BK = 4, torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    counts = torch.ones(8, dtype=torch.bool)
    grouped = reward_BK.view(2, group, 2)
    grpo_BK = ((grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)).view(8, 2)
    found_BK = standardise(leave_one_out(reward_BK, group, counts), reward_BK, group, counts)
    torch.testing.assert_close(found_BK * (group - 1) / group, grpo_BK)


def test_standardising_undoes_the_bonus_where_first_attempts_are_shared():
    counts = torch.ones(4, dtype=torch.bool)
    second_BK = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    plain, paid = (standardise(leave_one_out(r, 4, counts), r, 4, counts) for r in (second_BK, second_BK * torch.tensor([1.0, 11.0])))
    torch.testing.assert_close(plain, paid, rtol=1e-3, atol=0)
