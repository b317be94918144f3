import random

import pytest
import torch

from posttrain.rl.batch import Batch
from posttrain.rl.packing import cheapest_width, fill, in_order, num_tokens, packed
from posttrain.rl.policy import LoraConfig, PolicyConfig
from posttrain.types import TokenIds
from tests.rl.test_policy import batch_of, open_policy
from tests.sampling.reference import FAMILIES


def alike(samples: int = 5, problems: int = 4) -> list[TokenIds]:
    """Rows as samples of a few problems are: a long common prompt, then tails of many lengths that begin alike now and then."""
    draw = random.Random(0)
    rows = []
    for _ in range(problems):
        prompt = tuple(draw.randrange(300) for _ in range(draw.randrange(70, 90)))  # longer than gemma's window of 64
        rows += [(*prompt, *(draw.randrange(2) for _ in range(draw.randrange(1, 30)))) for _ in range(samples)]
    draw.shuffle(rows)
    return rows


def test_rows_that_begin_alike_make_a_tree_and_each_token_sees_its_own_path():
    rows = [(1, 2, 3, 4), (1, 2, 5), (1, 2, 3), (9,)]
    (sequence,) = fill(rows, in_order(rows), width=100)
    assert sequence == [(2, 0), (0, 3), (1, 2), (3, 0)]  # in lexicographic order, with what each begins with like the one before
    found = packed(rows, [sequence], pad_id=0)
    assert found.ids.tolist() == [[1, 2, 3, 4, 5, 9]]
    assert found.position.tolist() == [[0, 1, 2, 3, 2, 0]]
    assert found.node.tolist() == [[0, 1, 2, 3], [0, 1, 4, 0], [0, 1, 2, 0], [5, 0, 0, 0]]
    seen = found.seen()[0]
    assert [row.nonzero()[:, 0].tolist() for row in seen] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [5]]


def test_every_row_is_in_one_sequence_which_is_no_longer_than_the_width_or_a_row():
    rows = alike()
    longest = max(map(len, rows))
    for width in (1, longest, 3 * longest):
        sequences = fill(rows, in_order(rows), width)
        assert sorted(row for sequence in sequences for row, _ in sequence) == list(range(len(rows)))
        assert all(num_tokens(rows, sequence) <= width or len(sequence) == 1 for sequence in sequences)
        assert all(sequence[0][1] == 0 for sequence in sequences)
    assert len(fill(rows, in_order(rows), 1)) == len(rows)
    assert sum(num_tokens(rows, sequence) for sequence in fill(rows, in_order(rows), 10_000)) == len(
        {row[:n] for row in rows for n in range(1, len(row) + 1)}
    )


def test_a_width_is_chosen_where_much_is_shared_and_a_dense_mask_costs_little():
    shared, apart = alike(samples=8), [(i, *range(40)) for i in range(30)]
    assert cheapest_width(shared, weights=100_000, seen=100, most=10_000) is not None
    assert cheapest_width(shared, weights=100, seen=100, most=10_000) is None  # comparing tokens is what costs here
    assert cheapest_width(shared, weights=100_000, seen=100, most=50) is None  # no row fits
    assert cheapest_width(apart, weights=100_000, seen=100, most=10_000) is None


@pytest.mark.parametrize("micro_tokens", [1, 300, 10_000])
def test_both_ways_to_split_hold_every_row_once_within_the_bound(micro_tokens):
    rows = alike()
    batch = batch_of(rows)
    for parts in (list(batch.split(micro_tokens)), list(batch.split_packed(micro_tokens, width=200))):
        assert sorted(int(i) for index, _ in parts for i in index) == list(range(len(rows)))
        for index, micro in parts:
            read = micro.ids if micro.packed is None else micro.packed.ids
            assert read.numel() <= max(micro_tokens, 200) or len(index) == 1
            assert micro.tokens() == [rows[i] for i in index]
            if micro.packed is not None:
                flat = micro.packed.ids.flatten()
                assert [tuple(flat[node[: len(row)]].tolist()) for node, row in zip(micro.packed.node, micro.tokens())] == micro.tokens()


def gradients(policy, parts: list[tuple[torch.Tensor, Batch]], weight_BT: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss and its gradients, summed over the parts."""
    total = torch.zeros(())
    for index, micro in parts:
        logp_BT = policy.logprobs(micro)
        loss = (logp_BT * weight_BT[index, : logp_BT.shape[1]]).sum()
        policy.backward(loss)
        total += loss.detach()
    found = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.sharding.optimizer.zero_grad(set_to_none=True)
    return total, found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "cfg",
    [PolicyConfig(), PolicyConfig(lora=LoraConfig(rank=4, alpha=8)), PolicyConfig(gradient_checkpointing=True)],
    ids=["full", "lora", "checkpointing"],
)
def test_packed_rows_give_the_loss_and_the_gradients_of_padded_rows(family, cfg, tiny_folder):
    policy = open_policy(tiny_folder(family), cfg, temperature=0.8)
    batch = batch_of(alike())
    torch.manual_seed(0)
    weight_BT = torch.rand(batch.ids.shape) / batch.ids.numel()
    padded = list(batch.split(10_000))
    assert [micro.packed for _, micro in padded] == [None]
    loss, slow = gradients(policy, padded, weight_BT)
    scale = max(gradient.abs().max() for gradient in slow.values())
    assert scale > 1e-3
    parts = list(batch.split_packed(600, width=200))
    for split in (parts, list(batch.split_packed(600, width=600, shares=False))):
        assert len(split) > 1
        same, fast = gradients(policy, split, weight_BT)
        assert same.item() == pytest.approx(loss.item(), abs=1e-6)
        assert all((fast[name] - slow[name]).abs().max() < 1e-6 * max(1, scale) for name in slow)
    for index, micro in parts:
        reference_BT = policy.reference_logprobs(micro)
        assert torch.allclose(reference_BT, policy.reference_logprobs(batch)[index, : reference_BT.shape[1]], atol=2e-5)


def test_a_policy_packs_where_rows_begin_alike_and_leaves_others_alone(tiny_qwen2):
    policy = open_policy(tiny_qwen2)
    assert all(micro.packed is not None for _, micro in policy.split(batch_of(alike()), 2048))
    assert all(micro.packed is None for _, micro in policy.split(batch_of([(i, *range(40)) for i in range(30)]), 2048))


def test_rows_for_a_kernel_that_tells_them_apart_by_position_stand_one_after_the_other():
    rows = [(1, 2, 3), (1, 2), (5,)]
    ((index, micro),) = batch_of(rows).split_packed(6, width=6, shares=False)
    assert micro.packed.ids.shape == (1, 6)
    starts = (micro.packed.position[0] == 0).nonzero()[:, 0].tolist()
    assert [rows[i] for i in index] == [tuple(part.tolist()) for part in micro.packed.ids[0].tensor_split(starts[1:])]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_under_autocast_are_as_near_to_float32_as_padded_rows(family, tiny_folder):
    batch = batch_of(alike())
    exact = open_policy(tiny_folder(family)).logprobs(batch).detach()
    policy = open_policy(tiny_folder(family), PolicyConfig(precision="bf16_autocast"))
    ((index, micro),) = batch.split_packed(10_000, width=10_000)
    for near in (policy.logprobs(micro), policy.reference_logprobs(micro)):
        assert not torch.equal(near, exact[index])
        assert (near - exact[index]).abs().mean() < 0.05
