"""Judges for tests: skipped, with the reason, where the machine gives no isolation to run programs in."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from posttrain.grading.sandbox import Sandbox, SandboxError

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "data" / "fixtures"
GOLDEN = ROOT / "evals" / "golden" / "code.jsonl"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def need_isolation() -> None:
    refusal = _refusal()
    if refusal:
        pytest.skip(refusal)


@cache
def _refusal() -> str:
    try:
        Sandbox().close()
    except SandboxError as error:
        return str(error)
    return ""
