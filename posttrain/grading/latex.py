r"""The text of an answer -> tokens: LaTeX and plain mathematics, with the Unicode signs, digits and spaces that models write.

One spelling comes out for what has many: `\dfrac`, a vulgar one half and full-width digits; spaces of every width; `1{,}000`.
"""

import re
import unicodedata
from typing import Literal, NamedTuple

from posttrain.grading.vocabulary import CHARACTERS, COMMANDS, FUNCTIONS, IN_TEXT, NAMES, SHORT_WORDS, SUBSCRIPTS, SUPERSCRIPTS, UNITS

Thousands = Literal["outer", "never", "always"]


class Token(NamedTuple):
    """`kind` is number, repeating, symbol, word, command or mark; `spaced` tells that a space stood before it."""

    kind: str
    text: str
    spaced: bool = False


_TEXT = re.compile(r"\\(text(?:bf|it|rm|sf|tt|normal|up)?|mbox|hbox|mathrm|mathit|mathsf|operatorname\*?|mathop|rm)\s*\{([^{}]*)\}")
_JOINED = re.compile(r"(?<=\d)(?:\{,\}|,\\!\s*|\\[,!: ]\s*|\{\\,\}|\{ \})(?=\d{3}(?!\d))|(?<![\d.]\d\d\d)(?<=\d) (?=\d{3}(?![\d/]))")
_COMMAS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_TOKEN = re.compile(
    r"""(?P<space>(?:\s|~|\\[,;:!>\s]|\\(?:left|right)\s*\.|\\(?:quad|qquad|displaystyle|textstyle|limits|left|right|middle
          |[bB]igg?[lrm]?|hfill|,)(?![A-Za-z]))+)
      | (?P<repeating>\d*\.\d*(?:\\(?:overline|bar|dot|widehat)\s*(?:\{\d+\}|\d)|\(\d+\)))
      | (?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,4}(?![\d.A-Za-z]))?)
      | \\(?P<environment>(?:begin|end)\s*\{[^{}]*\})
      | \\(?P<command>[A-Za-z]+|.)
      | (?P<letters>[A-Za-z]+)
      | (?P<word>[^\W\d_]+)
      | (?P<dots>\.\.\.+)
      | (?P<relation><=|>=|!=|==|:=|\*\*|=<|=>)
      | (?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_RELATIONS = {"<=": "le", "=<": "le", ">=": "ge", "!=": "ne", "==": "=", ":=": "=", "**": "^", "=>": "to"}


def tokenize(text: str, thousands: Thousands = "outer") -> list[Token]:
    """The tokens of an answer; dollars and punctuation that ends it are left out. Never raises."""
    tokens: list[Token] = []
    for piece, as_text in _pieces(_join_thousands(spell(text), thousands)):
        _scan(piece, as_text, tokens)
    return _classified(tokens)


def spell(text: str) -> str:
    """The text in ASCII where it has such a spelling, with one backslash per command."""
    if not text.isascii():
        text = re.sub(r"√\s*(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}", text).replace("√", r"\sqrt ").replace("∛", r"\sqrt[3]")
        text = "".join(_fraction(c) for c in text) if any("VULGAR" in unicodedata.name(c, "") for c in text if c > "\x7f") else text
        text = _raised(text, SUPERSCRIPTS, "^")
        text = _raised(text, SUBSCRIPTS, "_")
        text = text.translate(CHARACTERS)
        text = "".join(c if c < "\x80" else unicodedata.normalize("NFKC", c) for c in text)
        text = "".join(str(unicodedata.digit(c)) if c > "\x7f" and c.isdigit() else c for c in text)
    if ".m" in text:
        text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text)
    if "<su" in text:
        text = re.sub(r"<su([pb])>(.*?)</su\1>", lambda m: f"{'^' if m[1] == 'p' else '_'}{{{m[2]}}}", text)
    if "\\\\" in text:
        rows = (
            r"(?<!\\)\\\\(?=(?:frac|dfrac|sqrt|left|right|text|begin|end|pi|boxed|infty|cdot)\b)"
            if r"\begin" in text
            else r"\\\\(?=[A-Za-z{},;!])"
        )
        text = re.sub(rows, r"\\", text)
    return text


def ambiguous_commas(text: str) -> bool:
    """True where 100,200 may be one number or two."""
    return "," in text and _COMMAS.search(text) is not None


def _fraction(char: str) -> str:
    if char > "\x7f" and "VULGAR FRACTION" in unicodedata.name(char, "") and (value := unicodedata.normalize("NFKC", char)):
        top, _, bottom = value.partition("\u2044")
        return rf"\frac{{{top}}}{{{bottom}}}" if bottom else char
    return char


def _raised(text: str, table: dict[str, str], sign: str) -> str:
    return re.sub(f"[{''.join(table)}]+", lambda m: f"{sign}{{{''.join(table[c] for c in m[0])}}}", text)


def _join_thousands(text: str, thousands: Thousands) -> str:
    text = _JOINED.sub("", text)
    if "," not in text or thousands == "never":
        return text
    if thousands == "always":
        return _COMMAS.sub(lambda m: m[0].replace(",", ""), text)
    depth, last, out = 0, 0, []
    for match in re.finditer(r"\\?[(\[{]|\\?[)\]}]|" + _COMMAS.pattern, text):
        piece = match[0]
        if piece[0].isdigit():
            if depth == 0:
                out += [text[last : match.start()], piece.replace(",", "")]
                last = match.end()
        elif piece != "{" and piece != "}":  # plain braces only group
            depth = max(0, depth + (1 if piece[-1] in "([{" else -1))
    return "".join([*out, text[last:]])


def _pieces(text: str) -> list[tuple[str, bool]]:
    r"""The text cut at \text{...} and its like; True for what stood inside."""
    if "\\" not in text:
        return [(text, False)]
    pieces, last = [], 0
    for match in _TEXT.finditer(text):
        pieces.append((text[last : match.start()], False))
        command, inside = match[1], match[2]
        name = inside.strip()
        if name in IN_TEXT or (command.startswith(("math", "operator", "rm")) and (len(name) == 1 or name in FUNCTIONS)):
            pieces.append((f" {name} ", False))
        else:
            pieces.append((inside, True))
        last = match.end()
    return [*pieces, (text[last:], False)]


def _scan(piece: str, as_text: bool, tokens: list[Token]) -> None:
    spaced = as_text
    for match in _TOKEN.finditer(piece):
        kind = match.lastgroup
        assert kind is not None  # each branch of the pattern has a name
        text = match[kind]
        if kind == "space" or (kind == "mark" and text in '$"`'):
            spaced = True
            continue
        if kind == "letters" and as_text:
            kind = "word"
        elif kind == "dots":
            kind, text = "command", "ldots"
        elif kind == "environment":
            text, _, name = text.rstrip("}").partition("{")
            tokens.append(Token("command", text.strip(), spaced))
            if text.strip() == "end":
                continue
            kind, text = "name", name
        elif kind == "relation":
            kind, text = ("command" if _RELATIONS[text].isalpha() else "mark"), _RELATIONS[text]
        elif kind == "command":
            kind, text = _command(text)
            if kind == "drop":
                spaced = True
                continue
        tokens.append(Token(kind, text, spaced))
        spaced = False
    if as_text and tokens:
        tokens.append(Token("space", ""))


def _command(name: str) -> tuple[str, str]:
    if name in ("(", ")", "[", "]", "#", "_"):  # the ends of a formula
        return "drop", ""
    name = COMMANDS.get(name, name)
    if name.startswith("quad"):  # \quadx, where a space was lost
        return "letters", name.removeprefix("quad")
    if name in (
        "$",
        "right",
        "left",
        "rm",
        "bf",
        "it",
        "nonumber",
        "text",
        "mathbf",
        "mathcal",
        "boldsymbol",
        "bm",
        "boxed",
        "fbox",
        "textbf",
    ):
        return "drop", ""
    if name == "%":
        return "command", "percent"
    if name in ("and", "or"):
        return "word", name
    if name in ("<", ">", "[", "]", "|", "*", ":", "&"):
        return "mark", name
    return "command", name


def _classified(tokens: list[Token]) -> list[Token]:
    """Runs of letters told apart: names of functions and constants, words, products of one-letter symbols."""
    out: list[Token] = []
    for i, token in enumerate(tokens):
        if token.kind == "space":
            if i + 1 < len(tokens):
                tokens[i + 1] = tokens[i + 1]._replace(spaced=True)
        elif token.kind == "word":
            out.append(_named(token) or token)
        elif token.kind == "letters":
            out += _letters(token, out[-1] if out else None, tokens[i + 1] if i + 1 < len(tokens) else None)
        elif token.kind == "mark" and token.text == ".":
            continue
        else:
            out.append(token)
    return out


def _named(token: Token) -> Token | None:
    name = NAMES.get(token.text.lower()) if token.text not in ("Inf", "Phi", "Gamma", "Lambda") else None
    return token._replace(kind="command", text=name) if name and len(token.text) > 1 else None


def _letters(token: Token, before: Token | None, after: Token | None) -> list[Token]:
    text = token.text
    if named := _named(token):
        return [named]
    if text in FUNCTIONS:
        return [token._replace(kind="command")]
    if len(text) == 1:
        return [token._replace(kind="symbol")]
    if text.lower() in ("and", "or"):
        return [token._replace(kind="word", text=text.lower())]
    for function in ("arcsin", "arccos", "arctan", "sqrt", "sin", "cos", "tan", "ln", "log"):
        if text.startswith(function) and len(text) == len(function) + 1:
            return [Token("command", function, token.spaced), Token("symbol", text[-1])]
    if _is_word(token, before, after):
        return [token._replace(kind="word")]
    return [Token("symbol", letter, token.spaced and i == 0) for i, letter in enumerate(text)]


def _is_word(token: Token, before: Token | None, after: Token | None) -> bool:
    text = token.text.lower()
    if before and before.kind == "command" and before.text in ("angle", "triangle"):
        return False
    if before and before.kind in ("number", "repeating") and text in UNITS and len(text) > 1:
        return True
    if before and not token.spaced and (before.kind in ("number", "repeating", "symbol") or before.text in ("^", "_", "\\")):
        return False
    operators = ("+", "-", "*", "/", "^", "_", "cdot", "times", "frac", "pm")
    if (before and before.text in operators and before.kind != "word") or (after and after.kind != "space" and after.text in operators):
        return len(text) > 3 and text in UNITS
    if len(text) == 2:
        return text in SHORT_WORDS
    return True
