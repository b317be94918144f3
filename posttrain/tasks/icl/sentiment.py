"""The tone of financial news (Financial PhraseBank, arXiv 1307.5336) under its own labels, rotated ones, or letters.

Can shots override what the model was trained to say? Flipped labels are the three rotated by one; abstract labels are A, B, C. The file is
the authors' own, one "sentence@label" a line (ISO-8859-1), or rows with `sentence` and `label`, a word or its number.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.tasks.files import kind_of, read_lines
from posttrain.tasks.icl.draw import draw, shuffled
from posttrain.tasks.source import READERS, Row, read_rows
from posttrain.types import DataError, FinalAnswer, Problem

Labels: TypeAlias = Literal["default", "flipped", "abstract"]
TONES = ("negative", "neutral", "positive")
WRITTEN: dict[Labels, tuple[str, ...]] = {"default": TONES, "flipped": ("neutral", "positive", "negative"), "abstract": ("A", "B", "C")}


@config
class SentimentInContext:
    """Sentences to label, behind labelled ones."""

    kind: Literal["sentiment"] = "sentiment"
    source: str = "hub:takala/financial_phrasebank:sentences_allagree:train"
    """All sentences; pool and test are drawn from it."""
    labels: Labels = "default"
    """What stands for negative, neutral, positive: those words, "flipped" (each the next one's), or "abstract" (A, B, C)."""
    test_items: int = Field(default=200, ge=1)
    """How many sentences to test on; the others are the pool."""
    draw_seed: int = 0
    """Seed of which sentences are which."""


def make_icl(cfg: SentimentInContext) -> InContextTask:
    return InContextTask(
        name=f"sentiment_{cfg.labels}",
        load=lambda split: load(cfg, split),
        layout=Layout(
            question_label="Input:\n",
            answer_label="\nOutput:\n",
            divider="\n\n",
            announce="You will be given inputs like these:",
            instruction=f"Write the label of the input, one of {', '.join(WRITTEN[cfg.labels])}, and nothing else.",
        ),
        score=score,
        choices=WRITTEN[cfg.labels],
        weigh=confidence,
        max_tokens=8,
        stop=("\n",),
    )


def load(cfg: SentimentInContext, split: str) -> list[Problem]:
    """The sentences of a split, each once; one that stands with two labels has no right answer and is in neither split."""
    if split not in ("pool", "test"):
        raise DataError(f"sentiment: no split {split!r}; expected pool or test")
    tones: dict[str, set[str]] = defaultdict(set)
    for sentence, tone in _rows(cfg.source):
        tones[sentence].add(tone)
    problems = shuffled(
        [_problem(sentence, next(iter(said)), cfg.labels) for sentence, said in tones.items() if len(said) == 1], cfg.draw_seed
    )
    if len(problems) <= cfg.test_items:
        raise DataError(f"{cfg.source}: has {len(problems)} sentences, so none are left for the pool after {cfg.test_items} to test on")
    return problems[: cfg.test_items] if split == "test" else problems[cfg.test_items :]


def score(pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
    """1.0 for the label itself; a label with words around it is another text."""
    return [float(text.strip() == problem.final_answer) for problem, text in pairs]


def confidence(weighed: Sequence[tuple[Problem, Mapping[str, float]]]) -> dict[str, float]:
    """The mean probability of the right label among the labels, and how often it is the likeliest."""
    right = [probs[problem.final_answer] for problem, probs in weighed]
    first = [max(probs, key=probs.__getitem__) == problem.final_answer for problem, probs in weighed]
    return {"confidence": sum(right) / len(right), "likeliest is right": sum(first) / len(first)}


def _problem(sentence: str, tone: str, labels: Labels) -> Problem:
    label = WRITTEN[labels][TONES.index(tone)]
    name = f"sentence/{draw(sentence):016x}"
    return Problem(id=name, question=sentence, reference=FinalAnswer(text=label), subject=tone, solution=label)


def _rows(source: str) -> list[tuple[str, str]]:
    """(sentence, tone) of every row; raises `DataError` on another label."""
    path = Path(source)
    if source.startswith("hub:") or kind_of(path) in READERS or kind_of(path) == ".jsonl":
        found = [(row.where, row.text("sentence"), _tone(row)) for row in read_rows(source)]
    else:
        cut = [(where, line.rpartition("@")) for where, line in read_lines(path, encoding="iso-8859-1")]
        found = [(where, sentence, tone) for where, (sentence, _, tone) in cut]
    for where, sentence, tone in found:
        if tone.strip() not in TONES or not sentence.strip():
            expected = "a sentence, '@' and negative, neutral or positive"
            raise DataError(f"{where}: expected {expected}; found the sentence {sentence[:40]!r} and the label {tone[:40]!r}")
    return [(" ".join(sentence.split()), tone.strip()) for _, sentence, tone in found]


def _tone(row: Row) -> str:
    """A label that is a number counts from negative, as the hub's data set does."""
    label = row.fields.get("label")
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(TONES):
        return TONES[label]
    return row.text("label")
