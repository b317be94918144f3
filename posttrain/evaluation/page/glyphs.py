"""Small drawings inside the page's text: intervals in tables, and the flow of answers between two attempts. Colours are the style's."""

import math
from collections.abc import Sequence
from html import escape

from posttrain.evaluation.section import Flow
from posttrain.evaluation.stats import Estimate

WIDTH, MIDDLE = 112, 7.0
FLOW_WIDTH, FLOW_HEIGHT, BAR, GAP = 340, 190, 10, 10


def scale_of(drawn: Sequence[Estimate]) -> tuple[float, float]:
    """The ends of a column's scale: all finite intervals and 0, with a little room."""
    ends = [end for e in drawn for end in (e.low, e.value, e.high) if math.isfinite(end)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.04 * (high - low) or 1.0
    return low - room, high + room


def interval(e: Estimate, scale: tuple[float, float], tone: str) -> str:
    """The interval as a line with its estimate as a dot, beside the line of 0."""

    def at(value: float) -> float:
        return WIDTH * (min(max(value, scale[0]), scale[1]) - scale[0]) / (scale[1] - scale[0])

    zero = f'<line class="zero" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="0" y2="14"/>'
    span = f'<line class="span" x1="{at(e.low):.1f}" x2="{at(e.high):.1f}" y1="{MIDDLE}" y2="{MIDDLE}"/>'
    dot = f'<circle cx="{at(e.value):.1f}" cy="{MIDDLE}" r="3.2"/>'
    return f'<svg class="glyph {tone}" viewBox="0 0 {WIDTH} 14" width="{WIDTH}" height="14" aria-hidden="true">{zero}{span}{dot}</svg>'


def flow(f: Flow) -> str:
    """Right and wrong at the first attempt, and where they went: ribbons as wide as their counts. Each is a button for the reader.

    The ribbons of what was fixed and broken cross, so that their labels stand at one end.
    """
    total = f.kept + f.fixed + f.broken + f.same_wrong + f.other_wrong
    unit = (FLOW_HEIGHT - GAP) / max(total, 1)
    right_1, right_2 = f.kept + f.broken, f.kept + f.fixed
    wrong_1, wrong_2 = total - right_1, total - right_2
    split_1, split_2 = right_1 * unit + GAP, right_2 * unit + GAP
    ribbons = [
        ("kept", "kept right", 0.0, 0.0, f.kept),
        ("broken", "broken", f.kept * unit, split_2, f.broken),
        ("fixed", "fixed", split_1, f.kept * unit, f.fixed),
        ("other", "wrong, another answer", split_1 + f.fixed * unit, split_2 + f.broken * unit, f.other_wrong),
        ("same", "wrong, the same answer", split_1 + (f.fixed + f.other_wrong) * unit, split_2 + (f.broken + f.other_wrong) * unit,
         f.same_wrong),
    ]  # fmt: skip
    left, right = 62, FLOW_WIDTH - 62
    parts = [_ribbon(f.model, *ribbon, left + BAR, right - BAR, unit) for ribbon in ribbons if ribbon[-1]]
    for x, side, rights, wrongs, split in ((left, "end", right_1, wrong_1, split_1), (right, "start", right_2, wrong_2, split_2)):
        start, away = x if side == "end" else x - BAR, -8 if side == "end" else 8
        for kind, count, top in (("right", rights, 0.0), ("wrong", wrongs, split)):
            if count:
                parts.append(f'<rect class="bar" x="{start}" y="{top:.1f}" width="{BAR}" height="{max(count * unit, 1):.1f}"/>')
                middle = min(max(top + count * unit / 2, 12), FLOW_HEIGHT - 12)
                parts.append(f'<text x="{x + away}" y="{middle - 2:.1f}" text-anchor="{side}" class="count">{count:,}</text>')
                parts.append(f'<text x="{x + away}" y="{middle + 12:.1f}" text-anchor="{side}" class="what">{kind}</text>')
    label = escape(f"{f.name}: {f.kept} kept right, {f.fixed} fixed, {f.broken} broken, {f.same_wrong + f.other_wrong} wrong again")
    return f'<svg class="flow" viewBox="0 0 {FLOW_WIDTH} {FLOW_HEIGHT}" role="group" aria-label="{label}">{"".join(parts)}</svg>'


def _ribbon(model: int, kind: str, name: str, y1: float, y2: float, count: int, x1: float, x2: float, unit: float) -> str:
    width, mid = max(count * unit, 0.8), (x1 + x2) / 2
    path = f"M{x1} {y1:.1f}C{mid} {y1:.1f} {mid} {y2:.1f} {x2} {y2:.1f}V{y2 + width:.1f}"
    path += f"C{mid} {y2 + width:.1f} {mid} {y1 + width:.1f} {x1} {y1 + width:.1f}Z"
    label = f"{count:,} {name}"
    x, top, anchor = {"broken": (x1 + 9, y1, "start"), "fixed": (x2 - 9, y2, "end")}.get(kind, (mid, (y1 + y2) / 2, "middle"))
    shown = f'<text x="{x}" y="{top + width / 2 + 4:.1f}" text-anchor="{anchor}" aria-hidden="true">{label}</text>' if width > 15 else ""
    button = f'role="button" tabindex="0" data-model="{model}" data-flow="{kind}"'
    return f'<g class="ribbon {kind}" {button}><title>{label}</title><path d="{path}"/>{shown}</g>'
