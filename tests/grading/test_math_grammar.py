"""What texts are read as, and what is refused."""

import time

import pytest

from posttrain.grading.forms import show
from posttrain.grading.grammar import TooLarge, Unreadable, read


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (r"\frac12", "1/2"),
        (r"\frac1{72}", "1/72"),
        (r"\frac{\sqrt6}3", "root(6, 2)/3"),
        ("½", "1/2"),
        ("2x^10", "2*x^10"),
        ("-3", "-3"),
        ("−３", "-3"),
        ("٣", "3"),
        ("x²", "x^2"),
        ("2√3", "2*root(3, 2)"),
        ("1{,}234", "1234"),
        ("1 234 567", "1234567"),
        ("1,234", "1234"),
        ("(1,234)", "(1, 234)"),
        ("32, 349", "32, 349"),
        (r"2\frac13", "(2 + 1/3)"),
        ("2 1/3", "(2 + 1/3)"),
        (r"0.1\overline{6}", "1/6"),
        ("0.333...", "1/3"),
        ("1.5e3", "1500"),
        ("12_5", "12_5"),
        (r"101_{\text{two}}", "101_2"),
        (r"30^\circ", "30 degrees"),
        (r"28\%", "28%"),
        ("28 percent", "28%"),
        (r"15\mbox{ cm}^2", "15 [cm^2]"),
        ("12 miles per hour", "12 [milesperhour]"),
        ("3:4", "3:4"),
        (r"[0,\infty)", "[0, oo)"),
        (r"\{x : x > 2\}", "{x | x > 2}"),
        (r"\mathbb{R}\setminus\{0\}", "R setminus {0}"),
        (r"0 < x \leqslant 1", "0 < x <= 1"),
        (r"f(x) = 2x", "f(x) = 2*x"),
        ("x(x+1)", "x*(x + 1)"),
        (r"\sin^2 x \cos x", "(sin(x))^2*cos(x)".replace("(sin(x))", "sin(x)")),
        (r"\log_2 8", "log(8, 2)"),
        (r"\tan^{-1} x", "arctan(x)"),
        (r"1 \pm \sqrt5", "(1 + +-root(5, 2))"),
        (r"|{-3}|", "abs(-3)"),
        (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", "det([1, 2; 3, 4])"),
        (r"\text{ 2, 3, and } 4", "2, 3, 4"),
        (r"\text{Evelyn}", '"evelyn"'),
        ("odd $n$", '"oddn"'),
        ("Maximum: 3", '"maximum" = 3'),
        (r"\text{only } x=0", "x = 0"),
        ("{5 \\choose 2}", "binom(5, 2)"),
        (r"\\frac{1}{2}", "1/2"),
        ("②③", "2, 3"),
        ("3<sup>x</sup>", "3^x"),
        ("2**3", "2^3"),
    ],
)
def test_a_text_is_read_as(text, form):
    assert show(read(text)) == form


@pytest.mark.parametrize(
    "text", ["", "$", "\\frac{1}", "\\frac{1}{", "(1", "1)", "x=", "\\zzz", "3 4", "\\sqrt", "{", "\\begin{pmatrix}1", "😀"]
)
def test_what_is_no_mathematics_is_refused(text):
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize(
    "text", ["x" * 2001, "1+" * 600 + "1", "(" * 50 + "1" + ")" * 50, "\\frac{1}{" * 50 + "1" + "}" * 50, "-" * 999 + "1"]
)
def test_what_is_too_large_is_refused_at_once(text):
    started = time.process_time()
    with pytest.raises(TooLarge):
        read(text)
    assert time.process_time() - started < 5.0
