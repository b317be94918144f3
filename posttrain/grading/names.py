"""Names before values, and signs that stand for two answers: "x = 5" is 5 with a name, "1 +- 2" is two values."""

from itertools import product

from posttrain.grading.forms import (
    EXPRESSIONS,
    Call,
    Chain,
    Constant,
    Form,
    Group,
    Listing,
    Number,
    Percent,
    PlusMinus,
    Power,
    Product,
    Quantity,
    Quotient,
    SetOf,
    Sum,
    Symbol,
    Text,
    children,
    negative,
)  # fmt: skip
from posttrain.grading.normal import substituted
from posttrain.grading.numeric import unknowns

MOST_ITEMS = 64
NAMING = frozenset(("=", "~", "mod="))  # relations that may stand between a name and its value


def split_name(form: Form) -> tuple[tuple[Form, ...], Form | None]:
    """("x =", 5) for "x = 5", no names and the form itself for anything without one, None for an equation that names nothing."""
    if not isinstance(form, Chain):
        return (), form
    if set(form.relations) - NAMING:
        return (), None
    *names, last = form.items
    if all(map(_is_name, names)) and not (len(names) == 1 and isinstance(names[0], Symbol) and names[0] in unknowns(last)):
        return tuple(names), last
    if len(form.items) == 2 and _is_name(last) and isinstance(names[0], EXPRESSIONS) and last not in unknowns(names[0]):
        return (last,), names[0]
    if len(form.items) > 2 and _is_name(names[0]) and all(isinstance(item, EXPRESSIONS) for item in form.items[1:]):
        return (names[0],), Chain(form.items[1:], form.relations[1:])
    return (), None


def members(form: Form, linked: bool = True) -> list[Form]:
    """The answers that a form gives: items of lists and sets, both signs of a plus-minus; names are left out."""
    match form:
        case Listing(items) | SetOf(items):
            return [member for item in items for member in members(item, linked)][: 4 * MOST_ITEMS]
        case Chain():
            value = split_name(form)[1]
            return [form] if value is None or isinstance(value, Chain) else members(value, linked)
        case Group(left, right, items) if has_sign_choice(form) and not linked:
            sides = [members(item) for item in items]
            chosen: list[Form] = [Group(left, right, choice) for choice in product(*sides)]
            return chosen[: 4 * MOST_ITEMS]
    return [signed(form, sign) for sign in (1, -1)] if has_sign_choice(form) else [form]


def has_sign_choice(form: Form) -> bool:
    return isinstance(form, PlusMinus) or any(map(has_sign_choice, children(form)))


def signed(form: Form, sign: int) -> Form:
    """The form with one choice of all its signs."""
    match form:
        case PlusMinus(term, first):
            inner = signed(term, sign)
            return inner if first * sign > 0 else negative(inner)
        case Sum(parts):
            return Sum(tuple(signed(part, sign) for part in parts))
        case Product(parts):
            return Product(tuple(signed(part, sign) for part in parts))
        case Quotient(a, b):
            return Quotient(signed(a, sign), signed(b, sign))
        case Power(a, b):
            return Power(signed(a, sign), signed(b, sign))
        case Call(name, args):
            return Call(name, tuple(signed(arg, sign) for arg in args))
        case Group(left, right, items):
            return Group(left, right, tuple(signed(item, sign) for item in items))
        case Percent(a):
            return Percent(signed(a, sign))
        case Quantity(a, unit):
            return Quantity(signed(a, sign), unit)
    return form


def rename(form: Form, variable: Form, new: Form) -> Form:
    """`substituted` through relations and sets as well."""
    match form:
        case Chain(items, relations):
            return Chain(tuple(rename(item, variable, new) for item in items), relations)
        case Listing(items):
            return Listing(tuple(rename(item, variable, new) for item in items), form.word)
        case Group(left, right, items):
            return Group(left, right, tuple(rename(item, variable, new) for item in items))
    return substituted(form, variable, new)


def _is_name(form: Form) -> bool:
    """What may stand before "=": a symbol, a function of symbols, the length |AB|, words, a tuple of names."""
    match form:
        case Symbol() | Text() | Constant("i"):
            return True
        case Constant("e"):
            return False
        case Call(name, args):
            return name not in ("sin", "cos", "tan", "ln", "log", "root", "factorial", "det", "sum", "prod", "int", "lim") and all(
                isinstance(arg, (Symbol, Number)) or (name in ("abs", "angle") and isinstance(arg, Product)) for arg in args
            )
        case Group("(", ")", items):
            return bool(items) and all(map(_is_name, items))
        case Product(factors):
            return all(isinstance(factor, Symbol) and factor.name.isupper() for factor in factors) or (
                len(factors) == 2 and factors[0] == Symbol("m") and isinstance(factors[1], Symbol) and factors[1].name.startswith("angle(")
            )
    return False


def names_agree(gold: tuple[Form, ...], answer: tuple[Form, ...], gold_value: Form) -> bool:
    """x = 5 does not answer y = 5; but y = 2x and f(x) = 2x say the same."""
    if set(gold) & set(answer) or any(isinstance(name, (Text, Call, Group)) for name in (*gold, *answer)):
        return True
    return bool(unknowns(gold_value))


def renamed_argument(gold_names: tuple[Form, ...], names: tuple[Form, ...], said: Form) -> Form:
    """f(z) = z^2 for f(x) = x^2: the argument's name is free."""
    for a, b in zip(gold_names, names):
        match a, b:
            case Call(_, (Symbol() as new,)), Call(_, (Symbol() as old,)) if new not in unknowns(said):
                return rename(said, old, new)
    return said


def permuted(gold: tuple[Form, ...], answer: tuple[Form, ...]) -> bool:
    """(x, y) = against (y, x) =."""
    if not (len(gold) == len(answer) == 1 and isinstance(gold[0], Group) and isinstance(answer[0], Group)):
        return False
    return gold != answer and sorted(map(repr, gold[0].items)) == sorted(map(repr, answer[0].items))


def permutation(gold: tuple[Form, ...], answer: tuple[Form, ...], value: Form) -> tuple[Form, ...] | None:
    named, said = gold[0], answer[0]
    if not (isinstance(value, Group) and isinstance(named, Group) and isinstance(said, Group)) or len(value.items) != len(named.items):
        return None
    by_name = dict(zip(named.items, value.items))
    return tuple(by_name[name] for name in said.items)
