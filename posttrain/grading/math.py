r"""Is an answer equal to a reference? Layer by layer, the cheap and certain ones first; the verdict names the rule that decided.

1. the same text; 2. exact numbers; 3. choices and words; 4. both read into forms (`grammar.py`) and compared by structure
(`structure.py`) and value (`values.py`): exact algebra, refutation in floating point, rounding. What is still open raises
`NeedsAlgebra`: a worker asks again with `algebra.prove`. Text of a model is data throughout: nothing here evaluates it.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from posttrain.grading.forms import Form, Listing, Number, Text, show
from posttrain.grading.grammar import LONGEST, TooLarge, Unreadable, plain_words, read
from posttrain.grading.latex import Thousands, ambiguous_commas
from posttrain.grading.policy import DEFAULT, MathPolicy
from posttrain.grading.structure import Structure
from posttrain.grading.values import Prove
from posttrain.types import Verdict

_PLAIN = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,300})(?:\.\d{1,300})?")
_DOLLARS = "$ \n\t"
_CHOICE = re.compile(r"\s*(?:\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{)?\s*(\()?([A-Z])(?:\)|\}|$|(?=[\s.,:;\]]))")
_ONLY_CHOICE = re.compile(r"\s*(?:\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{)?\s*(\()?([A-Z])\)?\s*\}?[.)]?\s*")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")
MANY_WORDS = 12
LONGEST_PHRASE = 40
_DECIMAL_COMMA = re.compile(r"(-?\d+),(\d\d)")

Reading = tuple[Form, str]


def grade(gold: str, answer: str, policy: MathPolicy = DEFAULT, prove: Prove | None = None) -> Verdict:
    """The verdict on one answer. Raises `NeedsAlgebra` where only a worker can tell; with `prove`, never."""
    gold, answer = gold.strip(_DOLLARS), answer.strip(_DOLLARS)
    if gold == answer and gold:
        return Verdict(status="correct", why="same text", rule="same text", gold_form=gold[:300], pred_form=gold[:300])
    if not answer:
        return Verdict(status="no_answer", why="the answer is empty", rule="empty")
    if policy is DEFAULT and (a := _PLAIN.fullmatch(gold)) and (b := _PLAIN.fullmatch(answer)) and (found := _plain(a[0], b[0])):
        return found
    if len(gold) > LONGEST or len(answer) > LONGEST:
        return _too_long(gold, answer)
    if policy.choices and (found := _choices(gold, answer)):
        return found
    try:
        return _by_forms(gold, answer, policy, prove)
    except RecursionError:
        return Verdict(status="limit", why="nested too deeply", rule="size", gold_form=gold[:300], pred_form=answer[:300])


def spelling(text: str) -> str:
    r"""One spelling for the answers that are read alike, as \dfrac12 and 1/2; the text itself where it cannot be read."""
    try:
        return show(read(text.strip(_DOLLARS)))
    except (Unreadable, TooLarge):
        return text.strip()


def is_prose(text: str) -> bool:
    """Whether the text says more than one answer: words that the grammar takes whole, or cannot read.

    A short phrase with one number, as "at least 5", is an answer in words.
    """
    if len(text) > LONGEST or len(_WORD.findall(text)) >= MANY_WORDS:
        return True
    try:
        form = _read(text.strip(_DOLLARS), "outer")
    except (Unreadable, TooLarge):
        return True
    if isinstance(form, Listing):
        return any(isinstance(item, Text) for item in form.items)
    return isinstance(form, Text) and (len(text) > LONGEST_PHRASE or len(re.findall(r"\d+", text)) != 1)


def _plain(gold: str, answer: str) -> Verdict | None:
    """Two whole numbers, or two decimals that are equal, without reading any further."""
    whole = "." not in gold and "." not in answer
    a, b = (int(text.replace(",", "")) if whole else Fraction(text.replace(",", "")) for text in (gold, answer))
    if a != b and (not whole or "," in gold or "," in answer):
        return None
    found = "equal" if a == b else "different"
    return Verdict(status="correct" if a == b else "wrong", why=f"{found} numbers", rule="exact number", gold_form=gold, pred_form=answer)


def _too_long(gold: str, answer: str) -> Verdict:
    if len(gold) > LONGEST:
        return Verdict(status="gold_unparsable", why=f"the reference is longer than {LONGEST} characters", rule="size")
    return Verdict(status="limit", why=f"the answer is longer than {LONGEST} characters", rule="size", gold_form=gold[:300])


def _choices(gold: str, answer: str) -> Verdict | None:
    """Letters of choices: (B) and B, "B. words"; None where either is no choice."""
    a, b = _letter(gold), _letter(answer)
    if a is None or b is None or not (_ONLY_CHOICE.fullmatch(gold) or _ONLY_CHOICE.fullmatch(answer)):
        return None
    return Verdict(status="correct" if a == b else "wrong", why=f"choice {b} for {a}", rule="choice", gold_form=a, pred_form=b)


def _letter(text: str) -> str | None:
    """The letter of a choice: alone, in brackets, or before words; "A" and "I" before a space begin a sentence."""
    if only := _ONLY_CHOICE.fullmatch(text):
        return only[2]
    match = _CHOICE.match(text)
    if not match or not (match[1] or re.search(r"[A-Za-z]{3}", text[match.end() :])) or "=" in text:
        return None
    follows = text[match.end() : match.end() + 1]
    return None if not match[1] and match[2] in "AI" and follows.isspace() else match[2]


def _by_forms(gold: str, answer: str, policy: MathPolicy, prove: Prove | None) -> Verdict:
    reading = ("outer" if policy.thousands else "never", policy.mixed_numbers)
    try:
        gold_form = _read(gold, *reading)
    except (Unreadable, TooLarge) as error:
        if plain_words(gold) and "".join(gold.split()) == "".join(answer.split()):
            return Verdict(status="correct", why="same text", rule="same text", gold_form=gold[:300], pred_form=answer[:300])
        return Verdict(status="gold_unparsable", why=f"the reference cannot be read: {error}", rule="grammar", pred_form=answer[:300])
    gold_shown = show(gold_form)
    try:
        form = _read(answer, *reading)
    except TooLarge as error:
        return Verdict(status="limit", why=f"the answer is {error}", rule="size", gold_form=gold_shown)
    except Unreadable as error:
        return Verdict(
            status="wrong", why=f"the answer cannot be read: {error}", rule="grammar", gold_form=gold_shown, pred_form=answer[:300]
        )
    if same_words(gold_form, form, gold, answer):
        return Verdict(status="correct", why="same words", rule="same words", gold_form=gold_shown, pred_form=show(form))
    first: Structure | None = None
    for a, b in _pairs(gold, gold_form, answer, form, policy):
        structure = Structure(policy, prove)
        if structure.same(a, b):
            rule = structure.rules[-1]
            return Verdict(status="correct", why=_because("equal", structure.rules), rule=rule, gold_form=show(a), pred_form=show(b))
        first = first or structure
    assert first is not None  # there is one pair at least
    return Verdict(
        status="wrong",
        why=_because("not equal", first.rules),
        rule=(first.rules or ["kinds"])[-1],
        gold_form=gold_shown,
        pred_form=show(form),
    )


def same_words(gold_form: Form, form: Form, gold: str, answer: str) -> bool:
    """Whether one side is words and both have the same letters and digits in the same order."""
    if not (isinstance(gold_form, Text) or isinstance(form, Text)):
        return False
    words = plain_words(gold)
    return bool(words) and words == plain_words(answer)


def _pairs(gold: str, gold_form: Form, answer: str, form: Form, policy: MathPolicy) -> Iterator[tuple[Form, Form]]:
    """The two forms, then what they are if 100,200 is read the other way, or 1,22 as a decimal."""
    yield gold_form, form
    golds, answers = [gold_form], [form]
    if policy.thousands:
        for text, readings in ((gold, golds), (answer, answers)):
            if ambiguous_commas(text):
                readings += [_read(text, way, policy.mixed_numbers) for way in ("never", "always")]
    if policy.decimal_comma:
        for text, readings, other in ((gold, golds, form), (answer, answers, gold_form)):
            match = _DECIMAL_COMMA.fullmatch(text)
            if match and isinstance(other, Number) and other.decimals:
                readings.append(Number(Fraction(f"{match[1]}.{match[2]}"), 2))
    yield from ((a, b) for a in golds for b in answers if (a, b) != (gold_form, form))


@lru_cache(maxsize=20_000)
def _read(text: str, thousands: Thousands, mixed: bool = True) -> Form:
    return read(text, thousands, mixed=mixed)


def _because(what: str, rules: list[str]) -> str:
    """The rule that decided, and what it rests on."""
    inner = [rule for rule in dict.fromkeys(rules) if rule not in (rules[-1], "same form")][:3]
    if not rules:
        return f"{what}: different kinds"
    return f"{what}: {rules[-1]}" + (f" ({', '.join(inner)})" if inner and what == "equal" else "")
