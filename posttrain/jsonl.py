"""JSON Lines from outside: every row an object with its place in the file, or an error that names the line."""

import gzip
import json
from pathlib import Path
from typing import Any

from posttrain.types import DataError


def read_objects(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """All rows of a .jsonl or .jsonl.gz file as ("file:line", fields); raises `DataError`, and then nothing is loaded."""
    if not path.is_file():
        raise DataError(f"{path}: no such data file; expected a .jsonl or .jsonl.gz file")
    rows = []
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                rows.append((f"{path}:{number}", _object(line, f"{path}:{number}")))
    except (OSError, EOFError, UnicodeDecodeError) as error:  # a cut or damaged archive, or bytes that are not UTF-8
        raise DataError(f"{path}:{number + 1}: cannot be read: {error}") from None
    if not rows:
        raise DataError(f"{path}: is empty")
    return rows


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {getattr(error, 'msg', error)} at column {getattr(error, 'colno', 1)}") from None
    if not isinstance(fields, dict):
        raise DataError(f"{where}: expected an object with fields, found {type(fields).__name__}")
    return fields
