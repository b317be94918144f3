"""Sines, cosines and their like in normal form: addition theorems, special angles in radicals, hyperbolic ones by exponentials."""

from collections.abc import Callable
from fractions import Fraction
from math import acos, asin, atan, pi
from typing import TYPE_CHECKING

from posttrain.grading.polynomial import (
    ONE,
    ZERO,
    Beyond,
    Monomial,
    Poly,
    Rational,
    add,
    approximate,
    atom,
    constant,
    key,
    multiply,
    quotient_key,
    scaled,
    whole,
)  # fmt: skip

if TYPE_CHECKING:
    from posttrain.grading.normal import Normaliser

HYPERBOLIC = {"sinh": (-1, 1), "cosh": (1, 1)}


def trigonometric(n: "Normaliser", name: str, angle: Rational) -> Rational:
    if name in ("sin", "cos"):
        return sine(n, angle) if name == "sin" else cosine(n, angle)
    above, below = {"tan": ("s", "c"), "cot": ("c", "s"), "sec": ("1", "c"), "csc": ("1", "s")}[name]
    parts: dict[str, Callable[[Normaliser, Rational], Rational]] = {"s": sine, "c": cosine, "1": lambda *_: whole(ONE)}
    return n.product(parts[above](n, angle), n.inverse(parts[below](n, angle)))


def sine(n: "Normaliser", angle: Rational) -> Rational:
    return _of_angle(n, angle)[0]


def cosine(n: "Normaliser", angle: Rational) -> Rational:
    return _of_angle(n, angle)[1]


def _of_angle(n: "Normaliser", angle: Rational) -> tuple[Rational, Rational]:
    """Sine and cosine by the addition theorem over the terms of the angle."""
    if angle.bottom != ONE:
        return whole(atom(f"sin:{quotient_key(angle)}")), whole(atom(f"cos:{quotient_key(angle)}"))
    sine, cosine = whole(ZERO), whole(ONE)
    for monomial, coefficient in angle.top.items():
        s, c = _of_term(n, monomial, coefficient)
        sine, cosine = (
            n.sum(n.product(sine, c), n.product(cosine, s)),
            n.sum(n.product(cosine, c), n.product(whole(constant(-1)), n.product(sine, s))),
        )
    return sine, cosine


def _of_term(n: "Normaliser", monomial: Monomial, coefficient: Fraction) -> tuple[Rational, Rational]:
    if monomial == (("pi", 1),) and (special := _special(n, coefficient)):
        return special
    sign, times = (1 if coefficient > 0 else -1), abs(coefficient.numerator)
    if monomial == (("pi", 1),) or times > 8:
        base, times = {monomial: abs(coefficient)}, 1
    else:
        base = {monomial: Fraction(1, coefficient.denominator)}
    of = key(base)
    first = s, c = whole(atom(f"sin:{of}")), whole(atom(f"cos:{of}"))
    for _ in range(times - 1):
        s, c = (
            n.sum(n.product(s, first[1]), n.product(c, first[0])),
            n.sum(n.product(c, first[1]), n.product(whole(constant(-1)), n.product(s, first[0]))),
        )
    return n.product(whole(constant(sign)), s), c


def _special(n: "Normaliser", turns: Fraction) -> tuple[Rational, Rational] | None:
    """Sine and cosine of turns * pi in radicals, for multiples of pi/12 and pi/10."""
    sine = _special_cosine(n, Fraction(1, 2) - turns)
    cosine = _special_cosine(n, turns)
    return None if sine is None or cosine is None else (whole(sine), whole(cosine))


def _special_cosine(n: "Normaliser", turns: Fraction) -> Poly | None:
    turns = abs(turns) % 2
    turns = min(turns, 2 - turns)
    if turns > Fraction(1, 2):
        found = _special_cosine(n, 1 - turns)
        return None if found is None else scaled(found, -1)
    two, three, five = (atom(f"n:{p}", Fraction(1, 2)) for p in (2, 3, 5))
    table = {
        Fraction(0): ONE, Fraction(1, 2): ZERO, Fraction(1, 3): constant(Fraction(1, 2)), Fraction(1, 4): scaled(two, Fraction(1, 2)),
        Fraction(1, 6): scaled(three, Fraction(1, 2)), Fraction(1, 5): scaled(add(ONE, five), Fraction(1, 4)),
        Fraction(2, 5): scaled(add(five, ONE, -1), Fraction(1, 4)),
    }  # fmt: skip
    if turns in (Fraction(1, 12), Fraction(5, 12)):
        six = multiply(two, three, n.sums)
        return scaled(add(six, two, 1 if turns == Fraction(1, 12) else -1), Fraction(1, 4))
    if turns in (Fraction(1, 10), Fraction(3, 10)):
        return scaled(n.root(add(constant(10), five, 2 if turns == Fraction(1, 10) else -2), Fraction(1, 2)), Fraction(1, 4))
    return table.get(turns)


def inverse_trigonometric(n: "Normaliser", function: str, value: Rational) -> Rational | None:
    """The special angle whose sine, cosine or tangent is `value`, if there is one: guessed in floating point, then proved."""
    top, bottom = approximate(value.top), approximate(value.bottom)
    if top is None or not bottom or (function != "tan" and abs(top[0]) > abs(bottom[0])):
        return None
    guess = {"sin": asin, "cos": acos, "tan": atan}[function](top[0] / bottom[0])
    angle = whole(scaled(atom("pi"), Fraction(round(guess / pi * 60), 60)))
    try:
        return angle if n.equal(trigonometric(n, function, angle), value) else None
    except (Beyond, ZeroDivisionError):
        return None


def hyperbolic(n: "Normaliser", name: str, value: Rational) -> Rational:
    if name == "tanh":
        return n.product(hyperbolic(n, "sinh", value), n.inverse(hyperbolic(n, "cosh", value)))
    e, sign = whole(atom("e")), HYPERBOLIC[name][0]
    minus = n.power(e, n.product(whole(constant(-1)), value))
    return n.product(whole(constant(Fraction(1, 2))), n.sum(n.power(e, value), n.product(whole(constant(sign)), minus)))
