"""`posttrain grade math FILE.jsonl`: a verdict on each row of a file of answers, and a second grader's opinion where it is asked for."""

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
from posttrain.grading.peer import PEERS, opinions
from posttrain.grading.policy import DEFAULT, MathPolicy
from posttrain.types import Verdict

LISTED = 20
EPILOG = """\
Each row is a JSON object with the reference and either a bare answer (--pred) or a whole text (--completion), for example

    {"gold": "\\\\frac{1}{2}", "pred": "0.5"}
    {"gold": "72", "completion": "48 + 24 = 72, so the answer is \\\\boxed{72}."}

A long text may be spelled shortly: "pred_parts": [["(", 2000], ["1", 1]] is 2000 brackets and a 1; "gold_parts" likewise. A row's
`precision` is how many digits of a decimal answer count as rounded. All other fields are kept.

What comes out, in the same order, is the row with these fields added:
    status      correct, wrong, no_answer, timeout (CPU time, met twice), limit (too long or deep an answer), gold_unparsable (the
                reference cannot be read), unscored (the grader itself failed); the last two say nothing about the answer
    rule        what decided; `why` in words, where the row has no field of that name
    gold_form, pred_form   what both sides were read as
    seconds     wall time of this row

With --pred the answer is the text's box or closing line, else all of it; of prose it is the last formula or number, and `why` says so.
Where rows have an `expected` verdict (true or false), agreement with it is counted, in all and by `tier`. The counts go to stderr, or
with --json to stdout as one object: rows, statuses, agreement, tiers, unscored, audit. Exit codes: 0 graded, 2 the call or the file was
wrong."""


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
    parser.add_argument("--audit", choices=PEERS, help="ask a second grader about each row and list where it disagrees")
    args = parser.parse_args(argv)
    located = read_rows(args.file)
    questions = read_questions(located, args.gold, args.completion or args.pred or "pred", whole_text=args.completion is not None)
    second = opinions(args.audit) if args.audit else None
    graded, failures = [], []
    for (_, row), question in zip(located, tqdm(questions, desc="grading", unit="row", disable=len(questions) < 1000)):
        verdict, seconds = _timed(*question)
        graded.append({"why": verdict.why, **row, **_fields(verdict), "seconds": round(seconds, 6)})
        failures += [verdict.why] if verdict.status == "unscored" else []
    if args.out or not args.json:
        write_rows(args.out, graded)
    summary = summarise(graded, failures)
    if second:
        summary["audit"] = audit(args.audit, second([question[:2] for question in questions]), questions, graded)
    report(summary, as_json=args.json)
    return 0


Question = tuple[str, str | None, str, MathPolicy]


def read_questions(rows: Sequence[Located], gold: str, pred: str, *, whole_text: bool) -> list[Question]:
    """(reference, answer, how it was found if by a guess, policy) of each row; raises `DataError` before anything is graded."""
    questions = []
    for where, row in rows:
        reference, said = (text_field(where, row, name) for name in (gold, pred))
        reference = final_answer(reference) or reference
        answer, how = (final_answer(said), "") if whole_text else read_answer(said, reference)
        questions.append((reference, answer, how, policy_of(row)))
    return questions


def read_answer(said: str, reference: str) -> tuple[str, str]:
    """(answer, how it was found if by a guess): the box or closing line, else the whole text, else the last formula or number in prose.

    Prose is what the grammar takes for words, or cannot read, though the reference is mathematics.
    """
    found = find_answer(said)
    if found:
        return found.text, ""
    if is_prose(said) and not is_prose(reference) and (guess := fallback_answer(said)):
        return guess.text, guess.how
    return said, ""


def policy_of(row: dict[str, Any]) -> MathPolicy:
    """The policy with the row's own `precision`: decimals of so many digits count as rounded. What is no such number is another's field."""
    digits = row.get("precision")
    if type(digits) is not int or digits < 1:
        return DEFAULT
    return DEFAULT if digits >= DEFAULT.answer_digits else MathPolicy(answer_digits=digits)


def audit(name: str, second: Sequence[bool | None], questions: Sequence[Question], graded: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where the second grader says otherwise; None of its opinions is a failure of its own."""
    disagreements = [
        {"row": i, "gold": reference, "answer": answer, "ours": row["status"], name: "correct" if theirs else "wrong", "why": row["why"]}
        for i, ((reference, answer, _, _), theirs, row) in enumerate(zip(questions, second, graded), 1)
        if theirs is not None and theirs != (row["status"] == "correct")
    ]
    return {
        "peer": name,
        "agree": sum(theirs is not None for theirs in second) - len(disagreements),
        "no_opinion": sum(theirs is None for theirs in second),
        "disagreements": disagreements,
    }


def report(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    for line in summary_lines(summary):
        print(line, file=sys.stderr)
    if found := summary.get("audit"):
        listed = found["disagreements"]
        print(f"{found['peer']} agrees on {found['agree']}, differs on {len(listed)}, fails on {found['no_opinion']}", file=sys.stderr)
        for item in listed[:LISTED]:
            both = f"ours {item['ours']}, {found['peer']} {item[found['peer']]}"
            print(f"  row {item['row']}: {both}: {item['gold']!r:.80} | {item['answer']!r:.80}", file=sys.stderr)
        if len(listed) > LISTED:
            print(f"  ... and {len(listed) - LISTED} more; --json has them all", file=sys.stderr)


def _timed(reference: str, answer: str | None, how: str, policy: MathPolicy) -> tuple[Verdict, float]:
    started = time.perf_counter()
    (verdict,) = compare([(reference, answer)], policy)
    if how:
        verdict = replace(verdict, why=f"{verdict.why} (answer: the {how} in the text)")
    return verdict, time.perf_counter() - started


def _fields(verdict: Verdict) -> dict[str, str]:
    return {name: getattr(verdict, name) for name in ("status", "rule", "gold_form", "pred_form")}
