"""Figures of one method over several training seeds: intervals that hold for other problems *and* for other seeds.

Every seed answers the same problems, so problems and seeds are crossed: y_sg = mean + seed_s + problem_g + rest_sg, all but the mean
random. The variance of the grand mean is

    V = max(V_seeds, V_cells) + max(V_problems - V_cells, 0)

with the variances of a mean over seeds, over problems and over the residual cells: the analysis of variance of two crossed random
factors, as in studies of several readers and several cases (Obuchowski & Rockette 1995, Commun. Stat. Simul. 24). The interval is Student's
t with about the degrees of freedom of Hillis (2007, Stat. Med. 26): few where the seeds differ, so that two or three seeds give the wide
interval that they must. One seed tells nothing about others: its interval is over problems only, as in `metrics.summarise`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.special import stdtr, stdtrit

from posttrain.evaluation import metrics
from posttrain.evaluation.metrics import Summary, acc_at, delta_of, outcome, summarise
from posttrain.evaluation.stats import LEVEL, Estimate, score_interval
from posttrain.types import Episode

Means: TypeAlias = Mapping[str, float]
"""Problem id -> the mean over its samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One seed's evaluation, boiled down to what figures over seeds and between models need."""

    seed: int
    summary: Summary
    means: Mapping[str, Means]
    """Measure (`acc_t1`, `delta`, `fixed`, ...) -> its mean per problem; those that need a verdict lack unscored episodes."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean, the variance of its estimate, and the degrees of freedom of that variance."""

    mean: float
    variance: float
    df: float

    def reach(self, level: float = LEVEL) -> float:
        return float(stdtrit(self.df, 0.5 + level / 2))

    def p_value(self) -> float:
        """Two-sided, of a mean of 0."""
        if self.variance == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stdtr(self.df, -abs(self.mean) / math.sqrt(self.variance)))


def measure(episodes: Sequence[Episode], seed: int) -> Measured:
    """The evaluation of one seed; raises `NothingScored` or `ValueError` as `summarise` does."""
    summary = summarise(episodes)
    scored = [episode for episode in episodes if all(turn.verdict.scored for turn in episode.turns)]
    needing: dict[str, Callable[[Episode], float]] = {f"acc_t{k}": acc_at(k) for k in range(1, len(summary.acc) + 1)}
    needing |= {"delta": delta_of, "fixed": lambda e: outcome(e) == "fixed", "broken": lambda e: outcome(e) == "broken"}
    free: dict[str, Callable[[Episode], float]] = {
        "answer_change": lambda e: e.turns[0].answer != e.turns[1].answer,
        "text_copy": lambda e: e.turns[0].text == e.turns[1].text,
        "edit_ratio": lambda e: metrics.edit_distance_ratio(e.turns[0].text, e.turns[1].text),
    }
    means = {name: _means(scored, how) for name, how in needing.items()} | {name: _means(episodes, how) for name, how in free.items()}
    return Measured(seed=seed, summary=summary, means=means)


def crossed(cells_SG: np.ndarray) -> Spread:
    """Of one measure, [seed, problem]; needs two problems. One seed: the variance over problems alone."""
    return crossed_difference(np.zeros((1, cells_SG.shape[1])), cells_SG)


def crossed_difference(first_SG: np.ndarray, second_SG: np.ndarray) -> Spread:
    """Of `second` minus `first`, the same problems in the same order, seeds *not* paired; a side with one seed is taken as it is.

    For paired seeds give `crossed` the difference of the cells.
    """
    sides = (first_SG, second_SG)
    per_problem = second_SG.mean(0) - first_SG.mean(0)
    num = len(per_problem)
    if num < 2:
        return Spread(float(per_problem.mean()), math.inf, 1.0)
    problems = float(per_problem.var(ddof=1)) / num
    several = [side for side in sides if len(side) > 1]
    rest = [_residual_mean_square(side) / side.size for side in several]
    seeds = [max(float(side.mean(1).var(ddof=1)) / len(side), least) for side, least in zip(several, rest)]
    beyond = max(problems - sum(rest), 0.0)
    variance = sum(seeds) + beyond
    weight = sum(v * v / (len(side) - 1) for v, side in zip(seeds, several)) + beyond * beyond / (num - 1)
    return Spread(float(per_problem.mean()), variance, variance * variance / weight if weight else num - 1.0)


def proportion(cells_SG: np.ndarray, samples: int) -> Estimate:
    """A share with its score interval at the effective sample size p(1-p)/V, at most `samples`; at 0 or 1 only problems are counted."""
    spread = crossed(cells_SG)
    p = min(1.0, max(0.0, spread.mean))
    told = 0 < p < 1 and 0 < spread.variance < math.inf
    effective = min(float(samples), p * (1 - p) / spread.variance) if told else float(cells_SG.shape[1])
    return score_interval(p, effective, spread.reach())


def difference(cells_SG: np.ndarray, other_SG: np.ndarray | None = None, bound: float = 1.0) -> tuple[Estimate, float]:
    """A mean difference in [-bound, bound] with its interval and p-value; with `other_SG`, of two rows whose seeds are not paired.

    The variance is that after adding two made-up problems, one won and one lost in every seed, so that no difference at all does not
    read as certainty (Bonett & Price 2012, as in `stats.paired_difference`); the value is without them.
    """
    made_up = np.array([bound, -bound])
    padded_SG = np.hstack([cells_SG, np.tile(made_up, (len(cells_SG), 1))])
    if other_SG is None:
        mean, spread = float(cells_SG.mean()), crossed(padded_SG)
    else:
        mean = float(cells_SG.mean() - other_SG.mean())
        spread = crossed_difference(np.hstack([other_SG, np.zeros((len(other_SG), 2))]), padded_SG)
    reach = spread.reach() * math.sqrt(spread.variance)
    found = Estimate(mean, max(-bound, mean - reach), min(bound, mean + reach))
    return found, Spread(mean, spread.variance, spread.df).p_value()


def over_seeds(seeds: Sequence[Measured]) -> Summary:
    """One method's figures over all its seeds; with one seed, that seed's own. Problems that any seed lacks a verdict for are left out."""
    summaries = [seed.summary for seed in seeds]
    if len(seeds) == 1:
        return summaries[0]
    episodes, unscored = sum(s.episodes for s in summaries), sum(s.unscored for s in summaries)
    attempts = len(summaries[0].acc)

    def share(name: str) -> Estimate:
        return proportion(cells(seeds, name), episodes - unscored)

    first_SG, fixed_SG, broken_SG = (cells(seeds, name) for name in ("acc_t1", "fixed", "broken"))
    delta, p_value = difference(cells(seeds, "delta"))
    return Summary(
        problems=max(s.problems for s in summaries),
        episodes=episodes,
        unscored=unscored,
        between=summaries[0].between,
        acc=tuple(share(f"acc_t{k}") for k in range(1, attempts + 1)),
        delta=delta,
        fixed=share("fixed"),
        broken=share("broken"),
        fix_rate=_ratio(fixed_SG, 1 - first_SG),
        break_rate=_ratio(broken_SG, first_SG),
        num_fixed=sum(s.num_fixed for s in summaries),
        num_broken=sum(s.num_broken for s in summaries),
        p_value=p_value,
        answer_change=share("answer_change"),
        text_copy=share("text_copy"),
        edit_ratio=share("edit_ratio"),
        clip=tuple(float(np.mean([s.clip[k] for s in summaries])) for k in range(attempts)),
        tokens=tuple(float(np.mean([s.tokens[k] for s in summaries])) for k in range(attempts)),
    )


def cells(seeds: Sequence[Measured], name: str, problems: Sequence[str] | None = None) -> np.ndarray:
    """The measure `name` as [seed, problem], over `problems` or those that every seed has; raises `ValueError` where there are none."""
    chosen = shared(seeds, name) if problems is None else problems
    if not chosen:
        raise ValueError("no problem has a verdict in every seed: nothing to combine")
    return np.array([[seed.means[name][problem] for problem in chosen] for seed in seeds])


def shared(seeds: Sequence[Measured], name: str) -> list[str]:
    """The problems that all these evaluations have a value for, in order."""
    return [problem for problem in seeds[0].means[name] if all(problem in seed.means[name] for seed in seeds)]


def _ratio(part_SG: np.ndarray, whole_SG: np.ndarray) -> Estimate | None:
    """mean(part) / mean(whole), its variance by linearisation; None where the whole is nothing."""
    whole = float(whole_SG.mean())
    if whole <= 0:
        return None
    rate = float(part_SG.mean()) / whole
    spread = crossed((part_SG - rate * whole_SG) / whole)
    told = 0 < rate < 1 and 0 < spread.variance < math.inf
    counted = whole * part_SG.size
    effective = min(counted, rate * (1 - rate) / spread.variance) if told else counted / len(part_SG)
    return score_interval(rate, effective, spread.reach())


def _residual_mean_square(cells_SG: np.ndarray) -> float:
    rest = cells_SG - cells_SG.mean(0) - cells_SG.mean(1, keepdims=True) + cells_SG.mean()
    return float((rest**2).sum()) / ((cells_SG.shape[0] - 1) * (cells_SG.shape[1] - 1))


def _means(episodes: Sequence[Episode], how: Callable[[Episode], float]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for episode in episodes:
        found.setdefault(episode.problem.id, []).append(float(how(episode)))
    return {problem: sum(values) / len(values) for problem, values in found.items()}
