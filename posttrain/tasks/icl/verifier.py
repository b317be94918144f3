"""A verifier made of shots: is this solution right? The likelihood of "Yes" then picks the best of four.

Rows are candidate solutions: `question`, `solution`, and `correct`, the verdict of tests or of a grader. The pool teaches, the test has
four candidates to every problem. P(yes) is normalised over "Yes" and "No"; the accuracy of the picks lies between pass@1 and pass@4 if
the verifier is worth anything.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.tasks.source import Row, Source, read_split
from posttrain.types import DataError, FinalAnswer, Problem

YES, NO = "Yes", "No"
VERDICT_FIELDS = ("correct", "expected", "passed")
LAYOUT = Layout(
    question_label="Problem:\n",
    answer_label="\n\nIs the solution correct?\n",
    divider="\n\n----------\n\n",
    preamble="Solutions to problems follow, each with a word on whether it is correct.\n\n",
    instruction="Say whether the solution is correct: Yes or No.",
)


@config
class VerifierInContext:
    """Candidate solutions to judge, behind judged ones."""

    kind: Literal["verifier"] = "verifier"
    sources: dict[str, Source]
    """`pool` and `test`: rows with `question`, `solution` (or `output`) and `correct` (or `expected`, `passed`); or the episodes.jsonl of
    an evaluation, of which the first attempts are taken."""
    candidates: int = Field(default=4, ge=1)
    """How many solutions of each test problem there are to pick from; the first so many are taken."""
    test_items: int | None = Field(default=200, ge=1)
    """Only the first so many test problems, 200 in the paper; null for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BestOf:
    """What picking is worth, over problems: a random candidate's accuracy, the picks', and that of a picker who is never wrong."""

    problems: int
    pass_1: float
    picked: float
    pass_n: float


def make_icl(cfg: VerifierInContext) -> InContextTask:
    return InContextTask(
        name="verifier",
        load=lambda split: load(cfg, split),
        layout=LAYOUT,
        score=score,
        choices=(YES, NO),
        weigh=figures,
        max_tokens=4,
        stop=("\n",),
    )


def load(cfg: VerifierInContext, split: str) -> list[Problem]:
    """The candidates of a split in the order of the file; the test's are so many to every problem, with ids "problem#candidate"."""
    problems = read_split(cfg.sources, split, _problem, None).problems
    if split != "test":
        return [replace(problem, subject="") for problem in problems]
    by_question: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_question[problem.subject].append(problem)
    for candidates in by_question.values():
        if len(candidates) < cfg.candidates:
            raise DataError(
                f"{candidates[0].id} of {cfg.sources[split]}: its problem has {len(candidates)} candidate solutions, "
                f"task.candidates asks for {cfg.candidates}"
            )
    return [
        replace(one, id=f"{split}/{number}#{nth}", subject="")
        for number, candidates in enumerate(list(by_question.values())[: cfg.test_items], 1)
        for nth, one in enumerate(candidates[: cfg.candidates], 1)
    ]


def score(pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
    """1.0 where the text's first word is the right one of Yes and No."""
    return [float(_first_word(text) == problem.final_answer.lower()) for problem, text in pairs]


def figures(weighed: Sequence[tuple[Problem, Mapping[str, float]]]) -> dict[str, float]:
    """Best-of-n beside its bounds, and the mean P(yes) of right and of wrong solutions."""
    best = best_of([problem for problem, _ in weighed], [probs[YES] for _, probs in weighed])
    named = {"pass@1": best.pass_1, "picked": best.picked, "pass@n": best.pass_n}
    for word, name in ((YES, "P(yes) if right"), (NO, "P(yes) if wrong")):
        probs = [prob[YES] for problem, prob in weighed if problem.final_answer == word]
        named |= {name: sum(probs) / len(probs)} if probs else {}
    return named


def best_of(candidates: Sequence[Problem], prob_yes: Sequence[float]) -> BestOf:
    """Of each problem's candidates the likeliest to be right, by `prob_yes`; among equals a draw is expected, not the first."""
    by_problem: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for candidate, prob in zip(candidates, prob_yes, strict=True):
        by_problem[candidate.id.rpartition("#")[0]].append((prob, candidate.final_answer == YES))
    pass_1 = picked = pass_n = 0.0
    for ranked in by_problem.values():
        highest = max(prob for prob, _ in ranked)
        pass_1 += _share([right for _, right in ranked])
        picked += _share([right for prob, right in ranked if prob == highest])
        pass_n += any(right for _, right in ranked)
    count = len(by_problem)
    return BestOf(problems=count, pass_1=pass_1 / count, picked=picked / count, pass_n=pass_n / count)


def _share(claims: Sequence[bool]) -> float:
    return sum(claims) / len(claims)


def _first_word(text: str) -> str:
    words = text.split(maxsplit=1)
    return words[0].strip(".,!*").lower() if words else ""


def _problem(row: Row, number: str) -> Problem | None:
    """A candidate, None where its verdict is the grader's failure; `subject` is what was asked, by which `load` groups."""
    candidate = _of_episode(row) if "turns" in row.fields else _of_row(row)
    if candidate is None:
        return None
    asked, solution, correct = candidate
    word = YES if correct else NO
    return Problem(id=number, question=f"{asked}\n\nSolution:\n{solution}", reference=FinalAnswer(text=word), subject=asked, solution=word)


def _of_row(row: Row) -> tuple[str, str, bool]:
    name = next((field for field in VERDICT_FIELDS if field in row.fields), None)
    if name is None or not isinstance(row.fields[name], bool):
        found = f"{name!r} as {row.fields[name]!r}" if name else ", ".join(map(repr, row.fields))
        raise DataError(f"{row.where}: expected {' or '.join(map(repr, VERDICT_FIELDS))} as true or false; found {found}")
    return row.text("question").strip(), row.text("solution", "output").strip(), row.fields[name]


def _of_episode(row: Row) -> tuple[str, str, bool] | None:
    """The first attempt of a stored episode, which is a solution with its grader's verdict."""
    try:
        first = row.fields["turns"][0]
        asked, solution, status = row.fields["problem"]["question"], first["text"], first["verdict"]["status"]
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"{row.where}: not an episode: {error!r}") from None
    return None if status in ("unscored", "gold_unparsable") else (asked.strip(), solution.strip(), status == "correct")
