"""The judge against real cells. What programs try, and what becomes of it, is in evals/golden/code.jsonl, each row with its reason."""

import pytest

from posttrain.grading.code import Setting, grade_code, question_of, shared_pool
from posttrain.grading.code_file import grade_questions, questions_of, read_problems
from posttrain.grading.file import read_rows
from posttrain.grading.judge import Question, judge, plan
from posttrain.grading.sandbox import CellLimits, Sandbox
from posttrain.types import Problem, UnitTests
from tests.grading import shared_data
from tests.grading.judges import FIXTURES, GOLDEN, need_isolation, rows

QUICK = CellLimits(cpu_s=0.5, wall_s=5.0, memory_mib=400, output_kib=8192)


@pytest.fixture(scope="module")
def sandbox():
    need_isolation()
    with Sandbox() as sandbox:
        yield sandbox


def verdict(sandbox, program, tests, entry_point="", prompt=""):
    question = Question(program=program, tests=tests, entry_point=entry_point, prompt=prompt)
    return judge(question, sandbox, QUICK).verdict


def test_every_golden_program_gets_its_verdict():
    need_isolation()
    located = read_rows(GOLDEN)
    questions = questions_of(located, read_problems(FIXTURES / "humaneval_test.jsonl"))
    judgements = grade_questions(questions, Setting(workers=4, limits=QUICK))
    found = {row["name"]: judgement.verdict for (_, row), judgement in zip(located, judgements)}
    for _, row in located:
        assert found[row["name"]].status in row["status"], (row["name"], found[row["name"]])
        assert found[row["name"]].correct is row["expected"], (row["name"], found[row["name"]])


def test_golden_rows_have_a_reason_each_and_no_name_twice():
    golden = rows(GOLDEN)
    assert len({row["name"] for row in golden}) == len(golden) >= 100
    assert all(len(row["why"]) > 10 for row in golden)
    assert {"correct", "wrong", "crash", "timeout", "limit", "no_answer", "gold_unparsable"} <= {s for row in golden for s in row["status"]}


def test_a_verdict_says_what_happened_and_at_which_line_of_the_tests(sandbox):
    tests = "assert f(1) == 1\nassert f(2) == 4, 'squares'\n"
    assert verdict(sandbox, "def f(x): return x", tests).why == "AssertionError: squares (line 2 of the tests)"
    assert verdict(sandbox, "def f(x): return [][x]", tests).why == "IndexError: list index out of range (line 1 of the tests)"
    assert verdict(sandbox, "def g(x): return x", tests).why == "NameError: the program does not define 'f' (line 1 of the tests)"
    assert verdict(sandbox, "def f(x): return x * x", tests).why == "all tests passed, 2 calls"


@pytest.mark.parametrize(
    ("program", "status", "rule"),
    [
        ("def f(): return 1", "correct", "tests"),
        ("def f(): return 2", "wrong", "tests"),
        ("def f(): return None + 1", "crash", "program"),
        ("def f(:", "crash", "load"),
        ("import os; os._exit(0)", "crash", "cell: exit"),
        ("while True: pass", "timeout", "cell: cpu"),
        ("def f(): return 'x' * (9 << 20)", "limit", "program"),
        ("x = bytearray(1 << 30)", "limit", "program"),
    ],
)
def test_the_rule_names_what_decided(sandbox, program, status, rule):
    found = verdict(sandbox, program, "assert f() == 1")
    assert (found.status, found.rule) == (status, rule)


def test_a_death_that_the_tests_catch_is_no_success(sandbox):
    tests = "try:\n    f()\nexcept BaseException:\n    pass\n"
    assert verdict(sandbox, "def f(): raise ValueError", tests).status == "correct"
    assert verdict(sandbox, "import os\ndef f(): os._exit(0)", tests).status == "crash"
    assert verdict(sandbox, "def f(): return 'x' * (9 << 20)", tests).status == "limit"


def test_a_loop_of_the_tests_does_not_end_where_the_program_raises_stop_iteration(sandbox):
    tests = "assert [x for x in map(f, [1, 2])] == [1, 2]\nfor x in map(f, [1, 2]):\n    assert x in (1, 2)\n"
    assert verdict(sandbox, "def f(x): return x", tests).status == "correct"
    silent = "for x in map(f, [1, 2]):\n    assert x in (1, 2)\n"
    assert verdict(sandbox, "def f(x): raise StopIteration", silent).status == "crash"


@pytest.mark.parametrize("said", ["\ud800", "\x1b[31mpassed\x1b[0m\r", "x\n" * 1000, "\u202e\x00"])
def test_what_a_program_says_is_fit_for_a_log_and_a_terminal(sandbox, said):
    why = verdict(sandbox, f"def f(): raise ValueError({said!r})", "f()").why
    assert why.isprintable()
    assert len(why) < 300
    why.encode()


def test_a_failure_that_quotes_an_object_of_the_programs_is_still_a_failure(sandbox):
    program = "import os\nclass Odd:\n    def __str__(self): os._exit(0)\ndef f(): return Odd()"
    assert verdict(sandbox, program, "assert f() == 1, f()").status == "wrong"


def test_cpu_time_is_the_programs_own(sandbox):
    question = Question(program="x = sum(range(4_000_000))\ndef f(): return 1", tests="sum(range(10**6))\nassert f() == 1", entry_point="f")
    busy = judge(question, sandbox, CellLimits(cpu_s=10.0))
    idle = judge(Question(program="def f(): return 1", tests=question.tests, entry_point="f"), sandbox, QUICK)
    assert busy.verdict.correct
    assert idle.verdict.correct
    assert busy.cpu_s > 3 * idle.cpu_s > 0


def test_one_program_leaves_nothing_to_the_next(sandbox):
    tests = "assert f() == 0"
    program = "import builtins, sys\nn = len(getattr(builtins, 'left', []))\nbuiltins.left = [1]\nopen('left', 'w').close()\nimport os\n"
    program += "def f(): return n + (len(os.listdir('.')) - 1)"
    assert [verdict(sandbox, program, tests).status for _ in range(3)] == ["correct"] * 3


def test_the_programs_names_are_what_neither_tests_nor_prompt_nor_python_defines():
    tests = (
        "import re\nx = 3\ndef check(c):\n    for i in range(x):\n        assert math.isclose(c(i), helper(Node(i)), rel_tol=extra(i))\n"
    )
    ready = plan(tests, "def helper(n): ...\ndef f(n): ...\n", "f")
    assert ready.names == {"f", "Node", "extra"}
    assert ready.modules == {"math"}


def test_an_exception_class_of_the_programs_is_one_that_the_tests_can_catch():
    ready = plan("try:\n    f()\nexcept (Mine, ValueError) as e:\n    e\ncase.assertRaises(Other, f)\n", "", "f")
    assert ready.exceptions == {"Mine", "Other"}


def test_helpers_that_tests_use_come_from_the_prompt_even_where_it_breaks_off(sandbox):
    prompt = "def helper(x): return x + 1\n\ndef f(x):\n"
    program = prompt + "    return x\n\ndef helper(x): return x\n"
    assert verdict(sandbox, program, "assert helper(f(1)) == 2", "f", prompt).status == "correct"


def test_arguments_that_cannot_cross_are_the_tests_fault(sandbox):
    assert verdict(sandbox, "def f(x): return 1", "class Own: pass\nassert f(Own()) == 1").status == "unscored"


@pytest.mark.parametrize("workers", [1, 8])
def test_labelled_completions_are_reproduced(workers):
    """All 1,247 + 152 are run by the bench; here every eighth, those that meet the time limit left out."""
    need_isolation()
    benchmark = {row["task_id"]: row for row in shared_data.rows("HumanEval.jsonl.gz")}
    completions = [row for row in shared_data.rows("humaneval_completions_dev.jsonl.gz") if row["reason"] != "timeout"][::8]
    pairs = []
    for row in completions:
        task = benchmark[row["task_id"]]
        tests = UnitTests(entry_point=task["entry_point"], code=task["test"], prompt=task["prompt"])
        question = question_of(Problem(id="p", question="", reference=tests), "    pass")
        pairs.append((Question(**{**vars_of(question), "program": task["prompt"] + row["completion"]}), row["passed"]))
    judgements = shared_pool(Setting(workers=workers)).ask_all([question for question, _ in pairs])
    assert [judgement.verdict.correct for judgement in judgements] == [passed for _, passed in pairs]


def vars_of(question: Question) -> dict[str, str]:
    return {name: getattr(question, name) for name in ("program", "tests", "entry_point", "prompt")}


def test_the_published_hacks_are_rejected_for_functions_of_both_benchmarks():
    """Each hack as it was written for HumanEval, and its program with an MBPP task's function and tests in place of its own."""
    need_isolation()
    benchmark = {row["task_id"]: row for row in shared_data.rows("HumanEval.jsonl.gz")}
    mbpp = {row["task_id"]: row for row in shared_data.rows("mbpp.jsonl.gz")}
    pairs = []
    for row in shared_data.rows("code_hacks_dev.jsonl"):
        task = benchmark[row["task_id"]]
        tests = UnitTests(entry_point=task["entry_point"], code=task["test"], prompt=task["prompt"])
        pairs.append((Problem(id=row["name"], question="", reference=tests), row["completion"]))
        if row["task_id"] == "HumanEval/0":
            tests = UnitTests(entry_point="min_cost", code="\n".join(mbpp[1]["test_list"]), prompt="def min_cost(cost, m, n):\n")
            pairs.append((Problem(id=row["name"], question="", reference=tests), row["completion"]))
    verdicts = grade_code(pairs, Setting(workers=4, limits=QUICK))
    assert len(verdicts) == 36 + 12
    assert {verdict.status for verdict in verdicts} <= {"wrong", "crash", "timeout"}
