r"""The final answer of a text: what stands in its last \boxed{}, after its last "#### ", or in its closing line.

Reading is one pass over the text whatever the model wrote: a million characters take well under a second.
"""

import re
from typing import Literal, NamedTuple

How = Literal["box", "open box", "hashes", "closing line", "program output", "last formula", "last number"]


class Found(NamedTuple):
    """An answer as it is written in the text, and how it was found."""

    text: str
    how: How


_BOX = re.compile(r"\\(?:begin)?(?:boxed|fbox)\s*\{|\\(?:boxed|fbox)\s+([^\s{}$\\]+)|\\.|[{}]", re.DOTALL)
_ESCAPED_BOX = re.compile(r"(?<!\\)\\\\(?=(?:boxed|fbox)\s*\{)")
BEFORE_BOX = 20_000  # characters before the last box in which others may belong to it
MOST_JOINED = 12
LONGEST_LINE = 500  # characters of a closing line that are read
LAST_CHARACTERS = 4_000  # in which a fallback is looked for
MOST_CLOSINGS = 30  # mentions of "answer" that are tried, from the last on
_DECORATION = re.compile(r"[\s$.{}]|\\(?:text|qquad|quad|boxed|fbox|[()\[\],; ])")
_JOINS = {",", "and", "or", ",and", ",or"}
_WORDS_AND = re.compile(r"[\s$]*(?:[a-z]+\s+){0,2}(?:and|or)[\s$]*")
_HASHES = re.compile(r"^####[ \t]*(-?\$?[ \t]*-?[\d.,/]*\d[\d.,/%]*)", re.MULTILINE)
_IS = r"[*_\s]{0,4}(?:is|are|was|be|:|=|est|es|ist|lautet|是|为|：)[*_:\s]{0,6}"
_CLOSINGS = {
    **{
        word: re.compile(rf"{word}\b(?:\s(?:should|would|must|will|finale?|thus|therefore|hence))?{_IS}")
        for word in ("nswer", "NSWER", "ponse", "spuesta", "ntwort", "вет")
    },
    "答案": re.compile(rf"答案{_IS}"),
    "A:": re.compile(r"A:[ \t]*"),
}
_HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct.*|<\|im_(?:start|end)\|>.*", re.IGNORECASE)
_SPAN = re.compile(r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_PREDICATE = re.compile(r"[A-Za-z](?:[^.]|\.\d)*\s(?:is|are|equals)\s+(?=[-$\\\d(\[{])")
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])-?\$?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+,\d\d(?![\d,])|\d+)?(?:\.\d+|(?<=\d)/\d+)?(?<=\d)(?:\\?%)?")


def final_answer(text: str) -> str | None:
    r"""The answer that `text` commits to, as it is written there, or None.

    A box decides if there is one that closes: the last; where it is empty the text has no answer. Otherwise the later of
    "#### n" and a closing line ("The final answer is $X$. I hope it is correct.", "Answer: X", "A: X") decides, then a box that was
    never closed, then what a program that the text shows printed last (a block "```output").
    """
    found = find_answer(text)
    return found and found.text


def find_answer(text: str) -> Found | None:
    """`final_answer` with how it was found."""
    if "boxed" in text or "fbox" in text:
        box = _last_box(text)
        if box is not None:
            return Found(box.strip(), "box") if box.strip() else None
    hashes = _last(_HASHES, text) if "####" in text else None
    closing = _last_closing(text)
    if hashes and (not closing or hashes.start() > closing.start()):
        return Found(hashes[1].strip().rstrip(".,"), "hashes")
    if closing and (answer := _of_closing_line(_next_line(text, closing.end()))):
        return Found(answer, "closing line")
    return _open_box(text) or _program_output(text)


def fallback_answer(text: str) -> Found | None:
    """The last formula or number in the prose, whichever is later: a guess at what a text meant that commits to nothing."""
    text = _HOPE.sub("", text[-LAST_CHARACTERS:])
    span, number = _last(_SPAN, text), _last(_NUMBER, text)
    if span and (not number or number.end() <= span.end()):
        return Found(next(group for group in span.groups() if group is not None).strip(), "last formula")
    return Found(number[0], "last number") if number else None


def _last_box(text: str) -> str | None:
    r"""The content of the box that opens last among those that close; escaped braces (\{ \}) do not count.

    Boxes that only "and", "or", a comma or a space joins are one answer: $\boxed{2}$ and $\boxed{-2}$ is "2, -2".
    """
    text = text[max(0, max(text.rfind("boxed"), text.rfind("fbox")) - BEFORE_BOX) :]
    text = _ESCAPED_BOX.sub(r"\\", text)
    open_braces: list[int] = []  # where a box's content starts, -1 for any other brace
    boxes: list[tuple[int, int]] = []
    for match in _BOX.finditer(text):
        token = match[0]
        if match[1] is not None:
            boxes.append(match.span(1))
        elif token == "}":
            start = open_braces.pop() if open_braces else -1
            if start >= 0:
                boxes.append((start, match.start()))
        elif token.endswith("{") and len(token) != 2:  # "{" or "\boxed{", not "\{"
            open_braces.append(match.end() if len(token) > 1 else -1)
    boxes.sort()
    if not boxes:
        return None
    answers = [text[slice(*boxes[-1])]]
    for before, after in zip(reversed(boxes[-MOST_JOINED:-1]), reversed(boxes[-MOST_JOINED + 1 :])):
        if not answers[0].strip() or before[1] > after[0] or not _joins(text[before[1] : after[0]]):
            break
        answers.append(text[slice(*before)])
    return ", ".join(dict.fromkeys(answer.strip() for answer in reversed(answers)))


def _joins(between: str) -> bool:
    """Whether what stands between two boxes makes them one answer."""
    if len(between) > 80:
        return False
    bare = _DECORATION.sub("", between)
    if not bare:
        return "\n" not in between
    inside = between.partition("}")[2].rpartition("\\")[0]  # between the end of one box and the command of the next
    return bare in _JOINS or _WORDS_AND.fullmatch(inside) is not None


def _open_box(text: str) -> Found | None:
    """A box whose last brace was forgotten: its content up to the end of the formula or line, if its own braces are balanced."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    inside = re.split(r"\$|\n|\\\)|\\\]", text[text.index("{", start) + 1 :][:LONGEST_LINE], maxsplit=1)[0].strip().rstrip(".")
    return Found(inside, "open box") if inside and inside.count("{") == inside.count("}") else None


def _program_output(text: str) -> Found | None:
    start = text.rfind("```output\n")
    printed = text[start + 10 :][:LONGEST_LINE].partition("```")[0].strip() if start >= 0 else ""
    return Found(printed.rpartition("\n")[2], "program output") if printed else None


def _last_closing(text: str) -> re.Match[str] | None:
    """The last "answer is" of any kind."""
    latest = None
    for word, pattern in _CLOSINGS.items():
        at = text.rfind(word)
        for _ in range(MOST_CLOSINGS):
            if at < 0 or (latest and at < latest.start()):
                break
            match = pattern.match(text, at)
            if match and (word != "A:" or not text[:at].rpartition("\n")[2].strip()):
                latest = match
                break
            at = text.rfind(word, 0, at)
    return latest


def _next_line(text: str, start: int) -> str:
    """The rest of the line, or the line after it where that is empty."""
    line, _, rest = text[start : start + LONGEST_LINE].partition("\n")
    return line if line.strip(" *_$:.") else rest.lstrip().partition("\n")[0]


def _of_closing_line(line: str) -> str | None:
    """The answer in the rest of a closing line: its formula if it starts with one, what a sentence says, else the sentence."""
    line = _HOPE.sub("", line).strip().strip("*_ ")
    span = _SPAN.match(line)
    if span and not re.match(r"\s*(?:,|and\b|or\b)", line[span.end() :]):
        return next(group for group in span.groups() if group is not None).strip() or None
    end = _SENTENCE_END.search(line)
    sentence = line[: end.start()] if end else line
    if predicate := _PREDICATE.match(sentence):
        sentence = sentence[predicate.end() :]
    return sentence.strip().strip("*_ ") or None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007
        pass
    return match
