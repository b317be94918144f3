"""Charts as inline SVG: small panels, 360 units wide, that keep their text readable on a phone as on a desk.

Colours are from Okabe & Ito's set, told apart by colour-blind readers; every colour also has a label, a place or a shape of its own.
"""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

from posttrain.evaluation.drawing import (
    ATTEMPT,
    INK,
    SOFT,
    WIDTH,
    Frame,
    area,
    circle,
    clip,
    line,
    path,
    percent,
    points,
    svg,
    text,
    x_axis,
    y_axis,
)
from posttrain.evaluation.entries import Stage
from posttrain.evaluation.metrics import Outcome, Summary
from posttrain.evaluation.stats import Estimate

OUTCOME: dict[Outcome, str] = {"kept": "#A9C3D6", "fixed": "#009E73", "broken": "#D55E00", "still wrong": "#DDDAD4"}


def accuracies(rows: Sequence[tuple[str, Summary]]) -> str:
    """One row per model: the first attempt's accuracy, an arrow, the second's."""
    values = [acc.value for _, s in rows for acc in s.acc]
    frame = _rows_frame(max(0.0, min(values) - 0.06), min(1.0, max(values) + 0.06), len(rows))
    parts = [x_axis(frame, percent)]
    for i, (name, s) in enumerate(rows):
        y, (a, b) = _row_y(i), (s.acc[k - 1].value for k in s.between)
        x1, x2 = frame.px(a), frame.px(b)
        tip = 7 * math.copysign(1, b - a)
        parts += [_row_name(i, name), line(x1, y, x2 - tip, y, INK, 1.6)] if abs(x2 - x1) > 14 else [_row_name(i, name)]
        parts += [circle(x1, y, 5.5, "#fff", ATTEMPT[0], 2.5), circle(x2, y, 6, ATTEMPT[1])]
        left_first = a <= b
        parts += [text(x1 + (-11 if left_first else 11), y + 4, percent(a), "end" if left_first else "start", ATTEMPT[0], bold=True)]
        parts += [text(x2 + (11 if left_first else -11), y + 4, percent(b), "start" if left_first else "end", ATTEMPT[1], bold=True)]
    return svg(parts, _rows_height(len(rows)), "Accuracy of the first and second attempt per model")


def deltas(rows: Sequence[tuple[str, Summary]]) -> str:
    """One row per model: the change between the attempts with its 95% interval; coloured only where the interval is clear of 0."""
    low, high = min(0.0, *(s.delta.low for _, s in rows)), max(0.0, *(s.delta.high for _, s in rows))
    margin = 0.12 * (high - low) or 0.01
    frame = _rows_frame(low - margin, high + margin, len(rows))
    zero = frame.px(0)
    parts = [x_axis(frame, points), line(zero, frame.top - 8, zero, frame.bottom, SOFT, 1.2)]
    for i, (name, s) in enumerate(rows):
        y, colour, mid = _row_y(i), verdict_colour(s), frame.px(s.delta.value)
        start, end = frame.px(s.delta.low), frame.px(s.delta.high)
        parts += [_row_name(i, name), line(start, y, end, y, colour, 3)]
        parts += [line(x, y - 5, x, y + 5, colour, 2) for x in (start, end)]
        parts += [circle(mid, y, 5.5, colour, "#fff", 1.5), _beside(start, end, y, points(s.delta.value), colour)]
    return svg(parts, _rows_height(len(rows)), "Change of accuracy between the attempts with 95% intervals per model")


def outcomes(rows: Sequence[tuple[str, Summary]]) -> str:
    """One bar per model: what became of the answers, in the order kept, fixed, broken, still wrong."""
    frame = _rows_frame(0.0, 1.0, len(rows))
    parts = [x_axis(frame, percent)]
    for i, (name, s) in enumerate(rows):
        a, b = (s.acc[k - 1].value for k in s.between)
        shares = {"kept": a - s.broken.value, "fixed": s.fixed.value, "broken": s.broken.value, "still wrong": 1 - b - s.broken.value}
        parts.append(_row_name(i, name))
        done = 0.0
        for kind, share in shares.items():
            x, width = frame.px(done), frame.px(done + share) - frame.px(done)
            label = html.escape(f"{name}: {kind} {percent(share)} %")
            title = f"<title>{label}</title>"
            parts.append(
                f'<rect x="{x:.1f}" y="{_row_y(i) - 9}" width="{max(0, width - 1):.1f}" height="18" fill="{OUTCOME[kind]}">{title}</rect>'
            )
            if width > 26:
                parts.append(text(x + width / 2, _row_y(i) + 4, percent(share), "middle", "#fff" if kind in ("fixed", "broken") else INK))
            done += share
    return svg(parts, _rows_height(len(rows)), "What became of the answers per model")


def curve(
    stages: Sequence[Stage], keys: Sequence[str], y: tuple[float, float], steps: float, show: Callable[[float], str], title: str
) -> str:
    """`train/<key>` over the steps of all stages, one colour per key: thin as logged, thick as a moving mean, dots for `val/<key>`."""
    frame = Frame(x=(0, steps or 1), y=y)
    parts = [y_axis(frame, show), x_axis(frame, lambda v: f"{v:.0f}", lines=False)]
    start = 0.0
    for number, stage in enumerate(stages):
        end = start + last_step(stage)
        if number:
            parts.append(line(frame.px(start), frame.top - 8, frame.px(start), frame.bottom, SOFT, 1, dashed=True))
        if len(stages) > 1:
            parts.append(text(frame.px((start + end) / 2), frame.top - 8, stage.name, "middle", SOFT))
        for i, key in enumerate(keys):
            colour = ATTEMPT[i] if len(keys) > 1 else INK
            logged = thin(_points(stage, f"train/{key}", start), 240)
            parts += [path(frame, logged, colour, 0.8, opacity=0.35), path(frame, moving_mean(logged), colour, 2)]
            parts += [circle(*frame.at(x, clip(v, y)), 3, colour, "#fff", 1) for x, v in _points(stage, f"val/{key}", start)]
        start = end
    return svg(parts, 198, title)


def histogram(values: Sequence[float], top: float, colour: str = ATTEMPT[1], bins: int = 25) -> str:
    """Shares of `values`, all in [0, 1], over equal bins; `top` is the axis' end, so that panels can be compared."""
    frame = Frame(x=(0.0, 1.0), y=(0.0, top))
    parts = [y_axis(frame, percent), x_axis(frame, lambda v: f"{v:.1f}", lines=False)]
    for i, share in enumerate(shares_of(values, bins)):
        x, width = frame.px(i / bins), frame.px(1 / bins) - frame.px(0)
        y = frame.py(share)
        title = f"<title>{i / bins:.2f} to {(i + 1) / bins:.2f}: {percent(share)} %</title>"
        parts.append(
            f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" height="{frame.bottom - y:.1f}" fill="{colour}">{title}</rect>'
        )
    return svg(parts, 198, "Histogram of the edit-distance ratio")


def pairs(rows: Sequence[tuple[str, Sequence[tuple[str, Estimate]]]], title: str) -> str:
    """Per row, several differences with their 95% intervals, one (colour, difference) below the other."""
    found = [estimate for _, each in rows for _, estimate in each]
    low, high = min(0.0, *(e.low for e in found)), max(0.0, *(e.high for e in found))
    margin = 0.22 * (high - low) or 0.01
    frame = _rows_frame(low - margin, high + margin, len(rows))
    parts = [x_axis(frame, points), line(frame.px(0), frame.top - 8, frame.px(0), frame.bottom, SOFT, 1.2)]
    for i, (name, each) in enumerate(rows):
        parts.append(_row_name(i, name))
        for number, (colour, estimate) in enumerate(each):
            y, start, end = _row_y(i) - 3 + 13 * number, frame.px(estimate.low), frame.px(estimate.high)
            parts += [line(start, y, end, y, colour, 2.5), circle(frame.px(estimate.value), y, 4.5, colour, "#fff", 1.5)]
            parts.append(_beside(start, end, y, points(estimate.value), colour))
    return svg(parts, _rows_height(len(rows)), title)


def bands(
    series: Sequence[tuple[str, Sequence[Estimate]]],
    at: Sequence[int],
    title: str,
    *,
    bounds: tuple[float, float],
    log: bool = False,
    level: float | None = None,
) -> str:
    """One line per (colour, values) over the numbers `at`, which may stand on a log axis, each in its 95% band; dashed, a `level`."""
    room = 0.08 * (bounds[1] - bounds[0]) or 0.05
    places = [math.log2(x) if log else float(x) for x in at]
    frame = Frame(x=(places[0], places[-1]), y=(max(0.0, bounds[0] - room), min(1.0, bounds[1] + room)), left=40)
    parts = [y_axis(frame, percent), line(frame.left, frame.bottom, frame.right, frame.bottom, "#b9b7b1", 1)]
    parts += [text(frame.px(place), frame.bottom + 15, str(x), "middle", SOFT) for place, x in zip(places, at)]
    parts += [] if level is None else [line(frame.left, frame.py(level), frame.right, frame.py(level), SOFT, 1.2, dashed=True)]
    for colour, each in series:
        parts.append(
            area(frame, [*((x, e.low) for x, e in zip(places, each)), *((x, e.high) for x, e in zip(places[::-1], each[::-1]))], colour)
        )
    for colour, each in series:
        middle = [(x, e.value) for x, e in zip(places, each)]
        parts += [path(frame, middle, colour, 2), *(circle(*frame.at(x, v), 3.2, colour, "#fff", 1) for x, v in middle)]
    return svg(parts, 198, title)


def shares_of(values: Sequence[float], bins: int = 25) -> list[float]:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(value * bins))] += 1
    return [count / len(values) for count in counts]


def verdict_colour(s: Summary) -> str:
    return OUTCOME["fixed"] if s.delta.low > 0 else OUTCOME["broken"] if s.delta.high < 0 else SOFT


def last_step(stage: Stage) -> float:
    return max((row["step"] for row in stage.metrics), default=0)


def span(stages: Sequence[Stage], keys: Sequence[str]) -> tuple[float, float]:
    """The smallest and largest value of `train/<key>` and `val/<key>`, thinned as drawn, with a little room; (0, 1) if there is none."""
    names = [f"{part}/{key}" for key in keys for part in ("train", "val")]
    found = [value for stage in stages for name in names for _, value in thin(_points(stage, name, 0), 240)]
    if not found:
        return 0.0, 1.0
    room = 0.05 * (max(found) - min(found)) or 0.05
    return min(found) - room, max(found) + room


def thin(logged: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` points: means of equal runs of points."""
    run = math.ceil(len(logged) / most) or 1
    groups = [logged[i : i + run] for i in range(0, len(logged), run)]
    return [(sum(x for x, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def moving_mean(logged: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each point's mean over about a tenth of the points, centred, shorter at the ends."""
    half = max(1, len(logged) // 20)
    windows = ((x, logged[max(0, i - half) : i + half + 1]) for i, (x, _) in enumerate(logged))
    return [(x, sum(v for _, v in window) / len(window)) for x, window in windows]


def _points(stage: Stage, key: str, start: float) -> list[tuple[float, float]]:
    rows: Sequence[dict[str, Any]] = stage.metrics
    return [(start + row["step"], row[key]) for row in rows if isinstance(row.get(key), (int, float)) and math.isfinite(row[key])]


def _rows_frame(low: float, high: float, rows: int) -> Frame:
    return Frame(x=(low, high), left=10, right=WIDTH - 10, top=8, bottom=_row_y(rows - 1) + 20)


def _row_y(i: int) -> float:
    return 34 + 52 * i


def _rows_height(rows: int) -> float:
    return _row_y(rows - 1) + 40


def _beside(start: float, end: float, y: float, label: str, colour: str) -> str:
    """A label right of an interval, or left of it where the panel ends."""
    if end < WIDTH - 60:
        return text(end + 9, y + 4, label, "start", colour, bold=True)
    return text(start - 9, y + 4, label, "end", colour, bold=True)


def _row_name(i: int, name: str) -> str:
    return text(10, _row_y(i) - 17, name, "start", INK, bold=True)
