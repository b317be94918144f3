"""Forms -> quotients of polynomials over atoms: one spelling for all that exact arithmetic can show to be equal.

Roots of numbers are taken apart into primes, sines and cosines of special angles into radicals, logarithms into those of primes, powers
by their exponents' terms. Nothing is evaluated in floating point but signs; `Beyond` is raised where a form is out of reach.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, comb, factorial, floor, gcd, isqrt, lcm

from posttrain.grading.forms import (
    BaseNumeral,
    Call,
    Constant,
    Degrees,
    Form,
    Matrix,
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
from posttrain.grading.polynomial import (
    ONE,
    ZERO,
    Beyond,
    Exponent,
    Monomial,
    Poly,
    Rational,
    Workspace,
    add,
    approximate,
    as_constant,
    atom,
    constant,
    content,
    key,
    multiply,
    power,
    quotient_key,
    reduced,
    scaled,
    whole,
)  # fmt: skip
from posttrain.grading.trigonometry import HYPERBOLIC, cosine, hyperbolic, inverse_trigonometric, sine, trigonometric

HIGHEST_FACTORIAL = 3_000
LARGEST_TRIAL = 2_000
LARGEST_ROOT_BITS = 10_000
MOST_SUMMANDS = 200
_INVERSE = {"arcsin": "sin", "arccos": "cos", "arctan": "tan"}


@dataclass(slots=True)
class Normaliser:
    """Shares the sums that stand under roots between the two sides of a comparison. `log_base` 10 reads "log" as the common one."""

    log_base: int | None = None
    sums: Workspace = field(default_factory=Workspace)

    def equal(self, a: Rational, b: Rational) -> bool | None:
        """Whether two normal forms are the same number or function; None where the atoms that are left may be dependent.

        Roots of different products of primes are linearly independent over the rationals (Besicovitch 1940), also beside pi, i and free
        symbols: among these alone a difference that is not spelled zero is not zero.
        """
        if a == b:
            return True
        top = add(self.times(a.top, b.bottom), self.times(b.top, a.bottom), -1)
        if not top:
            return True
        return False if as_constant(top) is not None or all(map(_is_independent, {name for m in top for name, _ in m})) else None

    def times(self, a: Poly, b: Poly) -> Poly:
        if a == ONE or b == ONE:
            return b if a == ONE else a
        return multiply(a, b, self.sums)

    def normal(self, form: Form) -> Rational:
        """The quotient that a form is. Raises `Beyond`, and ZeroDivisionError for a bottom that is zero."""
        match form:
            case Number(value, _):
                return whole(constant(value))
            case BaseNumeral():
                return whole(constant(form.value))
            case Symbol(name):
                return whole(atom(f"s:{name}"))
            case Constant(name):
                if name == "oo":
                    raise Beyond("infinity")
                return whole(atom(name))
            case Quantity(value, _):
                return self.normal(value)
            case Percent(value):
                return self.product(self.normal(value), whole(constant(Fraction(1, 100))))
            case Degrees(value):
                return self.product(self.normal(value), whole(scaled(atom("pi"), Fraction(1, 180))))
            case Sum(terms):
                total = whole(ZERO)
                for term in terms:
                    total = self.sum(total, self.normal(term))
                return total
            case Product(factors):
                result = whole(ONE)
                for factor in factors:
                    result = self.product(result, self.normal(factor))
                return result
            case Quotient(top, bottom) | Ratio((top, bottom), _):
                return self.product(self.normal(top), self.inverse(self.normal(bottom)))
            case Power(base, exponent):
                return self.power(self.normal(base), self.normal(exponent))
            case Call(name, args):
                return self.call(name, args)
        raise Beyond(f"a {type(form).__name__} is no expression")

    def sum(self, a: Rational, b: Rational) -> Rational:
        if a.bottom == b.bottom:
            return self.over(add(a.top, b.top), a.bottom)
        return self.over(add(self.times(a.top, b.bottom), self.times(b.top, a.bottom)), self.times(a.bottom, b.bottom))

    def product(self, a: Rational, b: Rational) -> Rational:
        return self.over(self.times(a.top, b.top), self.times(a.bottom, b.bottom))

    def inverse(self, a: Rational) -> Rational:
        return self.over(a.bottom, a.top)

    def over(self, top: Poly, bottom: Poly) -> Rational:
        if not bottom:
            raise ZeroDivisionError
        if bottom == ONE or not top:
            return whole(top)
        if len(bottom) == 1:
            return whole(multiply(top, power(bottom, -1, self.sums), self.sums))
        if top == bottom:
            return whole(ONE)
        return Rational(top, bottom)

    def power(self, base: Rational, exponent: Rational) -> Rational:
        value = as_constant(exponent.top) if exponent.bottom == ONE else None
        if value is None:
            return self.symbolic_power(base, exponent)
        if value.denominator == 1:
            n = int(value)
            if n < 0:
                return self.power(self.inverse(base), whole(constant(-n)))
            try:
                return self.over(power(base.top, n, self.sums), power(base.bottom, n, self.sums))
            except Beyond:
                number = as_constant(base.top) if base.bottom == ONE else None
                if number is None or number <= 0:
                    raise
                return self.large_power(number, n)
        return self.over(self.root(base.top, value), self.root(base.bottom, value))

    def large_power(self, base: Fraction, exponent: int) -> Rational:
        """A power of a number that is too large to write out: its primes are atoms."""
        result = ONE
        for prime, times in _primes(base.numerator) + [(p, -t) for p, t in _primes(base.denominator)]:
            result = self.times(result, atom(f"large:{prime}", exponent * times))
        return whole(result)

    def symbolic_power(self, base: Rational, exponent: Rational) -> Rational:
        """base^(c1 m1 + c2 m2 + ...) as the product of (base^m)^c."""
        if exponent.bottom != ONE:
            return whole(atom(f"pow:{quotient_key(base)}|{quotient_key(exponent)}"))
        result = whole(ONE)
        for monomial, coefficient in exponent.top.items():
            if not monomial:
                result = self.product(result, self.power(base, whole(constant(coefficient))))
            else:
                result = self.product(result, self.one_power(base, monomial, coefficient))
        return result

    def one_power(self, base: Rational, monomial: Monomial, coefficient: Fraction) -> Rational:
        if base.bottom == ONE and base.top == atom("e"):
            if monomial == (("i", 1), ("pi", 1)):
                angle = whole(scaled(atom("pi"), coefficient))
                return self.sum(cosine(self, angle), self.product(whole(atom("i")), sine(self, angle)))
            if len(monomial) == 1 and monomial[0][0].startswith("ln:") and monomial[0][1] == 1:
                return self.power(whole(self.sums[monomial[0][0]]), whole(constant(coefficient)))
        number = as_constant(base.top) if base.bottom == ONE else None
        exponent = int(coefficient) if coefficient.denominator == 1 else coefficient
        of = key({monomial: Fraction(1)})
        if number is not None and number > 0:
            result = ONE
            for prime, times in _primes(number.numerator) + [(p, -t) for p, t in _primes(number.denominator)]:
                result = self.times(result, atom(f"pow:{prime}|{of}", exponent * times))
            return whole(result)
        return whole(atom(f"pow:{quotient_key(base)}|{of}", exponent))

    def root(self, base: Poly, exponent: Fraction) -> Poly:
        """base^(p/q): numbers by their primes, a single term factor by factor, a sum as an atom unless it is a square."""
        if not base:
            if exponent < 0:
                raise ZeroDivisionError
            return ZERO
        if len(base) == 1:
            ((monomial, coefficient),) = base.items()
            result = self.number_root(coefficient, exponent)
            for name, e in monomial:
                result = self.times(result, self.atom_root(name, e, exponent))
            return result
        if exponent.denominator == 2 and (square := self.square_root(base)):
            return power(square, exponent.numerator, self.sums) if exponent > 0 or len(square) == 1 else self.sum_root(base, exponent)
        return self.sum_root(base, exponent)

    def sum_root(self, base: Poly, exponent: Fraction) -> Poly:
        factor = content(base)
        inner = scaled(base, 1 / factor)
        name = f"sum:{key(inner)}"
        self.sums[name] = inner
        return multiply(self.number_root(factor, exponent), reduced(((name, exponent),), Fraction(1), self.sums), self.sums)

    def number_root(self, value: Fraction, exponent: Fraction) -> Poly:
        result = ONE
        if value < 0:
            if exponent.denominator == 2:
                result = reduced((("i", exponent.numerator),), Fraction(1), self.sums)
            elif exponent.denominator % 2:
                result = constant((-1) ** exponent.numerator)
            else:
                raise Beyond("an even root of a negative number")
            value = -value
        for prime, times in _primes(value.numerator) + [(p, -t) for p, t in _primes(value.denominator)]:
            result = self.times(result, reduced(((f"n:{prime}", exponent * times),), Fraction(1), self.sums))
        return result

    def atom_root(self, name: str, e: Exponent, exponent: Fraction) -> Poly:
        """(a^e)^(p/q); an even power under an even root leaves the absolute value."""
        positive = name in ("pi", "e") or name.startswith(("n:", "pow:", "abs:", "large:"))
        if not positive and e == int(e) and int(e) % 2 == 0 and exponent.denominator % 2 == 0:
            inner = f"abs:{name}"
            self.sums[inner] = atom(name)
            return reduced(((inner, e * exponent),), Fraction(1), self.sums)
        if name == "i" and exponent.denominator % 2 == 0:
            raise Beyond("a root of an imaginary number")
        return reduced(((name, e * exponent),), Fraction(1), self.sums)

    def square_root(self, base: Poly) -> Poly | None:
        """The positive root of a + b sqrt(c), where it is sqrt(x) + sqrt(y)."""
        if len(base) != 2 or () not in base:
            return None
        a = base[()]
        ((monomial, b),) = ((m, c) for m, c in base.items() if m)
        if not all(name.startswith("n:") and e == Fraction(1, 2) for name, e in monomial):
            return None
        c = 1
        for name, _ in monomial:
            c *= int(name[2:])
        root = _fraction_root(a * a - b * b * c)
        if root is None or a <= 0:
            return None
        first, second = self.number_root((a + root) / 2, Fraction(1, 2)), self.number_root((a - root) / 2, Fraction(1, 2))
        return add(first, second, 1 if b > 0 else -1)

    def call(self, name: str, args: tuple[Form, ...]) -> Rational:
        if name == "det" and len(args) == 1 and isinstance(args[0], Matrix):
            return self.determinant([[self.normal(cell) for cell in row] for row in args[0].rows])
        if name in ("sum", "prod") and len(args) == 4:
            return self.series(name, *args)
        values = [self.normal(arg) for arg in args]
        if name == "root":
            degree = as_constant(values[1].top) if values[1].bottom == ONE else None
            if not degree:
                raise Beyond("a root whose degree is no number")
            return self.power(values[0], whole(constant(1 / degree)))
        if name in ("sin", "cos", "tan", "cot", "sec", "csc") and len(values) == 1:
            return trigonometric(self, name, values[0])
        if name in HYPERBOLIC or name == "tanh":
            return hyperbolic(self, name, values[0])
        if name in ("ln", "log"):
            return self.logarithm(name, values)
        if name in _INVERSE and (angle := inverse_trigonometric(self, _INVERSE[name], values[0])):
            return angle
        if name in ("factorial", "binom"):
            return self.factorials(name, values)
        if name == "abs" and len(values) == 1:
            return self.over(self.absolute(values[0].top), self.absolute(values[0].bottom))
        numbers = [as_constant(v.top) if v.bottom == ONE else None for v in values]
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers) and (value := _of_numbers(name, known)) is not None:
            return whole(constant(value))
        return whole(atom(f"fn:{name}({';'.join(map(quotient_key, values))})"))

    def logarithm(self, name: str, values: list[Rational]) -> Rational:
        if len(values) == 2:
            return self.product(self.natural_log(values[0]), self.inverse(self.natural_log(values[1])))
        natural = self.natural_log(values[0])
        if name == "ln" or self.log_base is None:
            return natural
        return self.product(natural, self.inverse(self.natural_log(whole(constant(self.log_base)))))

    def natural_log(self, value: Rational) -> Rational:
        below = self._log(value.bottom) if value.bottom != ONE else ZERO
        return whole(add(self._log(value.top), below, -1))

    def _log(self, poly: Poly) -> Poly:
        if not poly:
            raise ZeroDivisionError
        if len(poly) > 1:
            name = f"ln:{key(poly)}"
            self.sums[name] = poly
            return atom(name)
        ((monomial, coefficient),) = poly.items()
        if coefficient < 0:
            raise Beyond("a logarithm of a negative number")
        total: Poly = ZERO
        parts = [(f"n:{p}", t) for p, t in _primes(coefficient.numerator)] + [(f"n:{p}", -t) for p, t in _primes(coefficient.denominator)]
        for name, e in [*parts, *monomial]:
            if name == "e":
                total = add(total, constant(e))
            elif name.startswith("n:"):
                self.sums[f"ln:{name}"] = constant(int(name[2:]))
                total = add(total, atom(f"ln:{name}"), Fraction(e))
            else:
                even = e == int(e) and int(e) % 2 == 0 and not name.startswith(("abs:", "pow:")) and name != "pi"
                inner = f"abs:{name}" if even else name
                self.sums[f"ln:{inner}"] = atom(inner)
                total = add(total, atom(f"ln:{inner}"), Fraction(e))
        return total

    def absolute(self, poly: Poly) -> Poly:
        if len(poly) == 1:
            ((monomial, coefficient),) = poly.items()
            result = constant(abs(coefficient))
            for name, e in monomial:
                positive = name in ("pi", "e", "i") or name.startswith(("n:", "pow:", "abs:", "large:"))
                if name == "i":
                    continue
                result = self.times(result, atom(name if positive or (e == int(e) and int(e) % 2 == 0) else f"abs:{name}", e))
            return result
        if not poly:
            return ZERO
        sign = _sign(poly)
        if sign:
            return scaled(poly, sign)
        if min(poly.items(), key=lambda term: str(term[0]))[1] < 0:
            poly = scaled(poly, -1)
        return atom(f"abs:sum:{key(poly)}")

    def factorials(self, name: str, values: list[Rational]) -> Rational:
        if any(v.bottom != ONE for v in values):
            raise Beyond("a factorial of a quotient")
        if name == "factorial":
            return self.factorial(values[0].top)
        n, k = (as_constant(v.top) for v in values)
        if n is not None and k is not None and n.denominator == k.denominator == 1 and k >= 0:
            if n < 0 or min(k, n - k) * max(int(n).bit_length(), 1) > 20_000:
                raise Beyond("too large a binomial")
            return whole(constant(comb(int(n), int(k))))
        top, left = values[0].top, values[1].top
        below = self.product(self.factorial(left), self.factorial(add(top, left, -1)))
        return self.product(self.factorial(top), self.inverse(below))

    def factorial(self, poly: Poly) -> Rational:
        """(m + c)! as m! (m + 1) ... (m + c), numbers as numbers."""
        value = as_constant(poly)
        if value is not None:
            if value.denominator != 1 or not 0 <= value <= HIGHEST_FACTORIAL:
                raise Beyond("a factorial out of reach")
            return whole(constant(factorial(int(value))))
        shift = poly.get((), Fraction(0))
        if shift.denominator != 1 or abs(shift) > 8:
            return whole(atom(f"fn:factorial({key(poly)})"))
        rest = {m: c for m, c in poly.items() if m}
        result = whole(atom(f"fn:factorial({key(rest)})"))
        for j in range(1, abs(int(shift)) + 1):
            factor = whole(add(rest, constant(j if shift > 0 else 1 - j)))
            result = self.product(result, factor if shift > 0 else self.inverse(factor))
        return result

    def series(self, name: str, body: Form, variable: Form, low: Form, high: Form) -> Rational:
        """A sum or product of few terms term by term; any other is an atom in which the bound variable has no name."""
        if isinstance(high, Constant) or has_series(body):
            raise Beyond("an infinite series, or one in another")
        first, last = (as_constant(self.normal(bound).top) for bound in (low, high))
        if first is not None and last is not None and first.denominator == last.denominator == 1:
            if last - first > MOST_SUMMANDS:
                raise Beyond("too many summands")
            result = whole(ZERO if name == "sum" else ONE)
            for k in range(int(first), int(last) + 1):
                term = self.normal(substituted(body, variable, Number(Fraction(k))))
                result = self.sum(result, term) if name == "sum" else self.product(result, term)
            return result
        parts = [self.normal(substituted(body, variable, Symbol("#"))), self.normal(low), self.normal(high)]
        return whole(atom(f"fn:{name}({';'.join(map(quotient_key, parts))})"))

    def determinant(self, rows: list[list[Rational]]) -> Rational:
        if len(rows) > 4 or any(len(row) != len(rows) for row in rows):
            raise Beyond("a determinant of more than four rows, or not square")
        if len(rows) == 1:
            return rows[0][0]
        total = whole(ZERO)
        for column, cell in enumerate(rows[0]):
            minor = self.determinant([row[:column] + row[column + 1 :] for row in rows[1:]])
            total = self.sum(total, self.product(whole(constant((-1) ** column)), self.product(cell, minor)))
        return total


def has_series(form: Form) -> bool:
    return (isinstance(form, Call) and form.name in ("sum", "prod")) or any(map(has_series, children(form)))


def substituted(form: Form, variable: Form, value: Form) -> Form:
    """The form with `value` for `variable`."""
    if form == variable or (isinstance(form, Constant) and isinstance(variable, Symbol) and form.name == variable.name):
        return value
    match form:
        case Sum(parts):
            return Sum(tuple(substituted(part, variable, value) for part in parts))
        case Product(parts):
            return Product(tuple(substituted(part, variable, value) for part in parts))
        case Quotient(a, b):
            return Quotient(substituted(a, variable, value), substituted(b, variable, value))
        case Power(a, b):
            return Power(substituted(a, variable, value), substituted(b, variable, value))
        case Call(name, args):
            return Call(name, tuple(substituted(arg, variable, value) for arg in args))
        case Degrees(a):
            return Degrees(substituted(a, variable, value))
        case Percent(a):
            return Percent(substituted(a, variable, value))
        case Quantity(a, unit):
            return Quantity(substituted(a, variable, value), unit)
    return form


def _is_independent(name: str) -> bool:
    return name in ("pi", "i") or name.startswith("s:") or (name.startswith("n:") and int(name[2:]) <= LARGEST_TRIAL**2)


def _primes(value: int) -> list[tuple[int, int]]:
    """Prime factors with their multiplicities; what trial division does not split stays one factor, a square of it being seen."""
    if value.bit_length() > LARGEST_ROOT_BITS:
        raise Beyond("too large a number under a root")
    factors, divisor = [], 2
    while divisor * divisor <= value and divisor <= LARGEST_TRIAL:
        times = 0
        while value % divisor == 0:
            value //= divisor
            times += 1
        if times:
            factors.append((divisor, times))
        divisor += 1 if divisor == 2 else 2
    if value > 1:
        root = isqrt(value)
        factors.append((root, 2) if root * root == value else (value, 1))
    return factors


def _fraction_root(value: Fraction) -> Fraction | None:
    if value < 0:
        return None
    top, bottom = isqrt(value.numerator), isqrt(value.denominator)
    return Fraction(top, bottom) if top * top == value.numerator and bottom * bottom == value.denominator else None


def _sign(poly: Poly) -> int:
    """The sign of a number in radicals and pi, 0 where it is no such number or close to zero."""
    found = approximate(poly)
    return 0 if found is None or abs(found[0]) < 1e-9 * found[1] else 1 if found[0] > 0 else -1


def _of_numbers(name: str, numbers: list[Fraction]) -> Fraction | int | None:
    whole = all(n.denominator == 1 for n in numbers)
    if name in ("min", "max"):
        return (min if name == "min" else max)(numbers)
    if name in ("floor", "ceil") and len(numbers) == 1:
        return (floor if name == "floor" else ceil)(numbers[0])
    if name in ("gcd", "lcm") and whole:
        return (gcd if name == "gcd" else lcm)(*map(int, numbers))
    if name == "mod" and whole and len(numbers) == 2 and numbers[1]:
        return numbers[0] % numbers[1]
    if name == "factorial2" and whole and 0 <= numbers[0] <= HIGHEST_FACTORIAL:
        result = 1
        for k in range(int(numbers[0]), 0, -2):
            result *= k
        return result
    return None
