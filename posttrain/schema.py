"""What a config class holds: its keys with their types, defaults and meanings, and the kinds of its tagged unions."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys and places in lists that lead to a value."""


def describe(cls: type) -> Iterator[tuple[str, str, str, str]]:
    """Every leaf of a config class as (dotted key, type, default, help), for `--help`; a key of one kind only ends in " [kind]"."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        info, kind = cls.__pydantic_fields__[field.name], hints[field.name]  # type: ignore[attr-defined]
        text = " ".join((info.description or "").split())
        default: Any = None if info.is_required() else info.get_default(call_default_factory=True)
        in_words = "required" if info.is_required() else default if isinstance(default, str) else shown(plain(default))
        members = members_of(kind)
        name = f"{field.name}.NAME" if typing.get_origin(kind) is dict else field.name
        if len(members) > 1:
            yield (
                f"{name}.kind",
                "|".join(map(tag_of, members)),
                "required" if info.is_required() else getattr(default, "kind", "null"),
                text,
            )
        for member in members:
            only = f" [{tag_of(member)}]" if len(members) > 1 else ""
            for key, type_name, standard, said in describe(member):
                if not only or key != "kind":
                    yield f"{name}.{key}{only}", type_name, standard, said
        if not members:
            yield field.name, _type_name(kind), in_words, text


def plain(value: Any) -> Any:
    """A config as dicts, lists and scalars."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def with_kinds(cls: type, tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the `kind` of each tagged union written out where it names none and the field has a default."""
    filled, hints = dict(tree), typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        value, members = tree.get(field.name), members_of(hints[field.name])
        if not isinstance(value, dict) or not members:
            continue
        if typing.get_origin(hints[field.name]) is dict:
            filled[field.name] = {key: with_kinds(members[0], one) if isinstance(one, dict) else one for key, one in value.items()}
            continue
        if len(members) > 1 and "kind" not in value and dataclasses.is_dataclass(field.default):
            value = {"kind": field.default.kind, **value}  # type: ignore[union-attr]
        chosen = [member for member in members if len(members) == 1 or tag_of(member) == value.get("kind")]
        filled[field.name] = with_kinds(chosen[0], value) if chosen else value
    return filled


def classes_at(cls: type, loc: KeyPath) -> list[type]:
    """The config classes that the last key of `loc` may belong to, found by walking along it."""
    candidates = [cls]
    for part in loc[:-1]:
        tagged = [c for c in candidates if "kind" in typing.get_type_hints(c) and tag_of(c) == part]
        if tagged:
            candidates = tagged
            continue
        hints = [typing.get_type_hints(c, include_extras=True).get(str(part)) for c in candidates]
        candidates = [m for hint in hints if hint is not None for m in members_of(hint)] or candidates
    return candidates


def tag_of(member: type) -> str:
    """What a member of a tagged union has as its `kind`."""
    return typing.get_args(typing.get_type_hints(member)["kind"])[0]


def members_of(kind: Any) -> list[type]:
    """The config classes a field may hold: one, several for a tagged union, none for a plain value; for a dict, those of its values."""
    if typing.get_origin(kind) is Annotated:
        return members_of(typing.get_args(kind)[0])
    if typing.get_origin(kind) is dict:
        return members_of(typing.get_args(kind)[1])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [m for part in typing.get_args(kind) for m in members_of(part)]
    return [kind] if isinstance(kind, type) and dataclasses.is_dataclass(kind) else []


def shown(value: Any) -> str:
    """A value as it would stand in YAML, cut where it is long."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Annotated:
        return _type_name(typing.get_args(kind)[0])
    if typing.get_origin(kind) is Literal:
        return "|".join(str(value) for value in typing.get_args(kind))
    parts = [_type_name(part) for part in typing.get_args(kind)]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " | ".join(parts)
    if parts:
        return f"{typing.get_origin(kind).__name__}[{', '.join(parts)}]"
    if kind is ...:
        return "..."
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))
