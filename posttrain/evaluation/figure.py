"""One small picture of some models, for a README: accuracy over training, and the gain from the second attempt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.evaluation import plots
from posttrain.evaluation.entries import Entry
from posttrain.evaluation.metrics import Summary, summarise
from posttrain.evaluation.numerals import points

ATTEMPT = ("#8a919e", "#0b62c4")
GOOD, BAD, SOFT = "#137a4c", "#c2410c", "#5c6370"


def write_figure(path: str | Path, entries: Sequence[Entry], rows: Sequence[tuple[str, Summary]] | None = None) -> None:
    """Left, accuracy of both attempts over training; right, Delta per model (of `rows`) with 95% intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained = [entry for entry in entries if entry.stages]
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titleweight": "bold"}
    with pyplot.rc_context(style):
        panels = len(trained) + 1
        figure, grid = pyplot.subplots(1, panels, figsize=(3.2 * panels, 2.7), squeeze=False, layout="constrained")
        axes = list(grid[0])
        low, high = plots.span([e.stages for e in trained], ("acc_t1", "acc_t2"))
        for axis, entry in zip(axes, trained):
            _draw_accuracy(axis, entry)
            axis.set(ylim=(100 * low, 100 * high), xlabel="training step", title=entry.name)
        if trained:
            axes[0].set_ylabel("accuracy, %")
            axes[0].legend(frameon=False, loc="lower right")
        _draw_deltas(axes[-1], rows or [(entry.name, summarise(entry.episodes)) for entry in entries])
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})
        pyplot.close(figure)


def _draw_accuracy(axis: Any, entry: Entry) -> None:
    for colour, key, label in zip(ATTEMPT, ("acc_t1", "acc_t2"), ("first attempt", "second attempt")):
        smooth = plots.moving_mean(plots.thin(plots.logged(entry.stages, f"train/{key}"), 240))
        axis.plot([x for x, _ in smooth], [100 * v for _, v in smooth], color=colour, lw=1.8, label=label)
    start = 0.0
    for stage in entry.stages[:-1]:
        start += plots.last_step(stage)
        axis.axvline(start, color=SOFT, lw=0.8, ls=":")


def _draw_deltas(axis: Any, rows: Sequence[tuple[str, Summary]]) -> None:
    axis.axvline(0, color=SOFT, lw=0.9)
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for i, (_, s) in enumerate(rows):
        colour = GOOD if s.delta.low > 0 else BAD if s.delta.high < 0 else SOFT
        axis.plot([100 * s.delta.low, 100 * s.delta.high], [i, i], color=colour, lw=2.2, solid_capstyle="butt")
        axis.plot(100 * s.delta.value, i, "o", color=colour, ms=6)
        axis.annotate(
            points(s.delta.value), (100 * s.delta.value, i), (0, 7), textcoords="offset points", ha="center", color=colour, bbox=plain
        )
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.set(ylim=(len(rows) - 0.5, -0.6), xlabel="points, 95% interval", title="Second − first")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
