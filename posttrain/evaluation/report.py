"""The page of `posttrain report`: one HTML file that shows what training did to self-correction, readable from disk without a network.

`write_report` takes entries, one per model; `write_figure` draws the same in one small picture. Everything a model wrote is escaped by the
template, and the page's own policy forbids any script but its six lines.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from rapidfuzz.distance import Levenshtein

from posttrain.evaluation import charts
from posttrain.evaluation.charts import percent, points
from posttrain.evaluation.entries import Entry, to_read
from posttrain.evaluation.metrics import Outcome, Summary, acc_at, breakdown, compare, delta_of, edit_distance_ratio, summarise
from posttrain.evaluation.paper import PAPER_ROWS, PAPER_TITLE, PaperRow
from posttrain.evaluation.section import Cell, Section, cell, p_text, toned
from posttrain.run import commit, write_atomic
from posttrain.types import Episode, FinalAnswer, Turn

NUM_READ = 20
MOST_TEXT = 6000  # characters of one attempt shown; a runaway completion should not make the page heavy
SCRIPT = """
const chosen = {}, groups = document.querySelectorAll("[data-filter]");
const show = () => { let seen = 0; document.querySelectorAll("article").forEach(a => {
  a.hidden = Object.keys(chosen).some(k => chosen[k] !== "" && a.dataset[k] !== chosen[k]); seen += !a.hidden; });
  document.getElementById("none").hidden = seen > 0; };
const press = (group, button) => { group.querySelectorAll("button").forEach(b => b.setAttribute("aria-pressed", b === button));
  chosen[group.dataset.filter] = button.value; show(); };
groups.forEach(g => { g.parentElement.hidden = false; g.addEventListener("click", e => e.target.value !== undefined && press(g, e.target));
  press(g, g.querySelector("[aria-pressed=true]")); });
"""


def write_report(
    path: str | Path,
    title: str,
    entries: Sequence[Entry],
    *,
    rows: Sequence[tuple[str, Summary]] | None = None,
    sections: Sequence[Section] = (),
    paper_rows: Sequence[PaperRow] = PAPER_ROWS,
    paper_title: str = PAPER_TITLE,
    notes: Sequence[str] = (),
    counted: str = "problems",
) -> None:
    """Write the page for these models, in the order given; each needs scored episodes of at least two attempts.

    `rows` are the models' figures where they are more than their entry's own, as over several seeds; intervals are over what is `counted`.
    """
    if not entries:
        raise ValueError("a report needs at least one entry")
    rows = rows or [(entry.name, summarise(entry.episodes)) for entry in entries]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((Path(__file__).parent / "page.html").read_text())
    text = template.render(
        title=title,
        notes=notes,
        lede=[" ".join(_sentence(name, s) for name, s in rows)],
        colours={"t1": charts.ATTEMPT[0], "t2": charts.ATTEMPT[1], "good": charts.OUTCOME["fixed"], "bad": charts.OUTCOME["broken"]},
        outcome_colours=list(charts.OUTCOME.items()),
        charts={name: Markup(getattr(charts, name)(rows)) for name in ("accuracies", "deltas", "outcomes")},
        table=[_table_row(name, s) for name, s in rows],
        paper_rows=[_paper_row(row) for row in paper_rows],
        paper_title=paper_title,
        counted=counted,
        sections=[_section(section) for section in sections],
        comparisons=[] if sections else _comparisons(entries),
        levels=_levels(entries),
        curves=_curves(entries),
        histograms=_histograms(entries),
        num_read=NUM_READ,
        episodes=[shown for i, entry in enumerate(entries) for shown in _episodes(i, entry)],
        provenance=_provenance(entries, rows),
        script=Markup(SCRIPT),
        script_hash=base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode(),
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(Path(path), text)


def write_figure(path: str | Path, entries: Sequence[Entry], rows: Sequence[tuple[str, Summary]] | None = None) -> None:
    """A picture for a README: left, accuracy of both attempts over training; right, Delta per model (of `rows`) with 95% intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained = [entry for entry in entries if entry.stages]
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titleweight": "bold"}
    with pyplot.rc_context(style):
        panels = len(trained) + 1
        figure, grid = pyplot.subplots(1, panels, figsize=(3.2 * panels, 2.7), squeeze=False, layout="constrained")
        axes = list(grid[0])
        low, high = charts.span([s for e in trained for s in e.stages], ("acc_t1", "acc_t2"))
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


def _sentence(name: str, s: Summary) -> str:
    """What the second attempt does to this model's accuracy, claimed only where the interval is clear of 0."""
    size = f"{abs(100 * s.delta.value):.1f} points"
    if s.delta.low > 0:
        return f"{name} gains {size} from its second attempt."
    if s.delta.high < 0:
        return f"{name} loses {size}."
    return f"{name} shows no clear change ({points(s.delta.value)})."


def _table_row(name: str, s: Summary) -> dict[str, Any]:
    a, b = s.between
    pair = f"{s.num_fixed:,} : {s.num_broken:,}"
    cells: list[Cell] = [cell(s.acc[a - 1]), cell(s.acc[b - 1]), toned(s.delta, points)]
    cells += [Cell(value=p_text(s.p_value), interval=pair), cell(s.fixed), cell(s.broken)]
    return {"name": name, "n": _count(s), "cells": [*cells, cell(s.answer_change), cell(s.text_copy)]}


def _section(section: Section) -> dict[str, Any]:
    """Its charts and its head as they are: we made them. Names and figures are escaped."""
    panels = [{"title": panel.title, "svg": Markup(panel.svg), "legend": panel.keys} for panel in section.panels]
    head = [Markup(escape(word).replace(escape("<br>"), Markup("<br>"))) for word in section.head]
    return {"title": section.title, "text": section.text, "head": head, "rows": section.rows, "panels": panels}


def _paper_row(row: PaperRow) -> dict[str, str]:
    figures = {key: f"{getattr(row, key):.1f}" for key in ("t1", "t2", "fixed", "broken")}
    return {"name": row.name, "delta": points(row.delta / 100), **figures}


def _count(s: Summary) -> str:
    return f"{s.problems:,}" if s.episodes == s.problems else f"{s.problems:,} × {s.episodes / s.problems:.3g}"


def _comparisons(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """The last model against each of the others."""
    last, found = entries[-1], []
    for other in entries[:-1]:
        if {e.problem.id for e in other.episodes} & {e.problem.id for e in last.episodes}:
            acc, delta = (compare(other.episodes, last.episodes, measure) for measure in (acc_at(2), delta_of))
            spans = [f"{points(x.value)} ({points(x.low)} to {points(x.high)})" for x in (acc, delta)]
            found.append({"name": f"{last.name} − {other.name}", "acc": spans[0], "delta": spans[1]})
    return found


def _levels(entries: Sequence[Entry]) -> list[tuple[str, list[dict[str, Any]]]]:
    found = []
    for entry in entries:
        groups = breakdown(entry.episodes, "level")
        cells = {k: [cell(s.acc[0]), cell(s.acc[1]), cell(s.delta, points), cell(s.fixed), cell(s.broken)] for k, s in groups.items()}
        if len(groups) > 1:
            found.append((entry.name, [{"name": k, "n": _count(groups[k]), "cells": cells[k]} for k in groups]))
    return found


def _curves(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Three panels per trained model; every kind of panel has the same axes for all of them."""
    trained = [entry for entry in entries if entry.stages]
    stages = [stage for entry in trained for stage in entry.stages]
    steps = max((sum(charts.last_step(stage) for stage in entry.stages) for entry in trained), default=0)
    kinds = [("Accuracy, %", ("acc_t1", "acc_t2"), percent), ("Answers changed, %", ("answer_change",), percent)]
    kinds.append(("KL to the reference, nats per attempt", ("kl_t1", "kl_t2"), lambda value: f"{value:.3g}"))
    spans = [charts.span(stages, keys) for _, keys, _ in kinds]
    made = []
    for entry in trained:
        panels = [
            {
                "title": title,
                "keyed": len(keys) > 1,
                "svg": Markup(charts.curve(entry.stages, keys, y, steps, show, f"{title}: {entry.name}")),
            }
            for (title, keys, show), y in zip(kinds, spans)
        ]
        made.append({"name": entry.name, "panels": panels})
    return made


def _histograms(entries: Sequence[Entry]) -> list[tuple[str, Markup, str]]:
    values = [[edit_distance_ratio(e.turns[0].text, e.turns[1].text) for e in entry.episodes] for entry in entries]
    top = 1.04 * max(share for v in values for share in charts.shares_of(v))
    shares = [f"{percent(sum(x == 0 for x in v) / len(v))} % exact copies, mean {sum(v) / len(v):.2f}" for v in values]
    return [(entry.name, Markup(charts.histogram(v, top)), share) for entry, v, share in zip(entries, values, shares)]


def _episodes(model: int, entry: Entry) -> list[dict[str, Any]]:
    return [_episode(model, entry.name, kind, episode) for kind, episode in to_read(entry.episodes, NUM_READ)]


def _episode(model: int, name: str, kind: Outcome, episode: Episode) -> dict[str, Any]:
    problem, reference = episode.problem, episode.problem.reference
    first, second = differing(episode.turns[0].text[:MOST_TEXT], episode.turns[1].text[:MOST_TEXT])
    return {
        "model": model,
        "name": name,
        "outcome": kind,
        "colour": charts.OUTCOME[kind],
        "problem": problem.id,
        "group": " · ".join(part for part in (f"level {problem.level}" if problem.level else "", problem.subject) if part),
        "reference": reference.text if isinstance(reference, FinalAnswer) else "unit tests",
        "question": problem.question,
        "turns": [_turn(episode.turns[0], first, True), _turn(episode.turns[1], second, False)],
    }


def _turn(turn: Turn, segments: list[tuple[bool, str]], first: bool) -> dict[str, Any]:
    hidden = len(turn.text) - MOST_TEXT
    cut = f"… {hidden:,} more characters" if hidden > 0 else "stopped by the length limit" if turn.completion.finish == "length" else ""
    status = turn.verdict.status.replace("_", " ")
    return {"correct": turn.verdict.correct, "status": status, "answer": turn.answer, "segments": segments, "first": first, "cut": cut}


def differing(first: str, second: str) -> tuple[list[tuple[bool, str]], list[tuple[bool, str]]]:
    """Both texts as (differs, piece): word by word. Texts with little in common have nothing marked, as everything would be."""
    words = [re.findall(r"\w+|\s+|.", text, flags=re.DOTALL) for text in (first, second)]
    if Levenshtein.normalized_similarity(*([word for word in side if not word.isspace()] for side in words)) < 0.4:
        return [(False, first)], [(False, second)]
    left, right = [], []
    for step in Levenshtein.opcodes(*words):
        left.append((step.tag != "equal", "".join(words[0][step.src_start : step.src_end])))
        right.append((step.tag != "equal", "".join(words[1][step.dest_start : step.dest_end])))
    return _joined(left), _joined(right)


def _joined(pieces: Sequence[tuple[bool, str]]) -> list[tuple[bool, str]]:
    """Changed pieces with no word between them become one, which reads better than a mark on each."""
    joined: list[tuple[bool, str]] = []
    for i, (changed, text) in enumerate(pieces):
        inside = 0 < i < len(pieces) - 1 and re.fullmatch(r"[^\w\n]{0,2}", text)
        changed = changed or bool(inside)
        if joined and joined[-1][0] == changed:
            text = joined.pop()[1] + text
        joined.append((changed, text))
    return [piece for piece in joined if piece[1]]


def _provenance(entries: Sequence[Entry], rows: Sequence[tuple[str, Summary]]) -> list[tuple[str, str]]:
    facts = [("This page", f"posttrain report · commit {commit()}")]
    for entry, (name, s) in zip(entries, rows):
        cut = ", ".join(f"{percent(share)} %" for share in s.clip)
        tokens = ", ".join(f"{mean:.0f}" for mean in s.tokens)
        counts = f"{_count(s)} problems, {s.unscored} unscored, cut by the length limit per attempt {cut}, mean tokens {tokens}"
        facts += [(name, counts), *((f"{name}: {what}", value) for what, value in entry.provenance)]
    return facts


def _draw_accuracy(axis: Any, entry: Entry) -> None:
    start = 0.0
    for stage in entry.stages:
        for i, key in enumerate(("acc_t1", "acc_t2")):
            logged = [(start + row["step"], 100 * row[f"train/{key}"]) for row in stage.metrics if f"train/{key}" in row]
            smooth = charts.moving_mean(charts.thin(logged, 240))
            label = ("first attempt", "second attempt")[i] if not start else None
            axis.plot([x for x, _ in smooth], [v for _, v in smooth], color=charts.ATTEMPT[i], lw=1.8, label=label)
        start += charts.last_step(stage)
        if stage is not entry.stages[-1]:
            axis.axvline(start, color=charts.SOFT, lw=0.8, ls=":")


def _draw_deltas(axis: Any, rows: Sequence[tuple[str, Summary]]) -> None:
    axis.axvline(0, color=charts.SOFT, lw=0.9)
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for i, (_, s) in enumerate(rows):
        colour = charts.verdict_colour(s)
        axis.plot([100 * s.delta.low, 100 * s.delta.high], [i, i], color=colour, lw=2.2, solid_capstyle="butt")
        axis.plot(100 * s.delta.value, i, "o", color=colour, ms=6)
        axis.annotate(
            points(s.delta.value), (100 * s.delta.value, i), (0, 7), textcoords="offset points", ha="center", color=colour, bbox=plain
        )
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.set(ylim=(len(rows) - 0.5, -0.6), xlabel="points, 95% interval", title="Second − first")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
