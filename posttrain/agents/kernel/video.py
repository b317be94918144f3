"""What models of video are made of: patches, space-time transformers, codebooks, masked filling of tokens, and measures.

A clip is [B, T, C, H, W] from 0 to 1. Cut into S patches a frame, it is a grid of tokens [B, T, S, D], which a space-time block
(arXiv 2402.15391) reads frame by frame, then place by place over time, each frame knowing itself and those before it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention


def patches(x: Tensor, size: int) -> Tensor:
    """Squares of `size` x `size` pixels, row by row, [..., C, H, W] -> [..., S, C size^2]."""
    *lead, channels, height, width = x.shape
    cut = x.reshape(-1, channels, height // size, size, width // size, size).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(*lead, (height // size) * (width // size), channels * size * size)


def pictures(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `patches`."""
    *lead, _, numbers = x.shape
    whole = x.reshape(-1, height // size, width // size, numbers // size**2, size, size).permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(*lead, -1, height, width)


class Attention(nn.Module):
    """Attention within the second-last axis, each place to all, or with `causal` to those before it and itself."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        lead, length = x.shape[:-2], x.shape[-2]
        q, k, v = self.into(self.norm(x)).reshape(-1, length, 3, self.heads, x.shape[-1] // self.heads).permute(2, 0, 3, 1, 4)
        read = scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(read.transpose(1, 2).reshape(*lead, length, -1))


class SpaceTimeBlock(nn.Module):
    """A look at the places around, attention within a frame, attention of a place to its own past, one feed-forward.

    The look is a 3 x 3 convolution of each feature (arXiv 2102.10882), without which what moves a place on must be learnt place by place.
    """

    def __init__(self, width: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.around = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.space, self.time = Attention(width, heads, causal=False), Attention(width, heads, causal=True)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTSD: Tensor) -> Tensor:
        frame_NDHW = x_BTSD.flatten(0, 1).transpose(1, 2).unflatten(2, self.grid)
        x_BTSD = x_BTSD + self.around(frame_NDHW).flatten(2).transpose(1, 2).view_as(x_BTSD)
        x_BTSD = x_BTSD + self.space(x_BTSD)
        x_BTSD = x_BTSD + self.time(x_BTSD.transpose(1, 2)).transpose(1, 2)
        return x_BTSD + self.down(gelu(self.up(self.norm(x_BTSD))))


class SpaceTimeTransformer(nn.Module):
    """From `inputs` to `outputs` numbers a token, over at most `frames` frames of a grid of tokens, with learned positions of both."""

    def __init__(self, inputs: int, outputs: int, width: int, layers: int, heads: int, frames: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.frame_T1D = nn.Parameter(0.02 * torch.randn(frames, 1, width))
        self.place_SD = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1], width))
        self.blocks = nn.Sequential(*(SpaceTimeBlock(width, heads, grid) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BTSD: Tensor, added: Tensor | None = None) -> Tensor:
        """`added` is added to the embedded tokens: [B, T, 1, width] for something known of each frame."""
        x_BTSD = self.enter(x_BTSD) + self.frame_T1D[: x_BTSD.shape[1]] + self.place_SD
        return self.leave(self.norm(self.blocks(x_BTSD if added is None else x_BTSD + added)))


class Quantised(NamedTuple):
    """Vectors replaced by codes."""

    code: Tensor
    """[..., D], the nearest code, whose gradient goes to the vector as if it had not been replaced"""
    chosen: Tensor
    """Its number, [...]"""
    loss: Tensor
    """|sg(e) - c|^2 + commitment |e - sg(c)|^2 (arXiv 1711.00937)"""
    vector: Tensor
    """e itself, on the unit sphere"""


class Codebook(nn.Module):
    """K codes on the unit sphere, onto which vectors are brought before each takes the nearest one (arXiv 2110.04627)."""

    def __init__(self, codes: int, dim: int, commitment: float = 0.25) -> None:
        super().__init__()
        self.code_KD = nn.Parameter(normalize(torch.randn(codes, dim), dim=-1))
        self.commitment = commitment
        self.used_K: Tensor
        self.register_buffer("used_K", torch.zeros(codes))

    def look_up(self, chosen: Tensor) -> Tensor:
        return normalize(self.code_KD, dim=-1)[chosen]

    def forward(self, x: Tensor) -> Quantised:
        vector = normalize(x, dim=-1)
        chosen = (vector.detach() @ normalize(self.code_KD.detach(), dim=-1).T).argmax(-1)
        code = self.look_up(chosen)
        loss = (vector.detach() - code).square().sum(-1).mean() + self.commitment * (vector - code.detach()).square().sum(-1).mean()
        if self.training:
            self.used_K += torch.bincount(chosen.flatten(), minlength=len(self.used_K))
        return Quantised(vector + (code - vector).detach(), chosen, loss, vector)

    def usage_loss(self, vector: Tensor, temperature: float) -> Tensor:
        """E H(p) - H(E p) of soft choices p = softmax(-|e - c|^2 / temperature): low where each is sure and together they use all codes."""
        codes_KD = normalize(self.code_KD, dim=-1)
        p_NK = ((2 * vector.flatten(0, -2) @ codes_KD.T - 2) / temperature).softmax(-1)
        return entropy_nats(p_NK).mean() - entropy_nats(p_NK.mean(0))

    @torch.no_grad()
    def revive(self, vector: Tensor, error: Tensor, generator: torch.Generator, share: float = 0.1) -> int:
        """Put codes chosen less than `share` of evenly often since the last call where vectors of a batch are; how many there were.

        Vectors, [..., D], are drawn in proportion to what their code costs, [...], so that a code that serves many badly is split first.
        """
        dead_K = self.used_K <= share * self.used_K.mean()
        pick_K = torch.multinomial(error.flatten().clamp(min=1e-9), len(dead_K), replacement=True, generator=generator)
        self.code_KD.copy_(torch.where(dead_K[:, None], vector.flatten(0, -2)[pick_K], self.code_KD))
        self.used_K.zero_()
        return int(dead_K.sum())


def still_masked(num: int, step: int, steps: int) -> int:
    """How many of `num` tokens are unknown after `step` of `steps`: a cosine, slow at first (arXiv 2202.04200)."""
    return math.floor(num * math.cos(math.pi / 2 * step / steps) + 1e-9)


@torch.no_grad()
def fill(
    logits_of: Callable[[Tensor, Tensor], Tensor], num: int, places: int, steps: int, temperature: float, draws: torch.Generator
) -> Tensor:
    """Tokens of `num` frames by masked filling, [num, places]: in each step all are drawn, and the surest so far stay.

    `logits_of` maps tokens and which of them are masked to logits, [N, S], [N, S] bool -> [N, S, K].
    """
    token_NS = torch.zeros(num, places, dtype=torch.long, device=draws.device)
    masked_NS = torch.ones_like(token_NS, dtype=torch.bool)
    for step in range(1, steps + 1):
        logp_NSK = (logits_of(token_NS, masked_NS) / temperature).log_softmax(-1)
        drawn_NS = torch.multinomial(logp_NSK.exp().flatten(0, 1), 1, generator=draws).view_as(token_NS)
        token_NS = torch.where(masked_NS, drawn_NS, token_NS)
        sure_NS = logp_NSK.gather(-1, token_NS[..., None])[..., 0].masked_fill(~masked_NS, math.inf)
        unsure_NS = sure_NS.argsort(-1)[:, : still_masked(places, step, steps)]
        masked_NS = torch.zeros_like(masked_NS).scatter_(1, unsure_NS, True)
    return token_NS


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """-10 log10 of the mean squared error of each picture, dB, [..., C, H, W] -> [...]; two that are alike have 60."""
    return -10 * (x - y).square().mean((-3, -2, -1)).clamp(min=1e-6).log10()


def frechet_distance(x_ND: Tensor, y_MD: Tensor) -> float:
    """|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)) of Gaussians with the means and covariances of two sets of features.

    The squared distance of FID and FVD (arXiv 1812.01717). With S = R^T R, where R is the triangle of the centred features, the last trace
    is the sum of the singular values of R_x R_y^T: no covariance is formed and no root of one taken, so a singular one does no harm.
    """
    if x_ND.shape[1:] != y_MD.shape[1:] or min(len(x_ND), len(y_MD)) < 2:
        raise ValueError(f"need two features at least of either set, [N, D] and [M, D]; got {tuple(x_ND.shape)} and {tuple(y_MD.shape)}")
    means, triangles = [], []
    for features in (x_ND.double(), y_MD.double()):
        means.append(features.mean(0))
        triangles.append(torch.linalg.qr(features - means[-1], mode="r").R / math.sqrt(len(features) - 1))
    shared = torch.linalg.svdvals(triangles[0] @ triangles[1].T).sum()
    spread = triangles[0].square().sum() + triangles[1].square().sum() - 2 * shared
    return (means[0] - means[1]).square().sum().item() + max(0.0, spread.item())


def entropy_nats(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-12).log()).sum(-1)


def shared_bits(x_N: Tensor, y_N: Tensor) -> float:
    """Mutual information of two columns of small whole numbers, in bits, from counts: too high by about (|x|-1)(|y|-1) / (2 N ln 2)."""
    num_x, num_y = int(x_N.max()) + 1, int(y_N.max()) + 1
    joint_XY = torch.bincount(x_N * num_y + y_N, minlength=num_x * num_y).view(num_x, num_y).double() / len(x_N)
    together = entropy_nats(joint_XY.flatten())
    return ((entropy_nats(joint_XY.sum(0)) + entropy_nats(joint_XY.sum(1)) - together) / math.log(2)).item()


def perplexity(index_N: Tensor, codes: int) -> float:
    """exp of the entropy of how often each code was chosen: the number of codes that are as good as evenly used."""
    return entropy_nats(torch.bincount(index_N.flatten(), minlength=codes).double() / index_N.numel()).exp().item()
