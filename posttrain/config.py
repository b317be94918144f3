"""Recipe YAML plus flags -> a frozen, checked dataclass, or one line that says what is wrong.

A config class is a pydantic dataclass made by `@config`: unknown keys are refused, and a field's docstring is its line in `--help`.
Several files merge left to right and flags win:

    load(Config, ["stage2.yaml", "tiny.yaml"], ["--optim.lr", "3e-6"])

A key that holds a tagged union (`kind: math | gsm8k | ...`) is replaced whole when a later layer changes its kind.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticUndefined

C = TypeVar("C")
Layer = tuple[str, dict[str, Any]]  # where it came from, what it says


class ConfigError(ValueError):
    """The caller's recipe or flags are wrong; the message is one line: where, found, expected, nearest."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[C]) -> type[C]:
    """Make `cls` a frozen, keyword-only dataclass that refuses unknown keys and wrong types."""
    settings = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True)
    return pydantic_dataclass(frozen=True, kw_only=True, config=settings)(cls)


def load(cls: type[C], files: Sequence[str | Path], flags: Sequence[str] = ()) -> C:
    """Merge the layers and check them against `cls`; raises `ConfigError`."""
    layers = [read_yaml(file) for file in files]
    layers += [read_flags(flags)] if flags else []
    return build(cls, layers)


def build(cls: type[C], layers: Sequence[Layer]) -> C:
    """`layers` merged left to right, as a checked `cls`; the error names the layer that holds the offending key."""
    tree: dict[str, Any] = {}
    for _, layer in layers:
        tree = merge(tree, layer)
    try:
        return TypeAdapter(cls).validate_python(tree)
    except ValidationError as error:
        raise ConfigError(_first_line(cls, error, layers)) from None


def read_yaml(path: str | Path) -> Layer:
    """One recipe file as a layer; raises `ConfigError` on a missing file, bad YAML or a duplicate key."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such recipe file{nearest(path.name, [p.name for p in path.parent.glob('*.yaml')])}")
    try:
        tree = yaml.load(path.read_text(), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__}")
    return str(path), tree


def read_flags(flags: Sequence[str]) -> Layer:
    """`--optim.lr 3e-6` or `--optim.lr=3e-6` as a layer; values are YAML, so lists and null work."""
    tree: dict[str, Any] = {}
    words = iter(flags)
    for word in words:
        if not word.startswith("--"):
            raise ConfigError(f"flags: found {word!r}, expected --key value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            value = next(words, None)
            if value is None:
                raise ConfigError(f"flags: --{key} needs a value")
        try:
            leaf: Any = yaml.safe_load(value)
        except yaml.YAMLError:
            leaf = value
        for part in reversed(key.split(".")):
            leaf = {part: leaf}
        tree = merge(tree, leaf)
    return "flags", tree


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new` over `old`, key by key; a mapping whose `kind` changes replaces the old one whole."""
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        same_kind = both and value.get("kind", before.get("kind")) == before.get("kind")
        merged[key] = merge(before, value) if same_kind else value
    return merged


def dump(cfg: Any) -> str:
    """A config as YAML that `load` reads back to an equal config."""
    return yaml.safe_dump(plain(cfg), sort_keys=False, allow_unicode=True)


def plain(value: Any) -> Any:
    """A config as dicts, lists and scalars."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def nearest(word: str, known: Iterable[str]) -> str:
    """A "; did you mean ...?" to end an error with, or nothing where no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def describe(cls: type) -> Iterator[tuple[str, str, str, str]]:
    """Every leaf of a config class as (dotted key, type, default, help), for `--help`."""
    for field in dataclasses.fields(cls):
        kind = typing.get_type_hints(cls, include_extras=True)[field.name]
        text = " ".join((_help_of(cls, field.name) or "").split())
        members = _members(kind)
        if len(members) == 1:
            for key, *rest in describe(members[0]):
                yield (f"{field.name}.{key}", *rest)
        elif members:
            for member in members:
                tag = typing.get_args(typing.get_type_hints(member)["kind"])[0]
                for key, *rest in describe(member):
                    if key != "kind":
                        yield (f"{field.name}.{key} [{tag}]", *rest)
        else:
            yield field.name, _type_name(kind), _default_name(field), text


def _help_of(cls: type, name: str) -> str | None:
    return cls.__pydantic_fields__[name].description  # type: ignore[attr-defined]


def _members(kind: Any) -> list[type]:
    """The config classes a field may hold: one, several for a tagged union, none for a plain value."""
    if typing.get_origin(kind) is Annotated:
        return _members(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [m for part in typing.get_args(kind) for m in _members(part)]
    return [kind] if dataclasses.is_dataclass(kind) else []


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Annotated:
        return _type_name(typing.get_args(kind)[0])
    if typing.get_origin(kind) is Literal:
        return "|".join(str(value) for value in typing.get_args(kind))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")


def _default_name(field: dataclasses.Field) -> str:
    default, factory = field.default, field.default_factory
    if hasattr(default, "default_factory"):  # pydantic's FieldInfo
        default, factory = default.default, default.default_factory
    if callable(factory):
        default = factory()
    if default is dataclasses.MISSING or default is PydanticUndefined:
        return "required"
    return "null" if default is None else str(default)


def _first_line(cls: type, error: ValidationError, layers: Sequence[Layer]) -> str:
    """The first of pydantic's complaints in our words; unknown keys come first, as they often explain the rest."""
    problems = sorted(error.errors(), key=lambda e: e["type"] != "unexpected_keyword_argument")
    problem = problems[0]
    path = _yaml_path(problem["loc"], layers)
    where = next((name for name, layer in reversed(layers) if _holds(layer, path)), layers[0][0] if layers else "recipe")
    dotted = ".".join(str(part) for part in path)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problem["type"] == "unexpected_keyword_argument":
        known = _known_keys(cls, problem["loc"])
        hint = nearest(str(path[-1]), known) or f"; expected one of {', '.join(known)}"
        return f"{where}: {dotted}: unknown key{hint}{more}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{where}: {dotted}: missing; it is required{more}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {dotted}: {message[0].lower()}{message[1:]}, found {problem['input']!r}{more}" if dotted else f"{where}: {message}"


def _yaml_path(loc: tuple[str | int, ...], layers: Sequence[Layer]) -> tuple[str | int, ...]:
    """pydantic's path without the tags that it inserts for tagged unions: `task.math.splt` -> `task.splt`."""
    tree: Any = {}
    for _, layer in layers:
        tree = merge(tree, layer)
    path: list[str | int] = []
    for i, part in enumerate(loc):
        if isinstance(tree, dict) and part not in tree and tree.get("kind") == part:
            continue
        path.append(part)
        if isinstance(tree, dict):
            tree = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
        else:
            tree = None
    return tuple(path)


def _holds(layer: dict[str, Any], path: tuple[str | int, ...]) -> bool:
    node: Any = layer
    for part in path:
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            return False
    return True


def _known_keys(cls: type, loc: tuple[str | int, ...]) -> list[str]:
    """The keys allowed where `loc` ends, found by walking the classes along it."""
    candidates = [cls]
    for part in loc[:-1]:
        tagged = [c for c in candidates if "kind" in typing.get_type_hints(c) and part in typing.get_args(typing.get_type_hints(c)["kind"])]
        if tagged:
            candidates = tagged
            continue
        hints = [typing.get_type_hints(c, include_extras=True).get(str(part)) for c in candidates]
        candidates = [m for hint in hints if hint is not None for m in _members(hint)] or candidates
    return sorted({field.name for c in candidates for field in dataclasses.fields(c)})


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses the same key twice instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
