"""Generated one-line functions: one right program each, splits that share nothing, demonstrations that slip, and grades by running."""

import itertools
import random
import re

import pytest

from posttrain.config import ConfigError, build
from posttrain.prompting.chat import chat_format, eos_ids_of
from posttrain.sft.tokenizer import oneliners_tokenizer
from posttrain.tasks.generated import Slips
from posttrain.tasks.oneliners import OnelinersTask, Program, Puzzle, _slip, demonstrations, generate, language, load, make, written
from posttrain.types import DataError, UnitTests
from tests.grading.judges import need_isolation

SPLITS = ("train", "validation", "test")
SMALL = {"train_size": 300, "validation_size": 60, "test_size": 100}
CONFIGS = [OnelinersTask(**SMALL), OnelinersTask(arguments=2, shown=3, largest=31, **SMALL), OnelinersTask(arguments=6, hidden=0, **SMALL)]


def puzzles(cfg: OnelinersTask, split: str, num: int) -> list[Puzzle]:
    return list(itertools.islice(generate(cfg, split, random.Random(1)), num))


def stated(text: str) -> list[tuple[list[int], int]]:
    """Arguments and result of every assertion in a text."""
    found = re.findall(r"^assert f\(([\d, ]+)\) == (-?\d+)$", text, re.MULTILINE)
    return [([int(number) for number in arguments.split(", ")], int(result)) for arguments, result in found]


def test_the_language_holds_each_function_once():
    spelt = [written(program, 2) for program in language(2)]
    assert spelt == [f"def f(a, b): return {it}" for it in ("a + b", "a - b", "b - a", "a * b", "max(a, b)", "min(a, b)")]
    assert [len(language(n)) for n in (2, 3, 4)] == [6, 18, 36]


def test_a_program_computes_what_its_text_says():
    places = {"a": 7, "b": 2, "c": 9}
    for program in language(3):
        said = written(program, 3).partition("return ")[2]
        assert program((7, 2, 9)) == eval(said, {"max": max, "min": min} | places)


@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
def test_splits_have_their_sizes_and_no_problem_stands_in_two(cfg):
    problems = {split: load(cfg, split) for split in SPLITS}
    assert {split: len({p.id for p in found}) for split, found in problems.items()} == {"train": 300, "validation": 60, "test": 100}
    asked = {split: {frozenset(p.question.splitlines()) for p in found} for split, found in problems.items()}  # whatever the order
    for one, other in itertools.combinations(SPLITS, 2):
        assert not asked[one] & asked[other]


@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
def test_exactly_one_program_passes_what_is_shown_and_the_hidden_tests_are_others(cfg):
    for puzzle in puzzles(cfg, "test", 60):
        shown = stated(puzzle.problem.question)
        assert len(shown) == cfg.shown
        assert [p for p in language(cfg.arguments) if all(p(arguments) == result for arguments, result in shown)] == [puzzle.program]
        assert isinstance(puzzle.problem.reference, UnitTests)
        tests = stated(puzzle.problem.reference.code)
        assert tests[: cfg.shown] == shown
        assert len(tests) == cfg.shown + cfg.hidden
        assert all(puzzle.program(arguments) == result for arguments, result in tests)
        assert all(1 <= number <= cfg.largest for arguments, _ in tests for number in arguments)


def test_the_same_config_gives_the_same_problems_and_another_data_seed_others():
    cfg = OnelinersTask(**SMALL)
    assert load(cfg, "train") == load(OnelinersTask(**SMALL), "train")
    assert {p.id for p in load(cfg, "train")} != {p.id for p in load(OnelinersTask(**SMALL, data_seed=1), "train")}


def test_answers_are_run_and_whatever_passes_is_right():
    need_isolation()
    task = make(OnelinersTask())
    puzzle = next(p for p in puzzles(OnelinersTask(), "test", 100) if p.program.operation == "+")
    left, right = "abcd"[puzzle.program.left], "abcd"[puzzle.program.right]
    (_, result), *_ = stated(puzzle.problem.question)
    table = {tuple(case): value for case, value in stated(puzzle.problem.question)}
    texts = {
        written(puzzle.program, 4): "correct",
        f"def f(a, b, c, d): return {right} + {left}": "correct",  # of another spelling
        f"```python\ndef f(*x):\n    return sum(x[i] for i in ({puzzle.program.left}, {puzzle.program.right}))\n```": "correct",
        f"def f(a, b, c, d): return {left} - {right}": "wrong",
        f"def f(a, b, c, d): return {table}[a, b, c, d]": "crash",  # the shown results learnt by heart
        f"def f(a, b, c, d): return {result}": "wrong",
        "def f(a, b, c, d): return a +": "crash",
        "def f(a, b, c, d): return e": "crash",
        "a + b": "no_answer",
        "": "no_answer",
    }
    verdicts = task.grade([(puzzle.problem, text) for text in texts])
    assert dict(zip(texts, (verdict.status for verdict in verdicts))) == texts


def test_every_reference_passes_and_no_other_program_of_the_language_does():
    need_isolation()
    cfg = OnelinersTask(arguments=2)
    task = make(cfg)
    pairs = [(puzzle, program) for puzzle in puzzles(cfg, "test", 4) for program in language(2)]
    verdicts = task.grade([(puzzle.problem, written(program, 2)) for puzzle, program in pairs])
    assert [verdict.correct for verdict in verdicts] == [program == puzzle.program for puzzle, program in pairs]


def test_the_instruction_is_a_comment_that_tells_nothing_of_the_attempt():
    task = make(OnelinersTask())
    assert task.revise.startswith("# ")
    assert "may be an error" in task.revise
    assert not re.search(r"\d|\bis wrong\b|\bincorrect\b", task.revise)
    problem = puzzles(OnelinersTask(), "test", 1)[0].problem
    assert [message.content for message in task.ask(problem)] == [problem.question]
    assert problem.question.startswith("Write f(a, b, c, d) in one line.\nassert f(")


@pytest.mark.parametrize("slips", [Slips(), Slips(first=0.6, copy=0.2, correct=0.5, spread=0.5)])
def test_demonstrations_slip_copy_and_correct_as_often_as_they_are_set_to(slips):
    num = 3000
    shown = list(itertools.islice(demonstrations(OnelinersTask(), slips, random.Random(3)), num))
    right = [tuple(attempt == demo.problem.solution for attempt in demo.attempts) for demo in shown]
    assert sum(first for first, _ in right) / num == pytest.approx(1 - slips.first, abs=0.03)
    after_wrong = [second for first, second in right if not first]
    assert sum(after_wrong) / len(after_wrong) == pytest.approx(slips.correct, abs=0.04)
    after_right = [second for first, second in right if first]
    assert sum(after_right) / len(after_right) == pytest.approx(slips.copy + slips.correct, abs=0.04)


def test_slips_are_programs_of_the_language_and_near_misses_where_spread_is_small():
    cfg = OnelinersTask(arguments=3, shown=1)
    puzzle = Puzzle(problem=puzzles(cfg, "train", 1)[0].problem, shown=((2, 9, 4),), program=Program(operation="+", left=0, right=2))
    slips = {_slip(puzzle, cfg, Slips(spread=0.1), random.Random(seed)) for seed in range(50)}
    assert {program((2, 9, 4)) for program in slips} == {5, 7}  # b - c and b - a; 2 + 4 is right, and all else misses it by 2 or more


def test_demonstrations_show_training_problems_only():
    shown = {demo.problem.id for demo in itertools.islice(demonstrations(OnelinersTask(), Slips(), random.Random(5)), 300)}
    held_out = {puzzle.problem.id for split in ("validation", "test") for puzzle in puzzles(OnelinersTask(), split, 300)}
    assert not shown & held_out


def test_its_tokenizer_has_one_token_for_each_part_of_a_problem_and_gives_the_text_back():
    cfg = OnelinersTask(arguments=3)
    tokenizer = oneliners_tokenizer(cfg)
    chat = chat_format(tokenizer, eos_ids_of(tokenizer))
    texts = [text for demo in itertools.islice(demonstrations(cfg, Slips(), random.Random(6)), 200) for text in demo.attempts]
    texts += [puzzle.problem.question for puzzle in puzzles(cfg, "test", 200)] + [make(cfg).revise]
    ids = [chat.encode(text) for text in texts]
    assert [tokenizer.decode(list(row)) for row in ids] == texts
    assert max(map(len, ids[:400])) == 6  # head, max(, a, the comma, b, the bracket
    assert {len(row) for row in ids[400:-1]} == {14}  # the head, two tests of six tokens, a line's end between them
    assert len(ids[-1]) == 1


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"arguments": 7}, "arguments: found 7"),
        ({"largest": 1}, "largest: found 1"),
        ({"shown": 0}, "shown: found 0"),
        ({"argumets": 3}, "did you mean"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tree, said):
    with pytest.raises(ConfigError) as caught:
        build(OnelinersTask, [("recipe.yaml", tree)])
    assert said in str(caught.value)


def test_a_split_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"no split 'tset'; expected one of train, validation, test"):
        load(OnelinersTask(), "tset")


@pytest.mark.timeout(100)
def test_more_problems_than_there_are_is_refused_and_does_not_hang():
    with pytest.raises(DataError, match=r"oneliners: only \d+ different problems of 2000 asked for in test"):
        load(OnelinersTask(arguments=2, largest=3, shown=2), "test")
