"""One-sentence summaries of news, in the layouts of XSum (arXiv 1808.08745) and XLSum (arXiv 2106.13822); ROUGE-L by rouge-score.

Both are tested behind the same shots, from XSum's validation split: XLSum shows what carries over to articles written elsewhere. Only
XLSum's English part can be scored so: rouge-score reads the letters a to z and digits alone.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from rouge_score.rouge_scorer import RougeScorer

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.tasks.icl.draw import shuffled
from posttrain.tasks.source import Row, Source, read_split
from posttrain.types import FinalAnswer, Problem

ROUGE_L = RougeScorer(["rougeL"], use_stemmer=True)
LAYOUT = Layout(
    question_label="Article:\n",
    answer_label="\nSummary:\n",
    divider="\n\n----------\n\n",
    announce="You will be given articles like these:",
    instruction="Summarize the article in one sentence. Write only the summary.",
)


@config
class SummariesInContext:
    """Articles to sum up in a sentence, behind summed-up ones."""

    kind: Literal["summaries"] = "summaries"
    sources: dict[str, Source] = Field(default={"pool": "hub:EdinburghNLP/xsum:validation", "test": "hub:EdinburghNLP/xsum:test"})
    """`pool` and `test`: rows with `document` (XSum) or `text` (XLSum), `summary`, and `id` where there is one."""
    test_items: int | None = Field(default=150, ge=1)
    """How many test articles, drawn by a hash of their ids; 150 in the paper, null for all."""
    draw_seed: int = 0
    """Seed of which test articles these are."""


def make_icl(cfg: SummariesInContext) -> InContextTask:
    return InContextTask(
        name="summaries", load=lambda split: load(cfg, split), layout=LAYOUT, score=score, metric="ROUGE-L", max_tokens=96, stop=("\n",)
    )


def load(cfg: SummariesInContext, split: str) -> list[Problem]:
    found = read_split(cfg.sources, split, _problem, None)
    return shuffled(found.problems, cfg.draw_seed)[: cfg.test_items] if split == "test" else found.problems


def score(pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
    """ROUGE-L (F1 over stemmed words) against the one reference summary, from 0 to 1."""
    return [ROUGE_L.score(problem.final_answer, text)["rougeL"].fmeasure for problem, text in pairs]


def _problem(row: Row, number: str) -> Problem | None:
    """None for an article without a summary or without a text, of which XSum has a few."""
    article, summary = row.text("document", "text").strip(), row.text("summary").strip()
    if not article or not summary:
        return None
    name = str(row.fields.get("id", number))
    return Problem(id=name, question=article, reference=FinalAnswer(text=summary), solution=summary)
