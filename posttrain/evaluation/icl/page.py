"""The page and the table of an in-context run, made from its folder alone, or from several, each a model of its own."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from posttrain.config import ConfigError
from posttrain.evaluation import charts as shared
from posttrain.evaluation import drawing
from posttrain.evaluation.drawing import percent, points
from posttrain.evaluation.entries import provenance_of
from posttrain.evaluation.icl import charts
from posttrain.evaluation.icl.curves import Curves, Difference, Point, curves_of
from posttrain.evaluation.icl.log import NAME, Cost, Row, read
from posttrain.evaluation.stats import Estimate
from posttrain.run import commit, seed_for, write_atomic

NUM_READ = 4  # items shown per arm, at the fewest and at the most shots
MOST_TEXT = 600
NONE = {"value": "—", "interval": "", "tone": ""}


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
    metric = next((summary["metric"] for summary in summaries if summary), "accuracy")
    has_nll = any(point.nll for point in curves.points)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((Path(__file__).parent / "page.html").read_text())
    text = template.render(
        title=title,
        notes=notes,
        lede=[sentence for arm in _own_arms(curves) if (sentence := _sentence(arm, curves))],
        style=Markup(_style()),
        charts=_charts(curves.points, metric),
        metric=charts.capitalised(metric),
        nll=has_nll,
        tables=[_table(arm, curves.points) for arm in dict.fromkeys(point.arm for point in curves.points)],
        differences=[_difference(d, has_nll) for d in _shown(curves)],
        spreads=[
            {"arm": s.arm, "shots": s.shots, "subject": s.subject or "all", "items": s.items}
            | {key: percent(getattr(s, key)) for key in ("lowest", "mean", "highest", "deviation")}
            for s in curves.spreads
        ],
        further=[row for (name, _), summary in zip(named, summaries) for row in _further(summary, f"{name}: " if len(named) > 1 else "")],
        answers=_answers(rows),
        provenance=[("This page", f"posttrain report · commit {commit()}"), *_facts(named, rows)],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)


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


def _style() -> str:
    """The style of the other page, so that the two are of one house."""
    page = (Path(shared.__file__).parent / "page.html").read_text()
    style = re.search(r"<style>\n(.*?)</style>", page, re.DOTALL)
    assert style is not None
    colours = {"t1": drawing.ATTEMPT[0], "t2": drawing.ATTEMPT[1], "good": shared.OUTCOME["fixed"], "bad": shared.OUTCOME["broken"]}
    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(style[1]).render(colours=colours)


def _charts(found: Sequence[Point], metric: str) -> list[dict[str, Any]]:
    titles = {"score": f"{charts.capitalised(metric)}, %", "nll": "NLL of the reference answer, nats per token"}
    made = []
    for measure, title in titles.items():
        keys = [{"name": c.name, "colour": c.colour, "dash": bool(c.dash)} for c in charts.lines_of(found, measure)]
        made += [{"title": title, "legend": keys, "svg": Markup(charts.panel(found, measure, f"{title} over shots"))}] if keys else []
    return made


def _own_arms(curves: Curves) -> list[str]:
    return list(dict.fromkeys(point.arm for point in curves.points if not point.baseline))


def _sentence(arm: str, curves: Curves) -> str:
    """What the most shots change against the fewest, claimed only where the interval is clear of 0."""
    of = [d for d in curves.differences if d.arm == arm]
    if not of:
        return ""
    d = max(of, key=lambda d: d.more - d.fewer)
    span = f"from {d.fewer:,} to {d.more:,} shots"
    size = f"{abs(100 * d.score.value):.1f} points"
    gain = (
        f"gains {size}" if d.score.low > 0 else f"loses {size}" if d.score.high < 0 else f"shows no clear change ({points(d.score.value)})"
    )
    if d.nll is None:
        return f"{arm} {gain} {span}."
    moved = "falls" if d.nll.high < 0 else "rises" if d.nll.low > 0 else "shows no clear change"
    return f"{arm} {gain} {span}; the NLL of its reference answers {moved} ({_signed(d.nll.value)} nats per token)."


def _table(arm: str, found: Sequence[Point]) -> dict[str, Any]:
    of = [point for point in found if point.arm == arm]
    return {"arm": arm, "rows": [_row(p) for p in of]}


def _row(p: Point) -> dict[str, Any]:
    lost = [(p.too_long, "too long"), (p.unscored, "not scored")]
    return {
        "shots": f"{p.shots:,}",
        "items": f"{p.items:,}",
        "graded": f"{p.graded:,} answers" if p.graded != p.items else "",
        "score": _cell(p.score),
        "seeds": f"{percent(min(p.seeds.values()))} to {percent(max(p.seeds.values()))}" if len(p.seeds) > 1 else "",
        "nll": _cell(p.nll, "{:.3f}".format),
        "prompt": f"{p.cost.prompt_tokens:,.0f}" if p.cost else "",
        "read": f"{p.cost.read_tokens:,.0f}" if p.cost else "",
        "answer": f"{p.cost.answer_tokens:,.1f}" if p.cost else "",
        "seconds": f"{p.cost.seconds:.3g}" if p.cost else "",
        "cut": percent(p.clipped) if p.cost else "",
        "lost": ", ".join(f"{n:,} {what}" for n, what in lost if n),
    }


def _shown(curves: Curves) -> list[Difference]:
    """Of all pairs those that tell a curve: each number of shots against the one before, and the most against the fewest."""
    found = []
    for arm in dict.fromkeys(d.arm for d in curves.differences):
        counts = sorted({n for d in curves.differences if d.arm == arm for n in (d.fewer, d.more)})
        steps = {*pairwise(counts), (counts[0], counts[-1])}
        found += [d for d in curves.differences if d.arm == arm and (d.fewer, d.more) in steps]
    return found


def _difference(d: Difference, has_nll: bool) -> dict[str, Any]:
    score = _cell(d.score, points) | {"tone": _tone(d.score, good=1)}
    nll = _cell(d.nll, _signed) | {"tone": _tone(d.nll, good=-1)} if has_nll else NONE
    return {"arm": d.arm, "fewer": f"{d.fewer:,}", "more": f"{d.more:,}", "items": d.items, "score": score, "nll": nll}


def _tone(estimate: Estimate | None, good: int) -> str:
    side = 0 if estimate is None else (estimate.low > 0) - (estimate.high < 0)
    return {good: "good", -good: "bad"}.get(side, "")


def _cell(estimate: Estimate | None, show: Any = percent) -> dict[str, str]:
    if estimate is None:
        return NONE
    return {"value": show(estimate.value), "interval": f"{show(estimate.low)} to {show(estimate.high)}", "tone": ""}


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _further(summary: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    found = []
    for figures in summary.get("figures", []):
        where = {key: figures[key] for key in ("shots", "seed", "order")} | {"arm": prefix + figures["arm"]}
        found += [where | {"name": name, "value": f"{value:.4g}"} for name, value in figures.items() if name not in where]
    return found


def _answers(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A few items of each arm, the same at the fewest and the most shots, of the first seed and order."""
    found = []
    first = [row for row in rows if row.order == 0 and not row.baseline and not row.too_long]
    for arm in dict.fromkeys(row.arm for row in first):
        of = [row for row in first if row.arm == arm]
        seed, counts = of[0].seed, sorted({row.shots for row in of})
        of = [row for row in of if row.seed == seed and row.shots in (counts[0], counts[-1])]
        chosen = sorted({row.item for row in of}, key=lambda item: seed_for("to_read", item))[:NUM_READ]
        for row in sorted((r for r in of if r.item in chosen), key=lambda r: (chosen.index(r.item), r.shots)):
            text = row.text if len(row.text) <= MOST_TEXT else f"{row.text[:MOST_TEXT]}… {len(row.text) - MOST_TEXT:,} more characters"
            score, nll = "—" if row.score is None else f"{row.score:.3g}", "" if row.nll is None else f"{row.nll:.3f}"
            found.append({"item": row.item, "arm": row.arm, "shots": f"{row.shots:,}", "score": score, "nll": nll, "text": text})
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
