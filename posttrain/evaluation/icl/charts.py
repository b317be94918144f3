"""Curves over the number of shots: plots for the page, and one picture. The mean with its interval as a band, each seed a dot.

Shots stand on a log axis, with 0 a step before the fewest. Arms have colours, other learners are grey and dashed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posttrain.evaluation.icl.curves import Point
from posttrain.evaluation.section import COLOURS as NAMED
from posttrain.evaluation.section import Plot, Series
from posttrain.evaluation.stats import Estimate

COLOURS = ("#0b62c4", "#b45309", "#137a4c", "#a8327e", "#0e7490", "#8c564b", "#1b1b1a")
SOFT, RULE = "#5c6370", "#e4e5e8"
DASHES = ("6 4", "2 3", "9 3 2 3", "1 5")
Measure = Literal["score", "nll"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One arm's curve of one measure: (shots, estimate, the seeds' means)."""

    name: str
    number: int
    """Among the arms of its kind, which gives its colour."""
    baseline: bool
    points: tuple[tuple[int, Estimate, tuple[float, ...]], ...]


def lines_of(points: Sequence[Point], measure: Measure) -> list[Line]:
    """Curves that have the measure, in the order of their arms; an arm keeps its colour over measures."""
    arms = list(dict.fromkeys((point.arm, point.baseline) for point in points))
    own, others = [arm for arm, baseline in arms if not baseline], [arm for arm, baseline in arms if baseline]
    found = []
    for arm, baseline in arms:
        of = [(p.shots, getattr(p, measure), p.seeds if measure == "score" else p.nll_seeds) for p in points if p.arm == arm]
        known = tuple((shots, estimate, tuple(seeds.values())) for shots, estimate, seeds in of if estimate is not None)
        number = (others if baseline else own).index(arm)
        found += [Line(name=arm, number=number, baseline=baseline, points=known)] if known else []
    return found


def plot(points: Sequence[Point], measure: Measure, title: str) -> Plot:
    """One measure over the shots, for the page."""
    lines, counts = lines_of(points, measure), shot_counts(points)
    at = {count: place(count, counts) for count in counts}
    series = [each for curve in lines for each in _series(curve, counts)]
    unit: Literal["percent", "number"] = "percent" if measure == "score" else "number"
    ticks = tuple((at[count], f"{count:,}") for count in counts)
    bounds = _range(lines, measure)
    return Plot(
        title=title, x=tuple(at.values()), x_name="shots", series=tuple(series), unit=unit, bounds=bounds, ticks=ticks, group="shots"
    )


def _series(curve: Line, counts: Sequence[int]) -> list[Series]:
    """The mean in its band; behind it every seed's own mean, as dots."""
    known = {shots: estimate for shots, estimate, _ in curve.points}
    value, low, high = (
        tuple(_finite(getattr(known[c], part)) if c in known else None for c in counts) for part in ("value", "low", "high")
    )
    if curve.baseline:
        return [Series(name=curve.name, colour="soft", y=value, mark="dashed")]
    colour = f"a{curve.number % NAMED}"
    seeds = {shots: each for shots, _, each in curve.points if len(each) > 1}
    most = max(map(len, seeds.values()), default=0)
    dots = [tuple(seeds[c][i] if c in seeds and i < len(seeds[c]) else None for c in counts) for i in range(most)]
    return [
        *(Series(name="", colour=colour, y=each, mark="dots") for each in dots),
        Series(name=curve.name, colour=colour, y=value, low=low, high=high, mark="joined dots"),
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def capitalised(text: str) -> str:
    """With a capital in front, the rest as it is: names of metrics have capitals of their own."""
    return text[:1].upper() + text[1:]


def shot_counts(points: Sequence[Point]) -> list[int]:
    return sorted({point.shots for point in points})


def place(shots: float, counts: Sequence[int]) -> float:
    """Where a number of shots stands: its logarithm, and 0 a step before the fewest."""
    if shots > 0:
        return math.log2(shots)
    positive = [math.log2(count) for count in counts if count]
    step = (positive[-1] - positive[0]) / (len(positive) - 1) if len(positive) > 1 else 1.0
    return (positive[0] if positive else 0.0) - max(0.6, step)


def _range(lines: Sequence[Line], measure: Measure) -> tuple[float, float]:
    """The ends of the y axis: what is drawn, with a little room, and no share outside 0 to 1."""
    values = [v for curve in lines for _, estimate, seeds in curve.points for v in (estimate.value, estimate.low, estimate.high, *seeds)]
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.05
    within = measure == "score" and low >= 0 and high <= 1
    return (max(0.0, low - room), min(1.0, high + room)) if within else (low - room, high + room)


def draw(path: Path, points: Sequence[Point], metric: str) -> None:
    """The same panels as one PNG, named at the curves' ends."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measures: list[Measure] = [m for m in ("score", "nll") if lines_of(points, m)]
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titleweight": "bold"}
    with pyplot.rc_context(style):
        figure, grid = pyplot.subplots(1, len(measures), figsize=(4.4 * len(measures), 3.5), squeeze=False, layout="constrained")
        for axis, measure in zip(grid[0], measures):
            _draw_panel(axis, points, measure)
            axis.set_title(f"{capitalised(metric)}, %" if measure == "score" else "NLL of the reference, nats per token", loc="left")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})
        pyplot.close(figure)


def _draw_panel(axis: Any, points: Sequence[Point], measure: Measure) -> None:
    lines, counts = lines_of(points, measure), shot_counts(points)
    scale = 100 if measure == "score" else 1
    axis.set_axisbelow(True)
    axis.grid(axis="y", color=RULE, lw=0.8)
    for curve in lines:
        xs = [place(shots, counts) for shots, _, _ in curve.points]
        dash = (0, tuple(float(n) / 1.6 for n in DASHES[curve.number % len(DASHES)].split())) if curve.baseline else "-"
        colour = SOFT if curve.baseline else COLOURS[curve.number % len(COLOURS)]
        means = [scale * e.value for _, e, _ in curve.points]
        axis.plot(xs, means, color=colour, ls=dash, lw=1.3 if curve.baseline else 2, label=curve.name)
        if curve.baseline:
            continue
        bounded = [(x, e) for x, (_, e, _) in zip(xs, curve.points) if math.isfinite(e.low) and math.isfinite(e.high)]
        lows, highs = ([scale * getattr(e, end) for _, e in bounded] for end in ("low", "high"))
        axis.fill_between([x for x, _ in bounded], lows, highs, color=colour, alpha=0.13, lw=0)
        axis.plot(xs, means, "o", color=colour, ms=4.5, mec="white", mew=0.8, clip_on=False, zorder=3)
        dots = [(x, scale * v) for x, (_, _, seeds) in zip(xs, curve.points) for v in seeds if len(seeds) > 1]
        if dots:
            axis.plot(*zip(*dots), "o", color=colour, ms=2.6, alpha=0.5, mew=0, clip_on=False)
    low, high = _range(lines, measure)
    axis.set_ylim(scale * low, scale * high)
    axis.set_xticks([place(count, counts) for count in counts], [f"{count:,}" for count in counts], rotation=45 if len(counts) > 11 else 0)
    axis.set_xlabel("shots")
