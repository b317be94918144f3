"""Intervals and tests for measured rates: samples of one problem are not independent, so everything here counts problems, not samples.

`totals[g]` is the sum over the `sizes[g]` samples of problem g. With one sample per problem every function below reduces to the
textbook one that its docstring names. All intervals are two-sided; `level` is their nominal coverage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value and its interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, n: float, level: float = LEVEL) -> Estimate:
    """A proportion with its score interval; never outside [0, 1], and not empty at 0 or n successes.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)  (Wilson 1927, JASA 22). `n` may be an effective sample size.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"need 0 <= successes <= n and n > 0, got {successes} of {n}")
    return score_interval(float(successes / n), n, float(ndtri(0.5 + level / 2)))


def score_interval(p: float, n: float, z: float) -> Estimate:
    """The proportion `p` of `n`, and those from which it is at most `z` standard errors away; z may be a quantile of Student's t."""
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Estimate(p, max(0.0, float(centre - spread) / scale), min(1.0, float(centre + spread) / scale))


def clustered_mean(totals: Sequence[float], sizes: Sequence[int], level: float = LEVEL) -> Estimate:
    """The mean over all samples, with an interval that lets samples of one problem depend on each other in any way.

    mean -+ t_{G-1} sqrt(G/(G-1) sum_g (total_g - size_g mean)^2) / n, the cluster-robust variance CR1 (Liang & Zeger 1986,
    Biometrika 73) of a mean, with Student's t for few problems. One problem alone tells no spread: the interval is infinite. With one
    sample per problem it is mean -+ t s/sqrt(n).
    """
    total, size = _arrays(totals, sizes)
    mean = total.sum() / size.sum()
    if len(total) == 1:
        return Estimate(float(mean), -math.inf, math.inf)
    spread = stdtrit(len(total) - 1, 0.5 + level / 2) * math.sqrt(_cluster_variance(total, size))
    return Estimate(float(mean), float(mean - spread), float(mean + spread))


def clustered_proportion(totals: Sequence[float], sizes: Sequence[int], level: float = LEVEL) -> Estimate:
    """A proportion over all samples: Wilson's interval at the effective sample size n / deff.

    deff = cluster-robust variance / (p(1-p)/(n-1)), at least 1 (Kish 1965; with Wilson: Franco et al. 2019, J. Surv. Stat. Methodol. 7).
    Where p is 0 or 1 the data say nothing about deff, and only problems are counted: n_eff = G.
    """
    total, size = _arrays(totals, sizes)
    n, p = float(size.sum()), float(total.sum() / size.sum())
    if size.max() == 1:
        return wilson(float(total.sum()), n, level)
    if p in (0.0, 1.0) or len(total) == 1:
        effective = float(len(total))
    else:
        deff = max(1.0, _cluster_variance(total, size) * (n - 1) / (p * (1 - p)))
        effective = n / deff
    return wilson(p * effective, effective, level)


def paired_difference(totals: Sequence[float], squares: Sequence[float], sizes: Sequence[int], level: float = LEVEL) -> Estimate:
    """The mean of differences in {-1, 0, 1} between two attempts at the same samples, paired and clustered by problem.

    `squares[g]` counts the samples of problem g that changed. This is `clustered_mean` after adding two made-up problems, one fixed and
    one broken; the value itself is without them. With one sample per problem it is the adjusted Wald interval of Bonett & Price 2012
    (J. Educ. Behav. Stat. 37) with t for z, which keeps its coverage when few problems change: no change at all does not read as
    certainty. With several samples the made-up problems hold deff samples each, so that copies of a sample change nothing.
    """
    total, size = _arrays(totals, sizes)
    n, changed = size.sum(), float(np.sum(squares))
    simple = (changed - total.sum() ** 2 / n) / n / max(1.0, n - 1)
    deff = _cluster_variance(total, size) / simple if simple > 0 and len(total) > 1 else size.mean()
    made_up = min(max(1.0, deff), size.mean())
    padded = clustered_mean([*total, made_up, -made_up], [*size, made_up, made_up], level)
    return Estimate(float(total.sum() / n), max(-1.0, padded.low), min(1.0, padded.high))


def mcnemar(fixed: int, broken: int) -> float:
    """Two-sided exact p-value of `fixed` against `broken` discordant pairs: 2 P[Bin(fixed + broken, 1/2) <= min], at most 1.

    McNemar 1947, Psychometrika 12, in its exact form. The pairs must be independent: one per problem.
    """
    return min(1.0, 2.0 * float(bdtr(min(fixed, broken), fixed + broken, 0.5))) if fixed + broken else 1.0


def sign_flip(differences: Sequence[int]) -> float:
    """Exact two-sided p-value that per-problem differences are symmetric about 0: the share of all sign choices with a sum as far from 0.

    The input is one whole number per problem: the sum over its samples of (second - first). The hypothesis: exchanging the two attempts
    within a problem changes nothing. Fisher's randomisation test (Design of Experiments 1935, sec. 21), counted by convolution, not
    sampled. For differences in {-1, 0, 1}, i.e. one sample per problem, it is `mcnemar`.
    """
    sums = [abs(int(d)) for d in differences if d]
    reach = sum(sums)
    prob = np.zeros(2 * reach + 1)  # prob[s + reach]: the sum so far is s
    prob[reach] = 1.0
    for step in sums:
        shifted = np.zeros_like(prob)
        shifted[step:] += 0.5 * prob[:-step]
        shifted[:-step] += 0.5 * prob[step:]
        prob = shifted
    observed = abs(sum(int(d) for d in differences))
    return min(1.0, 2.0 * float(prob[reach + observed :].sum())) if observed else 1.0


def clustered_bootstrap(totals: Sequence[float], sizes: Sequence[int], *, seed: int, draws: int = 4000, level: float = LEVEL) -> Estimate:
    """The mean over all samples with a percentile interval; each draw takes G problems with replacement, all samples of each.

    Efron & Tibshirani 1993, ch. 13. It assumes nothing of the shape, and is a little narrow for few problems (by sqrt((G-1)/G), and for
    having no Student's t); where all samples are alike it is empty, as every interval is that knows nothing but the sample.
    """
    side = _arrays(totals, sizes)
    found = _resampled((side,), seed, draws)[0]
    low, high = np.quantile(found, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(float(side[0].sum() / side[1].sum()), float(low), float(high))


def paired_bootstrap(
    first: tuple[Sequence[float], Sequence[int]],
    second: tuple[Sequence[float], Sequence[int]],
    *,
    seed: int,
    draws: int = 4000,
    level: float = LEVEL,
) -> Estimate:
    """Mean of `second` minus mean of `first`, each (totals, sizes) over the same problems in the same order, with a percentile interval.

    Each draw takes G problems with replacement and keeps both sides of each (Efron & Tibshirani 1993, ch. 13; as paired bootstrap:
    Koehn 2004). For two models whose samples per problem differ in number.
    """
    left, right = _arrays(*first), _arrays(*second)
    if len(left[0]) != len(right[0]):
        raise ValueError(f"need the same problems on both sides, got {len(left[0])} and {len(right[0])}")
    mean1_D, mean2_D = _resampled((left, right), seed, draws)
    low, high = np.quantile(mean2_D - mean1_D, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(float(right[0].sum() / right[1].sum() - left[0].sum() / left[1].sum()), float(low), float(high))


def detectable_gap(difference: Estimate, power: float = POWER, level: float = LEVEL) -> float:
    """The true gap at which an interval as wide as this difference's excludes 0 with probability `power`: the minimum detectable one.

    (z_{level} + z_{power}) standard errors, as in the power analysis of arXiv 2411.00640, sec. 5; the standard error is taken from the
    interval, so that pairing, clusters and few problems enter as they do there. It depends on how many problems the two models answer
    differently, not on how large the gap came out.
    """
    return (difference.high - difference.low) / 2 * float(1 + ndtri(power) / ndtri(0.5 + level / 2))


def _resampled(sides: Sequence[tuple[np.ndarray, np.ndarray]], seed: int, draws: int) -> list[np.ndarray]:
    """Of each (totals, sizes), the mean of every draw of G problems with replacement; the sides share the draws."""
    rng, num = np.random.default_rng(seed), len(sides[0][0])
    means: list[list[np.ndarray]] = [[] for _ in sides]
    block = max(1, (1 << 20) // num)  # draws made at once: eight megabytes of indices
    for start in range(0, draws, block):
        picked_DG = rng.integers(num, size=(min(block, draws - start), num))
        for found, (total, size) in zip(means, sides):
            found.append(total[picked_DG].sum(1) / size[picked_DG].sum(1))
    return [np.concatenate(found) for found in means]


def _arrays(totals: Sequence[float], sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    total, size = np.asarray(totals, dtype=float), np.asarray(sizes, dtype=float)
    if total.shape != size.shape or total.ndim != 1 or not len(total) or size.min() <= 0:
        raise ValueError(f"need one total and one positive size per problem, got {len(total)} totals and {len(size)} sizes")
    return total, size


def _cluster_variance(total: np.ndarray, size: np.ndarray) -> float:
    """CR1 variance of sum(total) / sum(size); needs two problems."""
    residual = total - size * total.sum() / size.sum()
    return float(len(total) / (len(total) - 1) * (residual**2).sum() / size.sum() ** 2)
