"""Rows of the published code benchmarks as tests: HumanEval's layout and MBPP's, in each of their spellings.

HumanEval has `prompt`, `entry_point` and a `test` that defines `check(candidate)`; MBPP has a `test_list` of assertions, with setup code
or imports before them, and names the function nowhere but in the tests.
"""

import re
from collections.abc import Mapping
from typing import Any

from posttrain.types import DataError, UnitTests

_CALLED = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\s*\(")
_DEFINED = re.compile(r"^(?:async\s+)?(?:def|class)\s+(\w+)", re.MULTILINE)


def tests_of_row(where: str, fields: Mapping[str, Any]) -> UnitTests:
    """The tests of a benchmark's row, by its layout; raises `DataError`."""
    if "test_list" in fields:
        return mbpp_tests(where, fields)
    if "test" in fields:
        return humaneval_tests(where, fields)
    raise DataError(f"{where}: needs 'test' (as HumanEval) or 'test_list' (as MBPP); found {', '.join(map(repr, fields)) or 'no fields'}")


def humaneval_tests(where: str, fields: Mapping[str, Any]) -> UnitTests:
    prompt, test, entry_point = (_text(where, fields, name) for name in ("prompt", "test", "entry_point"))
    return UnitTests(entry_point=entry_point.strip(), code=test, prompt=prompt)


def mbpp_tests(where: str, fields: Mapping[str, Any]) -> UnitTests:
    """Setup, then the assertions; the entry point is what the first assertion calls that the reference program defines."""
    tests = _lines(where, fields, "test_list")
    before = [_text(where, fields, "test_setup_code")] if fields.get("test_setup_code") else []
    before += _lines(where, fields, "test_imports") if fields.get("test_imports") else []
    challenge = _lines(where, fields, "challenge_test_list") if fields.get("challenge_test_list") else []
    defined = set(_DEFINED.findall(_text(where, fields, "code"))) if "code" in fields else set()
    called = _CALLED.findall(tests[0])
    entry_point = next((name for name in called if name in defined), None) or next(iter(called), "")
    if not entry_point:
        raise DataError(f"{where}: the first of 'test_list' calls no function: {tests[0]!r:.80}")
    return UnitTests(entry_point=entry_point, code="\n".join([*before, *tests, *challenge]) + "\n")


def _lines(where: str, fields: Mapping[str, Any], name: str) -> list[str]:
    value = fields[name]
    if not isinstance(value, list) or not value or not all(isinstance(line, str) for line in value):
        raise DataError(f"{where}: {name!r} must be a list of lines, found {value!r:.80}")
    return value


def _text(where: str, fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise DataError(f"{where}: {name!r} must be text, found {value!r:.80}; the row has {', '.join(map(repr, fields))}")
    return value
