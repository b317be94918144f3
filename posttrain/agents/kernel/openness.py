"""Is a stream novel, and is it learnable, to one observer within a horizon? (arXiv 2406.04268)

With l(t, T) the loss of artifact T for an observer of the first t:

    novel       for all t, T > t  there is  T' > T       with  E l(t, T') > E l(t, T)
    learnable   for all T, t < T  there is  t' in (t, T) with  E l(t', T) < E l(t, T)

Of a stream that ends after N artifacts this asks, at a few t and T (`HISTORIES`, in eighths of N):

    novel       seen from t = 2, 4 and 6, the last third of what follows costs more than the first third, and than the middle one
    learnable   the artifacts after T = 2, 4 and 6 cost less to who knows T than to who knows half as many, by at least the share `least`;
                or they are known: what is left of their cost is at most the share `known` of what they cost without any history

Both ask for all of several things, so each is claimed only if a one-sided t-test at level alpha proves every one of them (an
intersection-union test: the claim is false with probability alpha at most, without a correction). "Or" is paid for by halving alpha.
The tests count means of blocks of consecutive artifacts, as neighbours may be alike. A stream that is not proven novel may be so all
the same: too short a stream proves nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import ttest_1samp, ttest_ind

from posttrain.agents.kernel.charts import interval, ratio_interval

HISTORIES = (0, 1, 2, 3, 4, 6)
"""What the observers know, in eighths of the horizon."""
LOOKS = (2, 4, 6)
"""From where novelty is looked for."""
LESSONS = ((2, 1, 4), (4, 2, 6), (6, 3, 8))
"""Eighths: T, half of it, and where the artifacts end that are asked about."""
BLOCKS = 12
"""Blocks of a third; those of the shortest third hold one artifact at least."""
SHORTEST = 12 * BLOCKS
"""Artifacts that a judgement needs."""


class Rise(NamedTuple):
    """What an observer fixed at `history` pays for the three thirds of what follows."""

    history: int
    thirds: tuple[float, float, float]
    rise: tuple[float, float, float]
    """The last third less the dearer of the others, with the ends of its 95% interval."""
    p: float


class Fall(NamedTuple):
    """What the artifacts from `history` up to `end` cost by how much is known."""

    history: int
    end: int
    fresh: float
    half: float
    whole: float
    fall: tuple[float, float, float]
    """1 - whole / half, with the ends of its 95% interval."""
    p: float
    known: bool
    """Whether it is as known, not as getting cheaper, that it is proven."""


class Judgement(NamedTuple):
    verdict: str
    p_novel: float
    p_learnable: float
    rises: tuple[Rise, ...]
    falls: tuple[Fall, ...]


def histories(count: int) -> list[int]:
    """How many artifacts each observer knows, of a stream of `count`."""
    return [count * eighths // 8 for eighths in HISTORIES]


def judge(loss: Sequence[Sequence[float]], alpha: float = 0.01, least: float = 0.05, known: float = 0.15) -> Judgement:
    """The verdict on a stream from `loss[i]`, what each artifact after the first `histories(N)[i]` costs, with what it stands on.

    Raises `ValueError` if there are fewer than `SHORTEST` artifacts.
    """
    count = len(loss[0])
    if count < SHORTEST:
        raise ValueError(f"{count} artifacts are too few to judge a stream by; expected {SHORTEST} or more")
    at = {eighths: np.asarray(row, dtype=float) for eighths, row in zip(HISTORIES, loss, strict=True)}
    rises = tuple(_rise(at[eighths], count * eighths // 8) for eighths in LOOKS)
    falls = []
    for whole, half, end in LESSONS:
        first, last = count * whole // 8, count * end // 8
        fresh_T, half_T, whole_T = (at[e][first - count * e // 8 : last - count * e // 8] for e in (0, half, whole))
        falls.append(_fall(first, last, fresh_T, half_T, whole_T, least, known))
    p_novel, p_learnable = max(rise.p for rise in rises), max(fall.p for fall in falls)
    novel, learnable = p_novel <= alpha, p_learnable <= alpha
    verdict = ("open-ended" if learnable else "novel only") if novel else "learnable only" if learnable else "neither"
    return Judgement(verdict, p_novel, p_learnable, rises, tuple(falls))


def _rise(loss_T: np.ndarray, history: int) -> Rise:
    thirds = [means_of(third, BLOCKS) for third in np.array_split(loss_T, 3)]
    dearer = max(thirds[:2], key=np.mean)
    p = max(_p_greater(thirds[2], other) for other in thirds[:2])
    first, middle, last = (float(np.mean(third)) for third in thirds)
    return Rise(history, (first, middle, last), interval((thirds[2] - dearer).tolist()), p)


def _fall(first: int, last: int, fresh_T: np.ndarray, half_T: np.ndarray, whole_T: np.ndarray, least: float, known: float) -> Fall:
    fresh, half, whole = (means_of(loss_T, 2 * BLOCKS) for loss_T in (fresh_T, half_T, whole_T))
    cheaper, learnt = _p_positive((1 - least) * half - whole), _p_positive(known * fresh - whole)
    ratio, low, high = ratio_interval(whole.tolist(), half.tolist()) if half.any() else (1.0, 1.0, 1.0)
    p = min(1.0, 2 * min(cheaper, learnt))
    costs = (float(fresh.mean()), float(half.mean()), float(whole.mean()))
    return Fall(first, last, *costs, (1 - ratio, 1 - high, 1 - low), p, learnt < cheaper)


def means_of(loss_T: np.ndarray, blocks: int) -> np.ndarray:
    """Means of consecutive blocks, as even as can be."""
    return np.array([block.mean() for block in np.array_split(loss_T, blocks)])


def _p_greater(a: np.ndarray, b: np.ndarray) -> float:
    """One-sided p of Welch's test that the mean behind `a` is above that behind `b`; numbers without spread are what they are."""
    if a.std() + b.std() < 1e-12:
        return float(a.mean() <= b.mean() + 1e-12)
    return float(ttest_ind(a, b, equal_var=False, alternative="greater").pvalue)


def _p_positive(d: np.ndarray) -> float:
    if d.std() < 1e-12:
        return float(d.mean() <= 1e-12)
    return float(ttest_1samp(d, 0.0, alternative="greater").pvalue)
