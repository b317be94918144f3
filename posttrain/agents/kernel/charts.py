"""Small figures of agents: a mean over seeds with its interval, and every seed as a dot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

COLOURS = ("#3b6ea5", "#c8553d", "#6b8f47", "#8a6fa8", "#b8860b", "#5f6b76", "#2a9d8f", "#d08ca0")
CLOSE = 6  # names side by side; more of them would run into each other if they were not steep


class Panel(NamedTuple):
    """One picture: for each name, numbers per place on the x axis and seed."""

    title: str
    places: Sequence[str]
    lines: Mapping[str, Sequence[Sequence[float]]]
    """[places][seeds] for each name"""
    y_label: str
    log: bool = False
    ordered: bool = True
    """Whether the places are numbers in order, joined by lines, or kinds beside each other."""
    bars: bool = False
    """Whether means stand on 0 as bars, which fits numbers whose 0 means something."""


class Picture(NamedTuple):
    """An image, [H, W, 3], and what is said of it."""

    image: np.ndarray
    text: str


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean, and the ends of its Student-t interval over independent seeds; one seed alone tells no spread, and its ends are itself."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2) * np.std(values, ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def ratio_interval(values: Sequence[float], base: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The ratio of two means over the same seeds, with a Student-t interval by the delta method: r -+ t sd(x - r y) / (sqrt(n) mean(y))."""
    x, y = np.asarray(values), np.asarray(base)
    ratio = float(x.mean() / y.mean())
    _, low, high = interval((x - ratio * y).tolist(), level)  # around 0
    return ratio, ratio + low / float(y.mean()), ratio + high / float(y.mean())


def shown(values: Sequence[float], digits: int = 3) -> str:
    """ "mean [low, high]" for a table."""
    mean, low, high = interval(values)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """The panels as a PNG, two in a row: intervals around means, seeds as dots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 3.6 * rows), squeeze=False, layout="constrained")
    for axis, panel in zip(axes.flat, panels, strict=False):
        for i, (name, line) in enumerate(panel.lines.items()):
            apart = 0.8 / len(panel.lines) if panel.bars else 0.12
            x = np.arange(len(panel.places)) + apart * (i - (len(panel.lines) - 1) / 2)
            means, lows, highs = np.array([interval(values) for values in line]).T
            colour = COLOURS[i % len(COLOURS)]
            if panel.log:  # an interval may reach below 0, which a logarithmic axis does not have
                lows = np.maximum(lows, min(min(values) for values in line))
            joined = "-" if panel.ordered else ""
            spread = [means - lows, highs - means]
            if panel.bars:
                axis.bar(x, means, 0.9 * apart, color=colour, alpha=0.45, label=name)
            marker = "none" if panel.bars else "o"
            named = None if panel.bars else name
            axis.errorbar(x, means, spread, color=colour, marker=marker, markersize=5, capsize=3, lw=1.2, ls=joined, label=named)
            for place, values in zip(x, line, strict=True):
                axis.plot([place + 0.05] * len(values), values, ".", color=colour, alpha=0.35, markersize=4)
        angle = 0 if panel.ordered else 20 if len(panel.places) <= CLOSE else 45
        axis.set_xticks(range(len(panel.places)), panel.places, rotation=angle, ha="center" if panel.ordered else "right")
        axis.set_title(panel.title, fontsize=10)
        axis.set_ylabel(panel.y_label)
        if panel.log:
            axis.set_yscale("log")
        if len(panel.lines) > 1:
            beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if panel.bars else {}  # bars leave no room within
            axis.legend(fontsize=8, frameon=False, **beside)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_pictures(path: Path, rows: Mapping[str, Sequence[Picture]]) -> None:
    """A row of pictures for each name as a PNG; a row without any stays empty, which says so."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = max(1, *(len(pictures) for pictures in rows.values()))
    size = (1.35 * columns + 0.6, 1.75 * len(rows))
    figure, axes = pyplot.subplots(len(rows), columns, figsize=size, squeeze=False, layout="constrained")
    for axes_N, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis in axes_N:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        for axis, picture in zip(axes_N, pictures, strict=False):
            axis.imshow(picture.image, interpolation="nearest")
            axis.set_title(picture.text, fontsize=8)
        axes_N[0].set_ylabel(name if pictures else f"{name}\n(none)", fontsize=10, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
