"""The mathematics grader beside math-verify 0.9.0, in one run: verdicts on labelled answers, speed, and hostile input.

    python evals/golden/bench_math.py [--data ../shared/data] [--repeats 3]

Prints the tables of evals/golden/README.md. Speed is of one process each, algebra in that process, caches empty, repeats of the two
graders taking turns; the best repeat of each counts.
"""

import argparse
import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from posttrain.grading import math, peer, values
from posttrain.grading.algebra import prove
from posttrain.grading.answer import final_answer
from posttrain.grading.batch import compare, shared_pool
from posttrain.grading.math_file import policy_of, read_answer
from posttrain.grading.policy import DEFAULT

GOLD_FILES = ("math_train.jsonl.gz", "math_test_rest.jsonl.gz", "math500.jsonl")
GOLDS_TIMED = 1_500
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[3] / "shared" / "data", help="folder with the labelled answers")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    accuracy(args.data)
    real_outputs(args.data)
    speed(args.data, args.repeats)
    hostile(args.data)


def rows(path: Path) -> list[Row]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return [json.loads(line) for line in file]


def answers(read: Sequence[Row]) -> list[tuple[str, str]]:
    """(reference, answer) of each row, as `posttrain grade math` takes them."""
    pairs = []
    for row in read:
        gold = final_answer(row["gold"]) or row["gold"]
        pairs.append((gold, read_answer(row["pred"], gold)[0]))
    return pairs


def accuracy(data: Path) -> None:
    """Agreement with the labels by tier; math-verify does its own extraction, from the whole texts."""
    second = peer.opinions("math-verify")
    print("| tier | rows | ours | false accepts | math-verify | false accepts |\n|---|---|---|---|---|---|")
    for name in ("grader_cases_dev.jsonl", "grader_cases_derived_dev.jsonl"):
        read = rows(data / name)
        ours = [compare([pair], policy_of(row))[0].correct for pair, row in zip(answers(read), read)]
        theirs = [opinion is True for opinion in second([(row["gold"], row["pred"]) for row in read])]
        for tier in dict.fromkeys(row["tier"] for row in read):
            at = [i for i, row in enumerate(read) if row["tier"] == tier]
            cells = [len(at)]
            for found in (ours, theirs):
                cells.append(f"{sum(found[i] == read[i]['expected'] for i in at) / len(at):.3f}")
                cells.append(sum(found[i] and not read[i]["expected"] for i in at))
            print(f"| {tier} | {' | '.join(map(str, cells))} |")


def real_outputs(data: Path) -> None:
    """What models wrote, and MATH's references against themselves in three wrappings; no verdict but a match with the label counts."""
    print("\n| whole texts | rows | as labelled |\n|---|---|---|")
    for name in ("gsm8k_model_outputs_dev", "gsm8k_tora_outputs_dev", "math_model_outputs_dev"):
        read = rows(data / f"{name}.jsonl.gz")
        verdicts = compare([(row["gold"], final_answer(row["output"])) for row in read])
        print(f"| {name} | {len(read)} | {sum(v.correct == row['expected'] for v, row in zip(verdicts, read))} |")
    golds = references(data)
    for wrap in ("{}", "${}$", "\\boxed{{{}}}"):
        verdicts = compare([(gold, final_answer(text) or text) for gold, text in ((gold, wrap.format(gold)) for gold in golds)])
        print(f"| MATH references as {wrap.format('X')} | {len(golds)} | {sum(v.correct for v in verdicts)} |")


def references(data: Path) -> list[str]:
    return [row["answer"] for name in GOLD_FILES for row in rows(data / name) if row["answer"]]


def speed(data: Path, repeats: int) -> None:
    golds = references(data)
    core = [row for row in rows(data / "grader_cases_dev.jsonl") if row["tier"] == "core"]
    derived = rows(data / "grader_cases_derived_dev.jsonl")
    gsm8k = rows(data / "gsm8k_model_outputs_dev.jsonl.gz")
    step = len(golds) // GOLDS_TIMED
    sets: dict[str, tuple[list[tuple[str, str]], bool]] = {
        f"MATH references, every {step}th, against themselves in a box": ([(gold, f"\\boxed{{{gold}}}") for gold in golds[::step]], True),
        "GSM8K outputs, whole texts": ([(row["gold"], row["output"]) for row in gsm8k], True),
        "core": (answers(core), False),
        "rewrites and near misses": (answers(derived), False),
    }
    print("\n| pairs per second, one process | pairs | ours | math-verify | ratio |\n|---|---|---|---|---|")
    for name, (pairs, whole) in sets.items():
        best = [float("inf"), float("inf")]
        for _ in range(repeats):
            for i, grade in enumerate((ours_whole if whole else ours_bare, theirs_timed)):
                forget()
                best[i] = min(best[i], timed(grade, pairs))
        rates = [len(pairs) / seconds for seconds in best]
        print(f"| {name} | {len(pairs)} | {rates[0]:,.0f} | {rates[1]:,.0f} | {rates[0] / rates[1]:.0f} |")


def ours_whole(gold: str, text: str) -> object:
    answer = final_answer(text)
    return answer and math.grade(gold, answer, DEFAULT, prove)


def ours_bare(gold: str, answer: str) -> object:
    return math.grade(gold, answer, DEFAULT, prove)


def theirs_timed(gold: str, answer: str) -> object:
    from math_verify import parse, verify

    wrapped = gold if "$" in gold else f"${gold}$"
    said = answer if "$" in answer or "boxed" in answer or len(answer) > 80 else f"${answer}$"
    return verify(parse(wrapped), parse(said))


def forget() -> None:
    """Empty our caches, so that a repeat costs what the first one did."""
    for cached in (math._read, values.exact, values._has_log, values._has_pi):
        cached.cache_clear()


def timed(grade: Callable[[str, str], object], pairs: Sequence[tuple[str, str]]) -> float:
    started = time.process_time()
    for pair in pairs:
        grade(*pair)
    return time.process_time() - started


def hostile(data: Path) -> None:
    """Each row in the main thread, a worker thread and asyncio, with a warm worker; then the most memory that a worker had."""
    compare([("\\tan\\frac{x}{2}", "\\frac{\\sin x}{1+\\cos x}")])
    print("\n| hostile row | limit, s | verdict | main thread, s | thread, s | asyncio, s |\n|---|---|---|---|---|---|")
    for row in rows(data / "grader_hostile_dev.jsonl"):
        text = row.get("pred") or "".join(part * times for part, times in row["pred_parts"])

        def ask(row: Row = row, text: str = text) -> tuple[str, float]:
            started = time.perf_counter()
            gold = final_answer(row["gold"]) or row["gold"]
            status = compare([(gold, read_answer(text, gold)[0])])[0].status
            return status, time.perf_counter() - started

        status, main_s = ask()
        found: list[tuple[str, float]] = []
        thread = threading.Thread(target=lambda ask=ask, found=found: found.append(ask()))
        thread.start()
        thread.join()
        found.append(asyncio.run(asyncio.to_thread(ask)))
        same = {status} == {other for other, _ in found}
        cells = f"{status if same else 'DIFFERS'} | {main_s:.3f} | {found[0][1]:.3f} | {found[1][1]:.3f}"
        print(f"| {row['name']} | {row['max_seconds']} | {cells} |")
    peaks = [memory_mib(worker.child.process.pid) for worker in shared_pool().workers if worker.child.process]
    print(f"\nMost memory of a worker: {max(peaks):.0f} MiB resident, of {shared_pool().workers[0].limits.memory_mib} MiB that it may map.")


def memory_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
