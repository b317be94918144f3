"""Rows of a data set, from a local file or from the hub, as problems with unique ids.

A source is a path or "hub:org/name[:config]:split", which the `datasets` library downloads and caches. A file's name says what it is:
.csv and .tsv have a header, .json holds one list of examples, anything else is JSON Lines; .gz after it is unpacked. Loading is all or
nothing: one malformed row raises `DataError` with file and line.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from posttrain.jsonl import read_objects
from posttrain.tasks.files import kind_of, read_examples, read_table
from posttrain.types import DataError, Problem

Source: TypeAlias = str | tuple[str, ...]
"""One source, or several that are read one after another as one split."""
READERS = {".csv": read_table, ".tsv": read_table, ".json": read_examples}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row and where it stands: "train.jsonl:17" or "hub:openai/gsm8k:main:train row 17"."""

    where: str
    fields: Mapping[str, Any]

    def text(self, *names: str) -> str:
        """The first of these fields that the row has; raises `DataError` if it has none or it is no text."""
        for name in names:
            if name in self.fields:
                if not isinstance(self.fields[name], str):
                    raise DataError(f"{self.where}: {name!r} must be text, found {type(self.fields[name]).__name__}")
                return self.fields[name]
        raise DataError(f"{self.where}: no field {' or '.join(map(repr, names))}; found {', '.join(map(repr, self.fields))}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A split's problems, and the rows left out of it because they have no reference answer, as "where: why"."""

    problems: list[Problem]
    left_out: list[str]


def read_split(sources: Mapping[str, Source], split: str, to_problem: Callable[[Row, str], Problem | None], limit: int | None) -> Split:
    """The problems of `split`, the first `limit` of them if given; `to_problem` gets each row and the id "split/number".

    A row for which it returns None has no reference and is left out. Raises `DataError` on an id that occurs twice.
    """
    if split not in sources:
        raise DataError(f"no source for the split {split!r}: the task names {', '.join(map(repr, sources)) or 'none'}; add sources.{split}")
    source = sources[split]
    rows = [row for one in ((source,) if isinstance(source, str) else source) for row in read_rows(one)]
    problems: list[Problem] = []
    left_out: list[str] = []
    first_with: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        problem = to_problem(row, f"{split}/{number}")
        if problem is None:
            left_out.append(f"{row.where}: no reference answer")
            continue
        if problem.id in first_with:
            raise DataError(f"{row.where}: the id {problem.id!r} stands already in {first_with[problem.id]}; ids must be unique")
        first_with[problem.id] = row.where
        problems.append(problem)
    if not problems:
        raise DataError(f"{source}: no problem with a reference answer in it")
    return Split(problems=problems[:limit], left_out=left_out)


def read_rows(source: str) -> list[Row]:
    """All rows of a source; raises `DataError`."""
    if source.startswith("hub:"):
        return _hub_rows(source)
    path = Path(source)
    read = READERS.get(kind_of(path), read_objects)
    return [Row(where=where, fields=fields) for where, fields in read(path)]


def _hub_rows(source: str) -> list[Row]:
    parts = source.split(":")[1:]
    if len(parts) not in (2, 3) or not all(parts):
        raise DataError(f"{source}: expected hub:org/name:split or hub:org/name:config:split")
    name, *config, split = parts
    from datasets import load_dataset

    try:
        data = load_dataset(name, *config, split=split)
    except (OSError, ValueError, RuntimeError) as error:  # not found, no network, no such config or split
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"{source}: cannot be loaded from the hub: {type(error).__name__}: {said}; name a local .jsonl file instead?"
        ) from None
    return [Row(where=f"{source} row {number}", fields=fields) for number, fields in enumerate(data, 1)]
