"""The page and the table of an in-context run, made from its folder alone, or from several, each a model of its own."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from posttrain.config import ConfigError
from posttrain.evaluation.entries import provenance_of
from posttrain.evaluation.icl import answers, charts
from posttrain.evaluation.icl.curves import Curves, Difference, Point, curves_of
from posttrain.evaluation.icl.log import NAME, Cost, Row, read
from posttrain.evaluation.lede import MOST_SENTENCES, gains_and_losses
from posttrain.evaluation.numerals import percent, points, signed
from posttrain.evaluation.page.write import Page
from posttrain.evaluation.page.write import write as write_page
from posttrain.evaluation.section import Cell, Section, cell, toned
from posttrain.run import commit


def holds_run(folder: Path) -> bool:
    return (folder / NAME).is_file()


def load(named: Sequence[tuple[str, Path]]) -> tuple[list[Row], list[Cost]]:
    """Rows and costs of run folders; with several, each arm is called by its run's name too."""
    rows: list[Row] = []
    costs: list[Cost] = []
    for name, folder in named:
        if not holds_run(folder):
            raise ConfigError(f"{folder}: holds no {NAME}; expected a folder made by posttrain eval with a suite of kind icl")
        found, spent = read(folder / NAME)
        prefix = f"{name}: " if len(named) > 1 else ""
        rows += [replace(row, arm=prefix + row.arm) for row in found]
        costs += [replace(cost, arm=prefix + cost.arm) for cost in spent]
    if not rows:
        raise ConfigError(f"{named[-1][1] / NAME}: holds no row; run the evaluation first")
    return rows, costs


def write(path: Path, named: Sequence[tuple[str, Path]], *, title: str, notes: Sequence[str] = ()) -> None:
    """Write the page of these runs, (name, folder) each."""
    rows, costs = load(named)
    curves = curves_of(rows, costs)
    summaries = [_summary(folder) for _, folder in named]
    metric = charts.capitalised(next((summary["metric"] for summary in summaries if summary), "accuracy"))
    has_nll = any(point.nll for point in curves.points)
    further = [row for (name, _), summary in zip(named, summaries) for row in _further(summary, f"{name}: " if len(named) > 1 else "")]
    sections = [_curves(curves, metric), _figures(curves, metric, has_nll), _differences(curves, metric, has_nll)]
    sections += [_spreads(curves, metric), _further_section(further)]
    arms = _own_arms(curves)
    page = Page(
        title=title,
        kind=f"Many shots · {len(arms)} arm{'s' * (len(arms) != 1)} · {len({row.item for row in rows}):,} items",
        lede=_lede(arms, curves),
        notes=tuple(notes),
        sections=tuple(section for section in sections if section.rows or section.plots),
        reading=answers.reading(rows),
        reading_text="Every item under one draw of shots, its answers at the fewest and the most shots side by side.",
        provenance=(("This page", f"posttrain report · commit {commit()}"), *_facts(named, rows)),
    )
    write_page(path, page)


def write_figure(path: Path, named: Sequence[tuple[str, Path]]) -> None:
    """The curves as one PNG."""
    summary = _summary(named[0][1])
    charts.draw(path, curves_of(*load(named)).points, summary.get("metric", "accuracy"))


def table(curves: Curves) -> str:
    """The points for a terminal, in percent, with 95% intervals over items."""
    wide = max(len(point.arm) for point in curves.points) + 2
    lines = [f"  {'':<{wide}}{'shots':>7}{'items':>7}{'score':>8}  {'95% interval':<16}{'NLL':>8}{'read':>9}{'s/item':>9}"]
    for p in curves.points:
        score = (
            f"{100 * p.score.value:8.1f}  {f'[{100 * p.score.low:.1f}, {100 * p.score.high:.1f}]':<16}" if p.score else f"{'—':>8}{'':18}"
        )
        nll = f"{p.nll.value:8.3f}" if p.nll else f"{'':8}"
        cost = f"{p.cost.read_tokens:9.1f}{p.cost.seconds:9.4f}" if p.cost else ""
        lost = f"  {p.too_long} too long" if p.too_long else ""
        lines.append(f"  {p.arm:<{wide}}{p.shots:>7}{p.items:>7}{score}{nll}{cost}{lost}".rstrip())
    return "\n".join(lines)


def _curves(curves: Curves, metric: str) -> Section:
    titles: dict[charts.Measure, str] = {"score": f"{metric}, %", "nll": "NLL of the reference answer, nats per token"}
    plots = [charts.plot(curves.points, measure, title) for measure, title in titles.items() if charts.lines_of(curves.points, measure)]
    text = (
        "Line: mean over seeds and orders. Band: its 95% interval over items, for these shots. Small dots: one seed each, which is how "
        "much the draw of shots matters."
    )
    if len(plots) > 1:
        text += " A lower NLL need not mean better answers (arXiv 2404.11018, section 5); compare it within an arm only, as formats differ."
    return Section(name="Curves", title="Over the number of shots", text=text, plots=tuple(plots))


def _own_arms(curves: Curves) -> list[str]:
    return list(dict.fromkeys(point.arm for point in curves.points if not point.baseline))


def _lede(arms: Sequence[str], curves: Curves) -> str:
    """What the most shots change against the fewest, arm by arm; of many arms, how many gain by them."""
    widest = [max(of, key=lambda d: d.more - d.fewer) for arm in arms if (of := [d for d in curves.differences if d.arm == arm])]
    if len(widest) <= MOST_SENTENCES:
        return " ".join(map(_sentence, widest))
    return gains_and_losses([(d.arm, d.score) for d in widest], "arms", "from the fewest shots to the most")


def _sentence(d: Difference) -> str:
    """Claimed only where the interval is clear of 0."""
    span = f"from {d.fewer:,} to {d.more:,} shots"
    size = f"{abs(100 * d.score.value):.1f} points"
    gain = (
        f"gains {size}" if d.score.low > 0 else f"loses {size}" if d.score.high < 0 else f"shows no clear change ({points(d.score.value)})"
    )
    if d.nll is None:
        return f"{d.arm} {gain} {span}."
    moved = "falls" if d.nll.high < 0 else "rises" if d.nll.low > 0 else "shows no clear change"
    return f"{d.arm} {gain} {span}; the NLL of its reference answers {moved} ({signed(d.nll.value)} nats per token)."


def _figures(curves: Curves, metric: str, has_nll: bool) -> Section:
    head = ("Shots", "Items", metric, "Seeds, lowest\nto highest", *(["NLL"] if has_nll else []))
    head += ("Prompt\ntokens", "Read\ntokens", "Answer\ntokens", "Cut at the\nlimit, %", "Seconds", "Not graded")
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for arm in dict.fromkeys(point.arm for point in curves.points):
        rows += [(arm, ()), *((f"{point.shots:,}", _row(point, has_nll)) for point in curves.points if point.arm == arm)]
    text = (
        f"{metric} in percent, negative log-likelihood of the reference answer in nats per token; below each its 95% interval over items. "
        "Tokens and seconds are per item; read tokens are those of the prompt that the engine had not cached, for answer and likelihood."
    )
    return Section(name="Figures", title="Figures", text=text, head=head, rows=tuple(rows))


def _row(p: Point, has_nll: bool) -> tuple[Cell, ...]:
    lost = ", ".join(f"{n:,} {what}" for n, what in ((p.too_long, "too long"), (p.unscored, "not scored")) if n)
    seeds = f"{percent(min(p.seeds.values()))} to {percent(max(p.seeds.values()))}" if len(p.seeds) > 1 else ""
    c = p.cost
    cost = (
        [f"{c.prompt_tokens:,.0f}", f"{c.read_tokens:,.0f}", f"{c.answer_tokens:,.1f}", percent(p.clipped), f"{c.seconds:.3g}"]
        if c
        else [""] * 5
    )
    items = Cell(value=f"{p.items:,}", interval=f"{p.graded:,} answers" if p.graded != p.items else "")
    nll = [cell(p.nll, "{:.3f}".format)] if has_nll else []
    return (items, cell(p.score), Cell(value=seeds), *nll, *(Cell(value=word) for word in (*cost, lost)))


def _shown(curves: Curves) -> list[Difference]:
    """Of all pairs those that tell a curve: each number of shots against the one before, and the most against the fewest."""
    found = []
    for arm in dict.fromkeys(d.arm for d in curves.differences):
        counts = sorted({n for d in curves.differences if d.arm == arm for n in (d.fewer, d.more)})
        steps = {*pairwise(counts), (counts[0], counts[-1])}
        found += [d for d in curves.differences if d.arm == arm and (d.fewer, d.more) in steps]
    return found


def _differences(curves: Curves, metric: str, has_nll: bool) -> Section:
    head = ("Arm", "Shots", "Items", f"{metric},\nchange", *(["NLL,\nchange"] if has_nll else []))
    rows = []
    for d in _shown(curves):
        nll = [toned(d.nll, signed, good=-1) if d.nll else cell(None)] if has_nll else []
        score = toned(d.score, points)
        rows.append((d.arm, (Cell(value=f"{d.fewer:,} → {d.more:,}"), Cell(value=f"{d.items:,}"), score, *nll)))
    text = f"The same items under the same seeds, paired: {metric} in points, NLL in nats per token, each with its 95% interval."
    return Section(title="More shots against fewer", text=text, head=head, rows=tuple(rows))


def _spreads(curves: Curves, metric: str) -> Section:
    head = ("Arm", "Shots", "Subject", "Items", "Lowest", "Mean", "Highest", "Standard\ndeviation")
    rows = []
    for s in curves.spreads:
        words = (f"{s.shots:,}", s.subject or "all", f"{s.items:,}", *map(percent, (s.lowest, s.mean, s.highest, s.deviation)))
        rows.append((s.arm, tuple(Cell(value=word) for word in words)))
    text = f"Means of {metric} over random orders of the very same shots, percent."
    return Section(title="The order of the shots", text=text, head=head, rows=tuple(rows))


def _further_section(found: Sequence[dict[str, Any]]) -> Section:
    keys = ("shots", "seed", "order", "name", "value")
    rows = tuple((row["arm"], tuple(Cell(value=str(row[key])) for key in keys)) for row in found)
    return Section(title="Further figures of the task", text="", head=("Arm", "Shots", "Seed", "Order", "Figure", "Value"), rows=rows)


def _further(summary: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    found = []
    for figures in summary.get("figures", []):
        where = {key: figures[key] for key in ("shots", "seed", "order")} | {"arm": prefix + figures["arm"]}
        found += [where | {"name": name, "value": f"{value:.4g}"} for name, value in figures.items() if name not in where]
    return found


def _summary(folder: Path) -> dict[str, Any]:
    """What the run wrote when it ended; nothing for one that goes on."""
    file = folder / "summary.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def _facts(named: Sequence[tuple[str, Path]], rows: Sequence[Row]) -> list[tuple[str, str]]:
    facts = list(provenance_of([folder for _, folder in named], named[-1][1]))
    for name, folder in named:
        recorded = yaml.safe_load((folder / "config.yaml").read_text()) if (folder / "config.yaml").is_file() else {}
        facts.append((f"{name}: model", str(recorded.get("model", "unknown"))))
    return [*facts, ("Rows", f"{len(rows):,}")]
