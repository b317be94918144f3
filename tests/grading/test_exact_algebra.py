"""The exact arithmetic proves what it can, refutes what it must, and admits the rest."""

import time

import pytest

from posttrain.grading.grammar import read
from posttrain.grading.normal import Normaliser
from posttrain.grading.numeric import refuted
from posttrain.grading.polynomial import Beyond


def equal(a: str, b: str) -> bool | None:
    normaliser = Normaliser()
    return normaliser.equal(normaliser.normal(read(a)), normaliser.normal(read(b)))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\frac{1}{1+\sqrt2}", r"\sqrt2-1"),
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
        (r"\sqrt{12}", r"2\sqrt3"),
        (r"\sqrt[3]{16}", r"2\sqrt[3]{2}"),
        (r"\cos 15^\circ", r"\frac{\sqrt6+\sqrt2}{4}"),
        (r"\sin 54^\circ", r"\frac{1+\sqrt5}{4}"),
        (r"e^{2\pi i/3}", r"-\frac12+\frac{\sqrt3}{2}i"),
        (r"\tan^2 y+1", r"\sec^2 y"),
        (r"\sin(a+b)", r"\sin a\cos b+\cos a\sin b"),
        (r"\cosh^2 x-\sinh^2 x", "1"),
        (r"\log_4 8", r"\frac32"),
        (r"\ln(xy)", r"\ln x+\ln y"),
        ("8^x", "2^{3x}"),
        ("e^{x+2}", "e^2 e^x"),
        ("x^{2/3}", r"\sqrt[3]{x}^2"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
        (r"\arctan(2-\sqrt3)", r"\frac{\pi}{12}"),
        (r"\sqrt{x^2}", "|x|"),
        (r"\sum_{k=1}^{4} k^2", "30"),
        (r"\begin{vmatrix} a & b \\ c & d \end{vmatrix}", "ad-bc"),
    ],
)
def test_one_normal_form_for_what_is_equal(a, b):
    assert equal(a, b) is True
    assert refuted(read(a), read(b)) is not True


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\sqrt2+\sqrt3", r"\sqrt5"),
        (r"\sqrt2", r"\frac{665857}{470832}"),
        (r"\pi", r"\frac{355}{113}"),
        ("10^{10^{10}}+1", "10^{10^{10}}"),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
        ("x^2+1", "x^2-1"),
        (r"\sqrt6+10^{-50}", r"\sqrt6"),
    ],
)
def test_what_is_spelled_differently_among_independent_atoms_is_different(a, b):
    assert equal(a, b) is False


@pytest.mark.parametrize(("a", "b"), [(r"\sqrt{x^2}", "x"), ("2^x", "3^x"), (r"\cos\frac{2\pi}{7}", r"\cos\frac{4\pi}{7}")])
def test_where_atoms_may_be_dependent_nothing_is_claimed_but_floating_point_refutes(a, b):
    assert equal(a, b) is None
    assert refuted(read(a), read(b)) is True


@pytest.mark.parametrize(
    "text", ["(x+y+z+1)^{60}", "5000!", r"\binom{10^7}{10^6}", r"\prod_{k=1}^{900}(x+k)", r"\sum_{i=1}^{99}\sum_{j=1}^{99} ij"]
)
def test_what_is_out_of_reach_is_left_before_it_costs_much(text):
    started = time.process_time()
    with pytest.raises(Beyond):
        Normaliser().normal(read(text))
    assert time.process_time() - started < 5.0


def test_floating_point_neither_underflows_into_equality_nor_refutes_by_rounding():
    assert refuted(read(r"\frac{1}{3^{40}}"), read(r"\frac{1}{3^{41}}")) is True
    assert refuted(read("10^{20}"), read("10^{20}+1")) is not True
    assert refuted(read(r"\sqrt{10^{12}+1}-10^6"), read(r"\frac{1}{\sqrt{10^{12}+1}+10^6}")) is not True  # cancellation
    assert refuted(read("(-1)^n"), read(r"\cos n\pi")) is False  # equal where both are real, at whole numbers
