"""Episodes as tensors: one row per episode, all attempts in it, so one forward pass serves every attempt.

Attempt 2's prompt extends attempt 1's tokens (`prompting/chat.py` sees to it), so the last turn's prompt and completion hold the whole
episode. Which token belongs to which attempt is a map of its own, never guessed from token values: padding may equal the end id.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posttrain.rl.packing import Packed, fill, in_order, num_tokens, packed
from posttrain.types import Episode, TokenIds


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """`ids` [B, T] right-padded; `turn` [B, T]: k for a token sampled in attempt k (from 1), 0 for everything else: prompts, instructions,
    given attempts, padding; `length` [B]; `sampler_logp` [B, T]: log-probability under the distribution it was drawn from, 0 where turn is.
    `packed` is how a model reads the rows where not one by one.
    """

    ids: Tensor
    turn: Tensor
    length: Tensor
    sampler_logp: Tensor
    num_attempts: int
    packed: Packed | None = None

    def tokens(self) -> list[TokenIds]:
        """The rows without their padding."""
        return [tuple(row[:length]) for row, length in zip(self.ids.tolist(), self.length.tolist())]

    def rows(self, index: Tensor) -> "Batch":
        """Some rows, cut to the longest of them."""
        longest = int(self.length[index].max())
        cut = [tensor[index, :longest] for tensor in (self.ids, self.turn, self.sampler_logp)]
        return Batch(ids=cut[0], turn=cut[1], length=self.length[index], sampler_logp=cut[2], num_attempts=self.num_attempts)

    def split(self, micro_tokens: int) -> Iterator[tuple[Tensor, "Batch"]]:
        """(row indices, rows) of at most `micro_tokens` tokens, padding included, or of one row; similar lengths together."""
        index: list[int] = []
        for i in torch.argsort(self.length, stable=True).tolist():
            if index and (len(index) + 1) * int(self.length[i]) > micro_tokens:
                yield torch.tensor(index), self.rows(torch.tensor(index))
                index = []
            index.append(i)
        yield torch.tensor(index), self.rows(torch.tensor(index))

    def split_packed(self, micro_tokens: int, width: int, shares: bool = True) -> Iterator[tuple[Tensor, "Batch"]]:
        """The same in sequences of at most `width` tokens, or of one row, with no padding within; what rows begin with in common is read
        once, unless `shares` is False: then they only stand one after the other.
        """
        rows = self.tokens()
        ordered = in_order(rows) if shares else [(row, 0) for row in range(len(rows))]
        sequences = sorted(fill(rows, ordered, width), key=lambda sequence: num_tokens(rows, sequence))
        num = max(1, micro_tokens // width)
        for some in (sequences[start : start + num] for start in range(0, len(sequences), num)):
            index = [row for sequence in some for row, _ in sequence]
            number = {row: i for i, row in enumerate(index)}
            renumbered = [[(number[row], shared) for row, shared in sequence] for sequence in some]
            read = packed([rows[row] for row in index], renumbered, pad_id=rows[0][0], shares=shares)
            yield torch.tensor(index), replace(self.rows(torch.tensor(index)), packed=read)

    def per_attempt(self, value_BT: Tensor) -> Tensor:
        """Sum of a per-token value over each attempt's tokens: [B, T] -> [B, K]."""
        return torch.stack([(value_BT * (self.turn == k)).sum(1) for k in range(1, self.num_attempts + 1)], dim=1)

    def spread(self, value_BK: Tensor) -> Tensor:
        """A per-attempt value at each of the attempt's tokens, 0 elsewhere: [B, K] -> [B, T]."""
        padded = torch.cat([torch.zeros_like(value_BK[:, :1]), value_BK], dim=1)
        return padded.gather(1, self.turn)


def collate(episodes: Sequence[Episode], pad_id: int) -> Batch:
    """One row per episode, in order. Raises ValueError where a later prompt does not extend the earlier tokens."""
    rows = [_row(episode) for episode in episodes]
    length = torch.tensor([len(ids) for ids, _, _ in rows])
    shape = (len(rows), int(length.max()))
    ids, turn, logp = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
    for i, (row_ids, row_turn, row_logp) in enumerate(rows):
        ids[i, : len(row_ids)] = torch.tensor(row_ids)
        turn[i, : len(row_ids)] = torch.tensor(row_turn)
        logp[i, : len(row_ids)] = torch.tensor(row_logp)
    return Batch(ids=ids, turn=turn, length=length, sampler_logp=logp, num_attempts=len(episodes[0].turns))


def _row(episode: Episode) -> tuple[list[int], list[int], list[float]]:
    ids: list[int] = []
    turns: list[int] = []
    logps: list[float] = []
    for k, turn in enumerate(episode.turns, start=1):
        if list(turn.prompt_ids[: len(ids)]) != ids:
            raise ValueError(f"{episode.problem.id}: the prompt of attempt {k} does not extend the tokens before it")
        context = turn.prompt_ids[len(ids) :]
        sampled = turn.completion
        if turn.given:
            sampled = replace(sampled, logprobs=(0.0,) * len(sampled.ids))
        if len(sampled.logprobs) != len(sampled.ids):
            raise ValueError(
                f"{episode.problem.id}: attempt {k} has {len(sampled.ids)} tokens but {len(sampled.logprobs)} log-probabilities"
            )
        ids += [*context, *sampled.ids]
        turns += [0] * len(context) + [0 if turn.given else k] * len(sampled.ids)
        logps += [0.0] * len(context) + list(sampled.logprobs)
    return ids, turns, logps
