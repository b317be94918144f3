"""Sampling with a transformers model in this process: a batched decode loop of our own around its forward pass.

`generate()` of transformers spends more on its options than a small model does on its arithmetic, has one random state for a whole
batch, and gives logits, not log-probabilities. Here each row draws from uniform numbers of its own, so that a row's tokens do not
depend on its neighbours; equal prompts are read once, and so is what prompts begin with in common (`reader.py`); rows that ended leave
the batch, and where the next call goes on from them, their keys and values are found again (`kept.py`).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from posttrain.sampling.drawing import draw, uniforms
from posttrain.sampling.kept import KeptRows
from posttrain.sampling.reader import PrefixReader, can_share, slides
from posttrain.sampling.weights import checked, checkpoint_names
from posttrain.types import Completion, EngineError, Sampling, TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class HFEngine:
    """Samples from `model`, which may be the very module that is being trained (`shared=True`).

    Sampling runs in eval mode without gradients and leaves every training flag as it was. `eos_ids` all end a row; `pad_id` is only
    ever masked, so it may equal one of them. At most `max_rows` rows, and together `max_cache_tokens` tokens of them, are decoded at a
    time. `tokenizer` is needed for text stops only.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        eos_ids: Sequence[int],
        *,
        pad_id: int | None = None,
        max_rows: int = 256,
        max_cache_tokens: int = 1 << 19,
        shared: bool = False,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
    ) -> None:
        if hasattr(model, "peft_config") and not shared:
            raise EngineError(
                "hf: a model under an adapter cannot take merged weights; give the plain model, or shared=True to sample from it"
            )
        self.model, self.max_rows, self.max_cache_tokens, self.shared = model, max_rows, max_cache_tokens, shared
        self.tokenizer, self.cached_tokens = tokenizer, 0
        self._reader = PrefixReader(model) if can_share(model) else None
        self._kept = KeptRows(0)
        self._keeping: KeptRows | None = None
        self._keeps = self._reader is not None and not slides(model)  # sliding masks count slots, and a row that goes on has gaps
        self._weights_seen = -1
        config = model.config
        self.num_ids: int = config.get_text_config().vocab_size
        self.max_length: int = getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        unknown = [i for i in eos_ids if not 0 <= i < self.num_ids]
        if unknown or not eos_ids:
            raise EngineError(f"hf: eos ids {list(eos_ids)} for a model of {self.num_ids} ids: expected at least one, each below that")
        self.eos_ids = tuple(eos_ids)
        self.pad_id = self.eos_ids[0] if pad_id is None else pad_id

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion per prompt, in order; a row ends at an eos id, after `max_tokens`, or where the model's positions end."""
        self._check(prompts, seeds)
        if sampling.stop and self.tokenizer is None:
            raise EngineError("hf: text stops need the tokenizer that reads the ids; give the engine one")
        results: dict[int, Completion] = {}
        with _eval_mode(self.model), torch.no_grad(), self._held_prefix(sampling.continued):
            for rows in self._batches(prompts, sampling.max_tokens):
                results.update(zip(rows, self._decode([prompts[i] for i in rows], sampling, [seeds[i] for i in rows])))
        completions = [results[i] for i in range(len(prompts))]
        self.cached_tokens = sum(completion.num_cached or 0 for completion in completions)
        return completions

    def score(self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[tuple[float, ...]]:
        """Row i: log p of each token of continuation i after prompt i and the tokens before it, at temperature 1."""
        rows = [(*prompt, *continuation) for prompt, continuation in zip(prompts, continuations, strict=True)]
        self._check(prompts, range(len(rows)))
        self._check_whole(rows)
        self.cached_tokens = 0
        with _eval_mode(self.model), torch.no_grad(), self._held_prefix():
            if self._reader is not None:
                scores, self.cached_tokens = self._reader.score(prompts, continuations)
                return scores
            return [self._score_alone(row, len(continuation)) for row, continuation in zip(rows, continuations)]

    def probe_logprobs(self, ids: TokenIds) -> list[float]:
        """log p(ids[i] | ids[:i]) at temperature 1 for i >= 1: what a pusher of weights compares with its own forward pass."""
        self._check([ids], [0])
        with _eval_mode(self.model), torch.no_grad():
            ids_1T = torch.tensor([ids], device=self._device)
            logits_TV = self.model(input_ids=ids_1T, use_cache=False).logits[0, :-1].float()
            return logits_TV.log_softmax(-1).gather(-1, ids_1T[0, 1:, None])[:, 0].tolist()

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy tensors in by name; does nothing, and reads nothing, if the module is shared: it has the policy's weights already.

        Raises `EngineError` if a name is unknown, missing or of another shape; the weights are then partly replaced.
        """
        if self.shared:
            return
        targets = checkpoint_names(self.model)
        with torch.no_grad():
            for name, tensor in checked(weights, targets, "hf"):
                targets[name].copy_(tensor)
        self.close()

    def close(self) -> None:
        """Let go of what was read; the module belongs to whoever made it."""
        self._kept.forget()
        if self._reader is not None:
            self._reader.forget()

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _check(self, prompts: Sequence[TokenIds], seeds: Sequence[int]) -> None:
        if len(prompts) != len(seeds):
            raise EngineError(f"hf: {len(prompts)} prompts but {len(seeds)} seeds; expected one seed per prompt")
        for i, prompt in enumerate(prompts):
            if not 0 < len(prompt) < self.max_length:
                raise EngineError(f"hf: prompt {i} has {len(prompt)} tokens; the model takes 1 to {self.max_length - 1} and room to answer")
            if max(prompt) >= self.num_ids:
                raise EngineError(f"hf: prompt {i} holds id {max(prompt)}, the model has {self.num_ids}: is this its tokenizer?")

    def _check_whole(self, rows: Sequence[TokenIds]) -> None:
        for i, row in enumerate(rows):
            if len(row) > self.max_length:
                raise EngineError(f"hf: prompt and continuation {i} have {len(row)} tokens together; the model takes {self.max_length}")
            if max(row) >= self.num_ids:
                raise EngineError(f"hf: continuation {i} holds id {max(row)}, the model has {self.num_ids}: is this its tokenizer?")

    @contextmanager
    def _held_prefix(self, continued: bool = False) -> Iterator[None]:
        """The prefix read last stays for the next call, unless the weights are another's, who may change them in between.

        Rows stay where the caller says that the next call goes on from them, and are found again if no weight was changed in place.
        """
        weights = sum(parameter._version for parameter in self.model.parameters())
        if weights != self._weights_seen:
            self.close()
        self._weights_seen = weights
        self._keeping = KeptRows(self.max_cache_tokens) if continued and self._keeps else None
        try:
            yield
        except BaseException:
            self.close()
            raise
        self._kept = self._keeping or KeptRows(0)
        if self.shared and self._reader is not None:
            self._reader.forget()

    def _batches(self, prompts: Sequence[TokenIds], max_tokens: int) -> Iterator[list[int]]:
        """Rows decoded together: of like length, so that there is little padding, equal prompts side by side, kept rows apart."""
        batch: list[int] = []
        found = [bool(self._kept.longest(prompt)) for prompt in prompts]
        for i in sorted(range(len(prompts)), key=lambda i: (found[i], len(prompts[i]), prompts[i])):
            full = len(batch) == self.max_rows or (len(batch) + 1) * (len(prompts[i]) + max_tokens) > self.max_cache_tokens
            if batch and (full or found[i] != found[batch[0]]):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _decode(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        limits = [min(sampling.max_tokens, self.max_length - len(prompt)) for prompt in prompts]
        steps, device = max(limits), self._device
        uniform_BT = torch.from_numpy(uniforms(seeds, steps)).to(device) if sampling.temperature else None
        ids_BT = torch.zeros(len(prompts), steps, dtype=torch.long, device=device)
        logp_BT = torch.zeros(len(prompts), steps, dtype=torch.float32, device=device)
        eos = torch.tensor(self.eos_ids, device=device)

        logits_BV, cache, mask_BL, position_B, num_cached = self._prefill(prompts, steps)
        padded = not bool(mask_BL.all())
        context = mask_BL.shape[1] - steps
        row_B = torch.arange(len(prompts), device=device)  # which row each line of the batch is, as rows that ended leave it
        ended_B = torch.zeros_like(row_B, dtype=torch.bool)
        ends = [steps + 1] * len(prompts)  # how many tokens each row has, its last one included

        def made(lines_B: Tensor) -> dict[int, TokenIds]:
            """The rows in some lines of the batch, all tokens but the last, which was drawn and never read."""
            rows = {line: int(row_B[line]) for line in lines_B.nonzero()[:, 0].tolist()}
            return {line: (*prompts[row], *ids_BT[row, : min(ends[row], limits[row]) - 1].tolist()) for line, row in rows.items()}

        for t in range(steps):
            token_B, drawn_logp_B = draw(logits_BV, sampling.temperature, None if uniform_BT is None else uniform_BT[row_B, t])
            ids_BT[row_B, t], logp_BT[row_B, t] = token_B, drawn_logp_B
            new_B = torch.isin(token_B, eos)
            if sampling.stop:
                new_B = new_B | self._stopped(ids_BT[row_B, : t + 1], sampling.stop)
            for row in row_B[new_B & ~ended_B].tolist():
                ends[row] = t + 1
            ended_B = ended_B | new_B
            num_ended = int(ended_B.sum())
            if num_ended == len(row_B) or t + 1 == steps:
                break
            if num_ended * 8 >= len(row_B):  # dropping rows copies the cache, as the next step does anyway
                if self._keeping is not None:
                    self._keeping.keep(cache, mask_BL, made(ended_B))
                keep = (~ended_B).nonzero()[:, 0]
                cache.batch_select_indices(keep)
                row_B, mask_BL, position_B, token_B, ended_B = (x[keep] for x in (row_B, mask_BL, position_B, token_B, ended_B))
            logits_BV = self._forward(token_B[:, None], mask_BL[:, : context + t + 1] if padded else None, position_B[:, None], cache)
            position_B = (position_B + 1).clamp(max=self.max_length - 1)  # a row that is full may still be in the batch
        if self._keeping is not None:
            self._keeping.keep(cache, mask_BL, made(torch.ones_like(ended_B)))
        return [
            Completion(
                ids=tuple(ids[: min(end, limit)]),
                logprobs=tuple(logp[: min(end, limit)]),
                finish="stop" if end <= limit else "length",
                num_cached=cached,
            )
            for ids, logp, end, limit, cached in zip(ids_BT.tolist(), logp_BT.tolist(), ends, limits, num_cached)
        ]

    def _stopped(self, ids_BT: Tensor, stop: Sequence[str]) -> Tensor:
        """Which rows' texts hold a stop at their end, [B]; one of n bytes spans at most n tokens, and a few more keep letters whole."""
        assert self.tokenizer is not None
        window = max(len(text.encode()) for text in stop) + 4
        texts = self.tokenizer.batch_decode(ids_BT[:, -window:].tolist(), skip_special_tokens=True)
        return torch.tensor([any(text in tail for text in stop) for tail in texts], device=ids_BT.device)

    def _prefill(self, prompts: Sequence[TokenIds], steps: int) -> tuple[Tensor, Cache, Tensor, Tensor, list[int]]:
        """Next-token logits [B, V], the cache, the mask [B, prompt + steps], the next position [B] and how many tokens were not read."""
        distinct = {prompt: u for u, prompt in enumerate(dict.fromkeys(prompts))}
        begun = [self._kept.longest(prompt) for prompt in distinct]
        read = self._go_on(list(distinct), begun, steps) if all(begun) else self._read(list(distinct), steps)
        logits_UV, cache, mask_UL, length_U, cached_U = read
        if len(distinct) == len(prompts):
            return read
        of = [distinct[prompt] for prompt in prompts]
        of_B = torch.tensor(of, device=self._device)
        if cache.get_seq_length():
            cache.batch_select_indices(of_B)
        first = {u: row for row, u in reversed(list(enumerate(of)))}
        num_cached = [cached_U[u] if first[u] == row else len(prompts[row]) for row, u in enumerate(of)]
        return logits_UV[of_B], cache, mask_UL[of_B], length_U[of_B], num_cached

    def _read(self, prompts: Sequence[TokenIds], steps: int) -> tuple[Tensor, Cache, Tensor, Tensor, list[int]]:
        lengths, longest = [len(prompt) for prompt in prompts], max(map(len, prompts))
        ids_UL, length_U, slot_L = self._padded(prompts), torch.tensor(lengths, device=self._device), self._slots(longest + steps)
        mask_UL = (slot_L >= longest - length_U[:, None]).long()  # padding is on the left, so that every row's next slot is the same
        groups = self._reader.worthwhile(prompts) if self._reader is not None else []
        if self._reader is not None and groups:
            logits_UV, cache, cached_U = self._reader.next_token(prompts, groups, longest if steps > 1 or self._keeping else 0)
        else:
            cache, cached_U = DynamicCache(config=self.model.config), [0] * len(prompts)
            position_UL = (slot_L[:longest] - (longest - length_U[:, None])).clamp(min=0)
            padded = min(lengths) < longest
            logits_UV = self._forward(ids_UL, mask_UL[:, :longest] if padded else None, position_UL, cache)
        return logits_UV, cache, mask_UL, length_U, cached_U

    def _go_on(self, prompts: Sequence[TokenIds], begun: Sequence[int], steps: int) -> tuple[Tensor, Cache, Tensor, Tensor, list[int]]:
        """`_read` for prompts whose first `begun` tokens are kept rows: those stand right-aligned before the rest, which is read."""
        tails = [prompt[num:] for prompt, num in zip(prompts, begun)]
        kept, rest = max(begun), max(map(len, tails))
        begun_U, length_U = (torch.tensor(lengths, device=self._device) for lengths in (begun, list(map(len, prompts))))
        slot_L = self._slots(kept + rest + steps)
        tail_UL = slot_L >= kept + rest - (length_U - begun_U)[:, None]
        mask_UL = (tail_UL | (slot_L < kept) & (slot_L >= kept - begun_U[:, None])).long()
        position_UT = (slot_L[:rest] - (rest - length_U[:, None])).clamp(min=0)
        cache = self._kept.cache([prompt[:num] for prompt, num in zip(prompts, begun)])
        mask = mask_UL[:, : kept + rest]
        logits_UV = self._forward(self._padded(tails), None if bool(mask.all()) else mask, position_UT, cache)
        return logits_UV, cache, mask_UL, length_U, list(begun)

    def _padded(self, rows: Sequence[TokenIds]) -> Tensor:
        longest = max(map(len, rows))
        return torch.tensor([(*[self.pad_id] * (longest - len(row)), *row) for row in rows], device=self._device)

    def _slots(self, num: int) -> Tensor:
        return torch.arange(num, device=self._device)

    def _forward(self, ids_BL: Tensor, mask_BL: Tensor | None, position_BL: Tensor, cache: Cache) -> Tensor:
        """Logits after the last of `ids_BL`, [B, V]; the cache grows by them."""
        out = self.model(
            input_ids=ids_BL, attention_mask=mask_BL, position_ids=position_BL, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return out.logits[:, -1]

    def _score_alone(self, row: TokenIds, num: int) -> tuple[float, ...]:
        ids_1T = torch.tensor([row], device=self._device)
        logits_TV = self.model(input_ids=ids_1T, use_cache=False, logits_to_keep=num + 1).logits[0, :-1].float()
        return tuple(logits_TV.log_softmax(-1).gather(-1, ids_1T[0, len(row) - num :, None])[:, 0].tolist())


@contextmanager
def _eval_mode(model: "PreTrainedModel") -> Iterator[None]:
    """Eval mode inside (no dropout, no gradient checkpointing, which would switch the cache off); afterwards each flag as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
