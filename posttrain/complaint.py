"""What is wrong with a recipe, in one line: where, what was found, what was expected, and what was probably meant."""

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from pydantic import ValidationError

from posttrain.schema import KeyPath, classes_at, describe, members_of, shown, tag_of

Layer: TypeAlias = tuple[str, dict[str, Any]]
"""Where a part of a recipe came from, and what it says."""
EXPECTED = {  # pydantic's error type -> what we call what it wants
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys and values",
    "dataclass_type": "keys and values",
    "model_attributes_type": "keys and values",
    "invalid_key": "words as keys",
}


def nearest(word: str, known: Iterable[str]) -> str:
    """A "; did you mean ...?" to end an error with, or nothing where no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_line(cls: type, error: ValidationError, tree: dict[str, Any], layers: Sequence[Layer]) -> str:
    """The first of pydantic's complaints in our words: a recipe of another kind before unknown keys, and those before the rest."""
    problems = sorted(error.errors(), key=lambda e: (e["loc"] != ("kind",), e["type"] != "unexpected_keyword_argument"))
    paths = [_yaml_path(tree, problem) for problem in problems]
    path, first = paths[0], problems[0]
    same = [problem for problem, other in zip(problems, paths) if other == path]  # of a plain union, one for each of its types
    more = f" (and {len(set(paths)) - 1} more)" if len(set(paths)) > 1 and path != ("kind",) else ""
    dotted = "".join(f"{part}." for part in path).removesuffix(".")
    found = f"{dotted}: found {shown(first['input'])}, "
    match first["type"]:
        case "unexpected_keyword_argument":
            said = f"{dotted}: unknown key{_nearest_key(cls, first['loc'], dotted)}"
        case "missing" | "missing_argument" | "union_tag_not_found":
            kinds = _kinds_at(cls, first["loc"])
            said = f"{dotted}: missing; it is required" + (f" (kinds: {', '.join(kinds)})" if kinds else "")
        case "union_tag_invalid":
            tags = re.findall(r"'(.+?)'", first["ctx"]["expected_tags"])
            said = f"{dotted}: found {first['ctx']['tag']!r}, expected one of {', '.join(tags)}{nearest(first['ctx']['tag'], tags)}"
        case "value_error" | "assertion_error":  # our own sentence, which says what was found
            said = f"{dotted}: " * bool(dotted) + str(first["ctx"]["error"])
        case _:
            wants = dict.fromkeys(_expected(problem) for problem in same)
            choices = re.findall(r"'(.+?)'", first["msg"]) if first["type"] == "literal_error" else []
            said = f"{found}expected {' or '.join(wants)}{nearest(str(first['input']), choices)}"
    return " ".join(f"{_where(path, first['type'], layers)}: {said}{more}".split())


def _expected(problem: Any) -> str:
    """What a value should have been."""
    kind, said = problem["type"], problem["msg"].removeprefix("Input should be ")
    if kind in EXPECTED:
        return EXPECTED[kind]
    if kind in ("too_long", "too_short"):
        return re.sub(r"^.*? should have (.*?) items?.*$", r"\1 values", said)
    return f"a number {said}" if kind.startswith(("greater_than", "less_than")) else said


def _where(path: KeyPath, problem: str, layers: Sequence[Layer]) -> str:
    """The layer that said it last; where several of them together are to blame, all."""
    together = problem in ("value_error", "assertion_error")
    for length in range(len(path), 0, -1):  # of a missing key, the layers that hold the mapping it is missing from
        names = [name for name, layer in layers if _holds(layer, path[:length])]
        if names:
            return " + ".join(dict.fromkeys(names)) if together else names[-1]
    return " + ".join(dict.fromkeys(name for name, _ in layers)) or "recipe"


def _yaml_path(tree: Any, problem: Any) -> KeyPath:
    """pydantic's path without what it inserts for unions: `task.math.splt` -> `task.splt`, `targets.str` -> `targets`."""
    path: list[str | int] = []
    loc, missing = problem["loc"], problem["type"] in ("missing", "missing_argument")
    for i, part in enumerate(loc):
        if (isinstance(tree, dict) and part in tree) or (isinstance(tree, list) and isinstance(part, int) and part < len(tree)):
            tree = tree[part]
        elif i > 0 and not (missing and i == len(loc) - 1):
            continue
        path.append(part)
    return (*path, "kind") if problem["type"].startswith("union_tag") else tuple(path)


def _holds(layer: dict[str, Any], path: KeyPath) -> bool:
    node: Any = layer
    for part in path:
        there = range(len(node)) if isinstance(node, list) else node if isinstance(node, dict) else ()
        if part not in there:
            return False
        node = node[part]
    return True


def _kinds_at(cls: type, loc: KeyPath) -> list[str]:
    """The kinds of the tagged union that `loc` leads to, none where it is no union."""
    hints = [typing.get_type_hints(c, include_extras=True).get(str(loc[-1])) for c in classes_at(cls, loc)]
    members = [m for hint in hints if hint is not None for m in members_of(hint)]
    return [tag_of(m) for m in members] if len(members) > 1 else []


def _nearest_key(cls: type, loc: KeyPath, dotted: str) -> str:
    """How to go on from an unknown key: the kind that has it, the same key elsewhere, a near one here, or all there are."""
    word, known = str(loc[-1]), sorted({field.name for c in classes_at(cls, loc) for field in dataclasses.fields(c)})
    keys = [key.partition(" ") for key, *_ in describe(cls)]
    if kinds := [kind.strip("[]") for key, _, kind in keys if key == dotted]:
        return f"; it is a key of kind {' or '.join(kinds)}"
    elsewhere = [key for key, *_ in keys if key.split(".")[-1] == word]
    if elsewhere and not difflib.get_close_matches(word, known, cutoff=0.8):
        return f"; did you mean {elsewhere[0]!r}?"
    return nearest(word, known) or f"; expected one of {', '.join(known)}"
