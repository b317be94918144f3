"""An engine whose answers are written by the test: for everything around a model, with no model."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from posttrain.types import Completion, Sampling, TokenIds

if TYPE_CHECKING:
    from torch import Tensor


class ScriptedEngine:
    """Answers prompt and seed with `answers(prompt, seed)`, each token with log-probability 0; what exceeds `max_tokens` is cut."""

    def __init__(self, answers: Callable[[TokenIds, int], TokenIds], max_length: int = 1 << 30) -> None:
        self.answers, self.max_length = answers, max_length

    def generate(self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        rows = [tuple(self.answers(prompt, seed)) for prompt, seed in zip(prompts, seeds, strict=True)]
        kept = [ids[: sampling.max_tokens] for ids in rows]
        return [
            Completion(ids=cut, logprobs=(0.0,) * len(cut), finish="length" if len(cut) < len(ids) else "stop")
            for ids, cut in zip(rows, kept)
        ]

    def load_weights(self, weights: "Iterable[tuple[str, Tensor]]") -> None:
        """Reads the weights, as a real engine does, and keeps none."""
        for _ in weights:
            pass

    def close(self) -> None:
        """Nothing to release."""
