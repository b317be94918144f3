"""One table as in arXiv 2409.12917: a row per method over its seeds, each tested against a chosen row, with what it cost.

Intervals are over problems and seeds (`evaluation/seeds.py`). Against the chosen row everything is paired by problem, and by seed where
both rows have the same seeds: a seed shares its base model and its draws. As many rows are tested at once, Holm's correction (1979,
Scand. J. Stat. 6) says which differences stand.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from posttrain.evaluation.metrics import Summary
from posttrain.evaluation.numerals import p_text, points
from posttrain.evaluation.paper import PAPER_ROWS, PAPER_TITLE
from posttrain.evaluation.rows import Row
from posttrain.evaluation.section import Cell, Section, toned
from posttrain.evaluation.seeds import Measured, cells, difference, shared
from posttrain.evaluation.stats import Estimate, sign_flip

TESTED = {"acc_t2": 1.0, "delta": 2.0}  # measure -> how large a difference can be
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A row's measure less that of the chosen row."""

    estimate: Estimate
    p_value: float
    holm: float
    """The p-value with Holm's correction for all rows of the table."""

    @property
    def stands(self) -> bool:
        return self.holm < SIGNIFICANT


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    rows: tuple[Row, ...]
    against: Row | None
    differences: dict[str, dict[str, Difference]]
    """Row -> measure -> difference; rows that share no problem with the chosen one are not in it."""
    notes: tuple[str, ...]
    """What a reader must know: how intervals were made, which rows were evaluated otherwise."""


def make_table(rows: Sequence[Row], against: Row | None) -> Table:
    """The table of these rows, in their order."""
    tested: dict[str, dict[str, tuple[Estimate, float]]] = {}
    for row in rows:
        if against and row is not against and _comparable(row, against):
            tested[row.name] = {measure: compare_rows(against.seeds, row.seeds, measure) for measure in TESTED}
    corrected = {measure: holm([found[measure][1] for found in tested.values()]) for measure in TESTED}
    differences = {
        name: {m: Difference(estimate=found[m][0], p_value=found[m][1], holm=corrected[m][i]) for m in TESTED}
        for i, (name, found) in enumerate(tested.items())
    }
    return Table(rows=tuple(rows), against=against, differences=differences, notes=tuple(_notes(rows, against, differences)))


def compare_rows(first: Sequence[Measured], second: Sequence[Measured], measure: str) -> tuple[Estimate, float]:
    """The measure of `second` less that of `first`: interval and p-value, over problems, and over seeds where there are several.

    One seed on both sides: the p-value is the exact randomisation test over problems, `stats.sign_flip`.
    """
    problems = shared([*first, *second], measure)
    left_SG, right_SG = (cells(side, measure, problems) for side in (first, second))
    bound = TESTED[measure]
    if [seed.seed for seed in first] != [seed.seed for seed in second]:
        return difference(right_SG, left_SG, bound=bound)
    found, p_value = difference(right_SG - left_SG, bound=bound)
    return found, (p_value if len(first) > 1 else _exact(right_SG[0] - left_SG[0], (first[0], second[0]), p_value))


def holm(p_values: Sequence[float]) -> list[float]:
    """The smallest level at which each is rejected while the chance of any false rejection stays below that level."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = least
    return corrected


def as_text(table: Table) -> str:
    """For a terminal: every seed, the rows over their seeds, what differs from the chosen row, and the paper's rows, in percent."""
    lines = [f"{'':<32}{'t1':>7}{'t2':>7}{'Delta':>8}  {'95% interval':<15}{'i->c':>6}{'c->i':>6}{'changed':>9}{'p':>9}"]
    by_seed = sorted(((seed, row) for row in table.rows for seed in row.seeds), key=lambda pair: pair[0].seed)
    several = len({seed.seed for seed, _ in by_seed}) > 1
    lines += [_figures(f"{row.name} (seed {seed.seed})" if several else row.name, seed.summary) for seed, row in by_seed]
    if several:
        lines += ["\nOver all seeds:", *(_figures(row.name, row.summary) for row in table.rows)]
    lines += ["", *_against(table), "", *table.notes, f"\n{PAPER_TITLE}:"]
    lines += [f"{r.name:<32}{r.t1:7.1f}{r.t2:7.1f}{r.delta:+8.1f}  {'':<15}{r.fixed:6.1f}{r.broken:6.1f}" for r in PAPER_ROWS]
    return "\n".join(lines)


def as_markdown(table: Table) -> str:
    """For a README: a row per method over its seeds, in percent."""
    head = ["", "seeds", "Acc@t1", "Acc@t2", "Delta", "95% interval", "i->c", "c->i", "answer changed", "p"]
    head += ["samples", "tokens", "updates"]
    name = table.against.name if table.against else ""
    head += [f"Acc@t2 against {name}", f"Delta against {name}"] if table.against else []
    lines = [f"| {' | '.join(map(_escaped, head))} |", "|" + "---|" * len(head)]
    for row in table.rows:
        s = row.summary
        figures = [
            _pc(s.acc[0].value),
            _pc(s.acc[1].value),
            _signed(s.delta.value),
            _span(s.delta),
            _pc(s.fixed.value),
            _pc(s.broken.value),
        ]
        found = [row.name, str(len(row.seeds)), *figures, _pc(s.answer_change.value), p_text(s.p_value), *_cost(row)]
        if table.against:
            found += [_told(d) for d in table.differences[row.name].values()] if row.name in table.differences else ["", ""]
        lines.append(f"| {' | '.join(map(_escaped, found))} |")
    return "\n".join([*lines, "", _escaped(" ".join(table.notes))])


def as_csv(table: Table) -> str:
    """For a spreadsheet: fractions with full digits; a line per method over all seeds, then one per seed, which nothing is tested on."""
    lines = list(_csv_lines(table))
    keys = list(dict.fromkeys(key for line in lines for key in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def as_section(table: Table) -> Section:
    """For the page: what differs from the chosen row, and what each row cost."""
    head: tuple[str, ...] = ("Model", "Seeds", "Attempts\nsampled", "Tokens\nsampled", "Updates")
    name = table.against.name if table.against else ""
    head += (f"Acc@t2,\nless {name}’s", f"Change,\nless {name}’s") if table.against else ()
    rows = []
    for row in table.rows:
        samples, tokens, updates = _cost(row)
        shown = [Cell(value=str(len(row.seeds))), Cell(value=samples), Cell(value=tokens), Cell(value=updates)]
        if table.against:
            found = table.differences.get(row.name)
            shown += [_difference_cell(d) for d in found.values()] if found else [Cell(value="")] * 2
        rows.append((row.name, tuple(shown)))
    title = f"Against {name}, and at what cost" if table.against else "At what cost"
    return Section(title=title, text=" ".join(table.notes), head=head, rows=tuple(rows))


def _comparable(row: Row, against: Row) -> bool:
    return all(len(shared([*against.seeds, *row.seeds], measure)) > 1 for measure in TESTED)


def _exact(change_G: Sequence[float], pair: Sequence[Measured], otherwise: float) -> float:
    """`stats.sign_flip` where every problem has the same number of samples on both sides, so that sums are whole numbers."""
    sizes = {seed.summary.episodes / seed.summary.problems for seed in pair}
    samples = sizes.pop()
    if sizes or samples % 1 or any(seed.summary.unscored for seed in pair):
        return otherwise
    return sign_flip([round(change * samples) for change in change_G])


def _notes(rows: Sequence[Row], against: Row | None, differences: dict[str, dict[str, Difference]]) -> Iterator[str]:
    several = any(len(row.seeds) > 1 for row in rows)
    yield (
        "95% intervals over problems and seeds, crossed, with Student's t; a row with one seed: over problems only."
        if several
        else "95% intervals over problems; one seed tells nothing about others."
    )
    if against and differences:
        unpaired = [row.name for row in rows if row.name in differences and _seeds(row) != _seeds(against)]
        yield (
            f"Differences from {against.name} are paired by problem"
            + (" and by seed" if several else "")
            + (f" (but for {', '.join(unpaired)}: other seeds)" if unpaired else "")
            + f"; * stands at 5% with Holm's correction for {len(differences)} rows."
        )
    for row in rows:
        if against and row is not against and (keys := _otherwise(row, against)):
            yield f"{row.name} was evaluated otherwise than {against.name}: {', '.join(keys)}."
        if against and row is not against and row.name not in differences:
            yield f"{row.name} shares no problems with {against.name}, so nothing is tested."
        if row.budget.missing:
            yield f"{row.name}: its cost is a lower bound: {', '.join(row.budget.missing)}."
        if row.summary.unscored:
            yield f"{row.name}: {row.summary.unscored} of {row.summary.episodes} episodes could not be graded and are left out."
    yield "Samples, tokens and updates: a seed's mean, over all runs that led to the model but for the base."


def _otherwise(row: Row, against: Row) -> list[str]:
    return [key for key in row.how if key in against.how and row.how[key] != against.how[key] and key != "method"]


def _seeds(row: Row) -> list[int]:
    return [seed.seed for seed in row.seeds]


def _figures(name: str, s: Summary) -> str:
    interval = f"[{100 * s.delta.low:+.1f}, {100 * s.delta.high:+.1f}]"
    figures = f"{100 * s.acc[0].value:7.1f}{100 * s.acc[1].value:7.1f}{100 * s.delta.value:+8.1f}  {interval:<15}"
    rates = f"{100 * s.fixed.value:6.1f}{100 * s.broken.value:6.1f}{100 * s.answer_change.value:9.1f}{p_text(s.p_value):>9}"
    return f"{name:<32}{figures}{rates}"


def _against(table: Table) -> Iterator[str]:
    name = f"Against {table.against.name}:" if table.against else "Cost:"
    measures = f"  {'Acc@t2':<24}{'p':>8}   {'Delta':<24}{'p':>8}" if table.against else ""
    yield f"{name:<32}{'samples':>11}{'tokens':>13}{'updates':>9}{measures}"
    for row in table.rows:
        samples, tokens, updates = _cost(row)
        found = table.differences.get(row.name, {})
        shown = "".join(f"  {_signed(d.estimate.value)} {_span(d.estimate):<18}{_p(d):>8} " for d in found.values())
        yield f"{row.name:<32}{samples:>11}{tokens:>13}{updates:>9}{shown}".rstrip()


def _csv_lines(table: Table) -> Iterator[dict[str, object]]:
    for row in table.rows:
        line: dict[str, object] = {"row": row.name, "seed": "all", "seeds": len(row.seeds), **_csv_figures(row.summary)}
        line |= {"samples": row.budget.samples, "tokens": row.budget.tokens, "updates": row.budget.updates}
        line |= {"cost_is_lower_bound": bool(row.budget.missing)}
        for measure, d in table.differences.get(row.name, {}).items():
            line |= _csv_estimate(f"{measure}_less_base", d.estimate)
            line |= {f"{measure}_less_base_p": d.p_value, f"{measure}_less_base_p_holm": d.holm}
        yield line | ({"base": table.against.name} if table.against else {})
    for row in table.rows:
        for seed in row.seeds:
            yield {"row": row.name, "seed": seed.seed, "seeds": 1, **_csv_figures(seed.summary)}


def _csv_figures(s: Summary) -> dict[str, object]:
    line: dict[str, object] = {"problems": s.problems, "episodes": s.episodes, "unscored": s.unscored}
    for k, acc in enumerate(s.acc, 1):
        line |= _csv_estimate(f"acc_t{k}", acc)
    for key in ("delta", "fixed", "broken", "fix_rate", "break_rate", "answer_change", "text_copy", "edit_ratio"):
        line |= _csv_estimate(key, getattr(s, key))
    return line | {"delta_p": s.p_value}


def _csv_estimate(key: str, found: Estimate | None) -> dict[str, object]:
    values = (found.value, found.low, found.high) if found else ("", "", "")
    return dict(zip((key, f"{key}_low", f"{key}_high"), values))


def _cost(row: Row) -> tuple[str, str, str]:
    bound = "≥ " if row.budget.missing else ""
    samples, tokens, updates = (f"{bound}{count:,}" for count in (row.budget.samples, row.budget.tokens, row.budget.updates))
    return samples, tokens, updates


def _difference_cell(d: Difference) -> Cell:
    return toned(d.estimate, points, f"; p {_p(d)}")


def _told(d: Difference) -> str:
    return f"{_signed(d.estimate.value)} {_span(d.estimate)}, p {_p(d)}"


def _p(d: Difference) -> str:
    return p_text(d.p_value) + ("*" if d.stands else "")


def _span(found: Estimate) -> str:
    return f"[{_signed(found.low)}, {_signed(found.high)}]"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _pc(value: float) -> str:
    return f"{100 * value:.1f}"


def _escaped(text: str) -> str:
    """Markdown's column mark within a name would open another column."""
    return text.replace("|", "\\|").replace("*", "\\*")
