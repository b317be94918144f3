"""`posttrain eval SUITE --model RUN --checkpoints all`: every checkpoint of a run on one suite, as a table and a curve over steps.

    OUT/step_000050/ (an evaluation each) · sweep.json · curve.png, and of several attempts report.html

Each checkpoint is tested against the first one, paired by problem, with Holm's correction for all of them: where a curve turns is then
told from where it only wavers.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain.complaint import nearest
from posttrain.config import ConfigError
from posttrain.evaluation import report
from posttrain.evaluation.compare import Measured, compare_evaluations, corrected
from posttrain.evaluation.entries import load_entry
from posttrain.evaluation.figure import ATTEMPT
from posttrain.evaluation.metrics import Summary
from posttrain.evaluation.numerals import p_text, points
from posttrain.evaluation.run import evaluate_model
from posttrain.evaluation.samples import Sampled
from posttrain.evaluation.section import Cell, Plot, Section, Series, cell, toned
from posttrain.evaluation.stats import Estimate
from posttrain.evaluation.suite import Suite
from posttrain.evaluation.table import SIGNIFICANT
from posttrain.run import write_atomic

STEP = re.compile(r"step_(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One checkpoint."""

    step: int
    acc: tuple[Estimate, ...]
    """Per attempt."""
    delta: Estimate | None
    against_first: Measured | None
    """Accuracy at the last attempt against that of the first checkpoint; None for that one itself."""


def checkpoints(run: Path, chosen: str) -> dict[int, Path]:
    """Step -> folder of the whole checkpoints that `chosen` names: "all", or steps as "50,100". Raises `ConfigError`."""
    found = {int(match[1]): path for path in run.glob("checkpoints/step_*") if (match := STEP.fullmatch(path.name)) and _whole(path)}
    if not found:
        raise ConfigError(f"{run}: holds no checkpoint; expected a run folder with checkpoints/step_*")
    if chosen == "all":
        return dict(sorted(found.items()))
    steps = chosen.split(",")
    for step in steps:
        if not step.strip().isdigit() or int(step) not in found:
            listed = ", ".join(map(str, sorted(found)))
            raise ConfigError(f"--checkpoints: no step {step!r} in {run}; it has {listed}{nearest(step, list(map(str, found)))}")
    return {int(step): found[int(step)] for step in sorted(steps, key=int)}


def sweep(suite: Suite, name: str, run: Path, chosen: str, out: Path) -> int:
    """Evaluate what OUT lacks, then print the table and write the curve."""
    at = checkpoints(run, chosen)
    places = {step: out / path.name for step, path in at.items()}
    found = {step: evaluate_model(suite, f"{name}, step {step}", str(path), places[step]) for step, path in at.items()}
    first, *later = at
    tested = corrected([compare_evaluations(name, places[first], places[step]) for step in later])
    last = {step: _at_last_attempt(comparison.measures) for step, comparison in zip(later, tested)}
    made = [_point(step, found[step], last.get(step)) for step in at]
    write_atomic(out / "sweep.json", json.dumps([dataclasses.asdict(point) for point in made], indent=1) + "\n")
    told = f"evaluations in {out}"
    if later:
        write_curve(out / "curve.png", made, name)
        told += f"; the curve: {out / 'curve.png'}"
    if made[0].delta:
        entries = [load_entry(f"step {step}", [places[step]]) for step in at]
        report.write_report(out / "report.html", f"{name} over the checkpoints of {run.name}", entries, sections=[section(made)])
        told += f"; the page to read: {out / 'report.html'}"
    print(f"{name}: {run}\n{as_text(made)}\n{told}")
    return 0


def write_curve(path: Path, made: Sequence[Point], name: str) -> None:
    """Accuracy of each attempt over the steps, in its 95% band, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(4.2, 2.8), layout="constrained")
    steps = [point.step for point in made]
    for k in range(len(made[0].acc)):
        colour = ATTEMPT[-1] if len(made[0].acc) == 1 else ATTEMPT[min(k, 1)]
        told = [point.acc[k] for point in made]
        axis.fill_between(steps, [100 * e.low for e in told], [100 * e.high for e in told], color=colour, alpha=0.18, lw=0)
        axis.plot(steps, [100 * e.value for e in told], "o-", color=colour, ms=4, lw=1.8, label=f"attempt {k + 1}")
    axis.set(xlabel="training step", ylabel="accuracy, %", title=name)
    axis.spines[["top", "right"]].set_visible(False)
    if len(made[0].acc) > 1:
        axis.legend(frameon=False)
    figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})
    pyplot.close(figure)


def section(made: Sequence[Point]) -> Section:
    """For the page: the curve of each attempt, and each checkpoint against the first one."""
    series = [
        Series(
            name=f"attempt {k + 1}",
            colour=f"t{min(k + 1, 2)}",
            mark="joined dots",
            y=tuple(point.acc[k].value for point in made),
            low=tuple(point.acc[k].low for point in made),
            high=tuple(point.acc[k].high for point in made),
        )
        for k in range(len(made[0].acc))
    ]
    plot = Plot(title="Accuracy over training, %", x=tuple(float(point.step) for point in made), series=tuple(series))
    head = ("Step", "Last attempt", "Less the first\ncheckpoint's", "p (Holm)", "Detectable\ngap, points")
    rows = tuple((f"{point.step}", (cell(point.acc[-1]), *_against(point.against_first))) for point in made)
    text = "Every checkpoint on the same problems, with 95% intervals; tested against the first one, paired by problem."
    return Section(title="Over training", name="Over training", text=text, head=head, rows=rows, plots=(plot,) if made[1:] else ())


def _against(tested: Measured | None) -> tuple[Cell, ...]:
    if tested is None:
        return (Cell(value="–"),) * 3
    return toned(tested.difference, points), Cell(value=p_text(tested.holm)), Cell(value=f"{100 * tested.gap:.1f}")


def as_text(made: Sequence[Point]) -> str:
    """For a terminal, in percent and points."""
    attempts = len(made[0].acc)
    head = "".join(f"{f'Acc@t{k}':<24}" for k in range(1, attempts + 1)) + (f"{'Delta':<24}" if made[0].delta else "")
    lines = [f"{'step':>8}  {head}{'less the first':<24}{'p (Holm)':>9}{'MDG':>7}"]
    for point in made:
        cells = "".join(f"{_share(acc):<24}" for acc in point.acc) + (f"{_signed(point.delta):<24}" if point.delta else "")
        against = ""
        if tested := point.against_first:
            mark = "*" if tested.holm < SIGNIFICANT else " "
            against = f"{_signed(tested.difference):<24}{p_text(tested.holm) + mark:>9}{100 * tested.gap:7.1f}"
        lines.append(f"{point.step:>8}  {cells}{against}".rstrip())
    return "\n".join(lines)


def _point(step: int, found: Summary | Sampled, tested: Measured | None) -> Point:
    if isinstance(found, Summary):
        return Point(step=step, acc=found.acc, delta=found.delta, against_first=tested)
    return Point(step=step, acc=tuple(attempt.avg for attempt in found.attempts), delta=None, against_first=tested)


def _at_last_attempt(measures: Sequence[Measured]) -> Measured:
    return [measure for measure in measures if measure.name.startswith("Acc")][-1]


def _whole(path: Path) -> bool:
    """A checkpoint that was cut short has no state; one that another tool wrote has none either, but a model."""
    return (path / "config.json").is_file() and ((path / "state.json").is_file() or not (path / "training.pt").exists())


def _share(found: Estimate) -> str:
    return f"{100 * found.value:5.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _signed(found: Estimate) -> str:
    return f"{100 * found.value:+5.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
