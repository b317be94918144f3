"""Prompts that begin alike are read once by a transformers model: a reader that holds one prefix's keys and values.

Many-shot prompts share thousands of tokens and differ in the last few. Prefixes are visited as a tree is walked (`prefix.py`), so that one
growing and shrinking cache serves them all. What is left of each row is read *packed*: the rows stand one after the other in one sequence,
and a mask lets each see the prefix and itself, so that the prefix is held once, not once per row.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from posttrain.sampling.prefix import common_length, shared_prefixes
from posttrain.types import TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 2048  # tokens of a prefix read at a time, which bounds the attention mask
PACK = 512  # tokens of several rows read at a time, unless one row alone has more


def can_share(model: "PreTrainedModel") -> bool:
    """Whether a model's cache can be cut and its mask be given: attention over all tokens or a sliding window, not recurrent states."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds <= {"full_attention", "sliding_attention"} and config._attn_implementation in ("sdpa", "eager")


def slides(model: "PreTrainedModel") -> bool:
    """Whether some layer sees a window of the last tokens only."""
    return "sliding_attention" in (getattr(model.config.get_text_config(), "layer_types", None) or ())


def attention_mask(model: "PreTrainedModel", seen_RTS: Tensor, position_RT: Tensor, position_RS: Tensor) -> Tensor | dict[str, Tensor]:
    """A mask of one's own as a model of `can_share` takes it, added to attention scores: what each token T sees of the tokens S, less
    what lies too far behind it where a layer sees a window only.
    """

    def added(seen_RTS: Tensor) -> Tensor:
        zeros = torch.zeros(seen_RTS.shape, dtype=model.dtype, device=seen_RTS.device)
        return zeros.masked_fill_(~seen_RTS, torch.finfo(model.dtype).min)[:, None]

    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    if not slides(model):
        return added(seen_RTS)
    near_RTS = position_RT[:, :, None] - position_RS[:, None] < config.sliding_window
    masks = {"full_attention": added(seen_RTS), "sliding_attention": added(seen_RTS & near_RTS)}
    return {kind: mask for kind, mask in masks.items() if kind in kinds}


class PrefixReader:
    """The keys and values of one prefix (`ids`), which the next one extends or cuts. Holds no gradient."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model = model
        self.forget()

    def forget(self) -> None:
        """Let go of what is held: the weights have changed, or the memory is needed."""
        self.ids: TokenIds = ()
        self.cache = DynamicCache()  # keeps every token even for sliding layers, as the prefix may be cut later; masks do the sliding

    def read(self, prefix: TokenIds) -> int:
        """Hold `prefix` and nothing else; returns how many of its tokens had to be read."""
        keep = common_length(self.ids, prefix)
        self._cut(keep)
        for start in range(keep, len(prefix), CHUNK):
            piece = prefix[start : min(start + CHUNK, len(prefix))]
            ids_1T = torch.tensor([piece], device=self.model.device)
            position_1T = torch.arange(start, start + len(piece), device=self.model.device)[None]
            self.model(input_ids=ids_1T, position_ids=position_1T, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.ids = prefix
        return len(prefix) - keep

    def packed(self, tails: Sequence[TokenIds], wanted: Sequence[int]) -> Iterator[tuple[list[int], list[int], Tensor]]:
        """Read `tails` behind the prefix, a pack at a time: (which tails, where each starts in the cache, logits [W, V]).

        W counts the logits that are wanted: after the last `wanted[i]` tokens of each tail of the pack, in order. While the caller looks
        at a pack, the cache holds the prefix and the pack; then the pack is cut off again.
        """
        for pack in _packs(tails):
            starts, logits_WV = self._read_pack([tails[i] for i in pack], [wanted[i] for i in pack])
            yield pack, starts, logits_WV
            self._cut(len(self.ids))

    def worthwhile(self, prompts: Sequence[TokenIds]) -> list[tuple[int, list[int]]]:
        """The prefixes to read once, with the rows behind each; none where that saves less than half of all tokens."""
        groups = self.groups(prompts)
        held, to_read = self.ids, 0
        for depth, rows in groups:
            prefix = prompts[rows[0]][:depth]
            to_read += depth - common_length(held, prefix) + sum(len(prompts[i]) - depth for i in rows)
            held = prefix
        return groups if 2 * to_read <= sum(map(len, prompts)) else []

    def groups(self, prompts: Sequence[TokenIds]) -> list[tuple[int, list[int]]]:
        """`shared_prefixes` of the prompts and of what is held from the last call; each row keeps a token of its own to read.

        A row that has more than a `CHUNK` to itself is a prefix too, as only prefixes are read piece by piece.
        """
        found = []
        for depth, rows in shared_prefixes([*(prompt[:-1] for prompt in prompts), self.ids]):
            rows = [i for i in rows if i < len(prompts)]
            short = [i for i in rows if len(prompts[i]) - depth <= CHUNK]
            found += [(depth, short)] if short else []
            found += [(len(prompts[i]) - 1, [i]) for i in rows if len(prompts[i]) - depth > CHUNK]
        return found

    def next_token(
        self, prompts: Sequence[TokenIds], groups: Sequence[tuple[int, list[int]]], longest: int
    ) -> tuple[Tensor, Cache, list[int]]:
        """Next-token logits [U, V], a cache of `longest` slots per row, padded on the left (0: none is made), and tokens not read [U]."""
        order: list[int] = []
        logits: list[Tensor] = []
        pieces: list[list[tuple[Tensor, Tensor]]] = []  # of each pack, the keys and values of each layer
        cached = [0] * len(prompts)
        for depth, rows in groups:
            read = self.read(prompts[rows[0]][:depth])
            for i in rows:
                cached[i] = depth - (read if i == rows[0] else 0)
            for pack, starts, logits_RV in self.packed([prompts[i][depth:] for i in rows], [1] * len(rows)):
                here = [rows[j] for j in pack]
                order += here
                logits.append(logits_RV)
                if longest:
                    slot_RL = torch.tensor([_slots(len(prompts[i]), depth, start, longest) for i, start in zip(here, starts)])
                    pieces.append([_gathered(layer, slot_RL.to(self.model.device)) for layer in self.cache.layers])
        back_U = torch.tensor(order, device=self.model.device).argsort()
        cache = DynamicCache()
        for number, layer in enumerate(zip(*pieces)):
            keys, values = (torch.cat(side)[back_U] for side in zip(*layer))
            cache.update(keys, values, number)
        return torch.cat(logits)[back_U], cache, cached

    def score(self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> tuple[list[tuple[float, ...]], int]:
        """log p of each token of each continuation at temperature 1, and how many prompt tokens were not read again."""
        num_cached = 0
        scored = [i for i, continuation in enumerate(continuations) if continuation]
        found: list[tuple[float, ...]] = [()] * len(prompts)
        for depth, places in self.groups([prompts[i] for i in scored]):
            rows = [scored[place] for place in places]
            read = self.read(prompts[rows[0]][:depth])
            num_cached += depth * len(rows) - read
            tails = [(*prompts[i][depth:], *continuations[i][:-1]) for i in rows]
            for pack, _, logits_WV in self.packed(tails, [len(continuations[i]) for i in rows]):
                targets = [continuations[rows[j]] for j in pack]
                target_W = torch.tensor([token for target in targets for token in target], device=self.model.device)
                logits_WV = logits_WV.float()
                logp = (logits_WV.gather(-1, target_W[:, None])[:, 0] - logits_WV.logsumexp(-1)).tolist()
                for j, target in zip(pack, targets):
                    found[rows[j]], logp = tuple(logp[: len(target)]), logp[len(target) :]
        return found, num_cached

    def _read_pack(self, tails: Sequence[TokenIds], wanted: Sequence[int]) -> tuple[list[int], Tensor]:
        device, held = self.model.device, len(self.ids)
        lengths = torch.tensor([len(tail) for tail in tails], device=device)
        row_T = torch.repeat_interleave(torch.arange(len(tails), device=device), lengths)
        end_T = lengths.cumsum(0)[row_T]
        place_T = torch.arange(len(row_T), device=device)
        position_T = held + place_T - (end_T - lengths[row_T])
        keep_W = place_T[end_T - place_T <= torch.tensor(wanted, device=device)[row_T]]
        out = self.model(
            input_ids=torch.tensor([[i for tail in tails for i in tail]], device=device),
            attention_mask=self._mask(row_T, position_T),
            position_ids=position_T[None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep_W,
        )
        return (held + lengths.cumsum(0) - lengths).tolist(), out.logits[0]

    def _mask(self, row_T: Tensor, position_T: Tensor) -> Tensor | dict[str, Tensor]:
        """What each token may see, added to its attention scores: the prefix, and what stands before it in its own row."""
        held = len(self.ids)
        seen_position = torch.cat([torch.arange(held, device=row_T.device), position_T])
        own = row_T[:, None] == row_T[None]
        seen_TS = torch.cat([own.new_ones(len(row_T), held), own], 1) & (position_T[:, None] >= seen_position)
        return attention_mask(self.model, seen_TS[None], position_T[None], seen_position[None])

    def _cut(self, keep: int) -> None:
        extra = self.cache.get_seq_length() - keep
        if extra > 0:
            self.cache.crop(-extra)
        self.ids = self.ids[:keep]


def _packs(tails: Sequence[TokenIds]) -> Iterator[list[int]]:
    """Tails side by side, in order, at most `PACK` tokens together."""
    pack: list[int] = []
    size = 0
    for i, tail in enumerate(tails):
        if pack and size + len(tail) > PACK:
            yield pack
            pack, size = [], 0
        pack.append(i)
        size += len(tail)
    if pack:
        yield pack


def _slots(length: int, depth: int, start: int, longest: int) -> list[int]:
    """Which slots of a packed cache a row of `length` tokens is made of; what pads it on the left is masked, so any slot will do."""
    return [0] * (longest - length) + [*range(depth), *range(start, start + length - depth)]


def _gathered(layer: Any, slot_RL: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [R, H, L, D] of rows that are packed in one sequence."""
    keys, values = (side[0][:, slot_RL].transpose(0, 1) for side in (layer.keys, layer.values))
    return keys, values
