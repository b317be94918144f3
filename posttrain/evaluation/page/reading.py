"""What the page's reader shows: items with their attempts, as a small index that is read at once and compressed chunks read on demand.

An item is one problem (or one item of an in-context run) as one model answered it, again and again. Nothing here is markup: the page makes
text nodes of it.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.evaluation.page.tokens import Pieces
from posttrain.run import seed_for

MOST_ITEMS = 20_000
MOST_CHARS = 100_000_000  # of all attempts together: compressed and as base64 about a third of it
MOST_TEXT = 20_000  # of one attempt: a runaway completion should not make the page heavy
MOST_TOKENS = 8_000_000
CHUNK_CHARS = 200_000
MATHS = re.compile(r"\\\(|\\\[|\$\$|\\begin\{|\\[a-zA-Z]+\{|\$[^\s$](?:[^$\n]*[^\s$])?\$(?!\d)|[\^_]\{")
FLAGS = ("changed", "copied", "truncated", "unscored", "disagree")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One answer and what a grader made of it."""

    text: str
    answer: str | None
    status: str
    cut: bool = False
    num_tokens: int = 0
    why: str = ""
    rule: str = ""
    gold_form: str = ""
    pred_form: str = ""
    given: bool = False
    note: str = ""
    """What happened to it besides."""
    second: tuple[tuple[str, str], ...] = ()
    """(grader, status): other graders' verdicts on the same answer."""
    prompt_ids: tuple[int, ...] = ()
    """What is new in this attempt's prompt."""
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    model: int
    id: str
    sample: int
    outcome: int
    """Which of the reader's outcomes, -1 for none."""
    question: str
    reference: str
    attempts: tuple[Attempt, ...]
    group: str = ""
    tests: str = ""
    """The test program, where the reference is one; then attempts are code."""
    edit: float | None = None
    """Edit-distance ratio of the attempts that `outcome` compares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """All that the reader needs. `outcomes` are (key, label); `labels` names the attempts of each model."""

    models: tuple[str, ...]
    outcomes: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, ...], ...]
    items: tuple[Item, ...]
    compared: tuple[int, int] = (0, 1)
    """Which two attempts stand side by side at first; -1 is the last."""
    pieces: tuple[Pieces | None, ...] = ()
    """Per model, its tokens as text; None where no tokenizer was found."""
    sampling: str = "sample"
    """What the samples of an item are."""
    num_all: int = 0
    """How many items there are on disk; more than `items` where the page would be too heavy."""


def kept(items: Sequence[Item]) -> list[Item]:
    """As many as the page can hold, picked by a hash of the problem, so that models keep the same ones; in their order."""
    order = sorted(range(len(items)), key=lambda i: (seed_for("page", items[i].id, items[i].sample), i))
    chosen: list[int] = []
    chars = 0
    for i in order[:MOST_ITEMS]:
        chars += sum(min(len(attempt.text), MOST_TEXT) for attempt in items[i].attempts)
        if chars > MOST_CHARS and chosen:
            break
        chosen.append(i)
    return [items[i] for i in sorted(chosen)]


def needs(items: Iterable[Item]) -> tuple[bool, bool]:
    """Is there mathematics to render, is there code to colour?"""
    maths = code = False
    for item in items:
        code = code or bool(item.tests) or any("```" in attempt.text for attempt in item.attempts)
        maths = maths or any(MATHS.search(text) for text in (item.question, item.reference, *(a.text for a in item.attempts)))
        if maths and code:
            break
    return maths, code


def index(reading: Reading) -> dict[str, Any]:
    """Columns over all items: everything that filters and the list need."""
    items = reading.items
    groups = list(dict.fromkeys(item.group for item in items))
    statuses = list(dict.fromkeys(attempt.status for item in items for attempt in item.attempts))
    return {
        "models": reading.models,
        "outcomes": reading.outcomes,
        "labels": reading.labels,
        "compared": reading.compared,
        "sampling": reading.sampling,
        "flags": FLAGS,
        "groups": groups,
        "statuses": statuses,
        "all": reading.num_all or len(items),
        "model": [item.model for item in items],
        "id": [item.id for item in items],
        "sample": [item.sample for item in items],
        "outcome": [item.outcome for item in items],
        "flag": [_flags(item, reading.compared) for item in items],
        "group": [groups.index(item.group) for item in items],
        "head": [" ".join(item.question[:160].split())[:90] for item in items],
        "status": [[statuses.index(attempt.status) for attempt in item.attempts] for item in items],
        "answer": [[None if item.tests else a.answer and a.answer[:40] for a in item.attempts] for item in items],
        "chunks": [len(chunk) for chunk in _chunks(items)],
    }


def chunks(reading: Reading) -> Iterator[str]:
    """The items' texts and verdicts, packed; chunk k holds the next `index["chunks"][k]` items."""
    for chunk in _chunks(reading.items):
        yield packed([_details(item) for item in chunk])


def token_chunks(reading: Reading) -> Iterator[str]:
    """As `chunks`: per item and attempt the new prompt as text, its ids, and the sampled ids; nothing past `MOST_TOKENS` ids."""
    told = 0
    for chunk in _chunks(reading.items):
        rows: list[Any] = []
        for item in chunk:
            told += sum(len(attempt.prompt_ids) + len(attempt.ids) for attempt in item.attempts)
            pieces = reading.pieces[item.model] if reading.pieces else None
            rows.append(None if told > MOST_TOKENS else [_tokens(attempt, pieces) for attempt in item.attempts])
        yield packed(rows)


def packed(value: Any) -> str:
    """JSON, gzipped, as base64: the same bytes for the same value."""
    squeeze = zlib.compressobj(6, zlib.DEFLATED, 31)
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return base64.b64encode(squeeze.compress(plain) + squeeze.flush()).decode()


def _chunks(items: Sequence[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += 400 + len(item.question) + sum(min(len(attempt.text), MOST_TEXT) for attempt in item.attempts)
        if size > CHUNK_CHARS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _details(item: Item) -> dict[str, Any]:
    attempts = [
        {
            "text": a.text[:MOST_TEXT],
            "more": max(0, len(a.text) - MOST_TEXT),
            "answer": a.answer,
            "cut": a.cut,
            "tokens": a.num_tokens,
            "why": a.why,
            "rule": a.rule,
            "gold": a.gold_form,
            "pred": a.pred_form,
            "given": a.given,
            "note": a.note,
            "second": a.second,
        }
        for a in item.attempts
    ]
    fields = {"question": item.question, "reference": item.reference, "tests": item.tests, "edit": item.edit}
    return {**fields, "attempts": [{key: value for key, value in each.items() if value or key == "text"} for each in attempts]}


def _flags(item: Item, compared: tuple[int, int]) -> int:
    first, second = (item.attempts[k] for k in compared)
    claims = {
        "changed": first.answer != second.answer,
        "copied": first.text == second.text and first is not second,
        "truncated": any(attempt.cut for attempt in item.attempts),
        "unscored": any(attempt.status in ("unscored", "gold_unparsable") for attempt in item.attempts),
        "disagree": any(_disagree(a.status, said) for a in item.attempts for _, said in a.second),
    }
    return sum(1 << i for i, name in enumerate(FLAGS) if claims[name])


def _disagree(status: str, said: str) -> bool:
    """One says right and the other does not; who could not judge does not disagree."""
    judged = {status, said}.isdisjoint(("unscored", "gold_unparsable", "not asked"))
    return judged and (status == "correct") != (said == "correct")


def _tokens(attempt: Attempt, pieces: Pieces | None) -> list[Any]:
    text = pieces.text(attempt.prompt_ids) if pieces else None
    return [text, attempt.prompt_ids, attempt.ids]
