"""Approximate values of forms: to refute equality quickly in floating point, and to support it at two high precisions with mpmath.

Every value carries a bound on its error, and two values differ only if they do so far beyond both bounds: relative, never by absolute
rounding. Functions are compared at fixed random points, real ones where both sides are real there, whole numbers where only those serve.
"""

import cmath
import math
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

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
    children,
)  # fmt: skip
from posttrain.grading.normal import has_series
from posttrain.grading.polynomial import Beyond

EPSILON = 2.0**-50
CLEAR = 1e3  # differences count from so many times the error bound on
POINTS = 5
HIGHEST_SUMMATION = 1_000
_FLOAT: Mapping[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "cot": lambda z: 1 / cmath.tan(z), "sec": lambda z: 1 / cmath.cos(z),
    "csc": lambda z: 1 / cmath.sin(z), "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan,
    "arccot": lambda z: cmath.atan(1 / z), "arcsec": lambda z: cmath.acos(1 / z), "arccsc": lambda z: cmath.asin(1 / z),
    "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh, "coth": lambda z: 1 / cmath.tanh(z), "ln": cmath.log, "abs": abs,
    "Re": lambda z: z.real, "Im": lambda z: z.imag, "arg": cmath.phase, "factorial": lambda z: math.gamma(_real(z) + 1),
}  # fmt: skip
_WITHOUT_VALUE = frozenset(
    ("factorial2", "forall", "cases", "aligned", "align", "pmod", "det", "gcd", "lcm", "int", "lim", "sum", "prod", "deg")
)  # here; exact arithmetic and sympy know most of them
_STEPS = {"floor": math.floor, "ceil": math.ceil, "sgn": lambda x: (x > 0) - (x < 0)}


@dataclass(frozen=True, slots=True)
class Approximate:
    """A complex value and a bound on its error."""

    value: complex
    error: float


def refuted(a: Form, b: Form, log_base: int | None = None) -> bool | None:
    """True where floating point shows a and b to be different, False where they agree at every point, None where it cannot tell."""
    names = sorted(unknowns(a) | unknowns(b), key=repr)
    if not names:
        return _differ(a, b, {}, log_base)
    agreed = 0
    for environment in points(names):
        found = _differ(a, b, environment, log_base)
        if found:
            return True
        agreed += found is False
        if agreed >= POINTS:
            return False
    return False if agreed >= 3 else None


def value(form: Form) -> float | None:
    """The real number that a form is, None where it is none."""
    try:
        found = evaluate(form, {}).value
    except (Beyond, ArithmeticError, ValueError):
        return None
    return found.real if abs(found.imag) <= 1e-9 * max(1.0, abs(found)) else None


def unknowns(form: Form) -> set[Symbol]:
    """The free symbols of a form: not the variable of a sum, integral or limit."""
    match form:
        case Symbol():
            return {form}
        case Call("sum" | "prod" | "int", (body, Symbol() as bound, *bounds)):
            return (unknowns(body) - {bound}).union(*map(unknowns, bounds))
        case Call("lim", (body, Chain((bound, target), _))):
            return (unknowns(body) - {bound}) | unknowns(target)
    return set[Symbol]().union(*map(unknowns, children(form)))


def points(names: list[Symbol]) -> Iterator[dict[Form, complex]]:
    """Fixed random places: real of both signs, whole, then complex."""
    rng = random.Random(repr(names))
    for _ in range(2 * POINTS):
        yield {name: complex(rng.uniform(0.3, 2.9) * rng.choice((1, 1, -1))) for name in names}
    for _ in range(POINTS):
        yield {name: complex(rng.uniform(0.3, 2.9)) for name in names}
    for _ in range(2 * POINTS):
        yield {name: complex(number) for name, number in zip(names, rng.sample(range(2, 12 + len(names)), len(names)))}
    for _ in range(POINTS):
        yield {name: complex(rng.uniform(0.3, 1.5), rng.uniform(0.3, 1.5)) for name in names}


def _differ(a: Form, b: Form, environment: Mapping[Form, complex], log_base: int | None) -> bool | None:
    overflowed = 0
    found: list[Approximate] = []
    for form in (a, b):
        try:
            found.append(evaluate(form, environment, log_base))
        except OverflowError:
            overflowed += 1
        except (Beyond, ArithmeticError, ValueError):
            return None
    if overflowed:
        return True if overflowed == 1 and not environment else None  # a number beyond 1e308 and one below it
    x, y = found
    if environment and all(v.imag == 0 for v in environment.values()) and (_is_complex(x) or _is_complex(y)):
        return None
    if not (cmath.isfinite(x.value) and cmath.isfinite(y.value)):
        return None
    return abs(x.value - y.value) > CLEAR * (x.error + y.error)


def _is_complex(x: Approximate) -> bool:
    return abs(x.value.imag) > 10 * x.error + 1e-12 * abs(x.value)


def evaluate(form: Form, environment: Mapping[Form, complex], log_base: int | None = None) -> Approximate:
    """The value of a form. Raises `Beyond`, ArithmeticError or ValueError where it has none within reach."""

    def of(inner: Form) -> Approximate:
        return evaluate(inner, environment, log_base)

    match form:
        case Number(exact, _):
            return _rounded(complex(_float(exact)))
        case BaseNumeral():
            return _rounded(complex(_float(form.value)))
        case Constant(name):
            if name == "oo":
                raise Beyond("infinity")
            return _rounded({"pi": cmath.pi + 0j, "e": cmath.e + 0j, "i": 1j}[name])
        case Symbol():
            return Approximate(environment[form], 0.0)
        case Quantity(inner, _):
            return of(inner)
        case Percent(inner):
            return _times(of(inner), Approximate(0.01, 1e-18))
        case Degrees(inner):
            return _times(of(inner), Approximate(math.pi / 180, 1e-18))
        case Sum(terms):
            parts = [of(term) for term in terms]
            total = sum(part.value for part in parts)
            return Approximate(total, sum(part.error for part in parts) + EPSILON * max(abs(part.value) for part in parts))
        case Product(factors):
            result = Approximate(1, 0.0)
            for factor in factors:
                result = _times(result, of(factor))
            return result
        case Quotient(top, bottom) | Ratio((top, bottom), _):
            return _times(of(top), _inverse(of(bottom)))
        case Power(base, exponent):
            return _power(of(base), of(exponent))
        case Call(name, args):
            return _call(name, args, environment, log_base)
    raise Beyond(f"a {type(form).__name__} has no value")


def _call(name: str, args: tuple[Form, ...], environment: Mapping[Form, complex], log_base: int | None) -> Approximate:
    if name in ("sum", "prod") and len(args) == 4:
        return _series(name, *args, environment, log_base)
    if name in _WITHOUT_VALUE:
        raise Beyond(name)
    values = [evaluate(arg, environment, log_base) for arg in args]
    first = values[0]
    if name == "root":
        return _power(first, _inverse(values[1]))
    if name in ("ln", "log"):
        if first.value == 0:
            raise Beyond("a logarithm of zero")
        natural = _apply(cmath.log, first)
        base = values[1] if len(values) == 2 else _rounded(complex(log_base)) if name == "log" and log_base else None
        return _times(natural, _inverse(_apply(cmath.log, base))) if base else natural
    if name in _FLOAT and len(values) == 1:
        return _apply(_FLOAT[name], first)
    if name in _STEPS and len(values) == 1:
        x = _real(first.value)
        if abs(x - round(x)) <= 100 * first.error:
            x = round(x)
        return _rounded(complex(_STEPS[name](x)))
    if name in ("min", "max"):
        return (min if name == "min" else max)(values, key=lambda v: _real(v.value))
    if name == "binom" and len(values) == 2:
        n, k = (_real(v.value) for v in values)
        return _rounded(complex(math.gamma(n + 1) / (math.gamma(k + 1) * math.gamma(n - k + 1))), 64)
    if name == "mod" and values[1].value:
        return _rounded(complex(_real(first.value) % _real(values[1].value)), 16)
    seed = zlib.crc32(f"{name}/{len(values)}".encode())  # a function of no known meaning: some smooth one, the same on both sides
    mixed = sum((v.value * (1 + ((seed >> i) % 7) / 7) for i, v in enumerate(values)), (seed % 11) / 3 + 0j)
    return _apply(lambda z: cmath.sin(z) + 2, Approximate(mixed, sum(v.error for v in values) * 2))


def _series(
    name: str, body: Form, variable: Form, low: Form, high: Form, environment: Mapping[Form, complex], log_base: int | None
) -> Approximate:
    if isinstance(high, Constant) or has_series(body):
        raise Beyond("an infinite series, or one in another")
    first, last = (_real(evaluate(bound, environment, log_base).value) for bound in (low, high))
    if abs(first - round(first)) > 1e-9 or abs(last - round(last)) > 1e-9 or last - first > HIGHEST_SUMMATION:
        raise Beyond("bounds that are no whole numbers, or far apart")
    result = Approximate(0 if name == "sum" else 1, 0.0)
    for k in range(round(first), round(last) + 1):
        term = evaluate(body, {**environment, variable: complex(k)}, log_base)
        if name == "prod":
            result = _times(result, term)
        else:
            result = Approximate(result.value + term.value, result.error + term.error + EPSILON * abs(term.value))
    return result


def _times(a: Approximate, b: Approximate) -> Approximate:
    product = a.value * b.value
    if not cmath.isfinite(product):
        raise OverflowError
    return Approximate(product, abs(a.value) * b.error + abs(b.value) * a.error + a.error * b.error + EPSILON * abs(product))


def _inverse(a: Approximate) -> Approximate:
    if abs(a.value) <= 4 * a.error:
        raise ZeroDivisionError
    return Approximate(1 / a.value, a.error / abs(a.value) ** 2 * 2 + EPSILON / abs(a.value))


def _power(base: Approximate, exponent: Approximate) -> Approximate:
    x, e = base.value, exponent.value
    if x == 0:
        if e.real <= 0:
            raise ZeroDivisionError
        return Approximate(0, base.error)
    if x.imag == 0 and x.real < 0 and e.imag == 0 and (odd := _odd_denominator(e.real)):
        sign = -1 if round(e.real * odd) % 2 else 1
        result = complex(sign * abs(x.real) ** e.real)
    else:
        result = x**e
    if not cmath.isfinite(result):
        raise OverflowError
    relative = abs(e) * base.error / abs(x) + exponent.error * abs(cmath.log(x)) + EPSILON * (1 + abs(e * cmath.log(x)))
    return Approximate(result, 2 * relative * abs(result))


def _odd_denominator(exponent: float) -> int | None:
    """3 for 2/3: there a negative number has a real power, as school takes it."""
    return next((q for q in (1, 3, 5, 7, 9) if abs(exponent * q - round(exponent * q)) < 1e-12), None)


def _apply(function: Callable[[complex], Any], x: Approximate) -> Approximate:
    result = complex(function(x.value))
    step = 1e-7 * (abs(x.value) + 1e-3)
    try:
        slope = abs(complex(function(x.value + step)) - result) / step
    except (ArithmeticError, ValueError):
        slope = abs(complex(function(x.value - step)) - result) / step
    return Approximate(result, 2 * slope * x.error + 2 * EPSILON * (abs(result) + slope * abs(x.value)))


def _rounded(x: complex, times: int = 1) -> Approximate:
    return Approximate(x, times * EPSILON * abs(x))


def _float(exact: Fraction) -> float:
    return exact.numerator / exact.denominator  # raises OverflowError beyond 1e308


def _real(z: complex) -> float:
    if abs(complex(z).imag) > 1e-9 * abs(z):
        raise Beyond("a complex number where a real one is needed")
    return complex(z).real
