"""Curves over the number of shots: SVG panels for the page, and one picture. The mean with its interval as a band, each seed a dot.

Shots stand on a log axis, with 0 a step before the fewest. Arms have colours, other learners are grey and dashed; colours are from the set
of `charts.py`, told apart by colour-blind readers.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posttrain.evaluation.drawing import RULE, SOFT, WIDTH, Frame, circle, line, percent, svg, text, y_axis
from posttrain.evaluation.icl.curves import Point
from posttrain.evaluation.stats import Estimate

COLOURS = ("#0072B2", "#D98200", "#009E73", "#CC79A7", "#56B4E9", "#8C564B", "#1b1b1a")
DASHES = ("6 4", "2 3", "9 3 2 3", "1 5")
Measure = Literal["score", "nll"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One arm's curve of one measure: (shots, estimate, the seeds' means)."""

    name: str
    colour: str
    dash: str
    points: tuple[tuple[int, Estimate, tuple[float, ...]], ...]


def lines_of(points: Sequence[Point], measure: Measure) -> list[Line]:
    """Curves that have the measure, in the order of their arms; an arm keeps its colour over measures."""
    arms = list(dict.fromkeys((point.arm, point.baseline) for point in points))
    own, others = [arm for arm, baseline in arms if not baseline], [arm for arm, baseline in arms if baseline]
    found = []
    for arm, baseline in arms:
        of = [(p.shots, getattr(p, measure), p.seeds if measure == "score" else p.nll_seeds) for p in points if p.arm == arm]
        known = tuple((shots, estimate, tuple(seeds.values())) for shots, estimate, seeds in of if estimate is not None)
        colour = SOFT if baseline else COLOURS[own.index(arm) % len(COLOURS)]
        dash = DASHES[others.index(arm) % len(DASHES)] if baseline else ""
        found += [Line(name=arm, colour=colour, dash=dash, points=known)] if known else []
    return found


def panel(points: Sequence[Point], measure: Measure, title: str) -> str:
    """One measure over the shots, as SVG."""
    lines, counts = lines_of(points, measure), shot_counts(points)
    low, high = _range(lines, measure)
    frame = Frame(x=(place(counts[0], counts), place(counts[-1], counts)), y=(low, high), left=38, right=WIDTH - 16, top=14, bottom=226)
    parts = [y_axis(frame, percent if measure == "score" else lambda v: f"{v:.3g}"), _shots_axis(frame, counts)]
    for curve in (c for c in lines if not c.dash):
        parts.append(_band(frame, curve, counts))
    for curve in lines:
        parts.append(_curve(frame, curve, counts))
        for shots, estimate, seeds in () if curve.dash else curve.points:
            x = frame.px(place(shots, counts))
            parts += [f'<g fill-opacity=".5">{circle(x, frame.py(v), 2.2, curve.colour)}</g>' for v in seeds if len(seeds) > 1]
            tip = f"{curve.name}, {shots:,} shots: {_told(estimate, measure)}"
            parts.append(f"<g><title>{html.escape(tip)}</title>{circle(x, frame.py(estimate.value), 3.6, curve.colour, '#fff', 1.2)}</g>")
    parts.append(text((frame.left + frame.right) / 2, frame.bottom + 34, "shots", "middle", SOFT))
    return svg(parts, 266, title)


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


def _told(estimate: Estimate, measure: Measure) -> str:
    show: Callable[[float], str] = percent if measure == "score" else "{:.3f}".format
    return f"{show(estimate.value)} ({show(estimate.low)} to {show(estimate.high)})"


def _band(frame: Frame, curve: Line, counts: Sequence[int]) -> str:
    ends = [(frame.px(place(shots, counts)), e) for shots, e, _ in curve.points if math.isfinite(e.low) and math.isfinite(e.high)]
    lower = [f"{x:.1f},{frame.py(e.low):.1f}" for x, e in ends]
    upper = [f"{x:.1f},{frame.py(e.high):.1f}" for x, e in reversed(ends)]
    return f'<polygon points="{" ".join([*lower, *upper])}" fill="{curve.colour}" fill-opacity=".13"/>'


def _curve(frame: Frame, curve: Line, counts: Sequence[int]) -> str:
    where = " ".join(f"{frame.px(place(shots, counts)):.1f},{frame.py(e.value):.1f}" for shots, e, _ in curve.points)
    dash = f' stroke-dasharray="{curve.dash}"' if curve.dash else ""
    width = 1.6 if curve.dash else 2.2
    return f'<polyline points="{where}" fill="none" stroke="{curve.colour}" stroke-width="{width}" stroke-linejoin="round"{dash}/>'


def _shots_axis(frame: Frame, counts: Sequence[int]) -> str:
    parts = [line(frame.left, frame.bottom, frame.right, frame.bottom, "#b9b7b1", 1)]
    room = -math.inf
    for count in counts:
        x, label = frame.px(place(count, counts)), f"{count:,}"
        parts.append(line(x, frame.bottom, x, frame.bottom + 4, "#b9b7b1", 1))
        if x - 3.6 * len(label) > room:
            parts.append(text(x, frame.bottom + 18, label, "middle", SOFT))
            room = x + 3.6 * len(label) + 6
    return "".join(parts)


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
        dash = (0, tuple(float(n) / 1.6 for n in curve.dash.split())) if curve.dash else "-"
        means = [scale * e.value for _, e, _ in curve.points]
        axis.plot(xs, means, color=curve.colour, ls=dash, lw=1.3 if curve.dash else 2, label=curve.name)
        if curve.dash:
            continue
        bounded = [(x, e) for x, (_, e, _) in zip(xs, curve.points) if math.isfinite(e.low) and math.isfinite(e.high)]
        lows, highs = ([scale * getattr(e, end) for _, e in bounded] for end in ("low", "high"))
        axis.fill_between([x for x, _ in bounded], lows, highs, color=curve.colour, alpha=0.13, lw=0)
        axis.plot(xs, means, "o", color=curve.colour, ms=4.5, mec="white", mew=0.8, clip_on=False, zorder=3)
        dots = [(x, scale * v) for x, (_, _, seeds) in zip(xs, curve.points) for v in seeds if len(seeds) > 1]
        if dots:
            axis.plot(*zip(*dots), "o", color=curve.colour, ms=2.6, alpha=0.5, mew=0, clip_on=False)
    low, high = _range(lines, measure)
    axis.set_ylim(scale * low, scale * high)
    axis.set_xticks([place(count, counts) for count in counts], [f"{count:,}" for count in counts], rotation=45 if len(counts) > 11 else 0)
    axis.set_xlabel("shots")
