"""Equality of two expressions by sympy: for what exact arithmetic left open and floating point did not refute. Workers only.

The sympy objects are built node by node from our forms: no text reaches sympy's parser. Numbers whose size could not be borne are
refused before they are built. Order: values at two precisions, which refute; then a proof by simplification under a share of the CPU
time; where there is none, the agreement at both precisions decides, and the rule says so.
"""

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mpmath
import sympy

from posttrain.grading.forms import (
    BaseNumeral,
    Call,
    Chain,
    Constant,
    Degrees,
    Form,
    Number,
    Percent,
    Power,
    Product,
    Quantity,
    Quotient,
    Ratio,
    Sum,
    Symbol,
)  # fmt: skip
from posttrain.grading.polynomial import Beyond

PRECISIONS = (30, 60)  # decimal digits
GUARD_DIGITS = 8
POINTS = 4
MOST_BITS = 100_000
MOST_ROOT_BITS = 200
HIGHEST_FACTORIAL = 3_000
SIMPLIFIABLE = 80  # operations; beyond, numbers alone decide
AGREEMENT_S, PROOF_S = 0.6, 0.3  # CPU seconds
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(sympy, target)
    for name, target in {
        "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin", "arccos": "acos",
        "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
        "coth": "coth", "ln": "log", "abs": "Abs", "floor": "floor", "ceil": "ceiling", "sgn": "sign", "Re": "re", "Im": "im",
        "arg": "arg", "min": "Min", "max": "Max",
    }.items()
}  # fmt: skip


class _OutOfTime(Exception):
    """The share of CPU time for a proof is used up."""


def prove(gold: Form, answer: Form) -> tuple[bool, str]:
    """(are they equal, the rule that decided)."""
    try:
        a, b = build(gold), build(answer)
    except Beyond:
        return False, "out of reach"
    try:
        with cpu_share(AGREEMENT_S):
            agreed = agreement(a, b)
    except _OutOfTime:
        agreed = None
    if agreed is False:
        return False, "numeric at two precisions"
    proved = proof(a, b)
    if proved is not None:
        return proved, "algebra"
    return bool(agreed), "numeric at two precisions" if agreed else "not shown equal"


def agreement(a: Any, b: Any) -> bool | None:
    """False where values differ at the higher precision, True where they agree relatively at both, None where there are none."""
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    rng = random.Random(len(symbols))
    seen = 0
    counting = any(side.has(sympy.Sum, sympy.Product, sympy.factorial, sympy.binomial, sympy.floor) for side in (a, b))
    for attempt in range(3 * POINTS if symbols else 1):
        whole = attempt >= 2 * POINTS or counting
        at = {s: sympy.Integer(rng.randrange(2, 12)) if whole else sympy.Rational(rng.randrange(-300, 300) or 1, 127) for s in symbols}
        found = [_agree(a, b, at, digits) for digits in PRECISIONS]
        if False in found:
            return False
        seen += None not in found
        if seen >= POINTS:
            return True
    return True if seen >= (2 if symbols else 1) else None


def _agree(a: Any, b: Any, at: dict, digits: int) -> bool | None:
    with mpmath.workdps(digits):
        try:
            x, y = (complex_value(side.subs(at).doit(), digits) for side in (a, b))
        except (Beyond, ArithmeticError, ValueError, TypeError, AttributeError):
            return None
        if at and (abs(x.imag) > abs(x) * mpmath.mpf(10) ** -10) != (abs(y.imag) > abs(y) * mpmath.mpf(10) ** -10):
            return None  # real on one side only: outside the domain of one spelling
        size = max(abs(x), abs(y))
        if size > mpmath.mpf(10) ** (digits // 2):
            return None  # the last digits of so large a number are not seen
        return bool(size == 0 or abs(x - y) <= size * mpmath.mpf(10) ** (GUARD_DIGITS - digits))


def complex_value(expression: Any, digits: int) -> mpmath.mpc:
    value = expression.evalf(digits + GUARD_DIGITS, maxn=4 * digits)
    real, imaginary = value.as_real_imag()
    if not (real.is_Float or real.is_Rational) or not (imaginary.is_Float or imaginary.is_Rational):
        raise Beyond("no number")
    return mpmath.mpc(mpmath.mpmathify(str(real)), mpmath.mpmathify(str(imaginary)))


def proof(a: Any, b: Any) -> bool | None:
    """True or False where simplification reaches a number, None where it does not within its time."""
    difference = a - b
    if difference.count_ops() > SIMPLIFIABLE:
        return None
    try:
        with cpu_share(PROOF_S):
            simplified = sympy.simplify(difference.doit())
            if simplified == 0:
                return True
            return False if simplified.is_Rational else None
    except (_OutOfTime, ArithmeticError, ValueError, TypeError, AttributeError, NotImplementedError, RecursionError):
        return None


@contextmanager
def cpu_share(seconds: float) -> Iterator[None]:
    """Raises `_OutOfTime` inside after so much CPU time; in the main thread of a worker only."""

    def stop(*_: object) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def build(form: Form) -> Any:
    """The sympy expression of a form. Raises `Beyond` for what is no expression or too large to be built."""
    match form:
        case Number(value, _):
            return sympy.Rational(value.numerator, value.denominator)
        case BaseNumeral():
            return build(Number(form.value))
        case Symbol(name):
            return sympy.Symbol(name)
        case Constant(name):
            return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[name]
        case Quantity(value, _):
            return build(value)
        case Percent(value):
            return build(value) / 100
        case Degrees(value):
            return build(value) * sympy.pi / 180
        case Sum(terms):
            return sympy.Add(*map(build, terms))
        case Product(factors):
            return sympy.Mul(*map(build, factors))
        case Quotient(top, bottom) | Ratio((top, bottom), _):
            below = build(bottom)
            if below == 0:
                raise Beyond("a division by zero")
            return build(top) / below
        case Power(base, exponent):
            return power(build(base), build(exponent))
        case Call(name, args):
            return call(name, args)
    raise Beyond(f"a {type(form).__name__} is no expression")


def power(base: Any, exponent: Any) -> Any:
    size = abs(exponent) if exponent.is_Rational else 0
    bits = max(base.p.bit_length(), base.q.bit_length()) if base.is_Rational else 64
    if exponent.is_Rational and (size * bits > MOST_BITS or exponent.q > MOST_BITS):
        raise Beyond("too large a power")
    if exponent.is_number and not exponent.is_Rational and abs(complex(exponent.evalf(10))) > MOST_BITS:
        raise Beyond("too large a power")
    if exponent.is_Rational and exponent.q > 1 and base.is_Rational and bits > MOST_ROOT_BITS:
        raise Beyond("a root of too large a number")  # sympy would look for its factors
    if base == 0 and not exponent.is_positive:
        raise Beyond("zero to a power that is not positive")
    if exponent.is_Rational and exponent.q % 2 and exponent.q > 1 and base.is_number and base.is_negative:
        return (-1) ** exponent.p * sympy.Pow(-base, exponent)  # the real root, as school takes it
    return sympy.Pow(base, exponent)


def call(name: str, args: tuple[Form, ...]) -> Any:
    if name in ("sum", "prod") and len(args) == 4:
        body, variable, low, high = map(build, args)
        if low.is_Integer and high.is_Integer and high - low > HIGHEST_FACTORIAL:
            raise Beyond("too many terms")
        return (sympy.Sum if name == "sum" else sympy.Product)(body, (variable, low, high))
    if name == "int" and len(args) == 4 and isinstance(args[1], Symbol):
        body, variable, low, high = map(build, args)
        return sympy.Integral(body, (variable, low, high))
    if name == "lim" and len(args) == 2 and isinstance(args[1], Chain) and args[1].relations == ("->",):
        return sympy.Limit(build(args[0]), *map(build, args[1].items))
    values = [build(arg) for arg in args]
    if name == "root":
        return power(values[0], 1 / values[1])
    if name == "log":
        return sympy.log(*values)
    if name in ("factorial", "factorial2", "binom"):
        if any(value.is_number and abs(complex(value.evalf(10))) > HIGHEST_FACTORIAL for value in values):
            raise Beyond("a factorial out of reach")
        return {"factorial": sympy.factorial, "factorial2": sympy.factorial2, "binom": sympy.binomial}[name](*values)
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](*values)
    if name in ("forall", "cases", "aligned", "align", "pmod", "det", "gcd", "lcm", "int", "lim", "mod", "deg", "sum", "prod"):
        raise Beyond(name)
    return sympy.Function(name)(*values)
