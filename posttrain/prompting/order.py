"""In which order shots stand. A policy takes shots and a seed and returns the same shots; any K of them are then the first K.

The order of shots moves the score of single subjects by many points (arXiv 2404.11018, section 4.3), so a figure needs several seeds.
"""

import random
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from posttrain.prompting.shots import PromptError, Shot

Order: TypeAlias = Literal["random", "easy_to_hard", "similarity_path"]


def shuffled(shots: Sequence[Shot], seed: int) -> list[Shot]:
    """A random order; a draw of K shots is its first K, so a larger draw of the same seed holds every smaller one."""
    return random.Random(f"order/{seed}").sample(list(shots), len(shots))


def easy_to_hard(shots: Sequence[Shot], seed: int) -> list[Shot]:
    """Lowest level first, in random order within a level. Raises `PromptError` where the levels are no numbers."""
    without = [shot.id for shot in shots if not shot.level.isdigit()]
    if without:
        raise PromptError(f"order easy_to_hard: {len(without)} of {len(shots)} shots have no level that is a number, e.g. {without[0]!r}")
    return sorted(shuffled(shots, seed), key=lambda shot: int(shot.level))


def similarity_path(shots: Sequence[Shot], seed: int) -> list[Shot]:
    """From a random shot always on to the most similar one not yet visited (cosine of tf-idf), for smooth changes of topic."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    start, *rest = shuffled(shots, seed)
    vectors = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit_transform([shot.question for shot in (start, *rest)])
    path, left = [0], set(range(1, len(shots)))
    while left:
        nearness = (vectors @ vectors[path[-1]].T).toarray().ravel()
        path.append(max(left, key=lambda i: (nearness[i], -i)))
        left.remove(path[-1])
    return [(start, *rest)[i] for i in path]


POLICIES: dict[Order, Callable[[Sequence[Shot], int], list[Shot]]] = {
    "random": shuffled,
    "easy_to_hard": easy_to_hard,
    "similarity_path": similarity_path,
}
