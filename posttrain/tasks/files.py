"""Text files of data sets other than JSON Lines: tables with a header, plain lines, and one JSON object with a list of examples.

Every row comes with its place in the file; a file is read whole or raises `DataError` with file and line. A name that ends in .gz is
unpacked. Text is UTF-8; a file that is not, is read in the encoding that the caller names, as some old data sets are ISO-8859-1.
"""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any, Literal

from posttrain.types import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
LONGEST_FIELD = 10_000_000  # characters; the csv module's own limit is 131,072, less than some explanations hold


def read_table(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a .csv or .tsv file as ("file:line", fields); the first row names the columns. A row starts at that line."""
    csv.field_size_limit(LONGEST_FIELD)
    suffix = kind_of(path)
    text = io.StringIO(read_text(path), newline="")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if suffix == ".csv" else csv.QUOTE_NONE
    reader = csv.reader(text, delimiter=DELIMITERS[suffix], quoting=quoting, strict=True)
    rows: list[tuple[str, dict[str, Any]]] = []
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if header is None:
                header = _header(cells, where)
            elif cells and len(cells) != len(header):
                raise DataError(f"{where}: has {len(cells)} columns, the header has {len(header)}")
            elif cells:
                rows.append((where, dict(zip(header, cells))))
    except csv.Error as error:
        raise DataError(f"{path}:{line}: not a {suffix[1:]} row: {error}") from None
    if not rows:
        raise DataError(f"{path}: has no rows under its header")
    return rows


def read_lines(path: Path, encoding: str = "utf-8") -> list[tuple[str, str]]:
    """The lines of a text file as ("file:line", text without the line's end); only an empty last line is dropped."""
    lines = read_text(path, encoding).replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise DataError(f"{path}: is empty")
    return [(f"{path}:{number}", line) for number, line in enumerate(lines, 1)]


def read_examples(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The list of a .json file as ("file example n", fields): the file is a list, or an object with one list in it."""
    try:
        tree = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise DataError(f"{path}: not JSON that can be read: nested too deep") from None
    lists = (
        [tree]
        if isinstance(tree, list)
        else [value for value in tree.values() if isinstance(value, list)]
        if isinstance(tree, dict)
        else []
    )
    if len(lists) != 1 or not lists[0]:
        raise DataError(
            f"{path}: expected a list of examples, or an object that holds one; found {len(lists)} lists with something in them"
        )
    for number, example in enumerate(lists[0], 1):
        if not isinstance(example, dict):
            raise DataError(f"{path} example {number}: expected an object with fields, found {type(example).__name__}")
    return [(f"{path} example {number}", example) for number, example in enumerate(lists[0], 1)]


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """A whole file, unpacked where it is packed; a byte-order mark is no part of it."""
    if not path.is_file():
        raise DataError(f"{path}: no such data file")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            return data.decode(encoding)
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8: {error.reason}") from None


def kind_of(path: Path) -> str:
    """What a file's name says it is: ".csv" of both rows.csv and rows.csv.gz."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _header(cells: list[str], where: str) -> list[str]:
    if len(set(cells)) < len(cells) or not all(cells):
        raise DataError(f"{where}: the header must name every column, each once; found {', '.join(map(repr, cells))}")
    return cells
