"""`posttrain grade math FILE.jsonl`: a verdict on each row of a file of answers."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from posttrain.grading.answer import fallback_answer, final_answer, find_answer
from posttrain.grading.batch import compare
from posttrain.grading.file import Located, read_rows, summarise, summary_lines, text_field, write_rows
from posttrain.grading.math import is_prose
from posttrain.grading.policy import DEFAULT, MathPolicy
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
        prog="posttrain grade math",
        description="Grade a file of answers as mathematics (JSON Lines).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="rows to grade, .jsonl or .jsonl.gz")
    parser.add_argument("--gold", default="gold", metavar="NAME", help="field with the reference (default: gold)")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--pred", metavar="NAME", help="field with an answer: its box or closing line, else all of it (default: pred)")
    one.add_argument("--completion", metavar="NAME", help="field with a text that must hold a final answer, else it is no_answer")
    parser.add_argument("--out", type=Path, help="write the verdict rows here (.jsonl or .jsonl.gz) instead of to stdout")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout; the rows then go to --out only")
    args = parser.parse_args(argv)
    located = read_rows(args.file)
    verdicts = grade_rows(located, args.gold, args.completion or args.pred or "pred", whole_text=args.completion is not None)
    graded = [{**row, "status": v.status, "why": v.why} for (_, row), v in zip(located, verdicts)]
    if args.out or not args.json:
        write_rows(args.out, graded)
    report(summarise(graded, [v.why for v in verdicts if not v.scored]), as_json=args.json)
    return 0


def grade_rows(rows: Sequence[Located], gold: str, pred: str, *, whole_text: bool) -> list[tuple[Verdict, float]]:
    """(verdict, seconds) of each ("file:line", row), in order; raises `DataError` on a row without its texts before any is graded."""
    questions = []
    for where, row in rows:
        reference, said = (text_field(where, row, name) for name in (gold, pred))
        reference = final_answer(reference) or reference
        answer, how = (final_answer(said), "") if whole_text else read_answer(said, reference)
        questions.append((reference, answer, how, policy_of(where, row)))
    return [_timed(*question) for question in tqdm(questions, desc="grading", unit="row", disable=len(questions) < 1000)]


def read_answer(said: str, reference: str) -> tuple[str, str]:
    """(answer, how it was found if by a guess): the box or closing line, else the whole text, else the last formula or number in prose.

    Prose is what the grammar takes for words, or cannot read, though the reference is mathematics.
    """
    found = find_answer(said)
    if found:
        return found.text, ""
    if (is_prose(said) and not is_prose(reference)) and (guess := fallback_answer(said)):
        return guess.text, guess.how
    return said, ""


def policy_of(where: str, row: dict[str, Any]) -> MathPolicy:
    """The policy with the row's own `precision`: decimals of so many digits count as rounded."""
    digits = row.get("precision")
    if digits is None:
        return DEFAULT
    if not isinstance(digits, int) or digits < 1:
        raise DataError(f"{where}: 'precision' must be a whole number of digits from 1 on, found {digits!r}")
    return MathPolicy(answer_digits=min(digits, DEFAULT.answer_digits))


def _timed(reference: str, answer: str | None, how: str, policy: MathPolicy) -> tuple[Verdict, float]:
    started = time.perf_counter()
    (verdict,) = compare([(reference, answer)], policy)
    if how:
        verdict = replace(verdict, why=f"{verdict.why} (answer: the {how} in the text)")
    return verdict, time.perf_counter() - started


def report(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
    else:
        for line in summary_lines(summary):
            print(line, file=sys.stderr)
