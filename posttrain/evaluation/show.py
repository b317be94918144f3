"""`posttrain report`: the table, the page and the files of one or more runs."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain.config import ConfigError
from posttrain.evaluation import figure, given, report, scaling, second, table, turns
from posttrain.evaluation.budget import recorded
from posttrain.evaluation.entries import Entry, load_entry, load_training, trained_only
from posttrain.evaluation.icl import page as in_context
from posttrain.evaluation.metrics import Summary
from posttrain.evaluation.rows import Source, find_row, load_rows, sources, unfinished
from posttrain.evaluation.section import Section
from posttrain.evaluation.table import Table
from posttrain.grading.peer import PEERS
from posttrain.rollout.store import read_episodes
from posttrain.run import write_atomic
from posttrain.types import Episode

HELP = """\
The figures of one or more runs: a table here, a page to read, and with --out DIR the table as Markdown and CSV as well.

    posttrain report runs/score_sums/demo --against Base          a study: its labelled runs, all seeds
    posttrain report SCoRe=runs/a SCoRe=runs/b Plain=runs/c       one name for several runs: seeds of one row
    posttrain report SCoRe=runs/stage1,runs/stage2                stages of one model, for its curves
    posttrain report runs/a --suite sums_scaling --scaling        2K first attempts against K revised ones
    posttrain report runs/a --second math-verify                  where another grader disagrees, to be read

Intervals are over problems, and over seeds where a row has several. Where the runs hold an evaluation on given first attempts beside
one on the model's own, both are compared; more than two attempts are shown attempt by attempt.
Runs over the number of shots (kind icl) get a page of their own; of runs that were not evaluated, the page shows the training.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Everything that a report shows of some runs."""

    table: Table
    pairs: Sequence[given.Pair]
    curves: Sequence[scaling.Curve]
    entries: Sequence[Entry]
    """The first seed of each row: what the page shows of training and of episodes."""

    @property
    def rows(self) -> list[tuple[str, Summary]]:
        """Each row's figures over its seeds."""
        return [(row.name, row.summary) for row in self.table.rows]


def figures(found: Sequence[Source], against: str | None, votes: bool = False) -> Figures:
    """Of these sources; `against` names a row. Raises `ConfigError`, `DataError`, `NothingScored`, `TooFewSamples`."""
    shown = given.without_pairs(found)
    rows = load_rows(shown)
    groups = [[source for source in shown if source.name == row.name] for row in rows]
    made = table.make_table(rows, find_row(rows, against) if against else None)
    return Figures(
        table=made,
        pairs=given.pairs(found),
        curves=[scaling.scaling(row.name, [_episodes(source) for source in group]) for row, group in zip(rows, groups)] if votes else (),
        entries=[_entry(min(group, key=lambda source: source.seed)) for group in groups],
    )


def write_page(path: Path, title: str, shown: Figures, notes: Sequence[str] = ()) -> None:
    """The page, its figures over all seeds."""
    several = [row for row in shown.table.rows if len(row.seeds) > 1]
    sections: list[Section | None] = [_against(shown.table)]
    sections += [given.as_section(shown.pairs) if shown.pairs else None, turns.as_section(shown.rows)]
    sections += [scaling.as_section(shown.curves) if shown.curves else None]
    if several:
        seeds = ", ".join(dict.fromkeys(str(row.seeds[0].seed) for row in several))
        notes = (*notes, f"Figures are over all seeds; training curves, edit distances and episodes are of seed {seeds}.")
    made = [section for section in sections if section]
    counted = "problems and seeds" if several else "problems"
    report.write_report(path, title, shown.entries, rows=shown.rows, sections=made, notes=notes, counted=counted)


def write_tables(folder: Path, shown: Figures, name: str = "table") -> None:
    """FOLDER/<name>.txt, .md and .csv."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"txt": as_text(shown) + "\n", "md": table.as_markdown(shown.table) + "\n", "csv": table.as_csv(shown.table)}
    for ending, text in texts.items():
        write_atomic(folder / f"{name}.{ending}", text)


def as_text(shown: Figures) -> str:
    """For a terminal: the table, and below it what else there is."""
    parts = [table.as_text(shown.table), given.as_text(shown.pairs) if shown.pairs else "", *map(scaling.as_text, shown.curves)]
    return "\n\n".join(part for part in parts if part)


def cli(argv: Sequence[str]) -> int:
    """`posttrain report`."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="posttrain report", description=HELP, formatter_class=formatter)
    what = "a run, an evaluation or a study; NAME=DIR names it, NAME=DIR,DIR chains the stages of one model"
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN_DIR[,RUN_DIR]", help=what)
    parser.add_argument("--against", metavar="ROW", help="name of the row that every other row is tested against")
    parser.add_argument("--scaling", action="store_true", help="majority votes: 2K first attempts against K revised ones")
    again = "also ask another grader about every final answer, and show where it disagrees; kept beside the episodes"
    parser.add_argument("--second", choices=PEERS, help=again)
    suite = "which evaluation to show, where runs have several; what is written has its name: report_SUITE.html, table_SUITE.md"
    parser.add_argument("--suite", help=suite)
    out = "folder for report.html and table.txt, .md, .csv; or the page alone, where it ends in .html (default: in the last run's folder)"
    parser.add_argument("--out", type=Path, help=out)
    parser.add_argument("--title", help="the page's heading (default: a study's own)")
    parser.add_argument("--figure", type=Path, help="also write the picture for a README, as PNG")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    form.add_argument("--csv", action="store_true", help="print the table as CSV")
    args = parser.parse_args(argv)
    over_shots = [(name or Path(folder).resolve().name, Path(folder)) for name, _, folder in (word.rpartition("=") for word in args.runs)]
    if in_context.holds_run(over_shots[-1][1]):
        return _in_context(over_shots, args)
    runs = [(word.rpartition("=")[0], [Path(folder) for folder in word.rpartition("=")[2].split(",")]) for word in args.runs]
    if all(trained_only(folders[-1]) for _, folders in runs):
        return _training([(name or folders[-1].resolve().name, folders) for name, folders in runs], args)
    found = sources(args.runs, args.suite)
    for source in found if args.second else ():
        second.grade_again(source.evaluation, _episodes(source), args.second)
    shown = figures(found, args.against, votes=args.scaling)
    alone = args.out is None or args.out.suffix == ".html"
    folder = Path(args.runs[-1].rpartition("=")[2].split(",")[-1]) if args.out is None else args.out
    name = f"_{args.suite}" if args.suite else ""  # beside a study's own page and table, not over them
    page = folder if args.out and alone else folder / f"report{name}.html"
    study = recorded(Path(args.runs[0])) if len(args.runs) == 1 else {}
    title, notes = args.title or study.get("title", "Does it correct itself?"), list(study.get("notes", ()))
    if lacking := [said for word in args.runs for said in unfinished(Path(word.rpartition("=")[2].split(",")[0]))]:
        notes.append(f"Left out, as not evaluated yet: {'; '.join(lacking)}.")
        print(notes[-1], file=sys.stderr)
    try:
        write_page(page, title, shown, notes)
        if not alone:
            write_tables(folder, shown, f"table{name}")
        if args.figure:
            figure.write_figure(args.figure, shown.entries, shown.rows)
    except OSError as error:
        raise ConfigError(f"{error.filename or page}: cannot write the report: {error.strerror}") from None
    told = table.as_markdown(shown.table) if args.markdown else table.as_csv(shown.table).rstrip() if args.csv else as_text(shown)
    print(told)
    wrote = f"wrote {page}" + ("" if alone else f", and table{name}.txt, .md and .csv beside it")
    print(wrote if args.csv or args.markdown else f"\n{wrote}", file=sys.stderr if args.csv or args.markdown else sys.stdout)
    return 0


def _in_context(named: Sequence[tuple[str, Path]], args: argparse.Namespace) -> int:
    """The page of runs over the number of shots."""
    out = args.out or named[-1][1] / "report.html"
    in_context.write(out, named, title=args.title or "What do more shots buy?")
    if args.figure:
        in_context.write_figure(args.figure, named)
    print(f"wrote {out}")
    return 0


def _training(named: Sequence[tuple[str, Sequence[Path]]], args: argparse.Namespace) -> int:
    """The page of runs that were not evaluated: their curves, and the episodes of the last step that they kept."""
    out = args.out or named[-1][1][-1] / "report.html"
    page = out if out.suffix == ".html" else out / "report.html"
    entries = [load_training(name, folders) for name, folders in named]
    note = "Figures and episodes are of the last training step that was kept: sampled on training problems, nothing is held out."
    report.write_report(page, args.title or "How training went", entries, notes=[note], paper_rows=())
    print(f"wrote {page}: not evaluated yet, so it shows training alone")
    return 0


def _against(made: Table) -> Section | None:
    """What differs from the chosen row and what it cost, where there is either to tell."""
    spent = any(row.budget.updates or row.budget.missing for row in made.rows)
    return table.as_section(made) if made.against or spent else None


def _entry(source: Source) -> Entry:
    return load_entry(source.name, source.folders, source.suite)


def _episodes(source: Source) -> list[Episode]:
    return list(read_episodes(source.evaluation / "episodes.jsonl"))
