import pytest

from posttrain.config import build, config
from posttrain.evaluation import data
from posttrain.tasks import TaskConfig, make_task
from posttrain.types import DataError, UnitTests
from tests.grading.judges import FIXTURES, need_isolation
from tests.grading.shared_data import FOLDER


@config
class Recipe:
    task: TaskConfig


def task_of(kind, **keys):
    return make_task(build(Recipe, [("recipe", {"task": {"kind": kind, **keys}})]).task)


@pytest.fixture
def humaneval():
    return task_of("humaneval", sources={"test": str(FIXTURES / "humaneval_test.jsonl")})


@pytest.fixture
def mbpp():
    return task_of("mbpp", sources={"train": str(FIXTURES / "mbpp_train.jsonl")})


def test_a_problem_is_its_prompt_with_tests_that_know_the_helpers_in_it(humaneval):
    problem = humaneval.load("test")[1]
    assert problem.id == "own/root"
    assert isinstance(problem.reference, UnitTests)
    assert "def cube(" in problem.reference.prompt
    assert problem.question == problem.reference.prompt
    (message,) = humaneval.ask(problem)
    assert problem.question.strip() in message.content
    assert "check(" not in message.content


def test_an_mbpp_question_shows_the_tests_as_far_as_asked(mbpp):
    problem = mbpp.load("train")[1]
    assert (problem.id, problem.reference.entry_point) == ("mbpp/9002", "tree_sum")
    assert problem.reference.code.startswith("root = Node(1)\n")
    assert problem.question.count("assert ") == 3
    one = task_of("mbpp", sources={"train": str(FIXTURES / "mbpp_train.jsonl")}, shown_tests=1).load("train")[1]
    assert one.question.count("assert ") == 1
    assert one.reference == problem.reference


def test_a_file_with_all_tasks_is_cut_by_their_ids():
    sources = {"train": str(FIXTURES / "mbpp_train.jsonl"), "test": str(FIXTURES / "mbpp_train.jsonl")}
    task = task_of("mbpp", sources=sources, task_ids={"test": [9001, 9002], "train": [1, 10]})
    assert [problem.id for problem in task.load("test")] == ["mbpp/9001", "mbpp/9002"]
    with pytest.raises(DataError, match="no task_id from 1 to 10"):
        task.load("train")


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_the_instruction_to_revise_does_not_say_whether_the_attempt_was_right(name, request):
    revise = request.getfixturevalue(name).revise.lower()
    assert "might be an error" in revise
    assert "if any" in revise


def test_chat_answers_are_graded_by_the_tests(humaneval, mbpp):
    need_isolation()
    even = humaneval.load("test")[2]
    texts = ["```python\ndef is_even_length(text):\n    return not len(text) % 2\n```", "    return True", "No idea."]
    assert [verdict.status for verdict in humaneval.grade([(even, text) for text in texts])] == ["correct", "wrong", "no_answer"]
    area = mbpp.load("train")[2]
    text = "```python\nimport math\n\ndef circle_area(radius):\n    return math.pi * radius ** 2\n```"
    assert mbpp.grade([(area, text)])[0].correct


def test_the_cpu_limit_and_the_sandbox_are_the_recipes():
    need_isolation()
    task = task_of("humaneval", sources={"test": str(FIXTURES / "humaneval_test.jsonl")}, cpu_s=0.2)
    (verdict,) = task.grade([(task.load("test")[2], "    while True: pass")])
    assert verdict.status == "timeout"
    assert "the limit is 0.2 s" in verdict.why


def test_layout_alone_is_no_change_of_answer(humaneval):
    assert humaneval.answer("```python\ndef f():\n\n    return 1  \n```") == humaneval.answer("So:\n```\ndef f():\n    return 1\n```")
    assert humaneval.answer("nothing") is None


def test_every_reference_program_of_our_own_passes_its_tests(capsys):
    need_isolation()
    assert data.cli(["check", "humaneval", "--test", str(FIXTURES / "humaneval_test.jsonl")]) == 0
    assert "test: 5 of 5 references pass" in capsys.readouterr().out
    assert data.cli(["check", "mbpp", "--train", str(FIXTURES / "mbpp_train.jsonl")]) == 0
    assert "train: 3 of 3 references pass" in capsys.readouterr().out


def test_a_reference_program_that_fails_is_listed(tmp_path, capsys):
    need_isolation()
    path = tmp_path / "rows.jsonl"
    path.write_text('{"task_id": 1, "text": "?", "code": "def f(): return 1", "test_list": ["assert f() == 2"]}\n')
    assert data.cli(["check", "mbpp", "--train", str(path)]) == 1
    assert "mbpp/1: wrong, AssertionError (line 1 of the tests): 'f'" in capsys.readouterr().out


def test_tests_without_a_reference_program_cannot_be_checked(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"task_id": "a", "prompt": "def f():\\n", "entry_point": "f", "test": "def check(c): pass"}\n')
    with pytest.raises(DataError, match="a: has unit tests and no reference program"):
        data.cli(["check", "humaneval", "--test", str(path)])


def test_the_published_splits_have_their_sizes():
    if not FOLDER.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    source = str(FOLDER / "mbpp.jsonl.gz")
    splits = {"prompt": [1, 10], "test": [11, 510], "validation": [511, 600], "train": [601, 974]}
    task = task_of("mbpp", sources=dict.fromkeys(splits, source), task_ids=splits)
    assert {split: len(task.load(split)) for split in splits} == {"prompt": 10, "test": 500, "validation": 90, "train": 374}
    assert len(task_of("humaneval", sources={"test": str(FOLDER / "HumanEval.jsonl.gz")}).load("test")) == 164
