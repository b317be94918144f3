"""A part of the page: a heading, a text, plots, flows, a table. Whoever has figures to show makes one; `page/write.py` draws it.

Colours are names that the page's style knows: t1 and t2 for the attempts, good and bad, ink and soft, a0 to a6 for everything else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from posttrain.evaluation.numerals import percent
from posttrain.evaluation.stats import Estimate

COLOURS = 7  # a0 ... a6


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A figure, what stands small below it, whether it is good or bad news, and the interval to draw, if any."""

    value: str
    interval: str = ""
    tone: str = ""
    drawn: Estimate | None = None
    """On a scale that the column shares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line, one run of dots or of bars; `y[i]` stands at the plot's `x[i]`, None where there is no value."""

    name: str
    colour: str
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    """Ends of a band around `y`, or ()."""
    mark: Literal["line", "joined dots", "dots", "thin", "dashed", "bars"] = "line"
    """`thin` is the raw trace behind another line, and has no name in the legend; `dashed` are other learners."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """An interactive chart: values are read by pointing at them."""

    title: str
    x: tuple[float, ...]
    series: tuple[Series, ...]
    x_name: str = "step"
    unit: Literal["percent", "number"] = "percent"
    bounds: tuple[float, float] | None = None
    """Of the y axis, so that plots can be compared; None for what the values need."""
    ticks: tuple[tuple[float, str], ...] = ()
    """(x, label) where the x axis is not plain numbers; () for round ones."""
    marks: tuple[tuple[float, str], ...] = ()
    """(x, name) of what begins there."""
    level: tuple[float, str] | None = None
    """A dashed line across, and what it is."""
    group: str = ""
    """Plots of one group stand together under its name, and their cursors move together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What became of the answers between two attempts, as counts of episodes."""

    name: str
    model: int
    """Its number in the reader."""
    kept: int
    fixed: int
    broken: int
    same_wrong: int
    other_wrong: int
    """Wrong twice: with the same answer, and with another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    title: str
    text: str
    name: str = ""
    """In the page's navigation; "" leaves it out."""
    head: tuple[str, ...] = ()
    """Of the columns; a newline breaks the line."""
    rows: tuple[tuple[str, tuple[Cell, ...]], ...] = ()
    """(name, cells), one cell for each of `head` after the first; a row without cells heads those below it."""
    plots: tuple[Plot, ...] = ()
    flows: tuple[Flow, ...] = ()
    folded: bool = False
    """Only the title shows until it is opened."""


def cell(estimate: Estimate | None, show: Callable[[float], str] = percent, note: str = "") -> Cell:
    """The estimate over its interval; `note` after it. A dash for None."""
    if estimate is None:
        return Cell(value="–")
    interval = f"{show(estimate.low)} to {show(estimate.high)}" if isfinite(estimate.low) and isfinite(estimate.high) else "no interval"
    return Cell(value=show(estimate.value), interval=interval + note)


def toned(found: Estimate, show: Callable[[float], str], note: str = "", good: int = 1) -> Cell:
    """A difference with its interval drawn, coloured where that is clear of 0; `good` is -1 where less is better."""
    shown, side = cell(found, show, note), (found.low > 0) - (found.high < 0)
    return Cell(value=shown.value, interval=shown.interval, tone={good: "good", -good: "bad"}.get(side, ""), drawn=found)
