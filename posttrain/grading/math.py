r"""Are a reference and an answer equal? First by text and exact numbers, here; what that leaves open goes to algebra, in a worker.

`compare_exactly` decides the ordinary case in microseconds and never guesses: None means that it cannot tell. `compare_by_algebra`
(math-verify, thus sympy) may take any time and memory, so only `worker.py` calls it, in a process that can be killed.
"""

import re
from fractions import Fraction
from typing import Any, NamedTuple

from posttrain.types import Verdict

LONGEST = 2_000  # characters of a reference or answer that are still read; the longest reference in MATH has 159

_SIGNS = str.maketrans({"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", "％": "%"})
_SIGNS |= str.maketrans({"≤": r"\le ", "≥": r"\ge ", "∪": r"\cup ", "∩": r"\cap ", "±": r"\pm ", "\u00a0": " ", "\u200b": ""})
_WRAPPINGS = ((r"\$\$(.*)\$\$", 1), (r"\$(.*)\$", 1), (r"\\\((.*)\\\)", 1), (r"\\\[(.*)\\\]", 1), (r"\\(?:boxed|fbox)\s*\{(.*)\}", 1))
_WRAPPING = re.compile("|".join(pattern for pattern, _ in _WRAPPINGS), re.DOTALL)
_SPACING = re.compile(r"\\(?:[!,;: ]|quad\b|qquad\b|left\b|right\b|displaystyle\b|textstyle\b|limits\b)")
_TEXT = r"\\(?:text(?:bf|it|rm|sf|tt)?|mbox|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}"
_WHOLE_TEXT = re.compile(rf"{_TEXT}\.?")
_UNIT = re.compile(rf"(?:{_TEXT}|(?<=\d)\s*(?:degrees?|percent|dollars?|cents?))(?:\^\{{?\d\}}?)?\s*$|\^\{{?\\circ\}}?\s*$")
_WORDS = re.compile(r"[A-Za-z][A-Za-z ,.'-]*")

_LIST = re.compile(r"\d\s*,\s+\d")  # "32, 349" is two numbers, "32,349" is one

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = re.compile(rf"(-?)({_INTEGER})?(?:\.(\d+))?")
_FRACTION = re.compile(r"(-?)(\d+)?(?:\\frac\{(-?\d+)\}\{(-?\d+)\})")
_RATIO = re.compile(r"(-?\d+)/(\d+)")


class Number(NamedTuple):
    """An exact value, and how it was written: a percent sign or a decimal point leaves some ways of being equal to algebra."""

    value: Fraction
    decimal: bool = False
    percent: bool = False
    mixed: bool = False


def compare_exactly(reference: str, answer: str) -> Verdict | None:
    """A verdict where the two texts or two exact numbers decide it, else None; texts of any length are decided at once."""
    reference, answer = reference.strip(), answer.strip()
    if len(reference) > LONGEST or len(answer) > LONGEST:
        return _compare_long(reference, answer)
    gold, said = normalise(reference), normalise(answer)
    if gold and gold == said:
        return Verdict(status="correct", why="same text")
    if not said:
        return Verdict(status="wrong", why="the answer is empty")
    if gold and (words := _words(reference)):
        same = words == (_words(answer) or _plain_words(said))
        return Verdict(status="correct" if same else "wrong", why=f"the words {'agree' if same else 'differ'}")
    if _contradicts_itself(said):
        return Verdict(status="wrong", why="the answer equates different numbers")
    a, b = exact_number(gold), exact_number(said)
    if a is None or b is None or _LIST.search(reference) or _LIST.search(answer):
        return None
    if a.value == b.value:
        return Verdict(status="correct", why="equal numbers")
    if a.percent != b.percent or a.decimal != b.decimal or a.mixed or b.mixed:  # 50% is 0.5; 0.333333 rounds 1/3; 2 1/2 may be a product
        return None
    return Verdict(status="wrong", why="different numbers")


def _compare_long(reference: str, answer: str) -> Verdict:
    if reference == answer:
        return Verdict(status="correct", why="same text")
    if len(reference) > LONGEST:
        return Verdict(status="unscored", why=f"the reference is longer than {LONGEST} characters")
    return Verdict(status="wrong", why=f"the answer is longer than {LONGEST} characters")


def _contradicts_itself(text: str) -> bool:
    """True for "7=8", which algebra would take for an assignment of 8; "1/3=0.33" is left to it."""
    numbers = [exact_number(part) for part in text.split("=")] if "=" in text else []
    exact = all(number and not number.decimal and not number.percent for number in numbers)
    return exact and len({number.value for number in numbers if number}) > 1


def normalise(text: str) -> str:
    r"""One spelling for what LaTeX writes in many ways: no dollars, boxes, spacing or \left; \dfrac12 as \frac{1}{2}; no spaces.

    It is for comparing and for showing, not for parsing: words lose their spaces, too. A text too long to be an answer stays as it is.
    """
    if len(text) > LONGEST:
        return text
    text = _unwrap(text.translate(_SIGNS)).rstrip(". \n")
    if whole := _WHOLE_TEXT.fullmatch(text):
        text = whole[1]
    text = text.replace(r"\$", "").replace(r"\%", "%").replace(r"\lbrace", r"\{").replace(r"\rbrace", r"\}")
    text = _join_thousands(text)
    text = re.sub(r"(?<=\d)\s+(\d+)/(\d+)", r"\\frac{\1}{\2}", text)  # 3 1/2 is mixed, not 31/2
    text = re.sub(r"(?<=\d)\s+(?=\d)", "\0", text)
    text = _SPACING.sub("", text).replace("~", " ").lstrip("$ ")
    text = re.sub(r"\\[dtc]frac(?![a-z])", r"\\frac", text)
    text = re.sub(r"√\s*(\d+|[A-Za-z]|(?=\{))", lambda m: rf"\sqrt{{{m[1]}}}" if m[1] else r"\sqrt", text)
    text = re.sub(r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*([0-9a-zA-Z])\s*\{", r"\\frac{\1}{", text)
    text = re.sub(r"(\\frac\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}", text)
    text = re.sub(r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}", text)
    text = re.sub(r"([_^])\{([0-9a-zA-Z])\}", r"\1\2", text)
    text = re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])", "\\1\0", text)  # the space in "\pi r" ends the command: keep it
    return re.sub(r"\s+", "", text).replace("\0", " ")


def exact_number(text: str) -> Number | None:
    r"""The value of a normalised text that is an integer, decimal, fraction or mixed number, its unit and percent sign left aside."""
    text = _UNIT.sub("", text)
    percent = text.endswith("%")
    text = text.removesuffix("%").replace("$", "").lstrip("+")
    if not text or len(text) > 200:  # also keeps int() far from its limit of 4,300 digits
        return None
    if (match := _DECIMAL.fullmatch(text)) and (match[2] or match[3]):
        sign, whole, digits = match.groups(default="")
        return Number(Fraction(f"{sign}{whole.replace(',', '') or 0}.{digits or 0}"), decimal=bool(digits), percent=percent)
    if (match := _RATIO.fullmatch(text)) and int(match[2]):
        return Number(Fraction(int(match[1]), int(match[2])), percent=percent)
    if (match := _FRACTION.fullmatch(text)) and int(match[4]):
        part = Fraction(int(match[3]), int(match[4]))
        value = int(match[2] or 0) + part
        return Number(-value if match[1] else value, percent=percent, mixed=match[2] is not None)
    return None


def compare_by_algebra(reference: str, answer: str) -> Verdict:
    """math-verify's verdict. Only for a process that can be killed: it has no limits of its own and may raise anything."""
    from math_verify import verify

    gold = _parse(reference)
    if not _expressions(gold):
        return Verdict(status="unscored", why=f"math-verify cannot parse the reference {reference[:80]!r}")
    said = _parse(answer)
    if not said:
        return Verdict(status="wrong", why="the answer is not an expression")
    if not verify(gold, said, timeout_seconds=None, raise_on_error=True):
        return Verdict(status="wrong", why="not equal by math-verify")
    if _differ_relatively(_expressions(gold)[0], said[0]):
        return Verdict(status="wrong", why="equal only after rounding to six decimals, where both are small")
    return Verdict(status="correct", why="equal by math-verify")


def _differ_relatively(a: Any, b: Any) -> bool:
    """True for two tiny numbers that math-verify takes for equal because it rounds absolutely, as in 3^-40 and 3^-41."""
    from sympy import Expr

    if not (isinstance(a, Expr) and isinstance(b, Expr) and a.is_number and b.is_number):
        return False
    x, y = a.doit().evalf(20), b.doit().evalf(20)
    return bool(abs(x - y) > 1e-5 * max(abs(x), abs(y)))


def _parse(text: str) -> list:
    """math-verify's reading of a bare expression; without dollars around it, it would not read a fifth of MATH's references."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    wrapped = f"${_join_thousands(_unwrap(text.translate(_SIGNS)))}$"
    parsed = parse(wrapped, parsing_timeout=None)
    if _expressions(parsed):
        return parsed
    # It takes a last letter for a unit, as the c of "a + b + c", and is left with "a + b +": read again without units.
    spelled = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False)
    return parse(wrapped, [LatexExtractionConfig(normalization_config=spelled)], parsing_timeout=None)


def _expressions(parsed: list) -> list:
    return [item for item in parsed if not isinstance(item, str)]


def _unwrap(text: str) -> str:
    """Without the dollars, brackets and boxes that stand around the whole of it."""
    text = text.strip()
    while (match := _WRAPPING.fullmatch(text)) is not None:
        inside = next(group for group in match.groups() if group is not None)
        if not _is_one_piece(text, inside):
            return text
        text = inside.strip()
    return text


def _join_thousands(text: str) -> str:
    r"""10\,000, 10,\!000 and 10{,}000 as 10000; a plain comma may also part two numbers and stays."""
    return re.sub(r"(?<=\d)(?:\{,\}|,\\!|\\[,!: ])(?=\d{3}(?!\d))", "", text)


def _is_one_piece(text: str, inside: str) -> bool:
    r"""False for "$1$, $2$" and "\boxed{1}, \boxed{2}", whose ends are not a pair."""
    if text.startswith("$"):
        return "$" not in inside.replace(r"\$", "")
    if text.startswith((r"\(", r"\[")):
        return text[:2] not in inside
    depth = 0
    for brace in re.findall(r"\\.|[{}]", inside):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return True


def _words(text: str) -> str | None:
    r"""The letters of an answer that is \text{...} or a bare word as a whole, e.g. "even" or "(C)"; None where mathematics is in it.

    To algebra a bare word would be a product of letters, so that "seat" were "east".
    """
    text = _unwrap(text).rstrip(". ")
    whole = _WHOLE_TEXT.fullmatch(text)
    if whole:
        return _plain_words(whole[1])
    return _plain_words(text) if re.search(r"[A-Za-z]{3}", text) else None


def _plain_words(text: str) -> str | None:
    bare = text.strip(" ().")
    return re.sub(r"[^a-z]", "", bare.lower()) if _WORDS.fullmatch(bare) else None
