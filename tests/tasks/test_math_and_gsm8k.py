import json
from pathlib import Path

import pytest

from posttrain.config import ConfigError, build, config, dump, load
from posttrain.tasks import TaskConfig, gsm8k, make_task
from posttrain.tasks import math as math_task
from posttrain.types import DataError

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "data" / "fixtures"
SHARED = ROOT.parent / "shared" / "data"


@config
class Recipe:
    task: TaskConfig


def task_of(kind: str, **sources):
    return make_task(build(Recipe, [("recipe", {"task": {"kind": kind, "sources": sources}})]).task)


@pytest.fixture
def math():
    return task_of("math", train=str(FIXTURES / "math_train.jsonl"), test=str(FIXTURES / "math_test.jsonl"))


@pytest.fixture
def gsm():
    return task_of("gsm8k", train=str(FIXTURES / "gsm8k_train.jsonl"), test=str(FIXTURES / "gsm8k_test.jsonl"))


def test_both_layouts_of_math_give_level_subject_and_id(math):
    train, test = math.load("train")[0], math.load("test")[1]
    assert (train.id, train.level, train.subject, train.reference.text) == ("train/1", "2", "Number Theory", "2")
    assert (test.id, test.level, test.subject, test.reference.text) == ("own/algebra/2", "2", "Algebra", "x^2 - x - 6")


def test_without_an_answer_field_the_reference_is_the_solutions_last_box(tmp_path):
    path = tmp_path / "hub_layout.jsonl"
    path.write_text(json.dumps({"problem": "1+1?", "level": "Level ?", "type": "Algebra", "solution": "It is $\\boxed{2}$."}) + "\n")
    assert task_of("math", train=str(path)).load("train")[0].reference.text == "2"


def test_gsm8k_references_stand_after_the_hashes(gsm):
    assert [problem.reference.text for problem in gsm.load("train")] == ["34", "132", "10,000"]


def test_a_gsm8k_row_without_hashes_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "?", "answer": "It is 5."}) + "\n")
    with pytest.raises(DataError, match=r"rows.jsonl:1: 'answer' must end in '#### n', found 'It is 5.'"):
        task_of("gsm8k", train=str(path)).load("train")


@pytest.mark.parametrize("name", ["math", "gsm"])
def test_one_user_message_asks_and_holds_the_question_but_not_the_reference_solution(name, request):
    task = request.getfixturevalue(name)
    problem = task.load("train")[0]
    (message,) = task.ask(problem)
    assert message.role == "user"
    assert message.content.endswith(problem.question)
    assert "\\boxed{}" in message.content


@pytest.mark.parametrize("name", ["math", "gsm"])
def test_the_instruction_to_revise_does_not_say_whether_the_attempt_was_right(name, request):
    revise = request.getfixturevalue(name).revise.lower()
    assert "might be an error" in revise
    assert "if any" in revise


def test_a_question_with_braces_is_asked_as_it_is(math):
    problem = math.load("train")[2]
    assert problem.question in math.ask(problem)[0].content


def test_grades_read_the_box_and_accept_other_spellings(math):
    train = math.load("train")
    texts = [r"\boxed{2}", r"\boxed{6}", r"\boxed{0.375}", r"\boxed{\sqrt{50}}", "I do not know"]
    verdicts = math.grade(list(zip(train, texts)))
    assert [verdict.status for verdict in verdicts] == ["correct", "wrong", "correct", "correct", "no_answer"]


def test_the_same_answer_in_two_spellings_is_no_change_of_answer(math):
    assert math.answer(r"\boxed{\dfrac12}") == math.answer(r"so the final answer is $\frac{1}{2}$.") == "1/2"
    assert math.answer("nothing") is None


def test_the_default_sources_are_hub_ids_with_a_split():
    for cfg in (math_task.MathTask(), gsm8k.Gsm8kTask()):
        assert set(cfg.sources) == {"train", "test"}
        assert all(source.startswith("hub:") and source.rpartition(":")[2] == split for split, source in cfg.sources.items())


def test_a_config_of_each_kind_reads_back_from_its_own_dump(tmp_path):
    for task in ({"kind": "math", "sources": {"train": ["a.jsonl", "b.jsonl"]}, "limit": 5}, {"kind": "gsm8k"}, {"kind": "sums"}):
        cfg = build(Recipe, [("recipe", {"task": task})])
        (tmp_path / "recipe.yaml").write_text(dump(cfg))
        assert load(Recipe, [tmp_path / "recipe.yaml"]) == cfg


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"kind": "math", "sorces": {}}, "task.sorces: unknown key; did you mean 'sources'"),
        ({"kind": "maths"}, "task"),
        ({"kind": "math", "limit": 0}, "task.limit"),
        ({"kind": "gsm8k", "sources": {"train": 3}}, "task.sources.train"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_it(task, said):
    with pytest.raises(ConfigError, match=said):
        build(Recipe, [("recipe.yaml", {"task": task})])


def test_math_and_gsm8k_load_whole_from_the_published_files():
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    train = [str(SHARED / name) for name in ("math_train.jsonl.gz", "math_test_rest.jsonl.gz")]
    math = task_of("math", train=train, test=str(SHARED / "math500.jsonl"))
    problems = math.load("train")
    assert len(problems) == 12_000 - 2  # two have an empty box
    assert {problem.level for problem in problems} <= {"1", "2", "3", "4", "5", "?"}
    assert len({problem.subject for problem in problems}) == 7
    assert len(math.load("test")) == 500
    gsm = task_of("gsm8k", train=str(SHARED / "gsm8k_train.jsonl.gz"), test=str(SHARED / "gsm8k_test.jsonl.gz"))
    assert (len(gsm.load("train")), len(gsm.load("test"))) == (7473, 1319)
