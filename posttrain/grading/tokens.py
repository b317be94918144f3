"""Lists of tokens: their brackets, their parts, and the numbers among them."""

import re
from collections.abc import Callable
from fractions import Fraction

from posttrain.grading.forms import Number
from posttrain.grading.latex import Token

CLOSES = {"(": ")]", "[": ")]", "{": "}", "lfloor": ("rfloor",), "lceil": ("rceil",), "langle": ("rangle",), "begin": ("end",)}
CLOSING = {")", "]", "}", "rfloor", "rceil", "rangle", "end"}


class Unreadable(ValueError):
    """The text is no mathematics that the grammar knows."""


class TooLarge(ValueError):
    """The text is longer or deeper than an answer can be."""


def nesting(token: Token) -> int:
    if token.kind not in ("mark", "command"):
        return 0
    return (token.text in CLOSES) - (token.text in CLOSING)


def with_depth(tokens: list[Token]) -> list[tuple[Token, int]]:
    """Each token with the number of brackets around it; the brackets themselves count as outside."""
    depth, out = 0, []
    for token in tokens:
        change = nesting(token)
        depth = max(0, depth + min(change, 0))
        out.append((token, depth))
        depth += max(change, 0)
    return out


def split(tokens: list[Token], separates: Callable[[Token], bool]) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for token, depth in with_depth(tokens):
        if depth == 0 and separates(token):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def trimmed(tokens: list[Token]) -> list[Token]:
    end = len(tokens)
    while end and tokens[end - 1].kind in ("mark", "command") and tokens[end - 1].text in (",", ";", ":", "\\", "?"):
        end -= 1
    return tokens[:end]


def words_of(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens if token.kind in ("word", "number", "symbol") or token.text in "^/").casefold()


def decimal(text: str) -> Number:
    digits, _, exponent = text.replace("E", "e").partition("e")
    if len(digits) > 1000 and "." in digits:
        raise TooLarge("a decimal of more than a thousand digits")
    value = Fraction(digits if digits[0] != "." else "0" + digits)
    if not exponent:
        return Number(value, len(digits.partition(".")[2]) if "." in digits else None)
    if abs(int(exponent)) > 1000:
        raise TooLarge("an exponent of more than a thousand")
    return Number(value * Fraction(10) ** int(exponent))


def continued(text: str) -> Number:
    """A decimal with dots after it: repeating where its last digits do, else cut off."""
    whole, _, digits = text.partition(".")
    for length in range(1, 7):
        cycle = digits[-length:]
        if len(digits) >= 2 * length and digits.endswith(cycle * (3 if length == 1 else 2)):
            return repeating(f"{whole}.{digits[:-length]}({cycle})")
    return decimal(text)


def repeating(text: str) -> Number:
    whole, _, rest = text.partition(".")
    fixed = re.split(r"\D", rest, maxsplit=1)[0]
    cycle = re.sub(r"\D", "", rest[len(fixed) :])
    shift = 10 ** len(fixed)
    head = Fraction(int(f"{whole or 0}{fixed}"), shift)
    return Number(head + Fraction(int(cycle), (10 ** len(cycle) - 1) * shift))
