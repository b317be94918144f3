"""How far a run is: a bar on a terminal, and where stderr is a file or a pipe, one plain line now and then.

score: 40 of 500 steps, 03:12 gone, 36:40 left, t1 41.2% t2 40.1%
"""

import re
import sys
from typing import Any, TextIO

from tqdm import tqdm

LINE_S = 30.0
"""Seconds between two lines of a log file."""


def progress_bar(total: int, name: str, unit: str, initial: int = 0, shown: bool = True) -> "tqdm[Any]":
    """A tqdm bar that suits where stderr goes; what `set_postfix_str(..., refresh=False)` says stands at the end of its line."""
    if sys.stderr.isatty():
        return tqdm(total=total, initial=initial, desc=name, unit=unit, dynamic_ncols=True, disable=not shown)
    form = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed} gone, {remaining} left{postfix}"
    lines = Lines(sys.stderr)
    told: dict[str, Any] = {"file": lines, "mininterval": LINE_S, "miniters": 1, "bar_format": form, "disable": not shown}
    return tqdm(total=total, initial=initial, desc=name, unit=unit, **told)


class Lines:
    """A file for tqdm to write to: carriage returns become line ends, and nothing is written twice in a row."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._last = file, ""

    def write(self, text: str) -> None:
        for line in re.split(r"[\r\n]", text):
            if line.strip() and line.strip() != self._last:
                self._last = line.strip()
                self._file.write(self._last + "\n")

    def flush(self) -> None:
        self._file.flush()
