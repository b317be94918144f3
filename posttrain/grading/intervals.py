"""Sets of real numbers in one spelling: an interval, an inequality, a set-builder, a union or "x is not 3" as sorted pieces.

Ends stay exact forms; floating point only sorts them.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import inf

from posttrain.grading.forms import (
    Call,
    Chain,
    Constant,
    Form,
    Group,
    Listing,
    NamedSet,
    PlusMinus,
    Product,
    Quotient,
    SetBuilder,
    SetOf,
    SetOperation,
    Sum,
    Symbol,
    difference,
    negative,
    number,
)  # fmt: skip
from posttrain.grading.normal import Normaliser, substituted
from posttrain.grading.numeric import unknowns, value
from posttrain.grading.polynomial import Beyond
from posttrain.grading.vocabulary import FUNCTIONS

MOST_PIECES = 60
KNOWN = FUNCTIONS | {"root", "factorial", "sum", "prod"}  # functions that a set of their values says nothing about
_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


class NoRealSet(Exception):
    """The form is no set of real numbers that can be read off."""


@dataclass(frozen=True, slots=True)
class End:
    """An end of a piece: its form, where it lies, and whether it belongs to the piece."""

    form: Form
    at: float
    closed: bool


@dataclass(frozen=True, slots=True)
class Piece:
    low: End
    high: End


LOWEST, HIGHEST = End(negative(Constant("oo")), -inf, False), End(Constant("oo"), inf, False)
LINE = Piece(LOWEST, HIGHEST)


def pieces(form: Form) -> list[Piece]:
    """The set as sorted pieces that do not touch. Raises `NoRealSet`."""
    return _united(_pieces(form))


def conjunction(form: Listing) -> list[Piece]:
    """What satisfies all of several conditions."""
    result = [LINE]
    for item in form.items:
        result = _common(result, _united(_pieces(item)))
    return _united(result)


def _pieces(form: Form) -> list[Piece]:
    match form:
        case Group(left, right, (low, high)):
            return [Piece(_end(low, left == "["), _end(high, right == "]"))]
        case SetOf(items):
            return [_point(item) for item in items]
        case NamedSet("R"):
            return [LINE]
        case SetOperation("cup", a, b):
            return _pieces(a) + _pieces(b)
        case SetOperation("cap", a, b):
            return _common(_united(_pieces(a)), _united(_pieces(b)))
        case SetOperation("setminus", a, b):
            return _common(_united(_pieces(a)), _complement(_united(_pieces(b))))
        case SetBuilder(Symbol(), condition):
            return _pieces(condition)
        case SetBuilder(Chain((Symbol(), NamedSet("R")), ("in",)), condition):
            return _pieces(condition)
        case Chain(items, relations):
            return _of_chain(items, relations)
        case Listing(items):
            return [piece for item in items for piece in _pieces(item)]
    raise NoRealSet


def _of_chain(items: tuple[Form, ...], relations: tuple[str, ...]) -> list[Piece]:
    if relations == ("in",) and isinstance(items[0], (Symbol, Call)):
        return _pieces(items[1])
    result = [LINE]
    variables = {_variable(a, b) for a, b in pairwise(items)}
    if len(variables) != 1:
        raise NoRealSet
    variable = variables.pop()
    for a, relation, b in zip(items, relations, items[1:]):
        result = _common(result, _united(_solved(variable, a, relation, b)))
    return _of_argument(variable.args[0], _mirrored(result)) if isinstance(variable, Call) and variable.name == "abs" else result


def _variable(a: Form, b: Form) -> Form:
    """What a relation is about: the one symbol, or the one function of symbols that stands alone on a side."""
    for side, other in ((a, b), (b, a)):
        if isinstance(side, Call) and not unknowns(other) and unknowns(side) and (side.name == "abs" or side.name not in KNOWN):
            return side
    symbols = unknowns(a) | unknowns(b)
    if len(symbols) != 1:
        raise NoRealSet
    return symbols.pop()


def _solved(variable: Form, a: Form, relation: str, b: Form) -> list[Piece]:
    """The pieces where a linear relation holds."""
    if relation not in _MIRRORED:
        raise NoRealSet
    if b == variable and not unknowns(a):
        a, b, relation = b, a, _MIRRORED[relation]
    if a != variable or unknowns(b):
        b, relation = _isolated(variable, difference(a, b), relation)
    match relation:
        case "<" | "<=":
            return [Piece(LOWEST, _end(b, relation == "<="))]
        case ">" | ">=":
            return [Piece(_end(b, relation == ">="), HIGHEST)]
        case "=":
            return [_point(b)]
    return _complement([_point(b)])


def _isolated(variable: Form, left: Form, relation: str) -> tuple[Form, str]:
    """(c, relation) with "variable relation c" for "left relation 0", where left is linear."""
    at = [substituted(left, variable, number(k)) for k in range(3)]
    slope = difference(at[1], at[0])
    try:
        normaliser = Normaliser()
        straight = normaliser.equal(normaliser.normal(Sum((at[0], at[2]))), normaliser.normal(Product((number(2), at[1]))))
    except (Beyond, ZeroDivisionError):
        raise NoRealSet from None
    steepness = value(slope)
    if not straight or not steepness:
        raise NoRealSet
    return Quotient(negative(at[0]), slope), relation if steepness > 0 else _MIRRORED[relation]


def _end(form: Form, closed: bool) -> End:
    if form == Constant("oo"):
        return HIGHEST
    if form in (LOWEST.form, Product((number(-1), Constant("oo")))):
        return LOWEST
    if isinstance(form, PlusMinus) or unknowns(form):
        raise NoRealSet
    at = value(form)
    if at is None:
        raise NoRealSet
    return End(form, at, closed)


def _point(form: Form) -> Piece:
    end = _end(form, True)
    return Piece(end, end)


def _mirrored(found: list[Piece]) -> list[Piece]:
    """Where |x| is in the set."""
    result = []
    for piece in _common(found, [Piece(End(number(0), 0.0, True), HIGHEST)]):
        low, high = (LOWEST if end.at == inf else End(negative(end.form), -end.at, end.closed) for end in (piece.high, piece.low))
        result += [piece, Piece(low, high)]
    return result


def _of_argument(inner: Form, found: list[Piece]) -> list[Piece]:
    """Where the symbol of a linear expression lies, if the expression lies in the set."""
    if isinstance(inner, Symbol):
        return found
    symbols = unknowns(inner)
    if len(symbols) != 1:
        raise NoRealSet
    (symbol,) = symbols
    result = []
    for piece in found:
        here = [LINE]
        for end, signs in ((piece.low, (">", ">=")), (piece.high, ("<", "<="))):
            if abs(end.at) != inf:
                here = _common(here, _united(_solved(symbol, inner, signs[end.closed], end.form)))
        result += here
    return result


def _united(found: list[Piece]) -> list[Piece]:
    """Sorted, pieces that touch made one, empty ones left out."""
    if len(found) > MOST_PIECES:
        raise NoRealSet
    out: list[Piece] = []
    for piece in sorted((p for p in found if not _is_empty(p)), key=lambda p: (p.low.at, not p.low.closed)):
        last = out[-1] if out else None
        if last and (piece.low.at < last.high.at or (_close(piece.low.at, last.high.at) and (piece.low.closed or last.high.closed))):
            high = max(last.high, piece.high, key=lambda end: (end.at, end.closed))
            out[-1] = Piece(last.low, high)
        else:
            out.append(piece)
    return out


def _common(a: list[Piece], b: list[Piece]) -> list[Piece]:
    result = []
    for x in a:
        for y in b:
            low = max(x.low, y.low, key=lambda end: (end.at, not end.closed))
            high = min(x.high, y.high, key=lambda end: (end.at, end.closed))
            result.append(Piece(low, high))
    return [piece for piece in result if not _is_empty(piece)]


def _complement(found: list[Piece]) -> list[Piece]:
    result, low = [], LOWEST
    for piece in found:
        if piece.low.at > -inf:
            result.append(Piece(low, End(piece.low.form, piece.low.at, not piece.low.closed)))
        low = End(piece.high.form, piece.high.at, not piece.high.closed)
    if low.at < inf:
        result.append(Piece(low, HIGHEST))
    return [piece for piece in result if not _is_empty(piece)]


def _is_empty(piece: Piece) -> bool:
    if piece.low.at > piece.high.at:
        return True
    return piece.low.at == piece.high.at and not (piece.low.closed and piece.high.closed)


def _close(a: float, b: float) -> bool:
    return a == b or abs(a - b) <= 1e-12 * max(abs(a), abs(b))
