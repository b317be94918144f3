"""Sums of products of atoms with rational coefficients and exponents: the arithmetic in which most answers are decided exactly.

An atom is a string: "s:x" a symbol, "n:2" a prime (with an exponent between 0 and 1), "i", "pi", "e", "sin:..." and so on. What is known
of atoms is applied as products are formed: i^2 = -1, primes leave their whole powers to the coefficient, sin^2 = 1 - cos^2, and a root
of a sum gives the sum back. A polynomial without terms is zero; two equal polynomials are equal numbers or functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor, gcd, lcm, pi

Exponent = int | Fraction
Monomial = tuple[tuple[str, Exponent], ...]
Poly = Mapping[Monomial, Fraction]

MOST_TERMS = 400
MOST_STEPS = 6_000
MOST_BITS = 200_000
ZERO: Poly = {}
ONE: Poly = {(): Fraction(1)}


class Workspace(dict[str, Poly]):
    """What atoms named "sum:..." and the like stand for, and how many more terms may be formed in it."""

    steps = MOST_STEPS

    def spend(self, terms: int) -> None:
        self.steps -= terms
        if self.steps < 0:
            raise Beyond("too many steps")


class Beyond(Exception):
    """The exact arithmetic does not reach: too many terms, too large numbers, or a function that it does not know."""


def constant(value: int | Fraction) -> Poly:
    return {(): Fraction(value)} if value else ZERO


def atom(name: str, exponent: Exponent = 1) -> Poly:
    return {((name, exponent),): Fraction(1)}


def key(poly: Poly) -> str:
    """A text that two polynomials share exactly if they are equal."""
    return "+".join(f"{c.numerator:x}/{c.denominator:x}{''.join(f'[{a}^{e}]' for a, e in m)}" for m, c in sorted(poly.items(), key=_name))


def as_constant(poly: Poly) -> Fraction | None:
    """The rational number that a polynomial is, if it is one."""
    if not poly:
        return Fraction(0)
    return poly.get(()) if len(poly) == 1 else None


def add(a: Poly, b: Poly, scale: Fraction | int = 1) -> Poly:
    """a + scale * b."""
    out = dict(a)
    for monomial, coefficient in b.items():
        value = out.get(monomial, 0) + scale * coefficient
        if value:
            out[monomial] = value
        else:
            out.pop(monomial, None)
    return _bounded(out)


def scaled(a: Poly, factor: Fraction | int) -> Poly:
    return {monomial: coefficient * factor for monomial, coefficient in a.items()} if factor else ZERO


def multiply(a: Poly, b: Poly, sums: Workspace) -> Poly:
    """a * b."""
    sums.spend(len(a) * len(b))
    out: dict[Monomial, Fraction] = {}
    for left, x in a.items():
        for right, y in b.items():
            for monomial, coefficient in reduced(_merged(left, right), x * y, sums).items():
                out[monomial] = out.get(monomial, 0) + coefficient
    return _bounded({monomial: coefficient for monomial, coefficient in out.items() if coefficient})


def power(a: Poly, exponent: int, sums: Workspace) -> Poly:
    """a to a whole power that is not negative, unless a is a single term."""
    if len(a) == 1:
        ((monomial, coefficient),) = a.items()
        if abs(exponent) * max(_bits(coefficient), 1) > MOST_BITS:
            raise Beyond("too large a number")
        return reduced(tuple((name, e * exponent) for name, e in monomial), coefficient**exponent, sums)
    if not a:
        if exponent <= 0:
            raise Beyond("zero to a power that is not positive")
        return ZERO
    if not 0 <= exponent <= 64:
        raise Beyond("too high a power")
    out, square = ONE, a
    while exponent:
        if exponent & 1:
            out = multiply(out, square, sums)
        exponent >>= 1
        if exponent:
            square = multiply(square, square, sums)
    return out


def reduced(monomial: Monomial, coefficient: Fraction, sums: Workspace) -> Poly:
    """One term with what is known of its atoms applied."""
    kept: list[tuple[str, Exponent]] = []
    expand: list[tuple[Poly, int]] = []
    for name, exponent in monomial:
        if name.startswith("n:"):
            whole = floor(exponent)
            if whole:
                base = int(name[2:])
                if abs(whole) * base.bit_length() > MOST_BITS:
                    raise Beyond("too large a number")
                coefficient *= Fraction(base) ** whole
                exponent -= whole
        elif name == "i" and isinstance(exponent, int):
            coefficient *= (1, 1, -1, -1)[exponent % 4]
            exponent %= 2
        elif name.startswith("sin:") and exponent >= 2:
            whole = floor(exponent / 2)
            expand.append(({(): Fraction(1), (("cos:" + name[4:], 2),): Fraction(-1)}, whole))
            exponent -= 2 * whole
        elif name.startswith("sum:") and exponent >= 1:
            whole = floor(exponent)
            expand.append((sums[name], whole))
            exponent -= whole
        if exponent:
            kept.append((name, int(exponent) if exponent == int(exponent) else exponent))
    out: Poly = {tuple(kept): coefficient}
    for poly, whole in expand:
        out = multiply(out, power(poly, whole, sums), sums)
    return _bounded(out)


def content(a: Poly) -> Fraction:
    """The largest positive rational that divides all coefficients into whole numbers."""
    top = gcd(*(c.numerator for c in a.values()))
    bottom = lcm(*(c.denominator for c in a.values()))
    return Fraction(top, bottom)


def _name(term: tuple[Monomial, Fraction]) -> str:
    return "".join(f"[{a}^{e}]" for a, e in term[0])


def _merged(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    exponents = dict(left)
    for name, exponent in right:
        exponents[name] = exponents.get(name, 0) + exponent
    return tuple(sorted((name, e) for name, e in exponents.items() if e))


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _bounded(a: Poly) -> Poly:
    if len(a) > MOST_TERMS:
        raise Beyond("too many terms")
    if any(_bits(coefficient) > 2 * MOST_BITS for coefficient in a.values()):
        raise Beyond("too large a number")
    return a


@dataclass(frozen=True, slots=True)
class Rational:
    """top / bottom; the bottom is 1 wherever it is a single term."""

    top: Poly
    bottom: Poly


def whole(poly: Poly) -> Rational:
    """A polynomial as a quotient."""
    return Rational(poly, ONE)


def quotient_key(value: Rational) -> str:
    return key(value.top) if value.bottom == ONE else f"({key(value.top)})/({key(value.bottom)})"


def approximate(poly: Poly) -> tuple[float, float] | None:
    """The value of a number in radicals and pi, and the size of its terms; None for any other."""
    total = scale = 0.0
    try:
        for monomial, coefficient in poly.items():
            value = coefficient.numerator / coefficient.denominator
            for name, e in monomial:
                if name != "pi" and not name.startswith("n:"):
                    return None
                value *= (pi if name == "pi" else float(int(name[2:]))) ** float(e)
            total += value
            scale += abs(value)
    except OverflowError:
        return None
    return total, scale
