"""The shots most similar to an item, to stand after a block of shots that all items share and the engine has cached (arXiv 2507.16217)."""

import logging
from collections.abc import Sequence

import bm25s

from posttrain.prompting.shots import PromptError, Shot
from posttrain.types import Problem

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets its own logger to DEBUG on import
WORDS = r"(?u)\w+|[^\w\s]"  # BM25's own pattern drops single letters and signs, which is what tells formulas apart


class SimilarShots:
    """BM25 over the questions of shots; the index is made once."""

    def __init__(self, shots: Sequence[Shot]) -> None:
        if not shots:
            raise PromptError("no shots are left to choose similar ones from: all of the pool stands in the cached block")
        self.shots = list(shots)
        self._index = bm25s.BM25()
        self._index.index(_words([shot.question for shot in shots]), show_progress=False)

    def nearest(self, problem: Problem, num: int) -> tuple[Shot, ...]:
        """The `num` most similar shots, the most similar one last, next to the item; ties go to the earlier shot."""
        if num > len(self.shots):
            raise PromptError(f"a tail of {num} shots was asked for, but only {len(self.shots)} stand outside the cached block")
        scores = self._index.get_scores(_words([problem.question])[0])
        best = sorted(range(len(self.shots)), key=lambda i: (-scores[i], i))[:num]
        return tuple(self.shots[i] for i in reversed(best))


def _words(texts: Sequence[str]) -> list[list[str]]:
    return bm25s.tokenize(list(texts), token_pattern=WORDS, stopwords=[], return_ids=False, show_progress=False)
