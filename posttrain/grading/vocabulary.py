"""The words, signs and units that the reader of answers knows."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


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
GREEK = frozenset(_GREEK.values()) | _words("varepsilon vartheta varrho ell hbar mho Pi Xi Upsilon upsilon")
SUPERSCRIPTS = {**{c: str(i) for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}, "⁺": "+", "⁻": "-", "ⁿ": "n", "ˣ": "x", "ᵏ": "k", "ᵐ": "m"}
SUBSCRIPTS = {**{c: str(i) for i, c in enumerate("₀₁₂₃₄₅₆₇₈₉")}, "ₙ": "n", "ₖ": "k", "ᵢ": "i"}
CHARACTERS = {
    **{ord(c): spelled for chars, spelled in _SPELLED.items() for c in chars},
    **{ord(c): f"\\{name} " for c, name in _GREEK.items()},
    **{0x2460 + i: f" {i + 1}, " for i in range(20)},  # circled digits count statements: 2 and 3 are a list
}

FUNCTIONS = _words("""
    sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth asin acos atan ln log lg exp sqrt abs floor
    ceil gcd lcm min max det deg arg Re Im sgn sign binom cbrt root cis
""")
IN_TEXT = _words("cis sin cos tan ln log")  # functions that also stand in \\text{}
NAMES = {
    **{name: name for name in _words("pi infty theta alpha beta gamma phi lambda degrees percent cup cdot times")},
    "infinity": "infty", "inf": "infty", "oo": "infty", "degree": "degrees", "deg": "degrees", "percentage": "percent", "pct": "percent",
    "mod": "bmod", "union": "cup", "plusminus": "pm", "frac": "frac",
}  # fmt: skip
COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"), **dict.fromkeys(("leq", "leqslant", "leqq"), "le"), "neq": "ne",
    **dict.fromkeys(("geq", "geqslant", "geqq"), "ge"), "lt": "<", "gt": ">", "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]",
    **dict.fromkeys(("dots", "cdots", "dotsc", "dotsm", "dotsb", "vdots"), "ldots"), **dict.fromkeys(("cupdot", "bigcup", "sqcup"), "cup"),
    "bigcap": "cap", "backslash": "setminus", "dbinom": "binom", "tbinom": "binom", "ast": "*", "colon": ":", "isin": "in",
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"), "simeq": "approx", "varnothing": "emptyset", "rightarrow": "to",
    "mathrm": "text", "operatorname": "text", "degree": "circ", "tg": "tan", "ctg": "cot", "arctg": "arctan",
    **dict.fromkeys(("land", "wedge"), "and"), **dict.fromkeys(("lor", "vee"), "or"),
}  # fmt: skip
RELATIONS = {
    "=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "in": "in", "approx": "~", "to": "->", "equiv": "mod=",
    "notin": "notin", "subset": "subset", "subseteq": "subset", "sim": "~", "cong": "~", "propto": "propto",
}  # fmt: skip

NUMBER_WORDS = dict(
    zip(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), range(13))
)
REMARKS = _words("where because since such given")  # what follows explains all of the answer
CUTS = REMARKS | _words("for with is are")  # what follows explains one item
TELLING = _words("""
    no not none least most than odd even more less greater over under every any all if when unless otherwise except never without either
    neither nor before after prime composite positive negative or
""")  # before a value, they make it another answer
LIMITING = _words("not no least most more less greater fewer over under odd even or if when unless otherwise")  # after one, too

UNITS = _words("""
    cm mm km m ft in inch inches feet foot yd mi mile miles kg g mg lb lbs oz s sec secs min mins h hr hrs hour hours day days mph kph kmh
    ml l cc rad radians units unit meter meters metres dollars cents yuan usd eur am pm rpm hz kw w n j kj pa ohm v
""")
SHORT_WORDS = _words("is of to at on as by be so no an we it if or am pm cm mm km kg mg ml ft yd mi lb oz hr th st nd rd in sq")
LENGTH = {
    "mm": "1/1000", "cm": "1/100", "dm": "1/10", "m": "1", "km": "1000", "in": "127/5000", "inch": "127/5000", "ft": "381/1250",
    "foot": "381/1250", "feet": "381/1250", "yd": "1143/1250", "yard": "1143/1250", "mile": "201168/125", "mi": "201168/125",
}  # fmt: skip
OTHER_UNITS = {
    "time": {"s": "1", "sec": "1", "second": "1", "min": "60", "minute": "60", "h": "3600", "hr": "3600", "hour": "3600", "day": "86400"},
    "money": {"cent": "1/100", "dollar": "1", "usd": "1"},
    "mass": {"mg": "1/1000", "g": "1", "gram": "1", "kg": "1000", "kilogram": "1000"},
}
LONG_UNITS = {"millimeter": "mm", "centimeter": "cm", "meter": "m", "metre": "m", "kilometer": "km", "centimetre": "cm", "kilometre": "km"}
_OPPOSED = (("am", "pm"), ("north", "south"), ("east", "west"), ("left", "right"), ("up", "down"), ("gain", "loss"), ("profit", "loss"))
OPPOSITES = tuple(pair for a, b in _OPPOSED for pair in ((a, b), (b, a)))  # words after a value that contradict each other
