"""Tokens -> one expression without relations, by the usual precedences: sum, ratio, term, sign, power, atom.

The reader of `grammar.py` is asked for what stands in brackets, which may again be anything.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeGuard

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
    Quotient,
    Ratio,
    SetBuilder,
    SetOf,
    Sum,
    Symbol,
    negative,
    number,
)  # fmt: skip
from posttrain.grading.latex import Token
from posttrain.grading.normal import substituted
from posttrain.grading.tokens import CLOSES, TooLarge, Unreadable, continued, decimal, nesting, repeating, split, with_depth
from posttrain.grading.vocabulary import FUNCTIONS, GREEK, RELATIONS

if TYPE_CHECKING:
    from posttrain.grading.grammar import Reader

DEEPEST = 40
SYSTEMS = frozenset(("cases", "aligned", "align", "gathered"))
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log", "sign": "sgn"}
_ACCENTS = frozenset(
    ["overline", "bar", "vec", "hat", "overrightarrow", "widehat", "tilde", "dot", "mathbb", "mathfrak", "mathscr", "underline"]
)
_APPLIED = frozenset("fghFGHPQW")  # letters that are functions where a bracket follows
_SIGNED: dict[str | None, Callable[[Form], Form]] = {"-": negative, "pm": PlusMinus, "mp": lambda form: PlusMinus(form, -1)}
_EMPTY = frozenset(("phantom", "hspace", "vspace", "color", "tag", "label", "kern", "mkern", "mskip"))


class Expression:
    """One expression without relations: precedence climbing over its tokens."""

    def __init__(self, reader: "Reader", tokens: list[Token], level: int, label: bool) -> None:
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

    def stands(self, text: str) -> bool:
        token = self.peek()
        return token is not None and token.text == text

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
            signed = _SIGNED.get(sign)
            terms.append(signed(term) if signed else term)
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
            token = self.peek()
            if token is None:
                return Degrees(form)  # "90^", cut off
            if self.accept("circ") or self._degree_group():
                form = Degrees(form)
            elif token.text == "prime" or token.text == "'":
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
            elif isinstance(form, Number) and self.stands("_"):
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
                return continued(token.text)
            return decimal(token.text)
        if token.kind == "repeating":
            return repeating(token.text)
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
        applicable = name in _APPLIED or (self.label and self.at == 1)
        full = name + self.subscript()
        if applicable:
            full += self.derived()
        following = self.peek()
        if following and following.text == "(" and applicable:
            self.at += 1
            inside = self.reader.listing(self.until_close("(", self.at), self.level + 1)
            return Call(full, inside.items if isinstance(inside, Listing) else (inside,))
        return Symbol(full)

    def derived(self) -> str:
        """The primes or the -1 of a function's name, as in f'(x), where a bracket follows them."""
        texts = [token.text for token in self.tokens[self.at : self.at + 6]]
        primes = next((i for i, text in enumerate(texts) if text != "'"), len(texts))
        if primes and texts[primes : primes + 1] == ["("]:
            self.at += primes
            return "'" * primes
        if texts == ["^", "{", "-", "1", "}", "("]:
            self.at += 5
            return "^-1"
        return ""

    def _subscripted(self) -> bool:
        return self.stands("_")

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
            while (letter := self.peek()) and letter.kind == "symbol":
                self.at += 1
            return Symbol(f"{name}({''.join(token.text for token in self.tokens[start : self.at])})")
        if name in _ACCENTS:
            text = "".join(self.raw())
            return NamedSet(text + self.superscript()) if name == "mathbb" else Symbol(f"{name}({text})")
        raise Unreadable(f"the command \\{name}")

    def superscript(self) -> str:
        return "".join(self.raw()) if self.accept("^", "_") else ""

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
        if self.stands("["):
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
        while self._starts_factor() and (token := self.peek()) and token.text != "(" and token.text not in FUNCTIONS:
            form = self._beside(form)
        if self.stands("/") and (token := self.peek(1)) and token.kind == "number":
            self.at += 1
            form = Quotient(form, self.power())
        return (form,)

    def bounded(self, name: str) -> Form:
        """A sum, product, integral or limit with what stands under and over it; its body reaches to the end of the term."""
        below = above = None
        while (token := self.peek()) and token.text in ("_", "^"):
            self.at += 1
            if self.stands("{"):
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
            body = substituted(body, below.items[0], variable)  # "i" is no imaginary unit in a sum over i
            return Call(name, (body, variable, below.items[1], above if above is not None else Constant("oo")))
        if name == "int" and isinstance(body, Product) and body.factors[-2:-1] == (Symbol("d"),):
            inner = Product(body.factors[:-2]) if len(body.factors) > 2 else number(1)
            return Call(name, (inner, body.factors[-1], *(form for form in (below, above) if form is not None)))
        return Call(name, (body, *(form for form in (below, above) if form is not None)))

    def bracket(self, opening: str) -> Form:
        inside, closing = self.until_close(opening, self.at), self.tokens[self.at - 1].text
        if not inside:
            return Group(opening, closing, ())
        form = self.reader.listing(inside, self.level + 1)
        if isinstance(form, Listing):
            return Group(opening, closing, form.items)
        if any(token.text == "," for token, depth in with_depth(inside) if depth == 0):
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
        cut = next((i for i, (t, depth) in enumerate(with_depth(inside)) if depth == 0 and t.text in ("|", ":") and i), None)
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
        rows = [row for row in split(inside, lambda token: token.text == "\\" and token.kind == "command") if row]
        if name in SYSTEMS and all(any(token.text == "=" for token, depth in with_depth(row) if depth == 0) for row in rows):
            return Listing(tuple(self.inner([token for token in row if token.text != "&"]) for row in rows))
        cells = [[self.inner(cell) for cell in split(row, lambda token: token.text == "&")] for row in rows]
        if not cells or len({len(row) for row in cells}) != 1:
            raise Unreadable("a matrix with rows of different lengths")
        matrix = Matrix(tuple(map(tuple, cells)))
        return Call("det", (matrix,)) if name == "vmatrix" else Call(name, (matrix,)) if name in SYSTEMS else matrix

    def inner(self, tokens: list[Token]) -> Form:
        return self.reader.listing(tokens, self.level + 1)

    def until_close(self, opening: str, start: int) -> list[Token]:
        """The tokens from `start` to the bracket that closes `opening`; round and square ones close each other, as intervals need."""
        depth = 1
        for i in range(start, len(self.tokens)):
            depth += nesting(self.tokens[i])
            if depth == 0:
                if self.tokens[i].text not in CLOSES[opening]:
                    raise Unreadable(f"{opening!r} is closed by {self.tokens[i].text!r}")
                self.at = i + 1
                return self.tokens[start:i]
        raise Unreadable(f"{opening!r} is not closed")


def _product(left: Form, right: Form) -> Product:
    return Product((*left.factors, right)) if isinstance(left, Product) else Product((left, right))


def _is_natural(form: Form) -> TypeGuard[Number]:
    return isinstance(form, Number) and form.decimals is None and form.value.denominator == 1


def _is_proper(top: Form, bottom: Form) -> bool:
    return _is_natural(top) and _is_natural(bottom) and top.value < bottom.value
