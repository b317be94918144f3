"""Are two forms the same answer? Their structure is compared here, the expressions in it by `values.py`.

Reading order: `Structure.same` sends a pair of forms to the rule for their kinds; every rule notes its name where it decides.
"""

from itertools import pairwise, product
from math import isclose

from posttrain.grading.forms import (
    EXPRESSIONS,
    Call,
    Chain,
    Constant,
    Form,
    Group,
    Listing,
    Matrix,
    NamedSet,
    Number,
    Power,
    Product,
    SetBuilder,
    SetOf,
    SetOperation,
    Sum,
    Symbol,
    Text,
    children,
    difference,
    number,
)  # fmt: skip
from posttrain.grading.grammar import plain_words
from posttrain.grading.intervals import NoRealSet, Piece, conjunction, pieces
from posttrain.grading.names import (
    MOST_ITEMS,
    NAMING,
    has_sign_choice,
    members,
    names_agree,
    permutation,
    permuted,
    rename,
    renamed_argument,
    split_name,
)
from posttrain.grading.normal import Normaliser, substituted
from posttrain.grading.numeric import refuted, unknowns
from posttrain.grading.polynomial import Beyond, Exponent, Poly, add, scaled
from posttrain.grading.values import PARAMETERS, NeedsAlgebra, Values, exact
from posttrain.grading.vocabulary import NUMBER_WORDS

_ORDER = ("<", "<=", ">", ">=")
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


class Structure(Values):
    """`Values` with the rules for everything that is made of values."""

    __slots__ = ()

    def same(self, gold: Form, answer: Form) -> bool:
        """Whether two forms are the same answer."""
        if gold == answer:
            return self.by("same form")
        if isinstance(gold, Text) or isinstance(answer, Text):
            return self.words(gold, answer)
        if isinstance(gold, Chain) or isinstance(answer, Chain):
            return self.chains(gold, answer)
        if isinstance(gold, (Listing, SetOf)) or isinstance(answer, (Listing, SetOf)) or has_sign_choice(gold) or has_sign_choice(answer):
            return self.collections(gold, answer)
        if isinstance(gold, Matrix) or isinstance(answer, Matrix):
            return self.matrices(gold, answer)
        if isinstance(gold, Group) or isinstance(answer, Group):
            return self.groups(gold, answer)
        if isinstance(gold, EXPRESSIONS) and isinstance(answer, EXPRESSIONS):
            return self.equal(gold, answer)
        return self.real_sets(gold, answer)

    def words(self, gold: Form, answer: Form) -> bool:
        a, b = (form.words if isinstance(form, Text) else _letters(form) for form in (gold, answer))
        if a and a == b:
            return self.by("same words")
        for text, other in ((a, answer), (b, gold)):
            if text in NUMBER_WORDS and isinstance(other, Number):
                return other.value == NUMBER_WORDS[text] and self.by("number word")
            if text and text.isalpha() and len(text) <= 4 and isinstance(other, (Product, Power)):
                return self.equal(other, Product(tuple(map(Symbol, text)))) and self.by("letters as a product")
        return self.by("words", False)

    def chains(self, gold: Form, answer: Form) -> bool:
        """Equations, inequalities, memberships, and values with a name before them."""
        if _is_order(gold) or _is_order(answer):
            return self.inequalities(gold, answer)
        if any(isinstance(form, Chain) and form.relations[-1] in ("in", "subset", "notin") for form in (gold, answer)):
            return self.memberships(gold, answer)
        (gold_names, gold_value), (names, said) = (split_name(form) for form in (gold, answer))
        if self.policy.assignment == "required" and bool(gold_names) != bool(names):
            return self.by("assignment", False)
        if gold_value is not None and said is not None:
            if gold_names and names and not names_agree(gold_names, names, gold_value):
                return self.equations(gold, answer)
            if permuted(gold_names, names):
                return self.by("tuple by names", isinstance(said, Group) and said.items == permutation(gold_names, names, gold_value))
            renamed = renamed_argument(gold_names, names, said)
            return self.same(gold_value, renamed) and self.by("assignment")
        if gold_value is None and said is None:
            return self.equations(gold, answer)
        if gold_value is None:
            if names:
                return self.equations(gold, answer)
            assert isinstance(gold, Chain)  # without a value: an equation that names nothing
            assert said is not None
            return self.value_of_equation(gold, said)
        if gold_names:
            return self.equations(gold, answer)
        assert isinstance(answer, Chain)
        return self.value_chain(gold_value, answer)

    def value_of_equation(self, gold: Chain, said: Form) -> bool:
        """An expression for a reference that equates several: one of its sides, or the solution for what stands once in it."""
        if isinstance(said, EXPRESSIONS):
            if len(gold.items) > 2 or "~" in gold.relations or not unknowns(gold):
                return any(self.same(side, said) for side in gold.items if isinstance(side, EXPRESSIONS)) and self.by("value of a chain")
            left = difference(*gold.items)
            if self._vanishes(left):
                return any(self.same(side, said) for side in gold.items) and self.by("side of an identity")
            for variable in sorted(unknowns(left) - unknowns(said), key=repr):
                if self._vanishes(substituted(left, variable, said)) and self._is_linear(left, variable):
                    return self.by("solved equation")
        return self.by("equation", False)

    def value_chain(self, gold: Form, answer: Chain) -> bool:
        """A calculation for an answer, "2 + 3 = 5": its end counts, if it does not contradict itself."""
        if set(answer.relations) - NAMING:
            return self.by("relation", False)
        sides = [exact(item) for item in answer.items]
        for (a, b), relation in zip(pairwise(sides), answer.relations):
            if relation == "=" and a is not None and b is not None and a != b and not _is_decimal(answer):
                return self.by("contradiction", False)
        last = [item for item in answer.items if isinstance(item, EXPRESSIONS)]
        if len(last) != len(answer.items):
            return self.by("equation", False)
        if any(unknowns(item) for item in answer.items) and not all(self.equal(item, answer.items[-1]) for item in answer.items[:-1]):
            return self.by("equation", False)
        if "~" in answer.relations:
            return any(self.same(gold, item) for item in (answer.items[0], answer.items[-1])) and self.by("value of a chain")
        if any(self._contradicts(item, answer.items[-1]) for item in answer.items[:-1]):
            return self.by("contradiction", False)
        return self.same(gold, answer.items[-1]) and self.by("value of a chain")

    def _contradicts(self, a: Form, b: Form) -> bool:
        """Whether two sides of a chain are known to differ, rounding left aside."""
        if self.rounded(a, b) or self.rounded(b, a):
            return False
        normaliser = Normaliser()
        try:
            found = normaliser.equal(normaliser.normal(a), normaliser.normal(b))
        except (Beyond, ZeroDivisionError):
            found = None
        return found is False or (found is None and refuted(a, b) is True)

    def equations(self, gold: Form, answer: Form) -> bool:
        """Two equations whose difference of sides agrees up to a factor."""
        if not (isinstance(gold, Chain) and isinstance(answer, Chain)) or len(gold.items) != len(answer.items):
            return self.by("equation", False)
        if gold.relations != answer.relations:
            return self.by("relation", False)
        if all(self._same_or_open(a, b) for a, b in zip(gold.items, answer.items)):
            return self.by("equation side by side")
        if len(gold.items) != 2 or gold.relations[0] not in ("=", "!="):
            return self.by("equation", False)
        if all(isinstance(item, EXPRESSIONS) for item in (*gold.items, *answer.items)):
            factor = self._proportional(difference(*gold.items), difference(*answer.items))
            return self.by("equation up to a factor", factor is not None)
        return self.same(gold.items[0], answer.items[1]) and self.same(gold.items[1], answer.items[0]) and self.by("equation")

    def inequalities(self, gold: Form, answer: Form) -> bool:
        if isinstance(gold, Chain) and isinstance(answer, Chain) and _is_order(gold) and _is_order(answer):
            a, b = _ascending(gold), _ascending(answer)
            if a.relations == b.relations and len(a.items) == len(b.items) and all(map(self._same_or_open, a.items, b.items)):
                return self.by("inequality side by side")
            if len(a.items) == len(b.items) == 2 and len(unknowns(gold) | unknowns(answer)) > 1 and a.relations == b.relations:
                factor = self._proportional(difference(*a.items), difference(*b.items))
                return self.by("inequality up to a factor", factor is not None and factor > 0)
            if unknowns(gold) != unknowns(answer):
                return self.by("inequality", False)
        return self.real_sets(gold, answer)

    def memberships(self, gold: Form, answer: Form) -> bool:
        a, b = (_members(form) for form in (gold, answer))
        return self.same(a, b) and self.by("membership") if (a, b) != (gold, answer) else self.by("membership", False)

    def collections(self, gold: Form, answer: Form) -> bool:
        """Lists and sets in any order, each with its signs written out; a list is also a tuple without its brackets."""
        gold, answer = _without_ranges(gold), _without_ranges(answer)
        if not (isinstance(gold, (Listing, SetOf)) or isinstance(answer, (Listing, SetOf)) or any(map(has_sign_choice, (gold, answer)))):
            return self.same(gold, answer)
        if any(_is_real_set(form) for form in (gold, answer)) and not has_sign_choice(gold):
            return self.real_sets(gold, answer)
        if isinstance(gold, Listing) and isinstance(answer, Listing) and len(gold.items) == len(answer.items):
            if self.policy.list_order == "kept":
                return all(map(self.same, gold.items, answer.items)) and self.by("list")
            names = [[split_name(item)[0] for item in form.items] for form in (gold, answer)]
            if all(_distinct(side) for side in names) and set(names[0]) == set(names[1]):
                pairs = zip(*(sorted(zip(side, form.items), key=lambda p: repr(p[0])) for side, form in zip(names, (gold, answer))))
                return all(self.same(a, b) for (_, a), (_, b) in pairs) and self.by("list by names")
        for a, b in ((gold, answer), (answer, gold)):
            if (
                isinstance(a, Group)
                and isinstance(b, Listing)
                and not has_sign_choice(b)
                and not any(isinstance(i, Group) for i in b.items)
            ):
                if len(a.items) != len(b.items) or (a.left, a.right) != ("(", ")"):
                    return self.by("tuple", False)
                pairs = zip(a.items, b.items) if a is gold else zip(b.items, a.items)
                return all(self.same(x, y) for x, y in pairs) and self.by("tuple without brackets")
        for linked in (True, False) if any(map(has_sign_choice, (gold, answer))) else (True,):
            golds, answers = (members(form, linked) for form in (gold, answer))
            if self.same_bag(golds, answers, isinstance(gold, SetOf) or isinstance(answer, SetOf)):
                return self.by("set" if isinstance(gold, SetOf) else "list")
        return self.by("list", False)

    def same_bag(self, golds: list[Form], answers: list[Form], as_set: bool) -> bool:
        """Whether each reference has a partner of its own; repetitions count in lists only."""
        if max(len(golds), len(answers)) > MOST_ITEMS:
            return False
        if as_set and len(golds) != len(answers):
            golds, answers = self._distinct_ones(golds), self._distinct_ones(answers)
        if 1 in (len(golds), len(answers)):  # one answer that was written in two ways
            golds, answers = self._distinct_ones(golds), self._distinct_ones(answers)
        if len(golds) != len(answers):
            return False
        left = list(answers)
        for gold in golds:
            partner = next((i for i, answer in enumerate(left) if gold == answer), None)
            if partner is None:
                partner = next((i for i, answer in enumerate(left) if self.same(gold, answer)), None)
            if partner is None:
                return False
            del left[partner]
        return True

    def _distinct_ones(self, forms: list[Form]) -> list[Form]:
        kept: list[Form] = []
        for form in forms:
            if not any(self.same(form, other) for other in kept):
                kept.append(form)
        return kept

    def matrices(self, gold: Form, answer: Form) -> bool:
        """Cell by cell; a single row or column is also a tuple."""
        if isinstance(gold, Matrix) and isinstance(answer, Matrix):
            if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
                return self.by("matrix", False)
            return all(self.same(a, b) for a, b in zip(children(gold), children(answer))) and self.by("matrix")
        matrix, other = (gold, answer) if isinstance(gold, Matrix) else (answer, gold)
        assert isinstance(matrix, Matrix)
        if isinstance(other, Group) and (len(matrix.rows) == 1 or all(len(row) == 1 for row in matrix.rows)):
            cells = children(matrix)
            pairs = zip(cells, other.items) if matrix is gold else zip(other.items, cells)
            return len(cells) == len(other.items) and all(self.same(a, b) for a, b in pairs) and self.by("vector as a tuple")
        if len(children(matrix)) == 1:
            return self.same(*((matrix.rows[0][0], other) if matrix is gold else (other, matrix.rows[0][0])))
        return self.by("matrix", False)

    def groups(self, gold: Form, answer: Form) -> bool:
        """Tuples place by place; of two items in square brackets the brackets count, as they make an interval."""
        if not (isinstance(gold, Group) and isinstance(answer, Group)):
            return self.real_sets(gold, answer)
        if len(gold.items) != len(answer.items):
            return self.by("tuple", False)
        if len(gold.items) == 2 and (gold.left, gold.right) != (answer.left, answer.right):
            return self.by("interval", False)
        rule = "tuple" if (gold.left, gold.right) == ("(", ")") else "interval"
        return all(self.same(a, b) for a, b in zip(gold.items, answer.items)) and self.by(rule)

    def real_sets(self, gold: Form, answer: Form) -> bool:
        """Sets of real numbers piece by piece."""
        try:
            readings = [[pieces(form)] for form in (gold, answer)]
        except NoRealSet:
            return self._set_structure(gold, answer)
        for reading, form in zip(readings, (gold, answer)):
            if isinstance(form, Listing) and not form.word:  # "x > 1 and x < 2"
                try:
                    reading.append(conjunction(form))
                except NoRealSet:
                    continue
        return any(self._same_pieces(a, b) for a, b in product(*readings)) and self.by("real set")

    def _same_pieces(self, a: list[Piece], b: list[Piece]) -> bool:
        if len(a) != len(b):
            return self.by("real set", False)
        ends = [(x, y) for p, q in zip(a, b) for x, y in ((p.low, q.low), (p.high, q.high))]
        if any(x.closed != y.closed for x, y in ends):
            return self.by("open or closed end", False)
        if not all(x.at == y.at or isclose(x.at, y.at, rel_tol=1e-3, abs_tol=1e-300) for x, y in ends):
            return self.by("different ends", False)
        return all(x.form == y.form or self.equal(x.form, y.form) for x, y in ends)

    def _set_structure(self, gold: Form, answer: Form) -> bool:
        if isinstance(gold, SetOperation) and isinstance(answer, SetOperation) and gold.operation == answer.operation:
            if gold.operation == "setminus":
                return self.same(gold.left, answer.left) and self.same(gold.right, answer.right) and self.by("set difference")
            return self.same_bag(_operands(gold), _operands(answer), True) and self.by("union")
        if isinstance(gold, SetBuilder) and isinstance(answer, SetBuilder):
            renamed = answer
            if isinstance(gold.element, Symbol) and isinstance(answer.element, Symbol):
                renamed = SetBuilder(gold.element, rename(answer.condition, answer.element, gold.element))
            return self.same(gold.element, renamed.element) and self.same(gold.condition, renamed.condition) and self.by("set builder")
        return self.by("different kinds", False)

    def _same_or_open(self, a: Form, b: Form) -> bool:
        try:
            return self.same(a, b)
        except NeedsAlgebra:
            return False

    def _vanishes(self, form: Form) -> bool:
        try:
            return self.plain(form, number(0))
        except NeedsAlgebra:
            return True  # floating point found zero at every point

    def _is_linear(self, form: Form, variable: Form) -> bool:
        at = [substituted(form, variable, number(k)) for k in range(3)]
        return self._vanishes(Sum((at[0], at[2], Product((number(-2), at[1])))))

    def _proportional(self, a: Form, b: Form) -> float | None:
        """The constant c with a = c b up to a common bottom, None where there is none; its sign is right where both bottoms are 1."""
        normaliser = Normaliser()
        try:
            x, y = normaliser.normal(a), normaliser.normal(b)
        except (Beyond, ZeroDivisionError):
            return None
        if not x.top or not y.top or x.top.keys() != y.top.keys():
            x_top, y_top = (_without_denominators(poly) for poly in (x.top, y.top))
            if not x_top or x_top.keys() != y_top.keys():
                return None
        else:
            x_top, y_top = x.top, y.top
        lead = min(x_top, key=str)
        factor = x_top[lead] / y_top[lead]
        return float(factor) if not add(x_top, scaled(y_top, factor), -1) else None


def _members(form: Form) -> Form:
    if isinstance(form, Chain) and form.relations[-1] == "in" and isinstance(form.items[0], (Symbol, Call, Group, Product)):
        return form.items[-1]
    return form


def _is_order(form: Form) -> bool:
    return isinstance(form, Chain) and any(relation in (*_ORDER, "!=") for relation in form.relations)


def _ascending(chain: Chain) -> Chain:
    if chain.relations[0] in (">", ">="):
        return Chain(chain.items[::-1], tuple(_FLIPPED.get(relation, relation) for relation in chain.relations[::-1]))
    return chain


def _is_real_set(form: Form) -> bool:
    if isinstance(form, Listing):
        return any(_is_order(item) or isinstance(item, (SetOperation, SetBuilder)) for item in form.items)
    return isinstance(form, (SetOperation, SetBuilder, NamedSet)) or _is_order(form)


def _without_ranges(form: Form) -> Form:
    """Without the statement that a parameter is a whole number: "n pi, n in Z" is "n pi"."""
    if not isinstance(form, Listing):
        return form
    kept = tuple(item for item in form.items if not _is_range(item))
    return form if not kept else kept[0] if len(kept) == 1 else Listing(kept, form.word)


def _is_range(item: Form) -> bool:
    match item:
        case Chain((Symbol(name), NamedSet("Z" | "N" | "N_0") | Symbol("Z" | "N")), ("in",)):
            return name in PARAMETERS
    return False


def _operands(form: Form) -> list[Form]:
    if isinstance(form, SetOperation) and form.operation != "setminus":
        return [*_operands(form.left), *_operands(form.right)]
    return [form]


def _distinct(names: list[tuple[Form, ...]]) -> bool:
    return all(names) and len(set(names)) == len(names)


def _is_decimal(chain: Chain) -> bool:
    return any(isinstance(item, Number) and item.decimals is not None for item in chain.items)


def _letters(form: Form) -> str:
    match form:
        case Symbol(name):
            return plain_words(name)
        case Product(factors) if all(isinstance(factor, Symbol) for factor in factors):
            return plain_words("".join(factor.name for factor in factors if isinstance(factor, Symbol)))
        case Product((a, b)):
            return _letters(a) + _letters(b)
        case Constant(name):
            return name
    return ""


def _without_denominators(poly: Poly) -> Poly:
    """Multiplied by the symbols that stand below a term: y = 6/x as xy = 6. Factors are left: x^2 = x is not x = 1."""
    least: dict[str, Exponent] = {}
    for monomial in poly:
        for name, e in monomial:
            if name.startswith("s:") and e < least.get(name, 0):
                least[name] = e
    out = {}
    for monomial, coefficient in poly.items():
        exponents = dict(monomial)
        raised = {name: exponents.get(name, 0) - least.get(name, 0) for name in exponents.keys() | least.keys()}
        out[tuple(sorted((name, e) for name, e in raised.items() if e))] = coefficient
    return out
