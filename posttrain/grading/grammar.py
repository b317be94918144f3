"""Tokens -> a form: what an answer says, by recursive descent with limits on size and depth.

An answer is a listing of items; an item a chain of relations between expressions, with words around it. Reading order: `read`,
`Reader.listing`, `item`, `chain`, `expression`, then `expression.py`.
"""

import re

from posttrain.grading.expression import DEEPEST, Expression
from posttrain.grading.forms import (
    Call,
    Chain,
    Form,
    Listing,
    Quantity,
    SetOperation,
    Text,
)  # fmt: skip
from posttrain.grading.latex import Thousands, Token, tokenize
from posttrain.grading.tokens import TooLarge, Unreadable, split, trimmed, with_depth, words_of
from posttrain.grading.vocabulary import CUTS, LIMITING, RELATIONS, REMARKS, TELLING

LONGEST = 2_000  # characters; the longest reference in MATH has 159
MOST_TOKENS = 1_000


def read(text: str, thousands: Thousands = "outer", *, mixed: bool = True) -> Form:
    """The form of an answer, `Text` where it is words; `mixed` reads 1 1/2 as a mixed number.

    Raises `Unreadable` or `TooLarge`, nothing else.
    """
    if len(text) > LONGEST:
        raise TooLarge(f"longer than {LONGEST} characters")
    tokens = tokenize(text, thousands)
    if len(tokens) > MOST_TOKENS:
        raise TooLarge(f"more than {MOST_TOKENS} tokens")
    try:
        return Reader(mixed).listing(trimmed(tokens), 0)
    except RecursionError:
        raise TooLarge("nested too deeply") from None
    except Unreadable:
        words = plain_words(text)
        if "\\" in re.sub(r"\\(?:text(?:bf|it|rm)?|mbox|mathrm|quad|[ ,;!()$])", "", text) or not re.search(r"[a-z]{2}", words):
            raise
        return Text(words)


def plain_words(text: str) -> str:
    """The letters and digits of a text, in small letters: what two answers in words are compared by."""
    text = re.sub(r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm|mathbf|boxed|left|right|quad)|<[^>]*>", " ", text).casefold()
    return "".join(char for char in text if char.isalnum())


class Reader:
    """Reads lists of tokens."""

    def __init__(self, mixed: bool) -> None:
        self.mixed = mixed

    def listing(self, tokens: list[Token], level: int) -> Form:
        """Items between commas, semicolons, "and" and "or"; one item alone is itself."""
        if level > DEEPEST:
            raise TooLarge(f"deeper than {DEEPEST} levels")
        parts = [part for part in split(_before_remark(tokens, REMARKS), _is_separator) if part]
        if not parts:
            raise Unreadable("nothing there")
        items = tuple(self.item(part, level) for part in parts)
        word = "or" if any(token.kind == "word" and token.text.casefold() == "or" for token in tokens) else ""
        return items[0] if len(items) == 1 else Listing(items, word)

    def item(self, tokens: list[Token], level: int) -> Form:
        """One answer without the words around it; words that change its meaning make the whole of it words."""
        tokens = _before_remark(tokens, CUTS)
        words = [token.text.casefold() for token, depth in with_depth(tokens) if token.kind == "word" and depth == 0]
        if not words:
            return self.chain(tokens, level)
        if all(token.kind == "word" or token.text in ".,()!?'-:" for token in tokens):
            return Text("".join(plain_words(token.text) for token in tokens))
        start = next(i for i, token in enumerate(tokens) if token.kind != "word")
        if TELLING.intersection(words[:start]) or LIMITING.intersection(words[start:]):
            return Text(words_of(tokens))
        if start and tokens[start].text == "(" and not tokens[start].spaced:
            raise Unreadable(f"the function {tokens[start - 1].text!r}")
        label = "".join(words[:start])
        if start and tokens[start].kind == "number" and start + 1 < len(tokens) and tokens[start + 1].text in (":", "="):
            start += 1  # "Sequence 1: ..."
        if start and tokens[start].text in (":", "="):
            return _chained([Text(label), self.item(tokens[start + 1 :], level)], ["="])
        rest = tokens[start:]
        end = next((i for i, (token, depth) in enumerate(with_depth(rest)) if token.kind == "word" and depth == 0), len(rest))
        if all(token.kind == "symbol" for token in rest[:end]) and (start or len(words) > 1):
            return Text(words_of(tokens))  # "a triangle", "f is odd": letters among words are words
        if not end or not _is_unit(rest[end:]):
            raise Unreadable("words in the midst of mathematics")
        value = self.chain(rest[: end - 1] if rest[end - 1].text in ("^", "/") else rest[:end], level)
        return Quantity(value, words_of(rest[end:])) if end < len(rest) and not isinstance(value, Chain) else value

    def chain(self, tokens: list[Token], level: int) -> Form:
        """Expressions with relations between them."""
        parts: list[list[Token]] = [[]]
        relations: list[str] = []
        for token, depth in with_depth(tokens):
            if depth == 0 and token.text in RELATIONS and token.kind in ("mark", "command"):
                relations.append(RELATIONS[token.text])
                parts.append([])
            else:
                parts[-1].append(token)
        if not relations:
            return self.expression(tokens, level)
        if not parts[0]:
            parts, relations = parts[1:], relations[1:]  # "= 5"
        if not parts[-1]:
            raise Unreadable("a relation without its right side")
        return _chained([self.expression(part, level, label=i == 0 and len(parts) > 1) for i, part in enumerate(parts)], relations)

    def expression(self, tokens: list[Token], level: int, *, label: bool = False) -> Form:
        """Set operations between sums; `label` allows any letter to be a function, as in "u(x) = ..."."""
        if any(token.text == "choose" for token in tokens):
            top, *bottom = split(tokens, lambda token: token.text == "choose" and token.kind == "command")
            if len(bottom) == 1:
                return Call("binom", (self.expression(top, level), self.expression(bottom[0], level)))
        parts: list[list[Token]] = [[]]
        operations: list[str] = []
        previous = None
        for token, depth in with_depth(tokens):
            if depth == 0 and ((token.text in ("cup", "cap", "setminus") and token.kind == "command") or _is_letter_cup(token, previous)):
                operations.append("cup" if token.text == "U" else token.text)
                parts.append([])
            else:
                parts[-1].append(token)
            previous = token
        form = Expression(self, parts[0], level, label).whole()
        for operation, part in zip(operations, parts[1:]):
            form = SetOperation(operation, form, Expression(self, part, level, label).whole())
        return form


def _is_separator(token: Token) -> bool:
    return token.text in (",", ";") if token.kind == "mark" else token.kind == "word" and token.text.casefold() in ("and", "or")


def _before_remark(tokens: list[Token], which: frozenset[str]) -> list[Token]:
    """Without a remark at the end that explains the answer: ", where k is an integer", "for all x"."""
    for i, (token, depth) in enumerate(with_depth(tokens)):
        cuts = i and depth == 0 and token.kind == "word" and token.text.casefold() in which
        if cuts and any(t.kind not in ("word", "mark") for t in tokens[:i]):
            return trimmed(tokens[:i])
    return tokens


def _is_unit(tokens: list[Token]) -> bool:
    """True for words with exponents and slashes: "cm^2", "miles / hour (about)"."""
    before = ""
    for token in tokens:
        power = token.kind == "number" and before in ("^", "^{")
        if not (token.kind == "word" or power or (token.kind == "mark" and token.text in "^{}/().-'?!")):
            return False
        before = before + "{" if token.text == "{" else token.text
    return True


def _is_letter_cup(token: Token, previous: Token | None) -> bool:
    return token.kind == "symbol" and token.text == "U" and previous is not None and previous.text in (")", "]", "}")


def _chained(items: list[Form], relations: list[str]) -> Form:
    """One chain, a chain on the right taken in."""
    last = items[-1]
    if isinstance(last, Chain):
        return Chain((*items[:-1], *last.items), (*relations, *last.relations))
    return Chain(tuple(items), tuple(relations)) if relations else items[0]
