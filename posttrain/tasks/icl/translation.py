"""Translation into a language that the model has hardly seen, in FLORES's layout (arXiv 2207.04672); chrF2++ by sacrebleu.

The 997 sentence pairs of the dev split are the pool, the first 150 of devtest the test. A side is a hub configuration, a table, JSON Lines,
or a text file with one sentence a line (dev/eng_Latn.dev); the two sides of a split go together line by line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from sacrebleu.metrics import CHRF

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.tasks.files import kind_of, read_lines
from posttrain.tasks.source import READERS, read_rows
from posttrain.types import DataError, FinalAnswer, Problem

FIELDS = ("sentence", "text")
CHRFPP = CHRF(word_order=2)  # sacrebleu's signature nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no


@config
class Parallel:
    """Two sources whose rows are translations of each other."""

    source: str
    """The side that is given."""
    target: str
    """The side that is asked for."""


def _flores(split: str) -> Parallel:
    return Parallel(source=f"hub:facebook/flores:eng_Latn:{split}", target=f"hub:facebook/flores:bem_Latn:{split}")


@config
class TranslationInContext:
    """Sentences to translate, behind translated ones."""

    kind: Literal["translation"] = "translation"
    source_language: str = "English"
    target_language: str = "Bemba"
    pool: Parallel = Field(default_factory=lambda: _flores("dev"))
    test: Parallel = Field(default_factory=lambda: _flores("devtest"))
    test_items: int | None = Field(default=150, ge=1)
    """Only the first so many test sentences, 150 in the paper; null for all."""


def make_icl(cfg: TranslationInContext) -> InContextTask:
    given, wanted = cfg.source_language, cfg.target_language
    task = f"You are an expert translator from {given} into {wanted}."
    return InContextTask(
        name="translation",
        load=lambda split: load(cfg, split),
        layout=Layout(
            question_label=f"{given}:\n",
            answer_label=f"\n{wanted}:\n",
            divider="\n\n",
            preamble=f"{task} Sentences with their translations follow; translate the last one in the same way.\n\n",
            announce=f"{task} You will be given sentences like these:",
            instruction=f"Translate the sentence from {given} into {wanted}. Write only the translation.",
        ),
        score=score,
        metric="chrF2++",
        corpus=corpus,
        max_tokens=256,
        stop=("\n",),
    )


def load(cfg: TranslationInContext, split: str) -> list[Problem]:
    """The sentence pairs of a split; raises `DataError` where the two sides differ in length or a sentence is empty."""
    if split not in ("pool", "test"):
        raise DataError(f"translation: no split {split!r}; expected pool or test")
    sides = cfg.pool if split == "pool" else cfg.test
    given, wanted = sentences(sides.source), sentences(sides.target)
    if len(given) != len(wanted):
        raise DataError(
            f"{sides.source} has {len(given)} sentences, {sides.target} has {len(wanted)}; the two must go together line by line"
        )
    problems = [
        Problem(id=f"{split}/{number}", question=source, reference=FinalAnswer(text=target), solution=target)
        for number, (source, target) in enumerate(zip(given, wanted), 1)
    ]
    return problems[: cfg.test_items] if split == "test" else problems


def sentences(source: str) -> list[str]:
    """One sentence for each row or line of a source."""
    path = Path(source)
    if source.startswith("hub:") or kind_of(path) in READERS or kind_of(path) == ".jsonl":
        placed = [(row.where, row.text(*FIELDS)) for row in read_rows(source)]
    else:
        placed = read_lines(path)
    for where, sentence in placed:
        if not sentence.strip():
            raise DataError(f"{where}: an empty sentence; line-by-line files must not lose their order")
    return [sentence.strip() for _, sentence in placed]


def score(pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
    """chrF2++ of each sentence, from 0 to 1."""
    return [CHRFPP.sentence_score(text.strip(), [problem.final_answer]).score / 100 for problem, text in pairs]


def corpus(pairs: Sequence[tuple[Problem, str]]) -> float:
    """chrF2++ of all sentences together, from 0 to 100: n-gram counts are summed before they are divided."""
    return CHRFPP.corpus_score([text.strip() for _, text in pairs], [[problem.final_answer for problem, _ in pairs]]).score
