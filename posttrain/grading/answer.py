r"""The final answer of a text: what stands in its last \boxed{}, after its last "#### ", or in its closing line.

Reading is one pass over the text whatever the model wrote: a million characters take well under a second.
"""

import re
from typing import Literal

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\(?:boxed|fbox)\s+([^\s{}$\\]+)|\\.|[{}]", re.DOTALL)
MOST_JOINED = 12
LONGEST_LINE = 500  # characters of a closing line that are read
_DECORATION = re.compile(r"[\s$.{}]|\\(?:text|qquad|quad|boxed|fbox|[()\[\],; ])")
_JOINS = {",", "and", "or", ",and", ",or"}
_HASHES = re.compile(r"^####[ \t]*(-?\$?[ \t]*-?[\d.,/]*\d[\d.,/%]*)", re.MULTILINE)
_CLOSING = re.compile(r"(?:\b(?:final\s+)?answer\b[*_\s]{0,4}(?:is|are|:|=)[*_:\s]{0,6}|^[ \t]*A:[ \t]*)", re.IGNORECASE | re.MULTILINE)
_HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct.*", re.IGNORECASE)
_SPAN = re.compile(r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_NUMBER = re.compile(r"(?<![\w.])-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d)/\d+)?(?<=\d)%?")


def final_answer(text: str, *, fallback: Literal["none", "last_number"] = "none") -> str | None:
    r"""The answer that `text` commits to, as it is written there, or None.

    A box decides if there is one that closes: the last; where it is empty the text has no answer. Otherwise the later of
    "#### n" and a closing line ("The final answer is $X$. I hope it is correct.", "Answer: X", "A: X") decides. Only with
    `fallback="last_number"` does a bare number in the prose count.
    """
    box = _last_box(text)
    if box is not None:
        return box.strip() or None
    hashes = _last(_HASHES, text)
    closing = _last(_CLOSING, text)
    if hashes and (not closing or hashes.start() > closing.start()):
        return hashes[1].strip().rstrip(".,")
    if closing and (answer := _of_closing_line(text[closing.end() : closing.end() + LONGEST_LINE].partition("\n")[0])):
        return answer
    if fallback == "last_number" and (number := _last(_NUMBER, text)):
        return number[0]
    return None


def _last_box(text: str) -> str | None:
    r"""The content of the box that opens last among those that close; escaped braces (\{ \}) do not count.

    Boxes that only "and", "or" or a comma joins are one answer: $\boxed{2}$ and $\boxed{-2}$ is "2, -2".
    """
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
        between = text[before[1] : after[0]]
        if len(between) > 80 or _DECORATION.sub("", between) not in _JOINS:
            break
        answers.append(text[slice(*before)])
    return ", ".join(dict.fromkeys(answer.strip() for answer in reversed(answers)))


def _of_closing_line(line: str) -> str | None:
    """The answer in the rest of a closing line: its formula if it starts with one, else its first sentence."""
    line = _HOPE.sub("", line).strip().strip("*_ ")
    span = _SPAN.match(line)
    if span and not re.match(r"\s*(?:,|and\b|or\b)", line[span.end() :]):
        return next(group for group in span.groups() if group is not None).strip() or None
    end = _SENTENCE_END.search(line)
    return (line[: end.start()] if end else line).strip().strip("*_ ") or None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007
        pass
    return match
