"""The program in a model's answer: a fenced block, a definition, or the bare continuation of the problem's prompt.

Reading is by lines and regular expressions, never by compiling: this runs in the process that trains. What comes out is put behind
the prompt, so that its imports and helpers are there; a definition of the function asked for then replaces the prompt's own, whose
body is a docstring.
"""

import re
import textwrap
from dataclasses import dataclass
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["continuation", "block", "definition"]
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
_CODE = re.compile(r"^(?:def|class|import|from|async def|@\w)\b|^@\w|^[A-Za-z_]\w*(?:\s*:[^=\n]+)?\s*=[^=]", re.MULTILINE)
_GOES_ON = re.compile(
    r"""[\s#@)\]}"']|$|(?:def|class|import|from|async|if|elif|else|for|while|try|except|finally|with|assert|return|pass)\b|[\w.\[\]'"]+\s*[=(+\[:-]|print\b"""
)
_FUTURE = re.compile(r"^from __future__ import [\w, ]+\n", re.MULTILINE)
_PYTHON = {"", "python", "python3", "py", "py3", "python2", "sage"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Source text and how it stood in the answer."""

    source: str
    form: Form


def program_in(text: str, *, prompt: str, entry_point: str) -> tuple[str, Form] | None:
    """The whole program that an answer makes with its problem's prompt, and how it was found; None where the answer holds no code."""
    found = code_in(text, entry_point)
    if found is None:
        return None
    if not prompt or found.form == "continuation":
        return prompt + found.source, found.form
    future = "".join(_FUTURE.findall(found.source))  # which Python wants before all else
    return f"{future}{prompt}\n\n{_FUTURE.sub('', found.source)}", found.form


def code_in(text: str, entry_point: str = "") -> Found | None:
    """The code of an answer.

    A text that starts indented goes on where the prompt ends and is taken letter by letter, as the benchmark's own harness does. Else
    the last fenced block that defines `entry_point` decides, or the last one with code in it; a fence that never closes reaches to the
    end. Without fences it is the text from its first definition or import on, up to where prose follows.
    """
    if not text.strip():
        return None
    if _is_indented(text):
        return Found(source=text, form="continuation")
    blocks = _fenced(text)
    if blocks:
        defining = [block for block in blocks if _defines(block, entry_point)]
        block = (defining or [block for block in blocks if block.strip()] or [""])[-1]
        if not block.strip():
            return None
        return Found(source=block, form="continuation" if _is_indented(block) else "block")
    start = _CODE.search(text)
    if start is None:
        return None
    return Found(source=_without_tail(text[start.start() :]), form="definition")


def _is_indented(text: str) -> bool:
    return text.lstrip("\r\n")[:1] in (" ", "\t")


def _defines(block: str, entry_point: str) -> bool:
    name = re.escape(entry_point.strip())
    return bool(entry_point) and re.search(rf"^(?:(?:async )?def|class)\s+{name}\b|^{name}\s*=", block, re.MULTILINE) is not None


def _fenced(text: str) -> list[str]:
    """The contents of fenced blocks, those named as another language left out; a fence closes with as many of the same marks."""
    blocks: list[str] = []
    fences = list(_FENCE.finditer(text))
    at = 0
    while at < len(fences):
        opening = fences[at]
        closes = (i for i in range(at + 1, len(fences)) if fences[i][1].startswith(opening[1]) and not fences[i][2])
        at = next(closes, len(fences))
        end = fences[at].start() if at < len(fences) else len(text)
        at += 1
        if opening[2].lower() in _PYTHON:
            content = text[opening.end() : end].removeprefix("\n")
            blocks.append(textwrap.dedent(content) if opening[0][:1].isspace() else content)  # a block within a list
    return blocks


def _without_tail(code: str) -> str:
    """The lines up to the first at the left margin that no statement starts with, as the prose after a program."""
    lines = code.splitlines(keepends=True)
    quotes = 0
    for number, line in enumerate(lines):
        if quotes % 2 == 0 and not _GOES_ON.match(line):
            return "".join(lines[:number])
        quotes += line.count('"""') + line.count("'''")
    return code
