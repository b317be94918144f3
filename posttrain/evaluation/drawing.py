"""Drawing inline SVG: a plot's frame, its axes, and the few shapes that charts are made of.

Panels are 360 units wide, so that their text stays readable on a phone as on a desk. Colours are from Okabe & Ito's set, told apart by
colour-blind readers.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ATTEMPT = ("#D98200", "#0072B2", "#009E73", "#CC79A7")
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


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference in percentage points, with a sign and a true minus."""
    return "0.0" if abs(value) < 5e-4 else f"{100 * value:+.1f}".replace("-", "−")


def clip(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between `low` and `high`, at steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about or 1.0
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def x_axis(frame: Frame, show: Callable[[float], str], lines: bool = True) -> str:
    parts = [line(frame.left, frame.bottom, frame.right, frame.bottom, "#b9b7b1", 1)]
    for value in ticks(*frame.x):
        x = frame.px(value)
        parts += [line(x, frame.top - 8, x, frame.bottom, RULE, 1)] if lines else []
        parts.append(text(x, frame.bottom + 15, show(value).removesuffix(".0"), "middle", SOFT))
    return "".join(parts)


def y_axis(frame: Frame, show: Callable[[float], str]) -> str:
    parts = []
    for value in ticks(*frame.y):
        y = frame.py(value)
        parts += [line(frame.left, y, frame.right, y, RULE, 1), text(frame.left - 6, y + 4, show(value).removesuffix(".0"), "end", SOFT)]
    return "".join(parts)


def path(frame: Frame, line: Sequence[tuple[float, float]], colour: str, width: float, opacity: float = 1) -> str:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.at(x, clip(v, frame.y)) for x, v in line))
    style = f'fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}" stroke-linejoin="round"'
    return f'<polyline points="{where}" {style}/>' if line else ""


def area(frame: Frame, edge: Sequence[tuple[float, float]], colour: str) -> str:
    """What the edge encloses, pale."""
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.at(x, clip(v, frame.y)) for x, v in edge))
    return f'<polygon points="{where}" fill="{colour}" fill-opacity="0.16"/>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="3 3"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{dash}/>'


def circle(x: float, y: float, r: float, fill: str, stroke: str = "none", width: float = 0) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{fill}" stroke="{stroke}" stroke-width="{width}"/>'


def text(x: float, y: float, text: str, anchor: str, colour: str, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{html.escape(text)}</text>'


def svg(parts: Sequence[str], height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
