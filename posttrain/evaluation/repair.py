"""`posttrain data repair`: wrong answers of another model, kept to be repaired, as in MBPP-R (arXiv 2409.12917, Table 3).

Answers are graded again here; those that fail stay, each once. One that fails although its source calls it right was written for other
tests, another signature say, and is left out: there is no mistake in it to find. What comes out are episodes of one given attempt, which
`first_attempts` of a suite reads.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from posttrain.complaint import nearest
from posttrain.jsonl import read_objects
from posttrain.rollout.store import from_row, write_episodes
from posttrain.tasks import make_task
from posttrain.tasks.check import task_config
from posttrain.types import Completion, DataError, Episode, Problem, Task, Turn, Verdict

CHUNK = 256
NOT_SAMPLED = Completion(ids=(), logprobs=(), finish="stop")
TEXTS = ("solution", "completion", "text")  # fields that may hold an answer
EPILOG = """\
Examples:
    posttrain data repair evals/suites/mbpp_r.yaml completions.jsonl.gz --out runs/mbpp_r/wrong.jsonl
    posttrain data repair evals/suites/mbpp_r.yaml runs/eval/mbpp_two_attempts/weak/episodes.jsonl --out runs/mbpp_r/wrong.jsonl
    posttrain eval evals/suites/mbpp_r.yaml --model MODEL

Each FILE holds rows with a task_id (or problem) and the answer in `solution`, `completion` or `text`; or episodes as `posttrain eval`
writes them, of which first attempts are taken. Rows of problems that the split does not have are left out and counted. Not kept are answers
with no program in them, those that the grader could not judge, and those that fail here though their `passed` (or `expected`) is true:
they were written for other tests. Two answers that differ in layout alone are one.
Exit codes: 0 written, 1 nothing was wrong or no isolation is to be had, 2 the call or a file was wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer from outside; `label` is what its source says of it, None where it says nothing."""

    problem: Problem
    text: str
    label: bool | None


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain data repair",
        description="Grade stored answers again and keep the wrong ones as first attempts to be repaired.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", help="a suite or recipe with a `task:` key, or the kind of a task; --task.key VALUE flags win over it")
    parser.add_argument("answers", nargs="+", type=Path, metavar="FILE", help="stored answers, .jsonl or .jsonl.gz")
    parser.add_argument("--split", default="test", help="split whose problems they answer (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the file of first attempts to write")
    args, flags = parser.parse_known_args(argv)
    task = make_task(task_config(args.what, flags))
    answers, strangers = read_answers(args.answers, task.load(args.split), args.split)
    verdicts = _graded(task, answers)
    kept = wrong_episodes(task, answers, verdicts)
    for line in told(answers, verdicts, kept, strangers, args.split):
        print(line)
    if not kept:
        print(f"posttrain: {args.out}: not written, as no answer is wrong", file=sys.stderr)
        return 1
    write_episodes(args.out, kept)
    print(f"written to {args.out}")
    return 0


def read_answers(files: Sequence[Path], problems: Sequence[Problem], split: str) -> tuple[list[Answer], int]:
    """All answers to these problems, and how many others there are; raises `DataError` on a row that holds none."""
    by_id = {name: problem for problem in problems for name in (problem.id.rpartition("/")[2], problem.id)}  # mbpp/11 also as 11
    found: list[Answer] = []
    rows = [located for file in files for located in read_objects(file)]
    for where, row in rows:
        name, text = _answer_of(where, row)
        problem = by_id.get(name)
        if problem:
            label = row.get("passed", row.get("expected"))
            found.append(Answer(problem=problem, text=text, label=label if isinstance(label, bool) else None))
    if not found:
        name = _answer_of(*rows[0])[0]
        raise DataError(f"{rows[0][0]}: none of {len(rows)} rows answers a problem of {split}, e.g. {name!r}{nearest(name, by_id)}")
    return found, len(rows) - len(found)


def wrong_episodes(task: Task, answers: Sequence[Answer], verdicts: Sequence[Verdict]) -> list[Episode]:
    """The different wrong answers as episodes of one attempt, by problem in order of appearance; they hold text, and no token ids."""
    kept: dict[str, dict[str, Episode]] = {}
    for answer, verdict in zip(answers, verdicts, strict=True):
        read = task.answer(answer.text)
        if verdict.scored and not verdict.correct and read is not None and not answer.label:
            others = kept.setdefault(answer.problem.id, {})
            turn = Turn(prompt_ids=(), completion=NOT_SAMPLED, text=answer.text, answer=read, verdict=verdict, given=True)
            others.setdefault(read, Episode(problem=answer.problem, turns=(turn,), sample=len(others)))
    return [episode for others in kept.values() for episode in others.values()]


def told(answers: Sequence[Answer], verdicts: Sequence[Verdict], kept: Sequence[Episode], strangers: int, split: str) -> Iterator[str]:
    """What became of the answers, for a person."""
    statuses = ", ".join(f"{count} {status}" for status, count in Counter(verdict.status for verdict in verdicts).most_common())
    yield f"{len(answers)} answers to {len({answer.problem.id for answer in answers})} problems of {split}: {statuses}"
    if strangers:
        yield f"{strangers} more rows answer problems that {split} does not have"
    labelled = [(answer.label, verdict.correct) for answer, verdict in zip(answers, verdicts) if answer.label is not None]
    if labelled:
        disputed = sum(label and not correct for label, correct in labelled)
        yield f"{sum(label == correct for label, correct in labelled)} of {len(labelled)} labels say the same"
        yield f"{disputed} fail here and are called right by their source: left out, as written for other tests"
    yield f"kept: {len(kept)} different wrong answers to {len({episode.problem.id for episode in kept})} problems"


def _graded(task: Task, answers: Sequence[Answer]) -> list[Verdict]:
    with tqdm(total=len(answers), desc="grading", unit="answer", disable=not sys.stderr.isatty()) as bar:
        verdicts: list[Verdict] = []
        for start in range(0, len(answers), CHUNK):
            verdicts += task.grade([(answer.problem, answer.text) for answer in answers[start : start + CHUNK]])
            bar.update(len(verdicts) - start)
    return verdicts


def _answer_of(where: str, row: dict) -> tuple[str, str]:
    """The problem's id and the text; raises `DataError`."""
    if "turns" in row:
        try:
            episode = from_row(row)
            return episode.problem.id, episode.turns[0].text
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"{where}: not an episode: {error!r}") from None
    name = row.get("task_id", row.get("problem"))
    text = next((row[field] for field in TEXTS if isinstance(row.get(field), str)), None)
    if isinstance(name, bool) or not isinstance(name, str | int) or text is None:
        found = ", ".join(map(repr, row)) or "no fields"
        raise DataError(f"{where}: needs task_id and an answer in one of {', '.join(TEXTS)}; found {found}")
    return str(name), text
