"""`posttrain grade math FILE.jsonl`: a verdict on each row of a file of answers."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from posttrain.grading.answer import final_answer
from posttrain.grading.batch import compare
from posttrain.jsonl import read_objects
from posttrain.run import write_atomic
from posttrain.types import DataError, Verdict

CHUNK = 256
EPILOG = """\
Each row is a JSON object with the reference and either a bare answer (--pred) or a whole text (--completion), for example

    {"gold": "\\\\frac{1}{2}", "pred": "0.5"}
    {"gold": "72", "completion": "48 + 24 = 72, so the answer is \\\\boxed{72}."}

What comes out is the row with `status` and `why` added: correct, wrong, no_answer, or unscored where the grader itself failed (time,
memory, a reference that it cannot parse). Where rows have an `expected` verdict (true or false), agreement with it is counted.
The counts go to stderr. Exit codes: 0 graded, 2 the call or the file was wrong."""


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain grade",
        description="Grade a file of answers (JSON Lines).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("grader", choices=["math"], help="math: equal as mathematics, by text, exact numbers, then math-verify")
    parser.add_argument("file", type=Path, help="rows to grade, .jsonl or .jsonl.gz")
    parser.add_argument("--gold", default="gold", metavar="NAME", help="field with the reference (default: gold)")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--pred", metavar="NAME", help="field with an answer: its box or closing line, else all of it (default: pred)")
    one.add_argument("--completion", metavar="NAME", help="field with a text that must hold a final answer, else it is no_answer")
    parser.add_argument("--out", type=Path, help="write the verdict rows here instead of to stdout")
    args = parser.parse_args(argv)
    located = read_objects(args.file)
    rows = [row for _, row in located]
    verdicts = grade_rows(located, args.gold, args.completion or args.pred or "pred", whole_text=args.completion is not None)
    lines = [json.dumps({**row, "status": v.status, "why": v.why}) + "\n" for row, v in zip(rows, verdicts)]
    if args.out:
        _write(args.out, "".join(lines))
    else:
        sys.stdout.writelines(lines)
    for line in summary(rows, verdicts):
        print(line, file=sys.stderr)
    return 0


def grade_rows(rows: Sequence[tuple[str, dict[str, Any]]], gold: str, pred: str, *, whole_text: bool) -> list[Verdict]:
    """A verdict on each ("file:line", row), in order; raises `DataError` on a row without its texts before anything is graded."""
    pairs = []
    for where, row in rows:
        reference, said = (_text(row, name, where) for name in (gold, pred))
        answer = final_answer(said)
        pairs.append((final_answer(reference) or reference, answer if whole_text or answer is not None else said))
    chunks = [pairs[i : i + CHUNK] for i in range(0, len(pairs), CHUNK)]
    return [verdict for chunk in tqdm(chunks, desc="grading", unit="chunk", disable=len(chunks) < 4) for verdict in compare(chunk)]


def summary(rows: Sequence[dict[str, Any]], verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Counts per status, agreement with `expected` where rows have it, and why answers went unscored."""
    counts = Counter(verdict.status for verdict in verdicts)
    yield f"{len(rows)} answers: " + ", ".join(f"{n} {status}" for status, n in counts.most_common())
    judged = [(row["expected"], verdict.correct) for row, verdict in zip(rows, verdicts) if isinstance(row.get("expected"), bool)]
    if judged:
        accepted = sum(found and not expected for expected, found in judged)
        refused = sum(expected and not found for expected, found in judged)
        agree = len(judged) - accepted - refused
        yield (
            f"agrees with `expected` in {agree} of {len(judged)} ({agree / len(judged):.1%}): "
            f"{accepted} accepted though false, {refused} not accepted though true"
        )
    for why, n in Counter(verdict.why for verdict in verdicts if not verdict.scored).most_common(5):
        yield f"  unscored {n}: {why}"


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: needs text in {name!r}, found {value!r:.80}; the row has {', '.join(map(repr, row)) or 'no fields'}")
    return value


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
