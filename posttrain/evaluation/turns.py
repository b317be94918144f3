"""Accuracy against the number of attempts, for evaluations with more than two (arXiv 2409.12917, App. A.1)."""

from collections.abc import Sequence

from posttrain.evaluation.metrics import Summary
from posttrain.evaluation.section import Plot, Section, Series, cell


def as_section(rows: Sequence[tuple[str, Summary]]) -> Section | None:
    """One panel per model, all on the same axes, and the figures; None where no model made more than two attempts."""
    longer = [(name, s) for name, s in rows if len(s.acc) > 2]
    if not longer:
        return None
    bounds = (min(acc.low for _, s in longer for acc in s.acc), max(acc.high for _, s in longer for acc in s.acc))
    plots = [_plot(name, s, bounds) for name, s in longer]
    most = max(len(s.acc) for _, s in longer)
    head = ("Model", *(f"Acc@t{k}" for k in range(1, most + 1)))
    table = [(name, tuple(cell(s.acc[k]) if k < len(s.acc) else cell(None) for k in range(most))) for name, s in longer]
    text = "Share of right answers after each attempt, %, with its 95% interval; every attempt sees all earlier ones."
    return Section(title="Accuracy by attempt", text=text, head=head, rows=tuple(table), plots=tuple(plots))


def _plot(name: str, s: Summary, bounds: tuple[float, float]) -> Plot:
    values, low, high = (tuple(getattr(acc, part) for acc in s.acc) for part in ("value", "low", "high"))
    line = Series(name="accuracy", colour="t2", y=values, low=low, high=high, mark="joined dots")
    at = tuple(float(k) for k in range(1, len(s.acc) + 1))
    ticks = tuple((k, f"{k:.0f}") for k in at)
    return Plot(title=f"{name}: accuracy after each attempt, %", x=at, x_name="attempt", series=(line,), bounds=bounds, ticks=ticks)
