r"""The text of an answer -> tokens: LaTeX and plain mathematics, with the Unicode signs, digits and spaces that models write.

One spelling comes out for what has many: `\dfrac`, a vulgar one half and full-width digits; spaces of every width; `1{,}000`.
"""

import re
import unicodedata
from typing import Literal, NamedTuple

Thousands = Literal["outer", "never", "always"]


class Token(NamedTuple):
    """`kind` is number, repeating, symbol, word, command or mark; `spaced` tells that a space stood before it."""

    kind: str
    text: str
    spaced: bool = False


_SPELLED = {
    "−–—‐‑﹣": "-", "×✕": r"\times ", "·⋅∙": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "°º": r"^\circ ",
    "≤⩽≦": r"\le ", "≥⩾≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ",
    "∓": r"\mp ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}",
    "ℂ": r"\mathbb{C}", "∀": r"\forall ", "…": r"\ldots ", "′": "'", "∶": ":", "⁄∕": "/", "→": r"\to ", "∖": r"\setminus ",
    "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u3000": " ", "\u2009\u200a\u202f": r"\,", "\u200b\u200c\u200d\ufeff\u2060": "",
    "“”„": '"', "‘’": "'", "、，": ",", "；": ";", "。": ".", "ⅈ": "i", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ", "∣": "|",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ϵ": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu", "ν": "nu", "ξ": "xi", "ρ": "rho", "σ": "sigma", "τ": "tau",
    "φ": "varphi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda",
    "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
GREEK = frozenset(_GREEK.values()) | {"varepsilon", "vartheta", "varrho", "ell", "hbar", "mho", "Pi", "Xi", "Upsilon", "upsilon"}
_SUPERSCRIPTS = {**{c: str(i) for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}, "⁺": "+", "⁻": "-", "ⁿ": "n", "ˣ": "x", "ᵏ": "k", "ᵐ": "m"}
_SUBSCRIPTS = {**{c: str(i) for i, c in enumerate("₀₁₂₃₄₅₆₇₈₉")}, "ₙ": "n", "ₖ": "k", "ᵢ": "i"}
_CHARACTERS = {ord(c): spelled for chars, spelled in _SPELLED.items() for c in chars}
_CHARACTERS |= {ord(c): f"\\{name} " for c, name in _GREEK.items()}
_CHARACTERS |= {0x2460 + i: f" {i + 1}, " for i in range(20)}  # circled digits count statements: 2 and 3 are a list

FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc", "sinh", "cosh", "tanh", "coth", "asin", "acos", "atan", "ln", "log", "lg", "exp", "sqrt", "abs", "floor", "ceil", "gcd", "lcm", "min", "max", "det", "deg", "arg", "Re", "Im", "sgn", "sign", "binom", "cbrt", "root", "cis"]
)
_IN_TEXT = frozenset(("cis", "sin", "cos", "tan", "ln", "log"))
_NAMES = {"pi": "pi", "infinity": "infty", "infty": "infty", "inf": "infty", "oo": "infty", "theta": "theta", "alpha": "alpha",
          "beta": "beta", "gamma": "gamma", "phi": "phi", "lambda": "lambda", "degrees": "degrees", "degree": "degrees", "deg": "degrees",
          "percent": "percent", "percentage": "percent", "pct": "percent", "mod": "bmod", "cup": "cup", "union": "cup",
          "plusminus": "pm", "cdot": "cdot", "times": "times", "frac": "frac"}  # fmt: skip
UNITS = frozenset(
    ["cm", "mm", "km", "m", "ft", "in", "inch", "inches", "feet", "foot", "yd", "mi", "mile", "miles", "kg", "g", "mg", "lb", "lbs", "oz", "s", "sec", "secs", "min", "mins", "h", "hr", "hrs", "hour", "hours", "day", "days", "mph", "kph", "kmh", "ml", "l", "cc", "rad", "radians", "units", "unit", "meters", "metres", "dollars", "cents", "yuan", "usd", "eur", "am", "pm", "rpm", "hz", "kw", "w", "n", "j", "kj", "pa", "ohm", "v"]
)
_SHORT_WORDS = frozenset(["is", "of", "to", "at", "on", "as", "by", "be", "so", "no", "an", "we", "it", "if", "or", "am", "pm", "cm", "mm", "km", "kg", "mg", "ml", "ft", "yd", "mi", "lb", "oz", "hr", "th", "st", "nd", "rd", "in"])
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
_ALIASES = {"dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "leqq": "le", "geq": "ge", "geqslant": "ge",
            "geqq": "ge", "neq": "ne", "lt": "<", "gt": ">", "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "dots": "ldots",
            "cdots": "ldots", "dotsc": "ldots", "dotsm": "ldots", "dotsb": "ldots", "vdots": "ldots", "cupdot": "cup", "bigcup": "cup",
            "sqcup": "cup", "bigcap": "cap", "backslash": "setminus", "dbinom": "binom", "tbinom": "binom", "lvert": "|", "rvert": "|",
            "vert": "|", "mid": "|", "ast": "*", "colon": ":", "isin": "in", "simeq": "approx", "varnothing": "emptyset",
            "arg": "arg", "rightarrow": "to", "mathrm": "text", "degree": "circ", "lcm": "lcm", "tg": "tan", "ctg": "cot", "arctg": "arctan",
            "operatorname": "text", "land": "and", "lor": "or", "wedge": "and", "vee": "or"}  # fmt: skip
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
        text = _raised(text, _SUPERSCRIPTS, "^")
        text = _raised(text, _SUBSCRIPTS, "_")
        text = text.translate(_CHARACTERS)
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
        if name in _IN_TEXT or (command.startswith(("math", "operator", "rm")) and (len(name) == 1 or name in FUNCTIONS)):
            pieces.append((f" {name} ", False))
        else:
            pieces.append((inside, True))
        last = match.end()
    return [*pieces, (text[last:], False)]


def _scan(piece: str, as_text: bool, tokens: list[Token]) -> None:
    spaced = as_text
    for match in _TOKEN.finditer(piece):
        kind, text = match.lastgroup, match[match.lastgroup]
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
    name = _ALIASES.get(name, name)
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
    name = _NAMES.get(token.text.lower()) if token.text not in ("Inf", "Phi", "Gamma", "Lambda") else None
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
        return text in _SHORT_WORDS
    return True
