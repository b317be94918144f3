"""Tokens -> a form: what an answer says, by recursive descent with limits on size and depth.

An answer is a listing of items; an item a chain of relations between expressions, with words around it; an expression is read by the
usual precedences. Reading order: `read`, `_Reader.listing`, `item`, `chain`, `expression`, then down to `atom`.
"""

import re
from fractions import Fraction

from posttrain.grading.forms import (
    BaseNumeral,
    Call,
    Chain,
    Constant,
    Degrees,
    Form,
    Group,
    Listing,
    Matrix,
    NamedSet,
    Number,
    Percent,
    PlusMinus,
    Power,
    Product,
    Quantity,
    Quotient,
    Ratio,
    SetBuilder,
    SetOf,
    SetOperation,
    Sum,
    Symbol,
    Text,
    negative,
    number,
)  # fmt: skip
from posttrain.grading.latex import Thousands, Token, tokenize
from posttrain.grading.vocabulary import CUTS, FUNCTIONS, GREEK, LIMITING, RELATIONS, REMARKS, TELLING

LONGEST = 2_000  # characters; the longest reference in MATH has 159
MOST_TOKENS = 1_000
DEEPEST = 40

_CLOSES = {"(": ")]", "[": ")]", "{": "}", "lfloor": ("rfloor",), "lceil": ("rceil",), "langle": ("rangle",), "begin": ("end",)}
_CLOSING = {")", "]", "}", "rfloor", "rceil", "rangle", "end"}
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log", "sign": "sgn"}
_ACCENTS = frozenset(
    ["overline", "bar", "vec", "hat", "overrightarrow", "widehat", "tilde", "dot", "mathbb", "mathfrak", "mathscr", "underline"]
)
_APPLIED = frozenset("fghFGHPQW")  # letters that are functions where a bracket follows
_EMPTY = frozenset(("phantom", "hspace", "vspace", "color", "tag", "label", "kern", "mkern", "mskip"))


class Unreadable(ValueError):
    """The text is no mathematics that the grammar knows."""


class TooLarge(ValueError):
    """The text is longer or deeper than an answer can be."""


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
        return _Reader(mixed).listing(_trimmed(tokens), 0)
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


class _Reader:
    """Reads lists of tokens."""

    def __init__(self, mixed: bool) -> None:
        self.mixed = mixed

    def listing(self, tokens: list[Token], level: int) -> Form:
        """Items between commas, semicolons, "and" and "or"; one item alone is itself."""
        if level > DEEPEST:
            raise TooLarge(f"deeper than {DEEPEST} levels")
        parts = [part for part in _split(_before_remark(tokens, REMARKS), _is_separator) if part]
        if not parts:
            raise Unreadable("nothing there")
        items = tuple(self.item(part, level) for part in parts)
        word = "or" if any(token.kind == "word" and token.text.casefold() == "or" for token in tokens) else ""
        return items[0] if len(items) == 1 else Listing(items, word)

    def item(self, tokens: list[Token], level: int) -> Form:
        """One answer without the words around it; words that change its meaning make the whole of it words."""
        tokens = _before_remark(tokens, CUTS)
        words = [token.text.casefold() for token, depth in _with_depth(tokens) if token.kind == "word" and depth == 0]
        if not words:
            return self.chain(tokens, level)
        if all(token.kind == "word" or token.text in ".,()!?'-:" for token in tokens):
            return Text("".join(plain_words(token.text) for token in tokens))
        start = next(i for i, token in enumerate(tokens) if token.kind != "word")
        if TELLING.intersection(words[:start]) or LIMITING.intersection(words[start:]):
            return Text(_words_of(tokens))
        if start and tokens[start].text == "(" and not tokens[start].spaced:
            raise Unreadable(f"the function {tokens[start - 1].text!r}")
        label = "".join(words[:start])
        if start and tokens[start].kind == "number" and start + 1 < len(tokens) and tokens[start + 1].text in (":", "="):
            start += 1  # "Sequence 1: ..."
        if start and tokens[start].text in (":", "="):
            return _chained([Text(label), self.item(tokens[start + 1 :], level)], ["="])
        rest = tokens[start:]
        end = next((i for i, (token, depth) in enumerate(_with_depth(rest)) if token.kind == "word" and depth == 0), len(rest))
        if all(token.kind == "symbol" for token in rest[:end]) and (start or len(words) > 1):
            return Text(_words_of(tokens))  # "a triangle", "f is odd": letters among words are words
        if not end or not _is_unit(rest[end:]):
            raise Unreadable("words in the midst of mathematics")
        value = self.chain(rest[: end - 1] if rest[end - 1].text in ("^", "/") else rest[:end], level)
        return Quantity(value, _words_of(rest[end:])) if end < len(rest) and not isinstance(value, Chain) else value

    def chain(self, tokens: list[Token], level: int) -> Form:
        """Expressions with relations between them."""
        parts: list[list[Token]] = [[]]
        relations: list[str] = []
        for token, depth in _with_depth(tokens):
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
            top, *bottom = _split(tokens, lambda token: token.text == "choose" and token.kind == "command")
            if len(bottom) == 1:
                return Call("binom", (self.expression(top, level), self.expression(bottom[0], level)))
        parts: list[list[Token]] = [[]]
        operations: list[str] = []
        previous = None
        for token, depth in _with_depth(tokens):
            if depth == 0 and ((token.text in ("cup", "cap", "setminus") and token.kind == "command") or _is_letter_cup(token, previous)):
                operations.append("cup" if token.text == "U" else token.text)
                parts.append([])
            else:
                parts[-1].append(token)
            previous = token
        form = _Expression(self, parts[0], level, label).whole()
        for operation, part in zip(operations, parts[1:]):
            form = SetOperation(operation, form, _Expression(self, part, level, label).whole())
        return form


class _Expression:
    """One expression without relations: precedence climbing over its tokens."""

    def __init__(self, reader: _Reader, tokens: list[Token], level: int, label: bool) -> None:
        self.reader, self.tokens, self.level, self.label, self.at = reader, tokens, level, label, 0
        if level > DEEPEST:
            raise TooLarge(f"deeper than {DEEPEST} levels")

    def whole(self) -> Form:
        if not self.tokens:
            raise Unreadable("an expression is missing")
        form = self.sum()
        if self.at < len(self.tokens):
            raise Unreadable(f"not understood: {self.tokens[self.at].text!r}")
        return form

    def peek(self, ahead: int = 0) -> Token | None:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def accept(self, *texts: str) -> str | None:
        token = self.peek()
        if token and token.text in texts and token.kind in ("mark", "command"):
            self.at += 1
            return token.text
        return None

    def sum(self) -> Form:
        terms = []
        sign = self.accept("+", "-", "pm", "mp")
        while True:
            term = self.ratio()
            terms.append({"-": negative, "pm": PlusMinus, "mp": lambda t: PlusMinus(t, -1)}.get(sign, lambda t: t)(term))
            sign = self.accept("+", "-", "pm", "mp")
            if not sign:
                return terms[0] if len(terms) == 1 else Sum(tuple(terms))

    def ratio(self) -> Form:
        start, parts = self.at, [self.term()]
        while self.accept(":"):
            parts.append(self.term())
        if len(parts) == 1:
            return parts[0]
        return Ratio(tuple(parts), "".join(token.text for token in self.tokens[start : self.at]))

    def term(self) -> Form:
        form = self.signed()
        while True:
            if self.accept("*", "cdot", "times"):
                form = _product(form, self.signed())
            elif self.accept("/", "div"):
                form = Quotient(form, self.signed())
            elif self.accept("bmod"):
                form = Call("mod", (form, self.signed()))
            elif self._starts_factor():
                form = self._beside(form)
            else:
                return form

    def _beside(self, left: Form) -> Form:
        """Two factors without a sign between them: a mixed number, or a product."""
        start, right = self.at, self.power()
        if self.reader.mixed and _is_natural(left) and isinstance(right, Quotient) and self.tokens[start].text == "frac":
            return Sum((left, right)) if _is_proper(right.top, right.bottom) else _product(left, right)
        if _is_natural(left) and _is_natural(right):
            if self.reader.mixed and self.accept("/") and _is_natural(bottom := self.power()) and _is_proper(right, bottom):
                return Sum((left, Quotient(right, bottom)))
            raise Unreadable("two numbers side by side")
        bracketed = isinstance(left, (Group, Sum, Quotient)) or self.tokens[start - 1].text in (")", "}", "]")
        if isinstance(right, Number) and self.tokens[start].kind == "number" and not bracketed:
            raise Unreadable("a number after a letter")
        return _product(left, right)

    def _starts_factor(self) -> bool:
        token = self.peek()
        if token is None or token.kind == "word":
            return False
        if token.kind == "mark":
            return token.text in "([{"
        return token.text not in (
            "+",
            "-",
            "pm",
            "mp",
            "}",
            "rfloor",
            "rceil",
            "rangle",
            "end",
            ",",
            "circ",
            "percent",
            "bmod",
            "pmod",
            "prime",
        )

    def signed(self) -> Form:
        sign = self.accept("-", "+", "pm", "mp")
        if not sign:
            return self.power()
        inner = self.signed()
        return {"-": negative, "+": lambda t: t, "pm": PlusMinus, "mp": lambda t: PlusMinus(t, -1)}[sign](inner)

    def power(self) -> Form:
        form = self.postfixed(self.atom())
        while self.accept("^"):
            if self.peek() is None:
                return Degrees(form)  # "90^", cut off
            if self.accept("circ") or self._degree_group():
                form = Degrees(form)
            elif (token := self.peek()).text == "prime" or token.text == "'":
                form = self.postfixed(form)
            elif (ordinal := self._ordinal()) is not None:
                self.at = ordinal
            else:
                form = self.postfixed(Power(form, self.exponent()))
        return form

    def _degree_group(self) -> bool:
        inside = [token.text for token in self.tokens[self.at : self.at + 3]]
        if inside[:1] == ["{"] and inside[1:2] in (["circ"], ["o"]) and inside[2:] == ["}"]:
            self.at += 3
            return True
        return False

    def _ordinal(self) -> int | None:
        texts = [token.text for token in self.tokens[self.at : self.at + 3]]
        if len(texts) == 3 and texts[0] == "{" and texts[1] in ("th", "st", "nd", "rd"):
            return self.at + 3
        return None

    def exponent(self) -> Form:
        if self.accept("-"):
            return negative(self.exponent())
        self.accept("+")
        token = self.peek()
        if token and token.text == "{" and token.kind == "mark":
            return self.braced()
        base = self.postfixed(self.atom())
        return Power(base, self.exponent()) if self.accept("^") else base

    def postfixed(self, form: Form) -> Form:
        while True:
            if self.accept("!"):
                form = Call("factorial2", (form,)) if self.accept("!") else Call("factorial", (form,))
            elif self.accept("percent", "%"):
                form = Percent(form)
            elif self.accept("circ", "degrees"):
                form = Degrees(form)
            elif self.accept("'", "prime"):
                form = Symbol(f"{form.name}'") if isinstance(form, Symbol) else Call("prime", (form,))
            elif isinstance(form, Number) and self.peek() and self.peek().text == "_":
                form = self.based(self.tokens[self.at - 1].text)
            elif self.accept("pmod"):
                form = Call("pmod", (form, self.atom()))
            else:
                return form

    def based(self, written: str) -> Form:
        """Digits with their base as subscript."""
        self.accept("_")
        below = "".join(self.raw())
        base = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}.get(below)
        base = base or (int(below) if below.isdecimal() and len(below) < 3 else 0)
        if not 2 <= base <= 36 or not all(int(digit) < base for digit in written if digit.isdecimal()):
            raise Unreadable(f"no number in base {below}")
        return BaseNumeral(written, base)

    def atom(self) -> Form:
        token = self.peek()
        if token is None:
            raise Unreadable("something is missing at the end")
        self.at += 1
        if token.kind == "number":
            if "." in token.text and self.accept("ldots"):
                return _continued(token.text)
            return _number(token.text)
        if token.kind == "repeating":
            return _repeating(token.text)
        if token.kind == "symbol":
            return self.symbol(token.text)
        if token.kind == "command":
            return self.command(token)
        if token.kind == "word":
            raise Unreadable(f"the word {token.text!r}")
        if token.text in "([":
            return self.bracket(token.text)
        if token.text == "{":
            self.at -= 1
            return self.braced()
        if token.text == "|":
            return self.between_bars()
        raise Unreadable(f"the sign {token.text!r}")

    def symbol(self, name: str) -> Form:
        if name == "e" and not self._subscripted():
            return Constant("e")
        if name in "iI" and not self._subscripted() and not (self.label and len(self.tokens) == 1):
            return Constant("i")
        full = name + self.subscript()
        following = self.peek()
        if following and following.text == "(" and (name in _APPLIED or (self.label and self.at == 1)):
            self.at += 1
            inside = self.reader.listing(self.until_close("(", self.at), self.level + 1)
            return Call(full, inside.items if isinstance(inside, Listing) else (inside,))
        return Symbol(full)

    def _subscripted(self) -> bool:
        return bool(self.peek() and self.peek().text == "_")

    def subscript(self) -> str:
        return "_" + "".join(self.raw()) if self.accept("_") else ""

    def raw(self) -> list[str]:
        """The texts of a braced group, or of one token."""
        token = self.peek()
        if token is None:
            raise Unreadable("an empty subscript")
        self.at += 1
        if token.text != "{" or token.kind != "mark":
            return [token.text]
        return [inner.text for inner in self.until_close("{", self.at)]

    def command(self, token: Token) -> Form:
        name = _ALIASES.get(token.text, token.text)
        if name == "frac":
            top = self.argument()
            return Quotient(top, self.argument())
        if name == "sqrt":
            return self.root()
        if name == "binom":
            top = self.argument()
            return Call("binom", (top, self.argument()))
        if name in ("sum", "prod", "int", "lim"):
            return self.bounded(name)
        if name in FUNCTIONS:
            return self.function(name)
        if name == "pi":
            return Constant("pi")
        if name == "infty":
            return Constant("oo")
        if name in GREEK:
            return self.symbol("\\" + name) if name not in ("varphi", "phi", "psi") else Symbol("\\" + name + self.subscript())
        if name == "ldots":
            return Symbol("...")
        if name == "emptyset":
            return SetOf(())
        if name == "{":
            return self.set()
        if name in ("lfloor", "lceil", "langle"):
            inside = self.reader.listing(self.until_close(name, self.at), self.level + 1)
            if name == "langle":
                return Group("(", ")", inside.items if isinstance(inside, Listing) else (inside,))
            return Call("floor" if name == "lfloor" else "ceil", (inside,))
        if name == "begin":
            return self.environment()
        if name == "forall":
            return Call("forall", (self.term(),))
        if name in ("partial", "nabla"):
            return Symbol("\\" + name)
        if name in _EMPTY:
            self.raw()
            return self.atom()
        if name in ("angle", "triangle"):
            start = self.at
            while self.peek() and self.peek().kind == "symbol":
                self.at += 1
            return Symbol(f"{name}({''.join(token.text for token in self.tokens[start : self.at])})")
        if name in _ACCENTS:
            inside = "".join(self.raw())
            return NamedSet(inside + self.superscript()) if name == "mathbb" else Symbol(f"{name}({inside})")
        raise Unreadable(f"the command \\{name}")

    def superscript(self) -> str:
        return "".join(self.raw()) if self.peek() and self.peek().text in ("^", "_") and self.accept("^", "_") else ""

    def argument(self) -> Form:
        r"""A braced group or one sign: of "12" the first digit, as in \frac12."""
        token = self.peek()
        if token is None:
            raise Unreadable("an argument is missing")
        if token.kind == "number" and len(token.text) > 1 and token.text.isdecimal():
            self.tokens[self.at : self.at + 1] = [token._replace(text=token.text[0]), Token("number", token.text[1:])]
        if token.text == "{" and token.kind == "mark":
            return self.braced()
        return self.atom()

    def root(self) -> Form:
        degree: Form = number(2)
        if self.peek() and self.peek().text == "[":
            self.at += 1
            degree = self.inner(self.until_close("[", self.at))
        if self.peek() is None:
            raise Unreadable("a root of nothing")
        return Call("root", (self.atom(), degree))

    def function(self, name: str) -> Form:
        """A function with its base or power, applied to brackets or to the factors that follow."""
        base = power = None
        while (token := self.peek()) and token.text in ("_", "^"):
            self.at += 1
            if token.text == "_":
                base = self.exponent()
            else:
                power = self.exponent()
        if power == number(-1) and name in ("sin", "cos", "tan", "cot", "sec", "csc"):
            name, power = f"arc{name}", None
        args = self.function_arguments(name)
        if name in ("sqrt", "cbrt"):
            form: Form = Call("root", (*args, number(2 if name == "sqrt" else 3)))
        elif name == "cis":
            form = Power(Constant("e"), Product((Constant("i"), args[0])))
        elif name == "exp":
            form = Power(Constant("e"), args[0])
        elif name in ("log", "ln"):
            form = Call("log", (*args, base)) if base is not None and len(args) == 1 else Call("ln" if name == "ln" else "log", args)
        else:
            form = Call(name, args)
        return form if power is None else Power(form, power)

    def function_arguments(self, name: str) -> tuple[Form, ...]:
        token = self.peek()
        if token and token.kind == "mark" and token.text in "([{":
            self.at += 1
            inside = self.reader.listing(self.until_close(token.text, self.at), self.level + 1)
            return inside.items if isinstance(inside, Listing) else (inside,)
        if token is None:
            raise Unreadable(f"{name} of nothing")
        form = self.signed()
        while self._starts_factor() and self.peek().text != "(" and self.peek().text not in FUNCTIONS:
            form = self._beside(form)
        if self.peek() and self.peek().text == "/" and self.peek(1) and self.peek(1).kind == "number":
            self.at += 1
            form = Quotient(form, self.power())
        return (form,)

    def bounded(self, name: str) -> Form:
        """A sum, product, integral or limit with what stands under and over it; its body reaches to the end of the term."""
        below = above = None
        while (token := self.peek()) and token.text in ("_", "^"):
            self.at += 1
            if self.peek() and self.peek().text == "{":
                self.at += 1
                form = self.reader.chain(self.until_close("{", self.at), self.level + 1)
            else:
                form = self.atom()
            below, above = (form, above) if token.text == "_" else (below, form)
        body = self.term()
        if (
            name in ("sum", "prod")
            and isinstance(below, Chain)
            and below.relations == ("=",)
            and isinstance(below.items[0], (Symbol, Constant))
        ):
            variable = Symbol(below.items[0].name)
            return Call(name, (body, variable, below.items[1], above if above is not None else Constant("oo")))
        return Call(name, (body, *(form for form in (below, above) if form is not None)))

    def bracket(self, opening: str) -> Form:
        inside, closing = self.until_close(opening, self.at), self.tokens[self.at - 1].text
        if not inside:
            return Group(opening, closing, ())
        form = self.reader.listing(inside, self.level + 1)
        if isinstance(form, Listing):
            return Group(opening, closing, form.items)
        if any(token.text == "," for token, depth in _with_depth(inside) if depth == 0):
            return Group(opening, closing, (form,))
        return form

    def between_bars(self) -> Form:
        depth = 0
        for end in range(self.at, len(self.tokens)):
            text = self.tokens[end].text
            depth += (text in "([{") - (text in ")]}") if self.tokens[end].kind in ("mark", "command") and len(text) == 1 else 0
            if text == "|" and depth == 0 and end > self.at:
                inside, self.at = self.tokens[self.at : end], end + 1
                form = self.inner(inside)
                return Call("det" if isinstance(form, Matrix) else "abs", (form,))
        raise Unreadable("a bar without its partner")

    def braced(self) -> Form:
        self.at += 1
        inside = self.until_close("{", self.at)
        return self.inner(inside)

    def set(self) -> Form:
        inside = self.until_close("{", self.at)
        if not inside:
            return SetOf(())
        cut = next((i for i, (t, depth) in enumerate(_with_depth(inside)) if depth == 0 and t.text in ("|", ":") and i), None)
        if cut is not None and any(token.text in RELATIONS for token in inside[cut:]):
            return SetBuilder(self.reader.chain(inside[:cut], self.level + 1), self.reader.listing(inside[cut + 1 :], self.level + 1))
        form = self.reader.listing(inside, self.level + 1)
        return SetOf(form.items if isinstance(form, Listing) else (form,))

    def environment(self) -> Form:
        name = "".join(self.raw()).strip("* ")
        depth, end = 1, self.at
        while end < len(self.tokens) and depth:
            depth += {"begin": 1, "end": -1}.get(self.tokens[end].text, 0) if self.tokens[end].kind == "command" else 0
            end += 1
        if depth:
            raise Unreadable(f"the environment {name} does not end")
        inside, self.at = self.tokens[self.at : end - 1], end
        if name == "array" and inside and inside[0].text == "{":
            inside = inside[next(i for i, token in enumerate(inside) if token.text == "}") + 1 :]
        rows = [row for row in _split(inside, lambda token: token.text == "\\" and token.kind == "command") if row]
        cells = [[self.inner(cell) for cell in _split(row, lambda token: token.text == "&")] for row in rows]
        if not cells or len({len(row) for row in cells}) != 1:
            raise Unreadable("a matrix with rows of different lengths")
        matrix = Matrix(tuple(map(tuple, cells)))
        return Call("det", (matrix,)) if name == "vmatrix" else Call(name, (matrix,)) if name in ("cases", "aligned", "align") else matrix

    def inner(self, tokens: list[Token]) -> Form:
        return self.reader.listing(tokens, self.level + 1)

    def until_close(self, opening: str, start: int) -> list[Token]:
        """The tokens from `start` to the bracket that closes `opening`; round and square ones close each other, as intervals need."""
        depth = 1
        for i in range(start, len(self.tokens)):
            depth += _nesting(self.tokens[i])
            if depth == 0:
                if self.tokens[i].text not in _CLOSES[opening]:
                    raise Unreadable(f"{opening!r} is closed by {self.tokens[i].text!r}")
                self.at = i + 1
                return self.tokens[start:i]
        raise Unreadable(f"{opening!r} is not closed")


def _nesting(token: Token) -> int:
    if token.kind not in ("mark", "command"):
        return 0
    return (token.text in _CLOSES) - (token.text in _CLOSING)


def _with_depth(tokens: list[Token]) -> list[tuple[Token, int]]:
    """Each token with the number of brackets around it; the brackets themselves count as outside."""
    depth, out = 0, []
    for token in tokens:
        change = _nesting(token)
        depth = max(0, depth + min(change, 0))
        out.append((token, depth))
        depth += max(change, 0)
    return out


def _split(tokens: list[Token], separates) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for token, depth in _with_depth(tokens):
        if depth == 0 and separates(token):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _is_separator(token: Token) -> bool:
    return token.text in (",", ";") if token.kind == "mark" else token.kind == "word" and token.text.casefold() in ("and", "or")


def _before_remark(tokens: list[Token], which: frozenset[str]) -> list[Token]:
    """Without a remark at the end that explains the answer: ", where k is an integer", "for all x"."""
    for i, (token, depth) in enumerate(_with_depth(tokens)):
        cuts = i and depth == 0 and token.kind == "word" and token.text.casefold() in which
        if cuts and any(t.kind not in ("word", "mark") for t in tokens[:i]):
            return _trimmed(tokens[:i])
    return tokens


def _trimmed(tokens: list[Token]) -> list[Token]:
    end = len(tokens)
    while end and tokens[end - 1].kind in ("mark", "command") and tokens[end - 1].text in (",", ";", ":", "\\", "?"):
        end -= 1
    return tokens[:end]


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


def _words_of(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens if token.kind in ("word", "number", "symbol") or token.text in "^/").casefold()


def _chained(items: list[Form], relations: list[str]) -> Form:
    """One chain, a chain on the right taken in."""
    if isinstance(items[-1], Chain):
        last = items.pop()
        return Chain((*items, *last.items), (*relations, *last.relations))
    return Chain(tuple(items), tuple(relations)) if relations else items[0]


def _product(left: Form, right: Form) -> Product:
    return Product((*left.factors, right)) if isinstance(left, Product) else Product((left, right))


def _is_natural(form: Form) -> bool:
    return isinstance(form, Number) and form.decimals is None and form.value.denominator == 1


def _is_proper(top: Form, bottom: Form) -> bool:
    return _is_natural(top) and _is_natural(bottom) and top.value < bottom.value


def _number(text: str) -> Number:
    digits, _, exponent = text.replace("E", "e").partition("e")
    if len(digits) > 1000 and "." in digits:
        raise TooLarge("a decimal of more than a thousand digits")
    value = Fraction(digits if digits[0] != "." else "0" + digits)
    if not exponent:
        return Number(value, len(digits.partition(".")[2]) if "." in digits else None)
    if abs(int(exponent)) > 1000:
        raise TooLarge("an exponent of more than a thousand")
    return Number(value * Fraction(10) ** int(exponent))


def _continued(text: str) -> Number:
    """A decimal with dots after it: repeating where its last digits do, else cut off."""
    whole, _, digits = text.partition(".")
    for length in range(1, 7):
        cycle = digits[-length:]
        if len(digits) >= 2 * length and digits.endswith(cycle * (3 if length == 1 else 2)):
            return _repeating(f"{whole}.{digits[:-length]}({cycle})")
    return _number(text)


def _repeating(text: str) -> Number:
    whole, _, rest = text.partition(".")
    fixed = re.match(r"\d*", rest)[0]
    cycle = re.sub(r"\D", "", rest[len(fixed) :])
    shift = 10 ** len(fixed)
    head = Fraction(int(f"{whole or 0}{fixed}"), shift)
    return Number(head + Fraction(int(cycle), (10 ** len(cycle) - 1) * shift))
