"""Are two expressions equal? By exact numbers, then exact algebra, then rounding; what that leaves open is for a worker.

`Values.equal` raises `NeedsAlgebra` where neither the exact arithmetic decides nor floating point refutes, unless it was given a
`prove` function, as in the worker.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import TypeGuard

from posttrain.grading.forms import (
    BaseNumeral,
    Call,
    Constant,
    Degrees,
    Form,
    Number,
    Percent,
    Product,
    Quantity,
    Quotient,
    Ratio,
    Sum,
    children,
    number,
)  # fmt: skip
from posttrain.grading.normal import Normaliser, substituted
from posttrain.grading.numeric import evaluate, refuted, unknowns
from posttrain.grading.policy import MathPolicy
from posttrain.grading.polynomial import Beyond
from posttrain.grading.vocabulary import LENGTH, LONG_UNITS, OPPOSITES, OTHER_UNITS

Prove = Callable[[Form, Form], tuple[bool, str]]
PARAMETERS = frozenset("klmnj")  # letters for the whole number in a family of solutions
CONSTANTS = frozenset("cCkK")  # of integration
TRUNCATED_DIGITS = 6  # so many digits cut off instead of rounded still count


class NeedsAlgebra(Exception):
    """Only algebra can decide whether two expressions are equal."""


@dataclass(slots=True)
class Values:
    """Compares expressions under a policy; `rules` collects what decided."""

    policy: MathPolicy
    prove: Prove | None = None
    rules: list[str] = field(default_factory=list)

    def equal(self, gold: Form, answer: Form) -> bool:
        """Whether the answer is the reference's value, with units, percents, degrees and rounding as the policy says."""
        if gold == answer:
            return self.by("same form")
        if _is_residue(gold) != _is_residue(answer):  # 3 (mod 5) is 3 where the question is about residues
            return self.equal(*(form.args[0] if _is_residue(form) else form for form in (gold, answer)))
        if isinstance(gold, Quantity) or isinstance(answer, Quantity):
            return self.quantities(gold, answer)
        if isinstance(gold, Percent) != isinstance(answer, Percent) and self.policy.percent == "either":
            inner, other = (gold, answer) if isinstance(gold, Percent) else (answer, gold)
            assert isinstance(inner, Percent)
            pairs = [(inner.value, other), (Quotient(inner.value, number(100)), other)]
            return any(self.plain(*(pair if inner is gold else pair[::-1])) for pair in pairs) and self.by("percent")
        if isinstance(gold, Percent) and isinstance(answer, Percent):
            return self.plain(gold.value, answer.value)
        if isinstance(gold, Degrees) and isinstance(answer, Degrees):
            return self.plain(gold.value, answer.value)
        if isinstance(gold, Degrees) != isinstance(answer, Degrees) and self.policy.degrees == "either":
            inner, other = (gold, answer) if isinstance(gold, Degrees) else (answer, gold)
            assert isinstance(inner, Degrees)
            if self.plain(*((inner.value, other) if inner is gold else (other, inner.value))):
                return self.by("degrees")
        return self.plain(gold, answer)

    def quantities(self, gold: Form, answer: Form) -> bool:
        gold_unit, unit = (form.unit if isinstance(form, Quantity) else "" for form in (gold, answer))
        gold_value, value = (form.value if isinstance(form, Quantity) else form for form in (gold, answer))
        if self.policy.units == "required" and bool(gold_unit) != bool(unit):
            return self.by("units", False)
        if any(a in gold_unit and b in unit for a, b in OPPOSITES):
            return self.by("opposite words", False)
        gold_scale, scale = unit_scale(gold_unit), unit_scale(unit)
        if gold_scale and scale and gold_scale != scale:
            if gold_scale[0] != scale[0]:
                return self.by("units", False)
            value = Product((value, number(scale[1] / gold_scale[1])))
        return self.equal(gold_value, value) and self.by("units")

    def plain(self, gold: Form, answer: Form) -> bool:
        """Equality of two expressions without dress."""
        a, b = exact(gold), exact(answer)
        if a is not None and b is not None:
            if a == b:
                return self.by("exact number")
            return self.rounded(gold, answer) or self.by("exact number", False)
        if isinstance(gold, Ratio) and isinstance(answer, Ratio):
            return self.ratios(gold, answer)
        answer = self.renamed(gold, answer)
        if self.rounded(gold, answer):
            return True
        bases = (None, 10) if _has_log(gold) or _has_log(answer) else (None,)
        return any(self.algebra(gold, answer, base) for base in bases)

    def algebra(self, gold: Form, answer: Form, log_base: int | None) -> bool:
        try:
            normaliser = Normaliser(log_base=log_base)
            equal = normaliser.equal(normaliser.normal(gold), normaliser.normal(answer))
            if equal is not None:
                return self.by("exact algebra", equal)
        except ZeroDivisionError:
            return self.by("division by zero", False)
        except (Beyond, RecursionError):
            pass
        if refuted(gold, answer, log_base):
            return self.by("numeric", False)
        if self.prove is None:
            raise NeedsAlgebra
        equal, rule = self.prove(gold, answer)
        return self.by(rule, equal)

    def renamed(self, gold: Form, answer: Form) -> Form:
        """The answer with its free parameter named as in the reference: n pi for k pi, + c for + C."""
        a, b = unknowns(gold), unknowns(answer)
        if len(a - b) != 1 or len(b - a) != 1:
            return answer
        (old,), (new,) = b - a, a - b
        family = {old.name, new.name} <= PARAMETERS and _has_pi(gold)
        integral = {old.name, new.name} <= CONSTANTS and isinstance(gold, Sum) and new in gold.terms
        return substituted(answer, old, new) if family or integral else answer

    def ratios(self, gold: Ratio, answer: Ratio) -> bool:
        """Proportional numbers; a part of zero or a written leading zero makes it a clock time, which is equal only as it is."""
        if len(gold.parts) != len(answer.parts):
            return self.by("ratio", False)
        if _is_time(gold) or _is_time(answer):
            return self.by("time", gold.written == answer.written)
        first, other = gold.parts[0], answer.parts[0]
        crossed = ((Product((a, other)), Product((b, first))) for a, b in zip(gold.parts[1:], answer.parts[1:]))
        return all(self.plain(a, b) for a, b in crossed) and self.by("ratio")

    def rounded(self, gold: Form, answer: Form) -> bool:
        """Whether one side is a decimal that the other rounds to, at the precision that it is written with."""
        policy = self.policy
        if (digits := _decimals(gold)) is not None and _significant(gold) >= policy.gold_digits and not _coarser(answer, digits):
            return self._rounds_to(answer, gold, digits) and self.by("rounding")
        if (digits := _decimals(answer)) is not None and _significant(answer) >= policy.answer_digits and not _is_whole(gold):
            return self._rounds_to(gold, answer, digits) and self.by("rounding")
        return False

    def _rounds_to(self, form: Form, decimal: Form, digits: int) -> bool:
        target = exact(decimal)
        assert target is not None  # it has decimals
        value = exact(form)
        half = Fraction(1, 2 * 10**digits)
        if value is None:
            try:
                found = evaluate(form, {})
            except (Beyond, ArithmeticError, ValueError, KeyError):
                return False
            if abs(found.value.imag) > 10 * found.error + 1e-12 * abs(found.value):
                return False
            value = Fraction(found.value.real)
            half += Fraction(found.error) * 2 if digits < 15 else Fraction(abs(value) * Fraction(1, 10**14))
        gap = abs(value - target)
        return gap <= half or (_significant(decimal) >= TRUNCATED_DIGITS and gap < 2 * half and abs(target) < abs(value))

    def by(self, rule: str, equal: bool = True) -> bool:
        self.rules.append(rule)
        return equal


@lru_cache(maxsize=4096)
def exact(form: Form) -> Fraction | None:
    """The rational number that a form is on its face; None where algebra is needed."""
    match form:
        case Number(value, _):
            return value
        case BaseNumeral():
            return form.value
        case Product(factors) if len(factors) == 2 and factors[0] == number(-1):
            inner = exact(factors[1])
            return None if inner is None else -inner
        case Quotient(top, bottom):
            a, b = exact(top), exact(bottom)
            return a / b if a is not None and b else None
        case Sum(terms) if len(terms) == 2:
            a, b = exact(terms[0]), exact(terms[1])
            return a + b if a is not None and b is not None else None
    return None


def unit_scale(unit: str) -> tuple[str, Fraction] | None:
    """("length^2", 1/10000) for square centimetres; None for words that are no unit known here."""
    words = unit.replace(" ", "").rstrip(".^")
    power = 1
    for prefix, exponent in (("square", 2), ("sq", 2), ("cubic", 3)):
        if words.startswith(prefix):
            words, power = words.removeprefix(prefix), exponent
    if "^" in words:
        words, _, exponent_text = words.partition("^")
        power = int(exponent_text) if exponent_text.isdecimal() and len(exponent_text) == 1 else 1
    words = words if words in LENGTH else words.removesuffix("s") or words
    words = LONG_UNITS.get(words, "foot" if words == "feet" else "inch" if words == "inche" else words)
    if words in LENGTH:
        return f"length^{power}", Fraction(LENGTH[words]) ** power
    for dimension, table in OTHER_UNITS.items():
        if words in table and power == 1:
            return dimension, Fraction(table[words])
    return None


def _decimals(form: Form) -> int | None:
    """Digits after the point of a decimal number with or without a sign."""
    if isinstance(form, Number):
        return form.decimals
    if isinstance(form, Product) and len(form.factors) == 2 and form.factors[0] == number(-1):
        return _decimals(form.factors[1])
    return None


def _significant(form: Form) -> int:
    digits = _decimals(form) or 0
    return len(str(abs(int(exact(form) * 10**digits)))) if digits < 1000 else digits


def _coarser(form: Form, digits: int) -> bool:
    """True for a decimal with fewer digits than `digits`, and for a whole number: these are no better value of a rounded reference."""
    own = _decimals(form)
    return own <= digits if own is not None else _is_whole(form)


def _is_whole(form: Form) -> bool:
    value = exact(form)
    return value is not None and value.denominator == 1


def _is_residue(form: Form) -> TypeGuard[Call]:
    return isinstance(form, Call) and form.name == "pmod"


def _is_time(ratio: Ratio) -> bool:
    parts = ratio.written.split(":")
    return any(part.startswith("0") for part in parts) or any(exact(part) == 0 for part in ratio.parts)


@lru_cache(maxsize=4096)
def _has_pi(form: Form) -> bool:
    return form == Constant("pi") or isinstance(form, Degrees) or any(map(_has_pi, children(form)))


@lru_cache(maxsize=4096)
def _has_log(form: Form) -> bool:
    return (isinstance(form, Call) and form.name == "log" and len(form.args) == 1) or any(map(_has_log, children(form)))
