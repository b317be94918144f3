"""What one arm of an in-context run shows the model: shots drawn by a seed, laid out, as token ids that nest over the number of shots."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from posttrain.prompting.shots import Layout, Shot
from posttrain.run import seed_for
from posttrain.types import FinalAnswer, Problem, TokenIds


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The prompts of one arm, seed and order: `prefix(K)` is shared by all items, and begins every `prefix` of more shots."""

    shots: Sequence[Shot]
    layout: Layout
    encode: Callable[[str], TokenIds]
    bos: TokenIds = ()

    def prefix(self, num: int) -> TokenIds:
        return tuple(i for piece in self._pieces[: num + 1] for i in piece)

    def item(self, problem: Problem) -> TokenIds:
        return self.encode(self._asked(problem.question).rstrip(" "))

    def answer(self, problem: Problem, text: str) -> TokenIds:
        """`text` as it would go on from the item, which ends before the space that is part of a word's token."""
        asked = self._asked(problem.question)
        item, whole = self.encode(asked.rstrip(" ")), self.encode(asked + text)
        return whole[len(item) :] if whole[: len(item)] == item else self.encode(asked[len(asked.rstrip(" ")) :] + text)

    @cached_property
    def _pieces(self) -> list[TokenIds]:
        """The beginning, then each shot."""
        texts = [self._asked(shot.question) + shot.answer + self.layout.divider for shot in self.shots]
        return [(*self.bos, *self.encode(self.layout.preamble)), *map(self.encode, texts)]

    def _asked(self, question: str) -> str:
        return f"{self.layout.question_label}{question}{self.layout.answer_label}"


def drawn(pool: Sequence[Problem], num: int, seed: int, order: int) -> list[Problem]:
    """`num` problems of the pool: the same for every order, and, in order 0, the beginning of any larger draw of the same seed."""
    shuffled = random.Random(seed_for("shots", seed)).sample(list(pool), len(pool))[:num]
    if order:
        random.Random(seed_for("order", seed, num, order)).shuffle(shuffled)
    return shuffled


def shot_of(problem: Problem) -> Shot:
    return Shot(id=problem.id, question=problem.question, answer=reference_answer(problem), source="human", subject=problem.subject)


def reference_answer(problem: Problem) -> str:
    """The answer as a person wrote it, or the bare reference where the data set has no more."""
    if problem.solution:
        return problem.solution
    return problem.reference.text if isinstance(problem.reference, FinalAnswer) else problem.reference.code


def before_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first of these."""
    ends = [place for each in stop if (place := text.find(each)) >= 0]
    return text[: min(ends, default=len(text))]
