"""Labelled answers of real models and of other graders' test suites, from beside the repository or from SHARED_DATA."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("SHARED_DATA") or Path(__file__).parents[2].parent / "shared" / "data")


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of one file; skips the test where it is absent."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"needs {name} in ../shared/data, which is not part of the repository")
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return [json.loads(line) for line in file]
