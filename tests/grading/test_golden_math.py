"""Our own cases, each with the reason it exists."""

import json
from pathlib import Path

from posttrain.grading.answer import final_answer
from posttrain.grading.batch import compare
from posttrain.grading.math_file import read_answer

CASES = [json.loads(line) for line in (Path(__file__).parents[2] / "evals" / "golden" / "math.jsonl").read_text().splitlines()]


def test_every_case_has_a_reason_and_stands_once():
    assert len(CASES) >= 100
    assert all(case["why"] and set(case) == {"gold", "pred", "expected", "why"} for case in CASES)
    assert len({(case["gold"], case["pred"]) for case in CASES}) == len(CASES)


def test_every_case_is_graded_as_expected():
    pairs = []
    for case in CASES:
        gold = final_answer(case["gold"]) or case["gold"]
        pairs.append((gold, read_answer(case["pred"], gold)[0]))
    wrong = [(case["gold"], case["pred"], v.status, v.why) for case, v in zip(CASES, compare(pairs)) if v.correct != case["expected"]]
    assert wrong == []
