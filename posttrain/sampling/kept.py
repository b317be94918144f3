"""Keys and values of rows that ended, for the rows that go on from them: a second prompt is the first attempt and a few tokens more."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from posttrain.sampling.prefix import common_length
from posttrain.types import TokenIds


class _Block(NamedTuple):
    """Lines of one decoded batch: keys and values [R, H, L, D] of each layer, and which of the L slots are tokens, in order [R, L]."""

    layers: list[tuple[Tensor, Tensor]]
    slot_RL: Tensor


class KeptRows:
    """Rows by the tokens whose keys and values are kept; at most `most_tokens` slots, the oldest rows go first. Holds no gradient."""

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self.forget()

    def forget(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._place: dict[TokenIds, tuple[int, int]] = {}
        self._sorted: list[TokenIds] = []
        self._num_blocks = 0

    def keep(self, cache: Cache, mask_BL: Tensor, rows: Mapping[int, TokenIds]) -> None:
        """Lines of `cache`, each with the tokens that its first slots under the mask hold; what it holds beyond them is not kept."""
        lines = torch.tensor(list(rows), device=mask_BL.device)
        slot_RL = mask_BL[lines, : cache.get_seq_length()].bool()
        length_R = torch.tensor([len(ids) for ids in rows.values()], device=lines.device)
        slot_RL &= slot_RL.cumsum(1) <= length_R[:, None]
        whole = len(rows) == len(mask_BL) and list(rows) == list(range(len(rows)))
        layers = [(each.keys, each.values) if whole else (each.keys[lines], each.values[lines]) for each in cache.layers]
        number, self._num_blocks = self._num_blocks, self._num_blocks + 1
        self._blocks[number] = _Block(layers, slot_RL)
        self._place |= {ids: (number, line) for line, ids in enumerate(rows.values())}
        while self._blocks and sum(block.slot_RL.numel() for block in self._blocks.values()) > self.most_tokens:
            oldest = next(iter(self._blocks))
            del self._blocks[oldest]
            self._place = {ids: place for ids, place in self._place.items() if place[0] != oldest}
        self._sorted = []

    def longest(self, prompt: TokenIds) -> int:
        """Tokens of the longest kept row that the prompt goes on from, 0 for none; one token of a prompt is left to be read."""
        if len(self._sorted) != len(self._place):
            self._sorted = sorted(self._place)
        begun = prompt[:-1]
        at = bisect_right(self._sorted, begun)
        while at:
            key = self._sorted[at - 1]
            shared = common_length(key, begun)
            if shared == len(key):
                return shared
            at = bisect_right(self._sorted, begun[:shared])
        return 0

    def cache(self, prefixes: Sequence[TokenIds]) -> DynamicCache:
        """One line per kept row, in order, its tokens at the right end; what pads them on the left is to be masked."""
        longest = max(map(len, prefixes))
        by_block: dict[int, list[int]] = {}
        for row, prefix in enumerate(prefixes):
            by_block.setdefault(self._place[prefix][0], []).append(row)
        pieces = [self._lines(number, [prefixes[row] for row in rows], longest) for number, rows in by_block.items()]
        device = self._blocks[next(iter(by_block))].slot_RL.device
        back = torch.tensor([row for rows in by_block.values() for row in rows], device=device).argsort()
        cache = DynamicCache()
        for number, layer in enumerate(zip(*pieces)):
            keys, values = (torch.cat(side)[back] for side in zip(*layer))
            cache.update(keys, values, number)
        return cache

    def _lines(self, number: int, prefixes: Sequence[TokenIds], longest: int) -> list[tuple[Tensor, Tensor]]:
        block = self._blocks[number]
        line_R = torch.tensor([self._place[prefix][1] for prefix in prefixes], device=block.slot_RL.device)
        order_RL = block.slot_RL[line_R].byte().argsort(dim=1, stable=True)  # the slots that are tokens come last, in their order
        order_RL = order_RL[:, -longest:]
        order_RL = torch.nn.functional.pad(order_RL, (longest - order_RL.shape[1], 0))
        rows = (line_R[:, None], slice(None), order_RL)
        return [(keys[rows].transpose(1, 2), values[rows].transpose(1, 2)) for keys, values in block.layers]
