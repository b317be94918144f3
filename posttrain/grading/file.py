"""`posttrain grade GRADER FILE.jsonl`: a verdict on each row of a file; what graders share in reading, writing and counting rows.

The verbs themselves are in the modules of `GRADERS`.
"""

import argparse
import gzip
import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain.jsonl import read_objects
from posttrain.run import write_atomic
from posttrain.types import DataError

GRADERS = {  # module with `cli`
    "math": "posttrain.grading.math_file",
    "code": "posttrain.grading.code_file",
    "image": "posttrain.grading.image_file",
}
Located = tuple[str, dict[str, Any]]  # "file:line", fields
EPILOG = """\
`posttrain grade math --help`, and of code and image likewise, tells what the rows hold.
Exit codes: 0 graded, 2 the call or the file was wrong."""


def cli(argv: Sequence[str]) -> int:
    if argv and argv[0] in GRADERS:
        return importlib.import_module(GRADERS[argv[0]]).cli(argv[1:])
    parser = argparse.ArgumentParser(
        prog="posttrain grade",
        description="Grade a file of answers (JSON Lines).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "grader",
        choices=list(GRADERS),
        help="math: equal as mathematics; code: does the program pass its tests; image: does it show what was asked for",
    )
    parser.add_argument("file", help="rows to grade, .jsonl or .jsonl.gz")
    parser.parse_args(argv)
    raise AssertionError("argparse refuses what is no grader")


def read_rows(path: Path) -> list[Located]:
    """All rows of a .jsonl or .jsonl.gz file with their places; raises `DataError`."""
    return read_objects(path)


def text_field(where: str, row: dict[str, Any], name: str) -> str:
    """The text of a field, or of NAME_parts, a list of [text, times] that spells a long text shortly; raises `DataError`."""
    value = row.get(name)
    if value is None and f"{name}_parts" in row:
        return _joined(where, f"{name}_parts", row[f"{name}_parts"])
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: needs text in {name!r}, found {value!r:.80}; the row has {', '.join(map(repr, row)) or 'no fields'}")
    return value


def write_rows(out: Path | None, rows: Iterable[dict[str, Any]]) -> None:
    """Rows as JSON Lines into a file, compressed where its name ends in .gz, or to stdout for None; raises `DataError`."""
    lines = (json.dumps(row) + "\n" for row in rows)
    if out is None:
        sys.stdout.writelines(lines)
        return
    try:
        if out.suffix == ".gz":
            with gzip.open(out, "wt", encoding="utf-8") as file:
                file.writelines(lines)
        else:
            write_atomic(out, "".join(lines))
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror}") from None


def summarise(rows: Sequence[dict[str, Any]], unscored: Sequence[str] = ()) -> dict[str, Any]:
    """Counts over graded rows (with `status`), and agreement with `expected` (or `passed`) where rows have it, in all and by `tier`.

    `unscored` are the reasons of the grader's own failures.
    """
    tiers = sorted({row["tier"] for row in rows if isinstance(row.get("tier"), str)})
    return {
        "rows": len(rows),
        "statuses": dict(Counter(row["status"] for row in rows).most_common()),
        "agreement": _agreement(rows),
        "tiers": {tier: agreement for tier in tiers if (agreement := _agreement([r for r in rows if r.get("tier") == tier]))},
        "unscored": dict(Counter(unscored).most_common(5)),
    }


def summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    """A summary as text for a person."""
    yield f"{summary['rows']} answers: " + ", ".join(f"{n} {status}" for status, n in summary["statuses"].items())
    if summary["agreement"]:
        yield f"agrees with `expected` in {_counts(summary['agreement'])}"
    for tier, agreement in summary["tiers"].items():
        yield f"  {tier}: {_counts(agreement)}"
    for why, n in summary["unscored"].items():
        yield f"  unscored {n}: {why}"


def _agreement(rows: Sequence[dict[str, Any]]) -> dict[str, int] | None:
    judged = [(row["status"] == "correct", expected) for row in rows if (expected := _expected(row)) is not None]
    if not judged:
        return None
    return {
        "judged": len(judged),
        "agree": sum(found == expected for found, expected in judged),
        "false_accepts": sum(found and not expected for found, expected in judged),
        "false_rejects": sum(expected and not found for found, expected in judged),
    }


def _expected(row: dict[str, Any]) -> bool | None:
    for name in ("expected", "passed"):
        if isinstance(row.get(name), bool):
            return row[name]
    return None


def _counts(agreement: dict[str, int]) -> str:
    judged, agree = agreement["judged"], agreement["agree"]
    return (
        f"{agree} of {judged} ({agree / judged:.1%}): {agreement['false_accepts']} accepted though false, "
        f"{agreement['false_rejects']} not accepted though true"
    )


def _joined(where: str, name: str, parts: Any) -> str:
    try:
        return "".join(text * times for text, times in parts if isinstance(text, str))
    except (TypeError, ValueError):
        raise DataError(f"{where}: {name!r} must be a list of [text, times], found {parts!r:.80}") from None
