"""Properties that hold for every answer, tried on generated ones."""

from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from posttrain.grading.answer import final_answer
from posttrain.grading.math import grade
from posttrain.grading.values import NeedsAlgebra

LEAVES = st.one_of(
    st.integers(0, 99).map(str),
    st.sampled_from(["x", "y", "n", r"\pi", r"\sqrt{2}", r"\sqrt{7}", "a"]),
    st.tuples(st.integers(1, 40), st.integers(2, 40)).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"{p[0]}+{p[1]}"),
        st.tuples(inner, inner).map(lambda p: rf"({p[0]}) \cdot ({p[1]})"),
        inner.map(lambda e: f"({e})^{{2}}"),
        inner.map(lambda e: rf"\sqrt{{{e}}}"),
        inner.map(lambda e: f"-({e})"),
    ),
    max_leaves=5,
)
ANSWERS = st.one_of(
    EXPRESSIONS,
    st.lists(EXPRESSIONS, min_size=2, max_size=3).map(lambda items: f"({', '.join(items)})"),
    st.lists(EXPRESSIONS, min_size=2, max_size=3).map(lambda items: rf"\{{{', '.join(items)}\}}"),
    EXPRESSIONS.filter(lambda e: "x" not in e).map(lambda e: f"x = {e}"),  # "x = x + x" is to be solved: as the reference alone it takes 0
    st.tuples(st.integers(-50, 0), st.integers(1, 50), st.sampled_from(["[%d, %d)", "(%d, %d]", "%d < x < %d"])).map(
        lambda p: p[2] % p[:2]
    ),
)
RATIONALS = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**4)


def equal(gold: str, answer: str) -> bool | None:
    """The verdict, None where only a worker can tell."""
    try:
        return grade(gold, answer).correct
    except NeedsAlgebra:
        return None


def spelled(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    return f"{value}" if value.denominator == 1 else rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


@settings(max_examples=150, deadline=None)
@given(ANSWERS)
def test_every_answer_equals_itself_however_it_is_spaced_and_wrapped(answer):
    for other in (
        f"  {answer} ",
        f"${answer}$",
        rf"\[{answer}\]",
        answer.replace("+", " + ").replace(",", " , "),
        rf"\left. {answer} \right.",
    ):
        assert equal(answer, other) is True, other
    assert equal(answer, final_answer(rf"so it is $\boxed{{{answer}}}$.")) is True


@settings(max_examples=150, deadline=None)
@given(ANSWERS, ANSWERS)
def test_equality_does_not_depend_on_which_side_is_the_reference(a, b):
    assert equal(a, b) == equal(b, a)


@settings(max_examples=300, deadline=None)
@given(RATIONALS, RATIONALS)
def test_rationals_are_equal_only_to_themselves(a, b):
    assume(a != b)
    assert equal(spelled(a), spelled(b)) is False
    assert equal(rf"{spelled(a)}\pi", rf"{spelled(b)}\pi") is False
    assert equal(f"({spelled(a)}, 1)", f"({spelled(b)}, 1)") is False


@settings(max_examples=150, deadline=None)
@given(RATIONALS, st.integers(2, 50))
def test_a_rational_is_equal_to_every_way_of_writing_it(value, factor):
    unreduced = rf"\dfrac{{{value.numerator * factor}}}{{{value.denominator * factor}}}"
    assert equal(spelled(value), unreduced) is True
    assert equal(spelled(value), f"{value.numerator}/{value.denominator}") is True


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS)
def test_one_more_is_never_the_same(expression):
    assert equal(expression, f"({expression})+1") is not True
