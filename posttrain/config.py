"""Recipe YAML plus flags -> a frozen, checked dataclass, or one line that says what is wrong.

A config class is a pydantic dataclass made by `@config`: unknown keys are refused, and a field's docstring is its line in `--help`.
Several files merge left to right and flags win:

    load(Config, ["stage2.yaml", "tiny.yaml"], ["--optim.lr", "3e-6"])

A key that holds a tagged union (`kind: math | gsm8k | ...`) is replaced whole when a later layer changes its kind; a layer that names
no kind means the one before it, or the field's default.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from posttrain.complaint import Layer, nearest, one_line
from posttrain.schema import plain, shown, with_kinds

C = TypeVar("C")


class ConfigError(ValueError):
    """The caller's recipe or flags are wrong; the message is one line: where, found, expected, nearest."""

    exit_code: ClassVar[int] = 2


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[C]) -> type[C]:
    """Make `cls` a frozen, keyword-only dataclass that refuses unknown keys and wrong types."""
    settings = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True)
    return cast("type[C]", pydantic_dataclass(frozen=True, kw_only=True, config=settings)(cls))


def load(cls: type[C], files: Sequence[str | Path], flags: Sequence[str] = ()) -> C:
    """Merge the layers and check them against `cls`; raises `ConfigError`."""
    layers = [read_yaml(file) for file in files]
    layers += [read_flags(flags)] if flags else []
    return build(cls, layers)


def build(cls: type[C], layers: Sequence[Layer]) -> C:
    """`layers` merged left to right, as a checked `cls`; the error names the layer that holds the offending key."""
    tree: dict[str, Any] = {}
    for _, layer in layers:
        tree = with_kinds(cls, merge(tree, layer))
    try:
        return TypeAdapter(cls).validate_python(tree)
    except ValidationError as error:
        raise ConfigError(one_line(cls, error, tree, [layer for layer in layers if layer[1]])) from None


def read_yaml(path: str | Path) -> Layer:
    """One recipe file as a layer; raises `ConfigError` on a missing file, bad YAML or a duplicate key."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such recipe file{nearest(path.name, [p.name for p in path.parent.glob('*.yaml')])}")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{path}{line}: not valid YAML: {said}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: found {'nothing' if tree is None else shown(tree)}, expected keys and values")
    return str(path), tree


def read_flags(flags: Sequence[str]) -> Layer:
    """`--optim.lr 3e-6` or `--optim.lr=3e-6` as a layer; values are YAML, so lists and null work."""
    tree: dict[str, Any] = {}
    words = iter(flags)
    for word in words:
        key, equals, given = word[2:].partition("=")
        if not word.startswith("--") or not all(key.split(".")):
            raise ConfigError(f"flags: found {word!r}, expected --key value")
        value = given if equals else next(words, None)
        if value is None:
            raise ConfigError(f"flags: --{key} needs a value")
        try:
            leaf: Any = yaml.load(value, Loader=_Loader)
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
        if isinstance(before, dict) and isinstance(value, dict):
            other_kind = "kind" in before and "kind" in value and before["kind"] != value["kind"]
            merged[key] = value if other_kind else merge(before, value)
        else:
            merged[key] = value
    return merged


def dump(cfg: Any) -> str:
    """A config as YAML that `load` reads back to an equal config."""
    return yaml.dump(plain(cfg), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML that refuses the same key twice instead of keeping the last, and reads 3e-6 as the number it is in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word or a number", key_node.start_mark)
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """YAML that quotes the text "3e-6", as `_Loader` would take it for a number."""


for each in (_Loader, _Dumper):
    each.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))
