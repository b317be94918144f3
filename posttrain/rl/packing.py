"""Rows of a batch side by side in a few sequences, what they begin with in common once: fewer tokens, the same log-probabilities.

The samples of a problem share its prompt, and often the beginning of an answer too. In lexicographic order each row adds to a sequence only
what the row before it does not begin with. The sequence is then a tree walked depth-first: a token sees those before it on its own path,
which are just the earlier tokens whose subtree has not ended yet. Sequences are filled one after the other up to a width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.sampling.prefix import common_length
from posttrain.types import TokenIds


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """`ids` and `position` [R, N]: what the model reads, and how far each token is from its row's start. `end` [R, N]: the place where the
    tokens that go on from it end; 0 in the padding. `node` [B, T]: where each token of each row of the batch stands, r * N + n.
    `shares` is False where rows only stand one after the other, so that a kernel can tell them apart by their positions.
    """

    ids: Tensor
    position: Tensor
    end: Tensor
    node: Tensor
    shares: bool = True

    def seen(self) -> Tensor:
        """Which tokens each token sees, bool [R, N, N]; padding sees itself, as it must see something."""
        place_N = torch.arange(self.ids.shape[1], device=self.ids.device)
        seen_RNN = (place_N[:, None] >= place_N) & (place_N[:, None] < self.end[:, None, :])
        return seen_RNN | (place_N[:, None] == place_N)

    def to(self, device: torch.device) -> "Packed":
        moved = {name: getattr(self, name).to(device) for name in ("ids", "position", "end", "node")}
        return Packed(**moved, shares=self.shares)


def in_order(rows: Sequence[TokenIds]) -> list[tuple[int, int]]:
    """(row, how many tokens it begins with like the row before it), in lexicographic order."""
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return [(row, common_length(rows[before], rows[row]) if i else 0) for i, (before, row) in enumerate(zip([0, *order], order))]


def fill(rows: Sequence[TokenIds], ordered: Sequence[tuple[int, int]], width: int) -> list[list[tuple[int, int]]]:
    """Those of `in_order` in sequences of at most `width` tokens, or of one row; the first of a sequence shares nothing."""
    sequences: list[list[tuple[int, int]]] = []
    room = 0
    for row, shared in ordered:
        if len(rows[row]) - shared > room:
            sequences.append([])
            room, shared = max(width, len(rows[row])), 0
        sequences[-1].append((row, shared))
        room -= len(rows[row]) - shared
    return sequences


def num_tokens(rows: Sequence[TokenIds], sequence: Sequence[tuple[int, int]]) -> int:
    return sum(len(rows[row]) - shared for row, shared in sequence)


def cheapest_width(rows: Sequence[TokenIds], weights: int, seen: int, most: int) -> int | None:
    """The width up to `most`, a few times the longest row, at which a pass over all rows takes the fewest multiplications; None where
    that is not under 0.8 of what it takes to read each row by itself.

    A token costs `weights` of them, and `seen` for each token it is compared with: in a tree all of its sequence, as the mask is dense.
    """
    longest, ordered = max(map(len, rows)), in_order(rows)
    alone = sum(len(row) * (weights + seen * longest / 2) for row in rows)
    cost = {
        width: sum(num_tokens(rows, sequence) for sequence in fill(rows, ordered, width)) * (weights + seen * width)
        for width in (longest, 2 * longest, 4 * longest, 8 * longest)
        if width <= most
    }
    best = min(cost, key=cost.__getitem__, default=0)
    return best if best and cost[best] < 0.8 * alone else None


def packed(rows: Sequence[TokenIds], sequences: Sequence[Sequence[tuple[int, int]]], pad_id: int, shares: bool = True) -> Packed:
    """All rows, in sequences as `fill` makes them."""
    shape = (len(sequences), max(num_tokens(rows, sequence) for sequence in sequences))
    ids, position, end = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    node = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for r, sequence in enumerate(sequences):
        filled = 0
        for i, (row, shared) in enumerate(sequence):
            new = len(rows[row]) - shared
            ids[r, filled : filled + new] = torch.tensor(rows[row][shared:])
            position[r, filled : filled + new] = torch.arange(shared, shared + new)
            if i:
                node[row, :shared] = node[sequence[i - 1][0], :shared]
            node[row, shared : shared + new] = r * shape[1] + torch.arange(filled, filled + new)
            filled += new
            end.view(-1)[node[row, : len(rows[row])]] = filled
    return Packed(ids=ids, position=position, end=end, node=node, shares=shares)
