"""Patches, attention in space and time, codebooks and masked filling against slow twins, and measures worked by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.nn.functional import normalize

from posttrain.agents.kernel.video import (
    Attention,
    Codebook,
    SpaceTimeTransformer,
    fill,
    frechet_distance,
    patches,
    perplexity,
    pictures,
    psnr,
    shared_bits,
    still_masked,
)


def test_patches_are_squares_row_by_row_and_pictures_puts_them_back():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    cut = patches(x, 2)
    assert cut.shape == (2, 6, 12)
    for place in range(6):
        row, column = place // 3, place % 3
        assert torch.equal(cut[:, place], x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1))
    assert torch.equal(pictures(cut, 2, 4, 6), x)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_reads_as_a_plain_loop_says(causal):
    torch.manual_seed(0)
    layer, x_LD = Attention(8, 2, causal), torch.randn(5, 8)
    q_LD, k_LD, v_LD = layer.into(layer.norm(x_LD)).detach().chunk(3, -1)
    read_LD = torch.zeros(5, 8)
    for head in (slice(0, 4), slice(4, 8)):
        for i in range(5):
            known = range(i + 1) if causal else range(5)
            weights = [math.exp(float(q_LD[i, head] @ k_LD[j, head]) / 2) for j in known]  # 2 is the root of 4 numbers a head
            for j, weight in zip(known, weights, strict=True):
                read_LD[i, head] += weight / sum(weights) * v_LD[j, head]
    assert torch.allclose(layer(x_LD[None])[0], layer.out(read_LD), atol=1e-5)


def test_a_frame_knows_its_own_places_and_those_before_it_and_nothing_behind():
    torch.manual_seed(0)
    net, x = SpaceTimeTransformer(3, 2, 8, 2, 2, frames=4, grid=(2, 3)), torch.randn(1, 4, 6, 3)
    y = net(x)
    for frame in range(4):
        other = x.clone()
        other[:, frame, 5] += 1  # one corner
        moved_TS = (net(other) - y).abs().amax((0, 3)) > 1e-6
        assert not moved_TS[:frame].any()
        assert moved_TS[frame:].all()


def test_a_shorter_clip_gives_the_beginning_of_a_longer_one():
    torch.manual_seed(0)
    net, x = SpaceTimeTransformer(3, 2, 8, 1, 2, frames=4, grid=(2, 3)), torch.randn(2, 4, 6, 3)
    assert torch.allclose(net(x[:, :2]), net(x)[:, :2], atol=1e-6)


def test_a_vector_takes_the_nearest_code_and_its_loss_is_as_a_plain_loop_says():
    torch.manual_seed(0)
    book, x = Codebook(5, 3, commitment=0.25), torch.randn(7, 3, requires_grad=True)
    found, codes = book(x), normalize(book.code_KD, dim=-1).tolist()
    loss = 0.0
    for i, vector in enumerate(normalize(x, dim=-1).tolist()):
        far = [sum((a - b) ** 2 for a, b in zip(vector, code, strict=True)) for code in codes]
        assert found.chosen[i] == far.index(min(far))
        assert found.code[i].tolist() == pytest.approx(codes[far.index(min(far))], abs=1e-6)
        loss += 1.25 * min(far) / 7
    assert found.loss.item() == pytest.approx(loss, abs=1e-6)


def test_the_gradient_of_a_code_goes_to_the_vector_and_that_of_the_loss_to_both():
    torch.manual_seed(0)
    book, x = Codebook(5, 3), torch.randn(7, 3, requires_grad=True)
    found, towards = book(x), torch.randn(7, 3)
    (through,) = torch.autograd.grad((found.code * towards).sum(), x, retain_graph=True)
    (direct,) = torch.autograd.grad((normalize(x, dim=-1) * towards).sum(), x)
    assert torch.allclose(through, direct)
    to_x, to_codes = torch.autograd.grad(found.loss, [x, book.code_KD])
    assert to_x.abs().sum() > 0
    assert to_codes.abs().sum() > 0


def test_codes_nobody_chose_go_where_the_error_is_and_others_stay():
    book = Codebook(3, 2)
    book.code_KD.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])
    vectors = normalize(torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]]), dim=-1)
    book(vectors[:2])  # all choose the first
    error = torch.tensor([0.0, 0.0, 5.0])
    assert book.revive(vectors, error, torch.Generator().manual_seed(0)) == 2
    assert book.code_KD.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    assert book.used_K.tolist() == [0, 0, 0]


def test_usage_is_lowest_where_each_is_sure_and_all_are_even():
    book = Codebook(2, 2)
    book.code_KD.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    even, one, torn = ([[1.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]])
    losses = [book.usage_loss(torch.tensor(x), temperature=0.1).item() for x in (even, one, torn)]
    assert losses == pytest.approx([-math.log(2), 0.0, 0.0], abs=1e-4)


def test_the_schedule_is_a_cosine_that_ends_with_nothing_masked():
    assert [still_masked(16, step, 4) for step in range(5)] == [16, 14, 11, 6, 0]  # 16 cos(0), cos(22.5) = .924, .707, .383, 0
    assert all(still_masked(n, steps, steps) == 0 for n in (1, 16, 300) for steps in (1, 2, 25))


def test_filling_keeps_what_is_surest_and_draws_the_rest_again():
    """Place 0 is always 1, the others are torn until place 0 is known, then they copy it."""
    asked = []

    def logits_of(token_NS, masked_NS):
        asked.append(masked_NS.clone())
        logits = torch.zeros(2, 4, 2)
        logits[:, 0, 1] = 50.0
        known = ~masked_NS[:, 0]
        logits[known, 1:, 1] = 50.0
        return logits

    token_NS = fill(logits_of, 2, 4, steps=3, temperature=1.0, draws=torch.Generator().manual_seed(0))
    assert token_NS.tolist() == [[1, 1, 1, 1]] * 2
    assert [masked_NS.sum(1).tolist() for masked_NS in asked] == [[4, 4], [3, 3], [2, 2]]  # 4 cos(30), 4 cos(60)
    assert not asked[1][:, 0].any()


def test_filling_follows_its_temperature():
    def logits_of(token_NS, masked_NS):
        return torch.tensor([1.0, 0.0]).expand(4000, 1, 2)

    for temperature in (0.5, 2.0):
        share = fill(logits_of, 4000, 1, 1, temperature, torch.Generator().manual_seed(0)).float().mean().item()
        assert share == pytest.approx(1 / (1 + math.exp(1 / temperature)), abs=0.03)


def test_measures_by_hand():
    black, grey = torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.1)
    assert psnr(black, grey).item() == pytest.approx(20.0, abs=1e-4)
    assert psnr(black, black).item() == pytest.approx(60.0)
    x = torch.tensor([0, 0, 1, 1])
    assert shared_bits(x, 1 - x) == pytest.approx(1.0)
    assert shared_bits(x, torch.tensor([0, 1, 0, 1])) == pytest.approx(0.0, abs=1e-9)
    assert shared_bits(torch.tensor([0, 1, 2, 3]), x) == pytest.approx(1.0)  # which of two, told by four codes
    assert perplexity(torch.tensor([0, 1, 3, 0, 1, 3]), 5) == pytest.approx(3.0)


def with_moments(mean_D: list[float], deviation_D: list[float]) -> Tensor:
    """2 D samples whose mean and covariance, a diagonal one, are exactly these: one step along each axis and one back."""
    step_D = torch.tensor(deviation_D, dtype=torch.float64) * math.sqrt((2 * len(mean_D) - 1) / 2)
    return torch.tensor(mean_D, dtype=torch.float64) + torch.cat([step_D.diag(), -step_D.diag()])


def test_frechet_distance_of_diagonal_gaussians_is_that_of_means_and_of_deviations():
    x_ND, y_MD = with_moments([0, 1, 2], [1, 2, 0.5]), with_moments([1, 1, 4], [3, 2, 1])
    assert torch.allclose(x_ND.T.cov(), torch.tensor([1, 4, 0.25], dtype=torch.float64).diag())
    assert frechet_distance(x_ND, y_MD) == pytest.approx(1 + 0 + 4 + (3 - 1) ** 2 + 0 + (1 - 0.5) ** 2)  # |mu|^2, then (s_x - s_y)^2 each


def test_frechet_distance_is_what_covariances_and_a_root_of_their_product_give():
    draws = torch.Generator().manual_seed(0)
    x_ND = torch.randn(50, 6, generator=draws) @ torch.randn(6, 6, generator=draws)
    y_MD = torch.randn(70, 6, generator=draws) @ torch.randn(6, 6, generator=draws) + 1
    x, y = x_ND.double().numpy(), y_MD.double().numpy()
    s_x, s_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    twin = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s_x + s_y - 2 * sqrtm(s_x @ s_y).real)
    assert frechet_distance(x_ND, y_MD) == pytest.approx(twin, rel=1e-9)
    assert frechet_distance(y_MD, x_ND) == pytest.approx(twin, rel=1e-9)


def test_frechet_distance_is_nothing_for_the_same_set_and_a_shift_adds_its_square():
    draws = torch.Generator().manual_seed(1)
    x_ND, y_MD = torch.randn(40, 5, generator=draws).double(), 2 * torch.randn(30, 5, generator=draws).double()
    assert 0 <= frechet_distance(x_ND, x_ND[torch.randperm(40, generator=draws)]) < 1e-12
    y_MD = y_MD - y_MD.mean(0) + x_ND.mean(0)
    shift_D = torch.tensor([3.0, 0, -4, 0, 0])
    assert frechet_distance(x_ND, y_MD + shift_D) == pytest.approx(frechet_distance(x_ND, y_MD) + 25)


def test_frechet_distance_bears_singular_covariances():
    draws = torch.Generator().manual_seed(2)
    x_ND, y_MD = torch.randn(9, 3, generator=draws).double(), 1e3 * torch.randn(7, 3, generator=draws).double()
    once = frechet_distance(x_ND, y_MD)
    twice = [torch.cat([z, z, torch.ones(len(z), 1)], 1) for z in (x_ND, y_MD)]  # a number told twice, and one that never changes
    assert frechet_distance(*twice) == pytest.approx(2 * once)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=draws).double()).Q[:3]  # fewer samples than numbers
    assert frechet_distance(x_ND @ turn, y_MD @ turn) == pytest.approx(once)


def test_frechet_distance_wants_two_sets_of_the_same_features():
    with pytest.raises(ValueError, match=r"need two features at least of either set.*\(1, 3\) and \(4, 3\)"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(4, 3\)"):
        frechet_distance(torch.zeros(4, 2), torch.zeros(4, 3))
