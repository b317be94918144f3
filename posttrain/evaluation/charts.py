"""Charts as inline SVG: small panels, 360 units wide, that keep their text readable on a phone as on a desk.

Colours are from Okabe & Ito's set, told apart by colour-blind readers; every colour also has a label, a place or a shape of its own.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.evaluation.entries import Stage
from posttrain.evaluation.metrics import Outcome, Summary

ATTEMPT = ("#D98200", "#0072B2", "#009E73", "#CC79A7")
OUTCOME: dict[Outcome, str] = {"kept": "#A9C3D6", "fixed": "#009E73", "broken": "#D55E00", "still wrong": "#DDDAD4"}
INK, SOFT, RULE = "#1b1b1a", "#6b6a66", "#e4e2dd"
WIDTH = 360


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A plot's area in the panel, and the values at its edges."""

    x: tuple[float, float]
    y: tuple[float, float] = (0.0, 1.0)
    left: float = 34
    right: float = WIDTH - 14
    top: float = 20
    bottom: float = 178

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.px(x), self.py(y)

    def px(self, x: float) -> float:
        return self.left + (self.right - self.left) * (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)

    def py(self, y: float) -> float:
        return self.bottom - (self.bottom - self.top) * (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)


def accuracies(rows: Sequence[tuple[str, Summary]]) -> str:
    """One row per model: the first attempt's accuracy, an arrow, the second's."""
    values = [acc.value for _, s in rows for acc in s.acc]
    frame = _rows_frame(max(0.0, min(values) - 0.06), min(1.0, max(values) + 0.06), len(rows))
    parts = [_x_axis(frame, percent)]
    for i, (name, s) in enumerate(rows):
        y, (a, b) = _row_y(i), (s.acc[k - 1].value for k in s.between)
        x1, x2 = frame.px(a), frame.px(b)
        tip = 7 * math.copysign(1, b - a)
        parts += [_row_name(i, name), _line(x1, y, x2 - tip, y, INK, 1.6)] if abs(x2 - x1) > 14 else [_row_name(i, name)]
        parts += [_circle(x1, y, 5.5, "#fff", ATTEMPT[0], 2.5), _circle(x2, y, 6, ATTEMPT[1])]
        left_first = a <= b
        parts += [_text(x1 + (-11 if left_first else 11), y + 4, percent(a), "end" if left_first else "start", ATTEMPT[0], bold=True)]
        parts += [_text(x2 + (11 if left_first else -11), y + 4, percent(b), "start" if left_first else "end", ATTEMPT[1], bold=True)]
    return _svg(parts, _rows_height(len(rows)), "Accuracy of the first and second attempt per model")


def deltas(rows: Sequence[tuple[str, Summary]]) -> str:
    """One row per model: the change between the attempts with its 95% interval; coloured only where the interval is clear of 0."""
    low, high = min(0.0, *(s.delta.low for _, s in rows)), max(0.0, *(s.delta.high for _, s in rows))
    margin = 0.12 * (high - low) or 0.01
    frame = _rows_frame(low - margin, high + margin, len(rows))
    zero = frame.px(0)
    parts = [_x_axis(frame, points), _line(zero, frame.top - 8, zero, frame.bottom, SOFT, 1.2)]
    for i, (name, s) in enumerate(rows):
        y, colour, mid = _row_y(i), verdict_colour(s), frame.px(s.delta.value)
        start, end = frame.px(s.delta.low), frame.px(s.delta.high)
        parts += [_row_name(i, name), _line(start, y, end, y, colour, 3)]
        parts += [_line(x, y - 5, x, y + 5, colour, 2) for x in (start, end)]
        parts += [_circle(mid, y, 5.5, colour, "#fff", 1.5), _beside(start, end, y, points(s.delta.value), colour)]
    return _svg(parts, _rows_height(len(rows)), "Change of accuracy between the attempts with 95% intervals per model")


def outcomes(rows: Sequence[tuple[str, Summary]]) -> str:
    """One bar per model: what became of the answers, in the order kept, fixed, broken, still wrong."""
    frame = _rows_frame(0.0, 1.0, len(rows))
    parts = [_x_axis(frame, percent)]
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
                parts.append(_text(x + width / 2, _row_y(i) + 4, percent(share), "middle", "#fff" if kind in ("fixed", "broken") else INK))
            done += share
    return _svg(parts, _rows_height(len(rows)), "What became of the answers per model")


def curve(
    stages: Sequence[Stage], keys: Sequence[str], y: tuple[float, float], steps: float, show: Callable[[float], str], title: str
) -> str:
    """`train/<key>` over the steps of all stages, one colour per key: thin as logged, thick as a moving mean, dots for `val/<key>`."""
    frame = Frame(x=(0, steps or 1), y=y)
    parts = [_y_axis(frame, show), _x_axis(frame, lambda v: f"{v:.0f}", lines=False)]
    start = 0.0
    for number, stage in enumerate(stages):
        end = start + last_step(stage)
        if number:
            parts.append(_line(frame.px(start), frame.top - 8, frame.px(start), frame.bottom, SOFT, 1, dashed=True))
        if len(stages) > 1:
            parts.append(_text(frame.px((start + end) / 2), frame.top - 8, stage.name, "middle", SOFT))
        for i, key in enumerate(keys):
            colour = ATTEMPT[i] if len(keys) > 1 else INK
            logged = thin(_points(stage, f"train/{key}", start), 240)
            parts += [_path(frame, logged, colour, 0.8, opacity=0.35), _path(frame, moving_mean(logged), colour, 2)]
            parts += [_circle(*frame.at(x, clip(v, y)), 3, colour, "#fff", 1) for x, v in _points(stage, f"val/{key}", start)]
        start = end
    return _svg(parts, 198, title)


def histogram(values: Sequence[float], top: float, colour: str = ATTEMPT[1], bins: int = 25) -> str:
    """Shares of `values`, all in [0, 1], over equal bins; `top` is the axis' end, so that panels can be compared."""
    frame = Frame(x=(0.0, 1.0), y=(0.0, top))
    parts = [_y_axis(frame, percent), _x_axis(frame, lambda v: f"{v:.1f}", lines=False)]
    for i, share in enumerate(shares_of(values, bins)):
        x, width = frame.px(i / bins), frame.px(1 / bins) - frame.px(0)
        y = frame.py(share)
        title = f"<title>{i / bins:.2f} to {(i + 1) / bins:.2f}: {percent(share)} %</title>"
        parts.append(
            f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" height="{frame.bottom - y:.1f}" fill="{colour}">{title}</rect>'
        )
    return _svg(parts, 198, "Histogram of the edit-distance ratio")


def shares_of(values: Sequence[float], bins: int = 25) -> list[float]:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(value * bins))] += 1
    return [count / len(values) for count in counts]


def verdict_colour(s: Summary) -> str:
    return OUTCOME["fixed"] if s.delta.low > 0 else OUTCOME["broken"] if s.delta.high < 0 else SOFT


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference in percentage points, with a sign and a true minus."""
    return "0.0" if abs(value) < 5e-4 else f"{100 * value:+.1f}".replace("-", "−")


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


def clip(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between `low` and `high`, at steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about or 1.0
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _points(stage: Stage, key: str, start: float) -> list[tuple[float, float]]:
    rows: Sequence[dict[str, Any]] = stage.metrics
    return [(start + row["step"], row[key]) for row in rows if isinstance(row.get(key), (int, float)) and math.isfinite(row[key])]


def _rows_frame(low: float, high: float, rows: int) -> Frame:
    return Frame(x=(low, high), left=10, right=WIDTH - 10, top=8, bottom=_row_y(rows - 1) + 20)


def _row_y(i: int) -> float:
    return 34 + 52 * i


def _rows_height(rows: int) -> float:
    return _row_y(rows - 1) + 40


def _beside(start: float, end: float, y: float, text: str, colour: str) -> str:
    """A label right of an interval, or left of it where the panel ends."""
    if end < WIDTH - 60:
        return _text(end + 9, y + 4, text, "start", colour, bold=True)
    return _text(start - 9, y + 4, text, "end", colour, bold=True)


def _row_name(i: int, name: str) -> str:
    return _text(10, _row_y(i) - 17, name, "start", INK, bold=True)


def _x_axis(frame: Frame, show: Callable[[float], str], lines: bool = True) -> str:
    parts = [_line(frame.left, frame.bottom, frame.right, frame.bottom, "#b9b7b1", 1)]
    for value in ticks(*frame.x):
        x = frame.px(value)
        parts += [_line(x, frame.top - 8, x, frame.bottom, RULE, 1)] if lines else []
        parts.append(_text(x, frame.bottom + 15, show(value).removesuffix(".0"), "middle", SOFT))
    return "".join(parts)


def _y_axis(frame: Frame, show: Callable[[float], str]) -> str:
    parts = []
    for value in ticks(*frame.y):
        y = frame.py(value)
        parts += [_line(frame.left, y, frame.right, y, RULE, 1), _text(frame.left - 6, y + 4, show(value).removesuffix(".0"), "end", SOFT)]
    return "".join(parts)


def _path(frame: Frame, line: Sequence[tuple[float, float]], colour: str, width: float, opacity: float = 1) -> str:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.at(x, clip(v, frame.y)) for x, v in line))
    style = f'fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}" stroke-linejoin="round"'
    return f'<polyline points="{where}" {style}/>' if line else ""


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="3 3"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{dash}/>'


def _circle(x: float, y: float, r: float, fill: str, stroke: str = "none", width: float = 0) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{fill}" stroke="{stroke}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{html.escape(text)}</text>'


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
