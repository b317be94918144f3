"""`posttrain grade image FILE.jsonl --model CHECKPOINT`: does each image show what its row says, to an encoder of images and texts?"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.grading.file import Located, read_rows, summarise, summary_lines, text_field, write_rows
from posttrain.grading.image import Asked, Wording, asked
from posttrain.types import DataError

EPILOG = """\
Each row is a JSON object with the path of an image, relative to FILE's folder, and what it should show:

    {"image": "frame_7.png", "goal": "red ring", "negatives": ["the agent is on empty ground"], "expected": true}

p(goal | image) is a softmax over the goal, worded by --template, and what it stands against: the row's negatives and --negative, which are
whole texts, and with --others the goals of all other rows, worded alike. The row comes out with status (correct, wrong; no_answer: no
image that can be judged; limit: too large), why, rule, gold_form (the goal) and pred_form (p). Where rows have an `expected` verdict,
agreement with it is counted. A threshold that was chosen by that count needs other rows to be tested on.

The counts go to stderr, or with --json to stdout as one object. Exit codes: 0 graded, 2 the call, the model or the file was wrong."""


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain grade image",
        description="Grade a file of images by a CLIP or SigLIP (JSON Lines).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="rows to grade, .jsonl or .jsonl.gz")
    parser.add_argument("--model", required=True, help="folder or hub id of a CLIP or SigLIP")
    parser.add_argument("--template", action="append", metavar="TEXT", help="how a goal is worded, {} being it; several are averaged")
    parser.add_argument("--negative", action="append", default=[], metavar="TEXT", help="a whole text that every goal stands against")
    parser.add_argument("--others", action="store_true", help="a goal also stands against the goals of all other rows")
    parser.add_argument("--temperature", type=float, help="of the softmax; default: the one that the model was trained to")
    parser.add_argument("--threshold", type=float, default=0.5, help="p from which on a goal counts as shown (default: 0.5)")
    parser.add_argument("--device", default="cpu", help="where the model runs (default: cpu)")
    parser.add_argument("--out", type=Path, help="write the verdict rows here (.jsonl or .jsonl.gz) instead of to stdout")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout; the rows then go to --out only")
    args = parser.parse_args(argv)
    located = read_rows(args.file)
    try:
        wording = Wording(templates=tuple(args.template or ["{}"]), temperature=args.temperature, threshold=args.threshold)
    except ValueError as error:
        raise DataError(f"flags: {error}") from None
    rows = read_asked(located, args.file.parent, args.negative, others=args.others)

    from posttrain.agents.kernel.clip import load_dual_encoder

    try:
        encoder = load_dual_encoder(args.model, args.device)
    except ValueError as error:
        raise DataError(f"--model: {error}") from None
    try:
        verdicts = asked(encoder, rows, wording)
    except ValueError as error:
        raise DataError(f"{args.file}: {error}") from None
    fields = ("status", "rule", "gold_form", "pred_form")
    graded = [
        {"why": verdict.why, **row, **{name: getattr(verdict, name) for name in fields}}
        for (_, row), verdict in zip(located, verdicts, strict=True)
    ]
    if args.out or not args.json:
        write_rows(args.out, graded)
    summary = summarise(graded)
    if args.json:
        print(json.dumps(summary))
    else:
        print(*summary_lines(summary), sep="\n", file=sys.stderr)
    return 0


def read_asked(located: Sequence[Located], folder: Path, negatives: Sequence[str], *, others: bool) -> list[Asked]:
    """What each row asks; raises `DataError` naming the line before anything is graded."""
    goals = list(dict.fromkeys(text_field(where, row, "goal") for where, row in located)) if others else []
    return [_asked(where, row, folder, tuple(negatives), tuple(goals)) for where, row in located]


def _asked(where: str, row: dict[str, Any], folder: Path, negatives: tuple[str, ...], goals: tuple[str, ...]) -> Asked:
    own = row.get("negatives", [])
    if not isinstance(own, list) or not all(isinstance(text, str) for text in own):
        raise DataError(f"{where}: 'negatives' must be a list of texts, found {own!r:.80}")
    image, goal = (text_field(where, row, name) for name in ("image", "goal"))
    try:
        return Asked(image=folder / image, goal=goal, negatives=(*own, *negatives), others=goals)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
