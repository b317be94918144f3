"""A task file of the user's own: what it defines is the task, and whatever is wrong with it is one line with the place."""

import random
from pathlib import Path

import pytest

from posttrain.config import ConfigError, build
from posttrain.run import RunFolder, keep_source
from posttrain.tasks import check, make_task, python_file
from posttrain.tasks.python_file import FileTask
from posttrain.types import DataError, FinalAnswer, Message, Problem

WHOLE = """\
from posttrain.types import FinalAnswer, Message, Problem, Verdict

revise = "Look again."


def load(split):
    return [Problem(id=f"{split}/{n}", question=str(n), reference=FinalAnswer(text=str(2 * n))) for n in (1, 2)]


def ask(problem):
    return [Message(role="user", content="Twice " + problem.question)]


def grade(problem, text):
    return Verdict(status="correct" if int(text or 0) == int(problem.reference.text) else "wrong")


def answer(text):
    return text or None


def demonstrations(rng):
    yield load("train")[0], str(rng.randrange(1)), "2"
"""


def task_file(folder: Path, old: str = "", new: str = "") -> FileTask:
    """The whole file with one place changed."""
    assert WHOLE.count(old) >= 1
    path = folder / "task.py"
    path.write_text(WHOLE.replace(old, new, 1) if old else WHOLE)
    return FileTask(path=path)


def test_the_parts_of_the_file_are_the_task(tmp_path):
    task = make_task(task_file(tmp_path))
    one, two = task.load("test")
    assert (one.id, two.id) == ("test/1", "test/2")
    assert task.ask(two) == [Message(role="user", content="Twice 2")]
    assert (task.name, task.revise, task.answer(""), task.source) == ("task", "Look again.", None, WHOLE)
    assert [verdict.status for verdict in task.grade([(one, "2"), (two, "2")])] == ["correct", "wrong"]


def test_a_recipe_names_the_file_and_holds_no_python(tmp_path):
    task_file(tmp_path)
    layer = ("r.yaml", {"task": {"kind": "file", "path": str(tmp_path / "task.py")}})
    assert make_task(build(check.TaskFile, [layer]).task).name == "task"


def test_a_grader_that_raises_leaves_the_answer_unscored_and_tells_the_line(tmp_path):
    cfg = task_file(tmp_path)
    problem = Problem(id="1", question="1", reference=FinalAnswer(text="2"))
    line = 1 + WHOLE.splitlines().index(next(line for line in WHOLE.splitlines() if "int(text or 0)" in line))
    bad, good = make_task(cfg).grade([(problem, "two"), (problem, "2")])
    assert (bad.status, good.status) == ("unscored", "correct")
    assert bad.why.startswith(f"{cfg.path}:{line}: ValueError: ")


def test_a_grader_that_forgets_its_verdict_leaves_the_answer_unscored(tmp_path):
    problem = Problem(id="1", question="1", reference=FinalAnswer(text="2"))
    (verdict,) = make_task(task_file(tmp_path, "    return Verdict", "    Verdict")).grade([(problem, "2")])
    assert (verdict.status, verdict.why.partition(": ")[2]) == ("unscored", "grade gave None, expected a Verdict")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def load(split):", "def laod(split):", "task.py: defines no `load`; did you mean 'laod'?; expected load(split)"),
        ("def grade(problem, text)", "def grade(text)", "task.py: `grade(text)` cannot be called as grade(problem, text): "),
        ('revise = "Look again."', 'revised = ""', "task.py: defines no `revise`; did you mean 'revised'?; expected a text"),
        ('revise = "Look again."', "revise = 3", "task.py: `revise` is int; expected a text"),
        ("def answer(text):", "answer = 3\n\ndef other(text):", "task.py: `answer` is no function; expected answer(text)"),
        ("def ask(problem):", "def ask(problem:", "task.py:10: not valid Python: "),
        ("from posttrain.types", "import nowhere\nfrom posttrain.types", "task.py:1: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_file_that_lacks_something_is_refused_when_it_is_named(tmp_path, old, new, said):
    with pytest.raises(ConfigError) as refused:
        make_task(task_file(tmp_path, old, new))
    assert str(refused.value).removeprefix(f"{tmp_path}/").startswith(said)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("str(2 * n)", "2 / 0", "task.py:7: load('test') failed: ZeroDivisionError: division by zero"),
        ("for n in (1, 2)", "for n in ()", "task.py: load('test') gave no problem"),
        ("for n in (1, 2)", "for n in (1, 1)", "task.py: load('test') gave the id 'test/1' twice, at item 2 again; ids must be unique"),
        ("return [Problem(", "return [str(", "task.py:7: load('test') failed: TypeError: "),
        ("for n in (1, 2)]", "for n in (1, 2)] + ['x']", "task.py: load('test') gave str as item 3, expected Problem"),
        ('return [Message(role="user", content="Twice " + problem.question)]', "return problem.question", "task.py: ask(problem) gave str"),
        ("int(text or 0)", "int(text)", "task.py:15: grade(problem, '') failed: ValueError: "),
        ("    return Verdict", "    Verdict", "task.py: grade(problem, '') gave None, expected a Verdict"),
        ("return text or None", "return 0", "task.py: answer('') gave int, expected a text or None"),
    ],
)
def test_a_part_that_gives_the_wrong_thing_is_refused_when_a_split_is_loaded(tmp_path, old, new, said):
    task = make_task(task_file(tmp_path, old, new))
    with pytest.raises((ConfigError, DataError)) as refused:
        task.load("test")
    assert str(refused.value).removeprefix(f"{tmp_path}/").startswith(said)


def test_a_file_that_is_not_there_is_named_with_its_nearest_neighbour(tmp_path):
    (tmp_path / "task.py").write_text(WHOLE)
    with pytest.raises(ConfigError, match=r"tsk.py: no such task file; did you mean 'task.py'\?"):
        make_task(FileTask(path=tmp_path / "tsk.py"))


def test_demonstrations_are_read_and_checked(tmp_path):
    ((problem, first, second),) = python_file.demonstrations(task_file(tmp_path), random.Random(0))
    assert (problem.id, first, second) == ("train/1", "0", "2")
    with pytest.raises(ConfigError, match=r"demonstration 1 is tuple, expected \(Problem, text of the first attempt, text of the second\)"):
        next(python_file.demonstrations(task_file(tmp_path, ', "2"', ", 2"), random.Random(0)))
    with pytest.raises(ConfigError, match=r"task.py: defines no `demonstrations`; did you mean 'demonstration'"):
        next(python_file.demonstrations(task_file(tmp_path, "def demonstrations", "def demonstration"), random.Random(0)))


@pytest.mark.parametrize(("old", "new", "code"), [("", "", 0), ("str(2 * n)", "str(2 * n) + ' '", 0), ("int(text or 0)", "3", 1)])
def test_data_check_takes_the_file_itself(tmp_path, monkeypatch, capsys, old, new, code):
    monkeypatch.chdir(tmp_path)
    task_file(tmp_path, old, new)
    assert check.cli(["task.py", "--split", "test"]) == code
    assert f"test: {2 * (1 - code)} of 2 references pass their own grader" in capsys.readouterr().out


def test_what_was_begun_with_one_task_file_is_not_gone_on_with_under_another(tmp_path):
    folder = RunFolder(tmp_path / "run", FileTask(path=Path("task.py")))
    keep_source(folder.path, "a = 1\n")
    keep_source(folder.path, "a = 1\n")
    with pytest.raises(ConfigError, match=r"run: was begun with another task file, kept there as task.py; name another --out"):
        keep_source(folder.path, "a = 2\n")
    folder.abandon()
    keep_source(folder.path, "a = 2\n")
