"""The figures of an in-context run: points of curves with intervals, paired differences between points, and what order does.

An item that is asked under several seeds and orders is one cluster: intervals count items (`evaluation/stats.py`), and say how sure a
figure is of these shots on other items. How much the draw of shots matters is what the seeds' own means show, beside the interval.
"""

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.evaluation.icl.log import Cost, Row
from posttrain.evaluation.stats import Estimate, clustered_mean, clustered_proportion, paired_difference


@dataclass(frozen=True, kw_only=True)
class Cents:
    """What an item cost, on average."""

    seconds: float
    prompt_tokens: float
    read_tokens: float
    """Of the prompt's: not served from a cache."""
    answer_tokens: float
    score_s: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One arm at one number of shots, over all seeds and orders. Without a graded row `score` is None: all prompts were too long."""

    arm: str
    shots: int
    baseline: bool
    items: int
    score: Estimate | None
    seeds: dict[int, float]
    """Each seed's mean, the first order."""
    nll: Estimate | None
    """Of the reference answer, nats per token."""
    nll_seeds: dict[int, float]
    graded: int
    too_long: int
    unscored: int
    clipped: float
    """Share of answers cut at max_tokens."""
    cost: Cents | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One arm at `more` shots minus at `fewer`, over the items that both have, paired."""

    arm: str
    fewer: int
    more: int
    items: int
    score: Estimate
    nll: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What the order of the very same shots does: the means of the orders, over one subject or all."""

    arm: str
    shots: int
    subject: str
    items: int
    lowest: float
    mean: float
    highest: float
    deviation: float
    """Standard deviation between orders, the mean over seeds."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    points: list[Point]
    differences: list[Difference]
    spreads: list[Spread]

    def as_record(self) -> dict[str, Any]:
        return {key: [_finite(dataclasses.asdict(each)) for each in getattr(self, key)] for key in ("points", "differences", "spreads")}


def curves_of(rows: Sequence[Row], costs: Sequence[Cost]) -> Curves:
    """All figures of a log."""
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.arm, row.shots].append(row)
    spent: dict[tuple[str, int], list[Cost]] = defaultdict(list)
    for cost in costs:
        spent[cost.arm, cost.shots].append(cost)
    arms = list(dict.fromkeys(row.arm for row in rows))
    keys = sorted(groups, key=lambda key: (arms.index(key[0]), key[1]))
    points = [_point(groups[key], spent[key]) for key in keys]
    differences = []
    for arm in arms:
        counts = [shots for name, shots in keys if name == arm]
        pairs = [(a, b) for i, a in enumerate(counts) for b in counts[i + 1 :]]
        differences += [found for a, b in pairs if (found := _difference(groups[arm, a], groups[arm, b]))]
    return Curves(points=points, differences=differences, spreads=[s for key in keys for s in _spreads(groups[key])])


def _point(rows: Sequence[Row], costs: Sequence[Cost]) -> Point:
    first = [row for row in rows if row.order == 0]
    asked = [row for row in rows if not row.too_long]
    return Point(
        arm=rows[0].arm,
        shots=rows[0].shots,
        baseline=rows[0].baseline,
        items=len({row.item for row in rows}),
        score=mean_score(rows),
        seeds=_by_seed(first, lambda row: row.score, lambda row: 1),
        nll=_ratio(rows, lambda row: row.nll, lambda row: row.nll_tokens),
        nll_seeds=_by_seed(first, lambda row: row.nll, lambda row: row.nll_tokens),
        graded=sum(row.score is not None for row in rows),
        too_long=sum(row.too_long for row in rows),
        unscored=sum(row.score is None for row in asked),
        clipped=sum(row.finish == "length" for row in asked) / max(1, len(asked)),
        cost=_cents(rows, costs),
    )


def mean_score(rows: Iterable[Row]) -> Estimate | None:
    """The mean of the graded rows, with an interval that counts items: Wilson's where each is right or wrong."""
    graded = [row for row in rows if row.score is not None]
    if not graded:
        return None
    totals, sizes = _clusters(graded, lambda row: row.score, lambda row: 1)
    whole = all(row.score in (0.0, 1.0) for row in graded)
    return (clustered_proportion if whole else clustered_mean)(totals, sizes)


def _ratio(rows: Sequence[Row], value: Callable[[Row], float | None], size: Callable[[Row], int]) -> Estimate | None:
    known = [row for row in rows if value(row) is not None and size(row)]
    return clustered_mean(*_clusters(known, value, size)) if known else None


def _clusters(rows: Iterable[Row], value: Callable[[Row], Any], size: Callable[[Row], int]) -> tuple[list[float], list[int]]:
    totals: dict[str, float] = defaultdict(float)
    sizes: dict[str, int] = defaultdict(int)
    for row in rows:
        totals[row.item] += value(row)
        sizes[row.item] += size(row)
    return list(totals.values()), list(sizes.values())


def _by_seed(rows: Sequence[Row], value: Callable[[Row], Any], size: Callable[[Row], int]) -> dict[int, float]:
    known = [row for row in rows if value(row) is not None and size(row)]
    return {
        seed: math.fsum(value(row) for row in known if row.seed == seed) / sum(size(row) for row in known if row.seed == seed)
        for seed in dict.fromkeys(row.seed for row in known)
    }


def _difference(fewer: Sequence[Row], more: Sequence[Row]) -> Difference | None:
    """Rows are paired by seed, order 0 and item, and clustered by item."""
    before = {(row.seed, row.item): row for row in fewer if row.order == 0}
    pairs = [(before[row.seed, row.item], row) for row in more if row.order == 0 and (row.seed, row.item) in before]
    graded = [(a, b) for a, b in pairs if a.score is not None and b.score is not None]
    if not graded:
        return None
    changes: dict[str, list[float]] = defaultdict(list)
    for a, b in graded:
        changes[b.item].append(b.score - a.score)  # type: ignore[operator]
    totals, sizes = [math.fsum(each) for each in changes.values()], [len(each) for each in changes.values()]
    whole = all(change in (-1.0, 0.0, 1.0) for each in changes.values() for change in each)
    squares = [math.fsum(change * change for change in each) for each in changes.values()]
    score = paired_difference(totals, squares, sizes) if whole else clustered_mean(totals, sizes)
    told = [(a, b) for a, b in pairs if a.nll is not None and b.nll is not None and b.nll_tokens]
    nll = None
    if told:
        nll = _ratio([dataclasses.replace(b, nll=b.nll - a.nll) for a, b in told], lambda row: row.nll, lambda row: row.nll_tokens)  # type: ignore[operator]
    last = more[0]
    return Difference(arm=last.arm, fewer=fewer[0].shots, more=last.shots, items=len(changes), score=score, nll=nll)


def _spreads(rows: Sequence[Row]) -> list[Spread]:
    """Over all subjects ("") and for each; none where there is one order only."""
    if len({row.order for row in rows}) < 2:
        return []
    subjects = sorted({row.subject for row in rows if row.subject})
    found = []
    for subject in ["", *(subjects if len(subjects) > 1 else [])]:
        of = [row for row in rows if row.score is not None and subject in ("", row.subject)]
        means = {
            seed: [statistics.fmean(r.score for r in of if (r.seed, r.order) == (seed, order)) for order in orders]  # type: ignore[misc]
            for seed, orders in _orders(of).items()
            if len(orders) > 1
        }
        if not means:
            continue
        every = [mean for each in means.values() for mean in each]
        deviation = statistics.fmean(statistics.stdev(each) for each in means.values())
        ends = {"lowest": min(every), "mean": statistics.fmean(every), "highest": max(every), "deviation": deviation}
        found.append(Spread(arm=rows[0].arm, shots=rows[0].shots, subject=subject, items=len({row.item for row in of}), **ends))
    return found


def _orders(rows: Iterable[Row]) -> dict[int, list[int]]:
    orders: dict[int, dict[int, None]] = defaultdict(dict)
    for row in rows:
        orders[row.seed][row.order] = None
    return {seed: sorted(each) for seed, each in orders.items()}


def _cents(rows: Sequence[Row], costs: Sequence[Cost]) -> Cents | None:
    items = sum(cost.items for cost in costs)
    if not items:
        return None
    shown = sum(cost.answer_tokens + cost.score_tokens for cost in costs)
    cached = sum(cost.answer_cached + cost.score_cached for cost in costs)
    sent = [row for row in rows if not row.too_long]
    return Cents(
        seconds=sum(cost.answer_s + cost.score_s for cost in costs) / items,
        prompt_tokens=statistics.fmean(row.prompt_tokens for row in sent),
        read_tokens=(shown - cached) / items,
        answer_tokens=statistics.fmean(row.answer_tokens for row in sent),
        score_s=sum(cost.score_s for cost in costs) / items,
    )


def _finite(value: Any) -> Any:
    """For JSON, which has no infinity: an interval without an end has null there."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
