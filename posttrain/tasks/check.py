"""`posttrain data check`: does every reference pass its own grader, and which questions stand twice?"""

import argparse
import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from tqdm import tqdm

from posttrain.config import ConfigError, build, config, read_flags, read_yaml
from posttrain.grading.batch import compare
from posttrain.grading.grammar import TooLarge, Unreadable, read
from posttrain.tasks import MODULES, TaskConfig, make_task
from posttrain.tasks.icl import make_icl_task
from posttrain.tasks.icl.check import InContextTaskFile
from posttrain.tasks.icl.check import check as check_in_context
from posttrain.tasks.listing import asked_in, listed
from posttrain.tasks.python_file import FileTask
from posttrain.tasks.with_shots import WithShotsTask
from posttrain.types import DataError, FinalAnswer, Problem, Task, Verdict

CHUNK = 256
GENERATED_SPLITS = ("train", "validation", "test")
EPILOG = """\
Examples:
    posttrain data check recipes/score_math/stage1.yaml                          the task of a recipe or suite
    posttrain data check recipes/score_math/stage1.yaml --task.limit 200         keys after it win over the file's
    posttrain data check math --train math_train.jsonl.gz --test math500.jsonl   files of your own, any split names
    posttrain data check gsm8k                                                   a task as it comes, from the hub
    posttrain data check recipes/manyshot/gpqa.yaml                              the pool and test of an in-context recipe
    posttrain data check task.py                                                 a task file of your own

Each reference is given to its task's grader as a model would write it, in a box; those of mathematics also bare and in dollars. One that
is not graded correct is a failure and is listed with its id. References that the grammar cannot read are counted beside: their own text
passes, any other answer to them is gold_unparsable. Of a task with unit tests it is the reference program that must pass them; of a task
file each problem's solution, or where it has none the text of its reference.
Rows without a reference answer are left out by the task and listed. Questions are duplicates when their letters
and digits agree; a test question that is also a training question is reported, not removed. In an in-context recipe the answers that
people wrote are given to the task's metric as they stand, and must earn full marks.
Exit codes: 0 every reference passes, 1 some fail, 2 the call or the data was wrong."""


@config
class TaskFile:
    """The part of a recipe or suite that this verb reads."""

    task: TaskConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """What was found in one split. `failures` are (problem, verdict); `unreadable` are ids; `left_out` are "where: why"."""

    split: str
    problems: list[Problem]
    failures: list[tuple[Problem, Verdict]]
    unreadable: list[str]
    left_out: list[str]


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain data check",
        description="Verify a task's data sets: every reference must pass its own grader.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", help="a YAML file with a `task:` key, a task file of your own, or the kind of a task")
    parser.add_argument("--split", action="append", help="only this split; may be given several times (default: all of the task)")
    args, flags = parser.parse_known_args(argv)
    if args.what.endswith((".yaml", ".yml")) and read_yaml(args.what)[1].get("kind") == "icl":
        if args.split:
            raise ConfigError("flags: --split has no meaning for an in-context recipe: its pool and test are checked together")
        return _in_context(args.what, flags)
    cfg = task_config(args.what, flags)
    cfg = cfg.task if isinstance(cfg, WithShotsTask) else cfg  # what stands before a question does not change the data
    task = make_task(cfg)
    reports = [check_split(cfg, task, split) for split in args.split or splits_of(cfg)]
    for line in lines(reports):
        print(line)
    return 1 if any(report.failures for report in reports) else 0


def _in_context(what: str, flags: Sequence[str]) -> int:
    """Check the task of an in-context recipe, both splits."""
    name, tree = read_yaml(what)
    said = [read_flags(flags)] if flags else []
    found, passed = check_in_context(make_icl_task(build(InContextTaskFile, [(name, {"task": tree.get("task", {})}), *said]).task))
    print(*found, sep="\n")
    return 0 if passed else 1


def task_config(what: str, flags: Sequence[str]) -> TaskConfig:
    """The task of a YAML file with `--task.key value` flags, of a task file, or of a kind with `--split PATH`; raises `ConfigError`."""
    if what.endswith(".py"):
        said = read_flags(flags)[1].get("task", {}) if flags else {}
        return build(TaskFile, [("flags", {"task": {"kind": "file", "path": what, **said}})]).task
    kinds = {typing.get_args(cls.__annotations__["kind"])[0] for cls in MODULES}
    _, said = read_flags(flags) if flags else ("", {})
    if what in kinds:
        sources = {key: value for key, value in said.items() if key != "task"}
        task = {"kind": what, **({"sources": sources} if sources else {})}
        return build(TaskFile, [("flags", {"task": task}), ("flags", {"task": said.get("task", {})})]).task
    if not what.endswith((".yaml", ".yml")):
        raise ConfigError(f"found {what!r}, expected a .yaml file, a .py file or one of {', '.join(sorted(kinds))}")
    name, tree = read_yaml(what)
    if "task" not in tree:
        raise ConfigError(f"{name}: has no `task:` key, so there is no data to check; its keys are {', '.join(map(str, tree))}")
    return build(TaskFile, [(name, {"task": tree["task"]}), ("flags", said)]).task


def splits_of(cfg: TaskConfig) -> tuple[str, ...]:
    """The splits that the config names, or those that a generated task has."""
    return tuple(cfg.sources) if hasattr(cfg, "sources") else GENERATED_SPLITS


def check_split(cfg: TaskConfig, task: Task, split: str) -> SplitReport:
    """Load a split and give each reference to its own grader; raises `DataError`."""
    module = MODULES[type(cfg)]
    loaded = module.read(cfg, split) if hasattr(module, "read") else None
    problems = loaded.problems if loaded else task.load(split)
    mathematics = loaded is not None and isinstance(problems[0].reference, FinalAnswer)
    failures = []
    for start in tqdm(range(0, len(problems), CHUNK), desc=f"{split}: grading", unit="chunk", disable=not sys.stderr.isatty()):
        chunk = problems[start : start + CHUNK]
        own = isinstance(cfg, FileTask)  # whose answers need stand in no box
        graded = [task.grade([(problem, (own and problem.solution) or _as_written(problem, boxed=not own)) for problem in chunk])]
        if mathematics:
            graded += [compare([(_text(problem), wrap.format(_text(problem))) for problem in chunk]) for wrap in ("{}", "${}$")]
        for problem, *verdicts in zip(chunk, *graded):
            failures += [(problem, verdict) for verdict in verdicts if not verdict.correct][:1]
    unreadable = _unreadable(problems) if mathematics else []
    return SplitReport(split=split, problems=problems, failures=failures, unreadable=unreadable, left_out=loaded.left_out if loaded else [])


def lines(reports: Sequence[SplitReport]) -> Iterator[str]:
    """The report as text."""
    for report in reports:
        passed = len(report.problems) - len(report.failures)
        yield f"{report.split}: {passed} of {len(report.problems)} references pass their own grader"
        yield from listed("failed", [f"{p.id}: {v.status}, {v.why}: {_text(p)!r}" for p, v in report.failures])
        yield from listed("not readable, so only their own text passes", report.unreadable)
        yield from listed("rows left out", report.left_out)
        twice = _duplicates(report.problems)
        yield from listed("questions that stand more than once", [", ".join(ids) for ids in twice])
    for a, b in combinations(reports, 2):
        shared = asked_in(a.problems).keys() & asked_in(b.problems).keys()
        pairs = sorted(f"{asked_in(a.problems)[q][0]} = {asked_in(b.problems)[q][0]}" for q in shared)
        yield from listed(f"questions of {a.split} that are also in {b.split}", pairs)
    failed = sum(len(report.failures) for report in reports)
    yield f"FAILED: {failed} references do not pass their own grader" if failed else "ok: every reference passes its own grader"


def _unreadable(problems: Sequence[Problem]) -> list[str]:
    """Ids of the references that the grammar does not know, with what it stumbled over."""
    found = []
    for problem in problems:
        try:
            read(_text(problem))
        except (Unreadable, TooLarge) as error:
            found.append(f"{problem.id}: {error}: {_text(problem)!r}")
    return found


def _duplicates(problems: Sequence[Problem]) -> list[list[str]]:
    return [ids for ids in asked_in(problems).values() if len(ids) > 1]


def _as_written(problem: Problem, *, boxed: bool) -> str:
    """The reference as a model would write it; raises `DataError` on tests without a program that passes them."""
    if isinstance(problem.reference, FinalAnswer):
        return f"The answer is $\\boxed{{{_text(problem)}}}$." if boxed else _text(problem)
    if not problem.solution:
        raise DataError(f"{problem.id}: has unit tests and no reference program to try them on")
    return f"```python\n{problem.solution}\n```"


def _text(problem: Problem) -> str:
    """The reference in the form that a failure is shown with."""
    return problem.reference.text if isinstance(problem.reference, FinalAnswer) else problem.reference.entry_point
