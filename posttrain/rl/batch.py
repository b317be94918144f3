"""Episodes as tensors: one row per episode, all attempts in it, so one forward pass serves every attempt.

Attempt 2's prompt extends attempt 1's tokens (`prompting/chat.py` sees to it), so the last turn's prompt and completion hold the whole
episode. Which token belongs to which attempt is a map of its own, never guessed from token values: padding may equal the end id.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posttrain.types import Episode


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """`ids` [B, T] right-padded; `turn` [B, T]: k for a token sampled in attempt k (from 1), 0 for everything else: prompts, instructions,
    given attempts, padding; `length` [B]; `sampler_logp` [B, T]: log-probability under the distribution it was drawn from, 0 where turn is.
    """

    ids: Tensor
    turn: Tensor
    length: Tensor
    sampler_logp: Tensor
    num_attempts: int

    def rows(self, index: Tensor) -> "Batch":
        """Some rows, cut to the longest of them."""
        longest = int(self.length[index].max())
        cut = [tensor[index, :longest] for tensor in (self.ids, self.turn, self.sampler_logp)]
        return Batch(ids=cut[0], turn=cut[1], length=self.length[index], sampler_logp=cut[2], num_attempts=self.num_attempts)

    def split(self, micro_batch: int) -> Iterator[tuple[Tensor, "Batch"]]:
        """(row indices, rows) of at most `micro_batch` rows each, similar lengths together so that little is padding."""
        for index in torch.argsort(self.length, stable=True).split(micro_batch):
            yield index, self.rows(index)

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
