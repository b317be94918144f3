"""`posttrain regrade EVALUATION --with math-verify|ours`: stored answers graded again, and where the verdicts differ.

The first verdicts stay as they are; the second ones are written beside them, to EVALUATION/verdicts/<grader>.jsonl, one line per attempt.
Nothing is sampled. `ours` is this version's own grader: what an evaluation of an earlier version would be worth today.
"""

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from posttrain.config import ConfigError
from posttrain.evaluation.budget import recorded
from posttrain.evaluation.stats import mcnemar
from posttrain.grading.batch import grade_math
from posttrain.grading.code import grade_code
from posttrain.grading.peer import PEERS, opinions
from posttrain.rollout.store import read_episodes
from posttrain.run import provenance, write_atomic
from posttrain.tasks import TaskConfig, make_task
from posttrain.types import DataError, Episode, Problem, Turn, UnitTests, Verdict

HELP = """\
Grade stored answers again, without sampling, and show where two graders differ.

    posttrain regrade runs/eval/math500_two_attempts/score --with math-verify
    posttrain regrade episodes.jsonl --with ours --items 50

math-verify reads a text itself where it holds a box or dollars; of any other it gets the final answer that our reader finds.
"""
GRADERS = ("ours", *PEERS)
Grade = Callable[[Sequence[tuple[Problem, str]]], list[Verdict]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One stored attempt with both verdicts."""

    problem: str
    sample: int
    attempt: int
    """From 1."""
    gold: str
    answer: str | None
    first: Verdict
    second: Verdict

    @property
    def told(self) -> bool:
        """Do both graders have an opinion?"""
        return self.first.scored and self.second.scored

    @property
    def differs(self) -> bool:
        return self.told and self.first.correct != self.second.correct


def regrade(episodes: Sequence[Episode], grade: Grade, text_of: Callable[[Turn], str] = lambda turn: turn.text) -> list[Answer]:
    """Every attempt with its stored verdict and that of `grade`, which sees each (problem, text) once."""
    asked = [(episode.problem, text_of(turn)) for episode in episodes for turn in episode.turns]
    distinct = {(problem.id, text): (problem, text) for problem, text in asked}
    verdicts = dict(zip(distinct, grade(list(distinct.values())), strict=True))
    return [
        Answer(
            problem=episode.problem.id,
            sample=episode.sample,
            attempt=number,
            gold=getattr(episode.problem.reference, "text", "(unit tests)"),
            answer=turn.answer,
            first=turn.verdict,
            second=verdicts[episode.problem.id, text_of(turn)],
        )
        for episode in episodes
        for number, turn in enumerate(episode.turns, 1)
    ]


def ask_again(name: str, episodes: Sequence[Episode], task: dict[str, Any] | None = None) -> list[Answer]:
    """`regrade` by the grader called `name`, who is shown what it can read; raises `ConfigError`."""
    grade = grader(name, episodes, task)
    return regrade(episodes, grade, _for_peer) if name in PEERS else regrade(episodes, grade)


def grader(name: str, episodes: Sequence[Episode], task: dict[str, Any] | None) -> Grade:
    """The grader called `name` for these problems; `task` is the recorded config. Raises `ConfigError`."""
    programs = isinstance(episodes[0].problem.reference, UnitTests)
    if name == "ours" and task:
        try:
            return make_task(TypeAdapter(TaskConfig).validate_python(task)).grade
        except ValidationError as error:
            said = error.errors()[0]
            raise ConfigError(f"the recorded task cannot be made today: {'.'.join(map(str, said['loc']))}: {said['msg']}") from None
    if name == "ours":
        return grade_code if programs else grade_math
    if programs:
        raise ConfigError(f"--with {name}: it grades mathematics, and these answers are programs; grade them with ours")
    return lambda pairs: _peer_verdicts(name, pairs)


def table(answers: Sequence[Answer], name: str) -> dict[str, Any]:
    """Per attempt: how often both, either or neither accept, accuracy by both, and whether they differ more one way than the other."""
    rows = {}
    for attempt in sorted({answer.attempt for answer in answers}):
        told = [answer for answer in answers if answer.attempt == attempt and answer.told]
        counts = Counter((answer.first.correct, answer.second.correct) for answer in told)
        rows[f"t{attempt}"] = {
            "answers": sum(answer.attempt == attempt for answer in answers),
            "no_opinion": sum(answer.attempt == attempt and not answer.told for answer in answers),
            "both_accept": counts[True, True],
            "stored_only": counts[True, False],
            f"{name}_only": counts[False, True],
            "both_reject": counts[False, False],
            "accuracy_stored": _share(counts[True, True] + counts[True, False], len(told)),
            f"accuracy_{name}": _share(counts[True, True] + counts[False, True], len(told)),
            "p_value": mcnemar(counts[True, False], counts[False, True]),
        }
    return rows


def as_text(answers: Sequence[Answer], name: str, items: int) -> str:
    """The table, then the answers on which the graders differ."""
    lines = [f"{'':<10}{'answers':>9}{'no opinion':>12}{'both accept':>13}{'stored only':>13}{name + ' only':>18}{'both reject':>13}"]
    for attempt, row in table(answers, name).items():
        figures = f"{row['both_accept']:>13}{row['stored_only']:>13}{row[f'{name}_only']:>18}{row['both_reject']:>13}"
        lines.append(f"{attempt:<10}{row['answers']:>9}{row['no_opinion']:>12}{figures}")
        accuracy = [row["accuracy_stored"], row[f"accuracy_{name}"]]
        lines.append(f"{'':<10}accuracy: stored {100 * accuracy[0]:.2f}, {name} {100 * accuracy[1]:.2f}")
    differing = [answer for answer in answers if answer.differs]
    lines.append(f"\n{len(differing)} of {len(answers)} answers are judged differently" + (":" if differing and items else ""))
    for answer in differing[:items]:
        where = f"{answer.problem} sample {answer.sample} t{answer.attempt}"
        lines.append(f"  {where}: stored {answer.first.status}, {name} {answer.second.status}: {answer.gold!r:.60} | {answer.answer!r:.60}")
    if len(differing) > items:
        lines.append(f"  ... and {len(differing) - items} more; the verdicts file has them all")
    return "\n".join(lines)


def cli(argv: Sequence[str]) -> int:
    """`posttrain regrade`."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="posttrain regrade", description=HELP, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("evaluation", type=Path, help="an evaluation's folder, or a file of episodes")
    parser.add_argument("--with", dest="name", choices=GRADERS, required=True, help="the grader to ask")
    parser.add_argument("--items", type=int, default=20, metavar="N", help="list so many answers that are judged differently (default: 20)")
    parser.add_argument("--out", type=Path, help="file for the second verdicts (default: verdicts/<grader>.jsonl beside the episodes)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    args = parser.parse_args(argv)
    file = args.evaluation / "episodes.jsonl" if args.evaluation.is_dir() else args.evaluation
    if args.evaluation.is_dir() and not file.is_file():
        inside = next(iter(sorted(args.evaluation.rglob("eval/*/episodes.jsonl"))), None)
        hint = f"name an evaluation in it, such as {inside.parent}" if inside else "expected a folder made by posttrain eval"
        raise ConfigError(f"{args.evaluation}: holds no episodes.jsonl; {hint}")
    episodes = list(read_episodes(file))
    if not episodes:
        raise DataError(f"{file}: holds no episode")
    answers = ask_again(args.name, episodes, recorded(file.parent).get("task"))
    out = args.out or verdicts_file(file.parent, args.name)
    write(out, answers)
    print(json.dumps(table(answers, args.name)) if args.json else f"{as_text(answers, args.name, args.items)}\nverdicts in {out}")
    return 0


def verdicts_file(evaluation: Path, name: str) -> Path:
    """Where the verdicts of the grader called `name` are kept; the page shows what stands there."""
    return evaluation / "verdicts" / f"{name}.jsonl"


def write(out: Path, answers: Sequence[Answer]) -> None:
    """The second verdicts, a line each, and beside them who gave them; raises `ConfigError`."""
    rows = [
        {"problem": a.problem, "sample": a.sample, "attempt": a.attempt, **dataclasses.asdict(a.second), "stored": a.first.status}
        for a in answers
    ]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        write_atomic(out.with_suffix(".provenance.json"), json.dumps(provenance(), indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{out}: cannot write the verdicts: {error.strerror}") from None


def _for_peer(turn: Turn) -> str:
    """The whole text where it holds a box or dollars, else the final answer that our reader found in it, if any."""
    return turn.text if "\\boxed" in turn.text or "$" in turn.text else turn.answer or ""


def _peer_verdicts(name: str, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
    asked = [i for i, (_, text) in enumerate(pairs) if text]
    said = dict(zip(asked, opinions(name)([(pairs[i][0].final_answer, pairs[i][1]) for i in asked])))
    return [_verdict(name, said[i]) if i in said else Verdict(status="no_answer", why="no final answer") for i in range(len(pairs))]


def _verdict(name: str, opinion: bool | None) -> Verdict:
    if opinion is None:
        return Verdict(status="unscored", why=f"{name} failed", rule=name)
    return Verdict(status="correct" if opinion else "wrong", why=name, rule=name)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
