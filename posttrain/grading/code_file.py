"""`posttrain grade code FILE.jsonl`: a verdict on each program of a file, run against its tests in isolation."""

import argparse
import json
import sys
import typing
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from posttrain.complaint import nearest
from posttrain.grading.code import LIMITS, Setting, shared_pool
from posttrain.grading.file import Located, read_rows, summarise, summary_lines, text_field, write_rows
from posttrain.grading.judge import Judgement, Question
from posttrain.grading.pass_at_k import PassAtK, mean_pass_at_k
from posttrain.grading.program import program_in
from posttrain.grading.sandbox import Backend
from posttrain.grading.unit_tests import tests_of_row
from posttrain.types import DataError, UnitTests, Verdict

KS = (1, 10, 100)
EPILOG = """\
Each row is a JSON object with a program and where its tests are, in one of two ways:

    {"task_id": "HumanEval/0", "completion": "    return ..."}            tests from --problems, by task_id
    {"solution": "def f(x): ...", "test": "assert f(1) == 2"}            tests in the row itself

PROBLEMS holds rows as HumanEval publishes them (task_id, prompt, entry_point, test) or as MBPP does (task_id, test_list, test_setup_code
or test_imports); ids of MBPP may be given as 11, "11" or "mbpp/11". Every file may be gzipped (.gz).

  completion   the program is prompt + completion, letter by letter, as in HumanEval's own harness; but a chat answer, one that is not
               indented and has a fenced block, is read for its last block that defines the entry point
  solution     the whole program, or a chat answer with it; `test` is a test program, or defines check(candidate); the fields
               `entry_point` (the function that check gets) and `prompt` (helpers that the tests use) are optional

What comes out is the row with these fields added, in the order of the file:

  status       correct          every test passed
               wrong            a test failed on what the program returned
               crash            the program did not load, raised an exception, or its process ended
               timeout          its CPU time (--cpu-s) or the wall time behind it ran out, twice: the second time with nothing beside it
               limit            it ran out of memory, or returned a value too large
               no_answer        there is no code
               gold_unparsable  the tests do not compile, or never call the program
               unscored         the grader itself failed
  why, rule    what happened, with the line of the tests, and which check decided
  cpu_seconds  CPU time of the program, without the tests'

Where rows have `passed` or `expected` (true or false), agreement with it is counted; where they have a task_id, pass@k is estimated for
k = 1, 10, 100 as far as every problem has k samples, with its standard error over problems. The summary goes to stderr.

Programs run in processes of their own, which hold no test and decide nothing; the tests run in another process, which gets plain values
from them. What stands around a program is chosen at the start and named in the summary: `zygote` (namespaces, an empty file system, no
network, a system call filter, resource limits) or `bwrap` (bubblewrap); where neither works the command refuses and says what to install.

Exit codes: 0 graded, 1 no isolation to be had, 2 the call or a file was wrong."""


def cli(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    located = read_rows(args.file)
    questions = questions_of(located, read_problems(args.problems) if args.problems else None)
    setting = Setting(
        backend=None if args.sandbox == "auto" else args.sandbox,
        workers=args.workers or Setting().workers,
        limits=replace(LIMITS, cpu_s=args.cpu_s, wall_s=max(args.wall_s, args.cpu_s), memory_mib=args.memory_mib),
    )
    judgements = grade_questions(questions, setting)
    graded = [{**row, **_fields(judgement)} for (_, row), judgement in zip(located, judgements)]
    if args.out or not args.json:
        write_rows(args.out, graded)
    _report(graded, setting, as_json=args.json)
    return 0


def questions_of(rows: Sequence[Located], problems: dict[str, UnitTests] | None) -> list[Question | None]:
    """What is asked about each row, None where it holds no code; raises `DataError` before anything is run."""
    return [_question(where, row, problems) for where, row in rows]


def grade_questions(questions: Sequence[Question | None], setting: Setting) -> list[Judgement]:
    """Judgements in order, with a bar on a terminal."""
    asked = [question for question in questions if question is not None]
    with tqdm(total=len(set(asked)), desc="grading", unit="program", disable=not sys.stderr.isatty()) as bar:
        answers = iter(shared_pool(setting).ask_all(asked, bar.update))
    missing = Judgement(verdict=Verdict(status="no_answer", rule="extraction", why="there is no code"), cpu_s=0.0)
    return [missing if question is None else next(answers) for question in questions]


def read_problems(path: Path) -> dict[str, UnitTests]:
    """Tests by task id; raises `DataError`, also on an id that stands twice."""
    problems: dict[str, UnitTests] = {}
    for where, row in read_rows(path):
        if isinstance(row.get("task_id"), bool) or not isinstance(row.get("task_id"), str | int):
            raise DataError(f"{where}: needs a 'task_id', text or number; found {row.get('task_id')!r:.80}")
        if str(row["task_id"]) in problems:
            raise DataError(f"{where}: the task_id {row['task_id']!r} stands twice")
        problems[str(row["task_id"])] = tests_of_row(where, row)
    return problems


def pass_at_ks(rows: Sequence[dict[str, Any]]) -> list[PassAtK]:
    """pass@k over the scored rows by their `task_id`, for each k that every problem has samples for."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if "task_id" in row and row["status"] not in ("unscored", "gold_unparsable"):
            counts[str(row["task_id"])][0] += 1
            counts[str(row["task_id"])][1] += row["status"] == "correct"
    pairs = [(n, c) for n, c in counts.values()]
    return [found for k in KS if (found := mean_pass_at_k(pairs, k)) is not None]


def _question(where: str, row: dict[str, Any], problems: dict[str, UnitTests] | None) -> Question | None:
    if "solution" in row and "test" in row:
        given = {name: text_field(where, row, name) if name in row else "" for name in ("entry_point", "prompt")}
        source = _program(text_field(where, row, "solution"), "", given["entry_point"])
        test = text_field(where, row, "test")
        return Question(program=source, tests=test, entry_point=given["entry_point"], prompt=given["prompt"]) if source else None
    if "task_id" not in row or "completion" not in row:
        raise DataError(f"{where}: needs task_id and completion, or solution and test; found {', '.join(map(repr, row)) or 'no fields'}")
    if problems is None:
        raise DataError(f"{where}: the tests of {row['task_id']!r} are not in the row: name the benchmark's file with --problems")
    tests = _tests_of(where, row["task_id"], problems)
    source = _program(text_field(where, row, "completion"), tests.prompt, tests.entry_point)
    return Question(program=source, tests=tests.code, entry_point=tests.entry_point, prompt=tests.prompt) if source else None


def _tests_of(where: str, task_id: Any, problems: dict[str, UnitTests]) -> UnitTests:
    for name in (str(task_id), str(task_id).rpartition("/")[2]):
        if name in problems:
            return problems[name]
    raise DataError(f"{where}: no problem has the task_id {task_id!r}{nearest(str(task_id), problems)}")


def _program(text: str, prompt: str, entry_point: str) -> str | None:
    """Prompt and text as they are, or the program of a chat answer."""
    found = program_in(text, prompt=prompt, entry_point=entry_point)
    if found is None:
        return None
    return found[0] if found[1] == "block" else prompt + text


def _fields(judgement: Judgement) -> dict[str, Any]:
    verdict = judgement.verdict
    return {"status": verdict.status, "why": verdict.why, "rule": verdict.rule, "cpu_seconds": round(judgement.cpu_s, 4)}


def _report(graded: Sequence[dict[str, Any]], setting: Setting, *, as_json: bool) -> None:
    summary = summarise(graded, [row["why"] for row in graded if row["status"] in ("unscored", "gold_unparsable")])
    estimates = pass_at_ks(graded)
    judge = next((judge for judge in shared_pool(setting).judges if judge.layers), None)
    isolation = {"backend": judge.backend, "layers": judge.layers} if judge else None
    if as_json:
        print(json.dumps(summary | {"pass_at_k": [asdict(estimate) for estimate in estimates], "isolation": isolation}))
        return
    for line in summary_lines(summary):
        print(line, file=sys.stderr)
    for estimate in estimates:
        error = "" if estimate.standard_error is None else f" (standard error {estimate.standard_error:.4f})"
        print(f"pass@{estimate.k} {estimate.value:.4f}{error} over {estimate.problems} problems", file=sys.stderr)
    if judge:
        print(f"isolation: {judge.backend}: {', '.join(judge.layers)}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posttrain grade code",
        description="Run each program of a file (JSON Lines) against its tests, in isolation.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="rows to grade, .jsonl or .jsonl.gz")
    parser.add_argument("--problems", type=Path, metavar="FILE", help="the benchmark with the tests, .jsonl or .jsonl.gz")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the verdict rows here (.jsonl or .jsonl.gz) instead of to stdout")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout; the rows then go to --out only")
    parser.add_argument("--workers", type=_positive, metavar="N", help="programs at a time (default: two per core, at most 8)")
    parser.add_argument(
        "--sandbox",
        choices=["auto", *typing.get_args(Backend)],
        default="auto",
        help="auto: zygote, else bwrap, else refuse. unsafe: resource limits and NO isolation, so that a program can read, write, delete "
        "and connect to whatever you can; only for programs that you trust, or in a machine that is thrown away",
    )
    parser.add_argument("--cpu-s", type=float, default=LIMITS.cpu_s, metavar="S", help="CPU time of one program (default: %(default)g)")
    parser.add_argument("--wall-s", type=float, default=LIMITS.wall_s, metavar="S", help="wall time behind it (default: %(default)g)")
    parser.add_argument(
        "--memory-mib", type=_positive, default=LIMITS.memory_mib, metavar="MIB", help="address space (default: %(default)d)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)
