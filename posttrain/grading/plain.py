"""Values that may cross between a program under test and its judge: exact built-in types, as a tree that JSON can carry.

None, booleans, small integers, floats, strings and lists stand for themselves; all else is an object with one key, the type:
{"tuple": [1, 2]}, {"set": [...]}, {"dict": [[key, value], ...]}, {"int": "0x..."}. `decode` makes nothing but the types in its table, so
whatever the other side sends, a comparison of what comes out runs no code but the interpreter's own. An instance of a subclass crosses
as its value, taken by the base type's own methods: an `int` that claims to equal everything arrives as an `int`.

What has no plain form (an object, a function, an iterator) goes to `refer`, which names it; `resolve` gets the name on the other side.
Both sides import this module: it needs the standard library alone.
"""

import builtins
import datetime
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias

Tree: TypeAlias = Any
"""What `json` reads and writes."""
DEEPEST = 150  # levels of containers; json and the recursion limit of 1,000 allow about twice as many
MOST_VALUES = 1_000_000
SMALL = 1 << 63
TYPES = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type)}
VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}
MUTABLE = frozenset({"bytearray", "set", "dict", "Counter", "OrderedDict", "defaultdict", "deque"})


class TooLarge(ValueError):
    """A value is too deep, or has too many parts, to cross."""


class Malformed(ValueError):
    """A tree is not one that `encode` makes."""


def encode(value: Any, refer: Callable[[Any], Tree]) -> Tree:
    """The tree of a value; raises `TooLarge`, and what `refer` raises on a part without a plain form."""
    left = MOST_VALUES

    def tree(value: Any, depth: int) -> Tree:
        nonlocal left
        kind = type(value)
        if kind is bool or value is None or kind is float:
            return value
        if kind is int:
            return value if -SMALL < value < SMALL else {"int": hex(value)}
        if kind is str:
            return value if value.isascii() else _text(value)
        left -= 1 + (len(value) if kind is list or kind is tuple else 0)
        if depth > DEEPEST or left < 0:
            raise TooLarge(f"a value with more than {DEEPEST} levels" if depth > DEEPEST else f"a value of more than {MOST_VALUES:,} parts")
        if kind is list:
            return [tree(item, depth + 1) for item in value]
        if kind is tuple:
            return {"tuple": [tree(item, depth + 1) for item in value]}
        if (write := WRITERS.get(kind)) is not None:
            tag, payload = write(value)
            return {tag: tree(payload, depth + 1)}
        if kind in VIEWS:  # of a dict: {key: value}, whose view of that sort compares as this one does
            items = value.mapping.items() if VIEWS[kind] == "items" else zip(value, value) if VIEWS[kind] == "keys" else enumerate(value)
            return {VIEWS[kind]: tree([[key, item] for key, item in items], depth + 1)}
        if kind is type and TYPES.get(name := value.__name__) is value:
            return {"type": name}
        for base in EXACT:  # a subclass: its value as the base type sees it
            if issubclass(kind, base):
                return tree(EXACT[base](value), depth)
        return refer(value)

    return tree(value, 0)


def decode(tree: Tree, resolve: Callable[[str, Any], Any]) -> Any:
    """The value of a tree; raises `Malformed`. `resolve` gets (tag, payload) of what the other side's `refer` made."""
    try:
        return _value(tree, resolve, 0)
    except (TypeError, ValueError, OverflowError, ArithmeticError, RecursionError, AttributeError, KeyError) as error:
        raise Malformed(f"{type(error).__name__}: {str(error)[:200]}") from None


def _value(tree: Tree, resolve: Callable[[str, Any], Any], depth: int) -> Any:
    kind = type(tree)
    if kind is list:
        if depth > 2 * DEEPEST:
            raise Malformed(f"more than {2 * DEEPEST} levels")
        return [_value(item, resolve, depth + 1) for item in tree]
    if kind is not dict:
        return tree
    if len(tree) != 1 or depth > 2 * DEEPEST:
        raise Malformed("expected an object with one key")
    ((tag, payload),) = tree.items()
    read = READERS.get(tag)
    return resolve(tag, payload) if read is None else read(_value(payload, resolve, depth + 1))


def is_mutable(tree: Tree) -> bool:
    """Does the value of this tree hold a container that a call could change?"""
    if type(tree) is list:
        return True
    if type(tree) is not dict:
        return False
    ((tag, payload),) = tree.items()
    return tag in MUTABLE or (tag == "tuple" and any(map(is_mutable, payload)))


def update(old: Any, new: Any) -> Any:
    """`old`, changed in place to equal `new` as far as its containers can be; elsewhere `new`."""
    kind = type(old)
    if kind is not type(new):
        return new
    if kind is list or kind is deque:
        kept = [update(a, b) for a, b in zip(old, new)] + list(new)[len(old) :]
        old.clear()
        old.extend(kept)
    elif kind in (dict, Counter, OrderedDict, defaultdict):
        kept_items = [(key, update(old[key], item) if key in old else item) for key, item in new.items()]
        old.clear()
        dict.update(old, kept_items) if kind is not OrderedDict else old.update(kept_items)
    elif kind is set:
        old.clear()
        old |= new
    elif kind is bytearray:
        old[:] = new
    elif kind is tuple and len(old) == len(new):
        kept = [update(a, b) for a, b in zip(old, new)]
        return old if all(a is b for a, b in zip(kept, old)) else tuple(kept)
    else:
        return new
    return old


def _text(value: str) -> Tree:
    """A string that is not ASCII: as it is, or as bytes where it has surrogates, two of which JSON would join to one character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"str": value.encode("utf-8", "surrogatepass").hex()}
    return value


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise Malformed(f"expected {kind.__name__}, found {type(value).__name__}")
    return value


def _pairs(value: dict) -> list:
    return [[key, item] for key, item in dict.items(value)]


def _factory_name(value: defaultdict) -> str | None:
    factory = value.default_factory
    return factory.__name__ if type(factory) is type and TYPES.get(factory.__name__) is factory else None


WRITERS: dict[type, Callable[[Any], tuple[str, Any]]] = {
    complex: lambda v: ("complex", [v.real, v.imag]),
    bytes: lambda v: ("bytes", v.hex()),
    bytearray: lambda v: ("bytearray", v.hex()),
    set: lambda v: ("set", list(v)),
    frozenset: lambda v: ("frozenset", list(v)),
    dict: lambda v: ("dict", _pairs(v)),
    Counter: lambda v: ("Counter", _pairs(v)),
    OrderedDict: lambda v: ("OrderedDict", [[key, item] for key, item in OrderedDict.items(v)]),
    defaultdict: lambda v: ("defaultdict", [_factory_name(v), _pairs(v)]),
    deque: lambda v: ("deque", [v.maxlen, list(v)]),
    range: lambda v: ("range", [v.start, v.stop, v.step]),
    slice: lambda v: ("slice", [v.start, v.stop, v.step]),
    Fraction: lambda v: ("Fraction", [v.numerator, v.denominator]),
    Decimal: lambda v: ("Decimal", str(v)),
    datetime.datetime: lambda v: ("datetime", v.isoformat()),
    datetime.date: lambda v: ("date", v.isoformat()),
    datetime.time: lambda v: ("time", v.isoformat()),
    datetime.timedelta: lambda v: ("timedelta", [v.days, v.seconds, v.microseconds]),
    type(Ellipsis): lambda v: ("ellipsis", None),
    type(NotImplemented): lambda v: ("not_implemented", None),
}
READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda v: int(v, 16),
    "str": lambda v: bytes.fromhex(v).decode("utf-8", "surrogatepass"),
    "tuple": tuple,
    "complex": lambda v: complex(*map(float, v)),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "set": set,
    "frozenset": frozenset,
    "dict": lambda v: dict(v),
    "Counter": lambda v: Counter(dict(v)),
    "OrderedDict": lambda v: OrderedDict(v),
    "defaultdict": lambda v: defaultdict(None if v[0] is None else TYPES[v[0]], v[1]),
    "deque": lambda v: deque(v[1], v[0]),
    "range": lambda v: range(*v),
    "slice": lambda v: slice(*v),
    "Fraction": lambda v: Fraction(_checked(v[0], int), _checked(v[1], int)),  # of text it would compute powers of ten without end
    "Decimal": lambda v: Decimal(_checked(v, str)),
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda v: datetime.timedelta(*v),
    "keys": lambda v: dict(v).keys(),
    "values": lambda v: dict(v).values(),
    "items": lambda v: dict(v).items(),
    "type": lambda v: TYPES[v],
    "ellipsis": lambda v: Ellipsis,
    "not_implemented": lambda v: NotImplemented,
}
EXACT: dict[type, Callable[[Any], Any]] = {  # base -> its value in a subclass's instance, past anything that the subclass overrides
    int: int.__int__,
    float: float.__float__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda v: bytes.__getitem__(v, slice(None)),
    bytearray: lambda v: bytearray(bytearray.__getitem__(v, slice(None))),
    list: lambda v: list(list.__iter__(v)),
    tuple: lambda v: tuple(tuple.__iter__(v)),
    set: lambda v: set(set.__iter__(v)),
    frozenset: lambda v: frozenset(frozenset.__iter__(v)),
    deque: lambda v: deque(deque.__iter__(v)),
    dict: lambda v: dict(dict.items(v)),
    Fraction: lambda v: Fraction(v._numerator, v._denominator),
    Decimal: lambda v: Decimal(Decimal.__str__(v)),
}
