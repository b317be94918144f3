"""`posttrain data check` of an in-context recipe: do the pool's own answers earn full marks, and do pool and test keep apart?"""

from collections.abc import Iterator, Sequence

from posttrain.config import config
from posttrain.prompting.shots import InContextTask
from posttrain.tasks.icl import InContextTaskConfig
from posttrain.tasks.listing import asked_in, listed
from posttrain.types import Problem

FULL = 1 - 1e-9


@config
class InContextTaskFile:
    """The part of an in-context recipe that the check reads."""

    task: InContextTaskConfig


def check(task: InContextTask) -> tuple[list[str], bool]:
    """The report as lines, and whether every answer that a person wrote earns full marks; raises `DataError`."""
    pool, test = task.load("pool"), task.load("test")
    pool_failures, test_failures = _failures(task, pool), _failures(task, test)
    lines = [*_split("pool", pool, pool_failures), *_split("test", test, test_failures)]
    shared = asked_in(pool).keys() & asked_in(test).keys()
    pairs = sorted(f"{asked_in(pool)[q][0]} = {asked_in(test)[q][0]}" for q in shared)
    lines += listed("questions of pool that are also in test", pairs)
    failed = len(pool_failures) + len(test_failures)
    answered = any(problem.solution for problem in [*pool, *test])
    passed = "ok: every answer earns full marks" if answered else "ok: there are problems, and no answers to give to the metric"
    lines.append(f"FAILED: {failed} answers do not earn full marks" if failed else passed)
    return lines, not failed


def _failures(task: InContextTask, problems: Sequence[Problem]) -> list[str]:
    """The problems whose own solution is worth less than 1, with what it is worth."""
    solved = [problem for problem in problems if problem.solution]
    worth = task.score([(problem, problem.solution) for problem in solved])
    low = [(problem, value) for problem, value in zip(solved, worth) if value is None or value < FULL]
    return [f"{problem.id}: {'cannot be graded' if value is None else f'{value:.3f}'}" for problem, value in low]


def _split(name: str, problems: Sequence[Problem], failures: Sequence[str]) -> Iterator[str]:
    solved = sum(bool(problem.solution) for problem in problems)
    passed = solved - len(failures)
    yield f"{name}: {len(problems)} problems, {solved} with an answer as a person wrote it, {passed} of these earn full marks"
    yield from listed("earn less", failures)
    yield from listed("questions that stand more than once", [", ".join(ids) for ids in asked_in(problems).values() if len(ids) > 1])
