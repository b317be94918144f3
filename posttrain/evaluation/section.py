"""A part of the page besides the fixed ones: a heading, a text, a table, charts. Whoever has figures to show makes one."""

from collections.abc import Callable
from dataclasses import dataclass

from posttrain.evaluation.drawing import percent
from posttrain.evaluation.stats import Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A figure, what stands small below it, and whether it is good or bad news."""

    value: str
    interval: str = ""
    tone: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A chart."""

    title: str
    svg: str
    """Made by `drawing.svg`: it enters the page as it is."""
    keys: tuple[tuple[str, str], ...] = ()
    """(what, colour)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    title: str
    text: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, tuple[Cell, ...]], ...] = ()
    """(name, cells), one cell for each of `head` after the first."""
    panels: tuple[Panel, ...] = ()


def cell(estimate: Estimate | None, show: Callable[[float], str] = percent, note: str = "") -> Cell:
    """The estimate over its interval; `note` after it. A dash for None."""
    if estimate is None:
        return Cell(value="–")
    return Cell(value=show(estimate.value), interval=f"{show(estimate.low)} to {show(estimate.high)}{note}")


def toned(found: Estimate, show: Callable[[float], str], note: str = "") -> Cell:
    """A difference, coloured where its interval is clear of 0."""
    shown = cell(found, show, note)
    return Cell(value=shown.value, interval=shown.interval, tone="good" if found.low > 0 else "bad" if found.high < 0 else "")


def p_text(p: float) -> str:
    """A p-value with two digits that matter: 0.23, 3e-4, <1e-6."""
    if p < 1e-6:
        return "<1e-6"
    if p < 0.001:
        digits, power = f"{p:.0e}".split("e")
        return f"{digits}e-{abs(int(power))}"
    return f"{p:.2g}"
