"""What an answer was read as: small frozen records, made by `grammar.py` and compared by `math.py`.

They hold plain data only; nothing here is ever evaluated by name. `show` spells a form for people and logs.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias, Union


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value; `decimals` counts the digits written after a decimal point, None where there was none."""

    value: Fraction
    decimals: int | None = None


@dataclass(frozen=True, slots=True)
class BaseNumeral:
    """Digits with a base written under them, 12_5; its value is exact."""

    digits: str
    base: int

    @property
    def value(self) -> Fraction:
        whole, _, part = self.digits.partition(".")
        return Fraction(int(whole + part, self.base), self.base ** len(part))


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """pi, e, i or oo."""

    name: str


@dataclass(frozen=True, slots=True)
class Sum:
    terms: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Product:
    factors: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Quotient:
    top: "Form"
    bottom: "Form"


@dataclass(frozen=True, slots=True)
class Power:
    base: "Form"
    exponent: "Form"


@dataclass(frozen=True, slots=True)
class Call:
    """A function of its arguments: known ones (sin, root, abs, factorial, sum, ...) by their names, others as written."""

    name: str
    args: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class PlusMinus:
    """Both signs of `term`; `first` is +1 for a plus-minus sign and -1 for minus-plus."""

    term: "Form"
    first: int = 1


@dataclass(frozen=True, slots=True)
class Degrees:
    value: "Form"


@dataclass(frozen=True, slots=True)
class Percent:
    value: "Form"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value and the words of its unit."""

    value: "Form"
    unit: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """a:b:c, a clock time too; `written` keeps the digits, as 1:05 is not 1:5."""

    parts: tuple["Form", ...]
    written: str


@dataclass(frozen=True, slots=True)
class Group:
    """Several items in round or square brackets: a tuple, a point or an interval."""

    left: str
    right: str
    items: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class SetOf:
    items: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class SetBuilder:
    element: "Form"
    condition: "Form"


@dataclass(frozen=True, slots=True)
class NamedSet:
    """R, Z, Q, N or C."""

    name: str


@dataclass(frozen=True, slots=True)
class SetOperation:
    """`operation` is cup, cap or setminus."""

    operation: str
    left: "Form"
    right: "Form"


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple["Form", ...], ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """a = b, 0 < x < 1, x in S: one relation less than items."""

    items: tuple["Form", ...]
    relations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Several answers without brackets; `word` is "or" where that stood between them."""

    items: tuple["Form", ...]
    word: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """An answer in words, in small letters and digits only."""

    words: str


Form: TypeAlias = Union[  # noqa: UP007 - the names above are strings inside the records
    Number, BaseNumeral, Symbol, Constant, Sum, Product, Quotient, Power, Call, PlusMinus, Degrees, Percent, Quantity, Ratio,
    Group, SetOf, SetBuilder, NamedSet, SetOperation, Matrix, Chain, Listing, Text,
]  # fmt: skip

EXPRESSIONS = (Number, BaseNumeral, Symbol, Constant, Sum, Product, Quotient, Power, Call, Degrees, Percent, Quantity, Ratio)
ZERO, ONE = Number(Fraction(0)), Number(Fraction(1))
LONGEST_SHOWN = 300


def number(value: int | Fraction) -> Number:
    return Number(Fraction(value))


def negative(form: Form) -> Form:
    return Number(-form.value, form.decimals) if isinstance(form, Number) else Product((number(-1), form))


def difference(a: Form, b: Form) -> Form:
    return Sum((a, negative(b)))


def children(form: Form) -> tuple[Form, ...]:
    """The forms directly inside a form."""
    match form:
        case Sum(parts) | Product(parts) | SetOf(parts) | Listing(parts):
            return parts
        case Group(_, _, parts) | Call(_, parts) | Ratio(parts, _) | Chain(parts, _):
            return parts
        case Quotient(a, b) | Power(a, b) | SetBuilder(a, b) | SetOperation(_, a, b):
            return (a, b)
        case PlusMinus(a, _) | Degrees(a) | Percent(a) | Quantity(a, _):
            return (a,)
        case Matrix(rows):
            return tuple(cell for row in rows for cell in row)
    return ()


def show(form: Form) -> str:
    """The form as text for people, cut where it is long."""
    text = _show(form)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def _show(form: Form) -> str:
    match form:
        case Number(value, decimals):
            if decimals is None:
                return _digits(value)
            return f"{float(value):.{min(decimals, 15)}f}" if decimals < 16 else f"{_digits(value)} (decimal)"
        case BaseNumeral(digits, base):
            return f"{digits}_{base}"
        case Symbol(name) | Constant(name) | NamedSet(name):
            return name
        case Sum(terms):
            return f"({' + '.join(map(_show, terms))})"
        case Product(factors):
            return "*".join(map(_show, factors))
        case Quotient(top, bottom):
            return f"{_inside(top)}/{_inside(bottom)}"
        case Power(base, exponent):
            return f"{_inside(base)}^{_inside(exponent)}"
        case Call(name, args):
            return f"{name}({', '.join(map(_show, args))})"
        case PlusMinus(term, first):
            return f"{'+-' if first > 0 else '-+'}{_show(term)}"
        case Degrees(value):
            return f"{_show(value)} degrees"
        case Percent(value):
            return f"{_show(value)}%"
        case Quantity(value, unit):
            return f"{_show(value)} [{unit}]"
        case Ratio(parts, _):
            return ":".join(map(_show, parts))
        case Group(left, right, items):
            return f"{left}{', '.join(map(_show, items))}{right}"
        case SetOf(items):
            return f"{{{', '.join(map(_show, items))}}}"
        case SetBuilder(element, condition):
            return f"{{{_show(element)} | {_show(condition)}}}"
        case SetOperation(operation, left, right):
            return f"{_show(left)} {operation} {_show(right)}"
        case Matrix(rows):
            return f"[{'; '.join(', '.join(map(_show, row)) for row in rows)}]"
        case Chain(items, relations):
            return _show(items[0]) + "".join(f" {relation} {_show(item)}" for relation, item in zip(relations, items[1:]))
        case Listing(items):
            return ", ".join(map(_show, items))
        case Text(words):
            return f'"{words}"'
    raise TypeError(f"not a form: {form!r:.80}")


def _inside(form: Form) -> str:
    """In brackets, unless it needs none or has its own."""
    plain = isinstance(form, (Symbol, Constant, Sum, Call)) or (
        isinstance(form, Number) and form.value >= 0 and form.value.denominator == 1
    )
    return _show(form) if plain else f"({_show(form)})"


def _digits(value: Fraction) -> str:
    if value.numerator.bit_length() + value.denominator.bit_length() > 4000:
        return "(a number of thousands of digits)"
    return str(value)
