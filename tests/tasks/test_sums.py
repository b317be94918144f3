"""Generated problems: one right answer each, splits that share nothing, and demonstrations that slip as often as they should."""

import itertools
import json
import random
import re
from dataclasses import replace

import pytest

from posttrain.config import ConfigError, build
from posttrain.tasks.generated import Slips
from posttrain.tasks.sums import Puzzle, SumsTask, demonstrations, final_sum, generate, grade, load, make, posed, written
from posttrain.types import DataError, FinalAnswer, Problem

SPLITS = ("train", "validation", "test")
SMALL = {"train_size": 300, "validation_size": 60, "test_size": 100}
CONFIGS = [SumsTask(**SMALL), SumsTask(pick=2, numbers=8, largest=30, **SMALL), SumsTask(pick=3, numbers=5, largest=99, **SMALL)]


def puzzles(cfg: SumsTask, split: str, num: int) -> list[Puzzle]:
    return list(itertools.islice(generate(cfg, split, random.Random(1)), num))


def chosen(text: str) -> tuple[int, ...]:
    found = final_sum(text)
    assert found is not None
    return tuple(map(int, found.split("+")))


@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
def test_splits_have_their_sizes_and_no_problem_stands_in_two(cfg):
    ids = {split: [problem.id for problem in load(cfg, split)] for split in SPLITS}
    assert {split: len(set(found)) for split, found in ids.items()} == {"train": 300, "validation": 60, "test": 100}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(ids[one]) & set(ids[other])


def test_the_same_numbers_in_another_order_or_wording_are_the_same_problem():
    cfg = SumsTask(pick=2, numbers=3, largest=6)
    asked: dict[tuple, set[str]] = {}
    for split in SPLITS:
        for puzzle in puzzles(cfg, split, 300):
            asked.setdefault((frozenset(puzzle.numbers), sum(puzzle.answer)), set()).add(f"{split} {puzzle.problem.id}")
    assert all(len(ids) == 1 for ids in asked.values())
    wordings = {puzzle.problem.question for puzzle in puzzles(cfg, "train", 300)}
    assert len(wordings) > 2 * len(asked) / 2


def test_the_same_config_gives_the_same_problems_and_another_data_seed_others():
    cfg = SumsTask(**SMALL)
    assert load(cfg, "train") == load(SumsTask(**SMALL), "train")
    assert load(cfg, "train")[:50] == load(SumsTask(**SMALL | {"train_size": 50}), "train")
    other = load(SumsTask(**SMALL, data_seed=1), "train")
    assert {problem.id for problem in load(cfg, "train")} != {problem.id for problem in other}


@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
def test_exactly_one_choice_is_right_and_it_is_the_reference(cfg):
    for puzzle in puzzles(cfg, "test", 100):
        target = sum(puzzle.answer)
        right = [choice for choice in itertools.combinations(puzzle.numbers, cfg.pick) if sum(choice) == target]
        assert [tuple(sorted(choice)) for choice in right] == [puzzle.answer]
        assert len(set(puzzle.numbers)) == cfg.numbers
        assert all(1 <= number <= cfg.largest for number in puzzle.numbers)
        assert puzzle.problem.reference == FinalAnswer(text=written(puzzle.answer))


@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
def test_a_question_states_every_number_and_the_target_and_no_more(cfg):
    for puzzle in puzzles(cfg, "test", 100):
        stated = [int(number) for number in re.findall(r"\d+", puzzle.problem.question)]
        assert stated == [*puzzle.numbers, sum(puzzle.answer)]
    assert {puzzle.problem.subject for puzzle in puzzles(cfg, "test", 100)} == {"words", "symbols"}


@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
def test_every_reference_passes_its_own_grader_and_no_other_choice_does(cfg):
    task = make(cfg)
    problems = task.load("validation")
    verdicts = task.grade([(problem, problem.reference.text) for problem in problems])
    assert [verdict.status for verdict in verdicts] == ["correct"] * 60
    puzzle = puzzles(cfg, "test", 1)[0]
    graded = {choice: grade(puzzle.problem, written(choice)).correct for choice in itertools.combinations(sorted(puzzle.numbers), cfg.pick)}
    assert [choice for choice, correct in graded.items() if correct] == [puzzle.answer]


PROBLEM = Problem(id="p", question="Which three of 4 11 9 12 3 7 2 add up to 16?", reference=FinalAnswer(text=written([11, 2, 3])))


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("\\boxed{ 2 + 3 + 11 }", "correct"),
        ("\\boxed{11+3+2}", "correct"),
        ("It is \\boxed{3 +11+ 2}.", "correct"),
        ("\\boxed{2 +\x1e3 + 11}", "correct"),  # a space to a pattern, but not to int()
        ("\\boxed{ 2 + 7 + 9 } no, \\boxed{ 2 + 3 + 11 }", "correct"),
        ("\\boxed{ 2 + 3 + 11 } no, \\boxed{ 2 + 7 + 9 }", "wrong"),
        ("\\boxed{ 5 + 11 }", "wrong"),
        ("\\boxed{ 2 + 3 + 11 + 0 }", "wrong"),
        ("\\boxed{ 2 + 2 + 12 }", "wrong"),
        ("2 + 3 + 11", "no_answer"),
        ("\\boxed{16}", "no_answer"),
        ("\\boxed{ 2 + 3 + }", "no_answer"),
        ("\\boxed{ 2 + 3 + 11", "no_answer"),
        ("\\boxed{}", "no_answer"),
        ("", "no_answer"),
        ("\\boxed{ 2 + 3 + 11 + " + "9" * 5000 + " }", "no_answer"),
    ],
)
def test_an_answer_is_its_last_boxed_sum_in_any_order(text, status):
    verdict = grade(PROBLEM, text)
    assert verdict.status == status
    assert verdict.why
    assert (final_sum(text) is None) == (status == "no_answer")


def test_two_spellings_of_one_choice_are_one_answer():
    task = make(SumsTask())
    assert task.answer("\\boxed{11+3+2}") == task.answer("\\boxed{ 2 + 3 + 11 }") == "2+3+11"


def test_the_instruction_is_one_text_for_right_and_wrong_attempts_and_names_no_answer():
    task = make(SumsTask())
    assert isinstance(task.revise, str)
    assert not re.search(r"\d|\bis wrong\b|\bincorrect\b|\bmistake was\b", task.revise)
    assert "may" in task.revise.split()
    assert [message.role for message in task.ask(PROBLEM)] == ["user"]
    assert task.ask(PROBLEM)[0].content == PROBLEM.question


@pytest.mark.parametrize("slips", [Slips(), Slips(first=0.6, copy=0.2, correct=0.5, spread=0.5)])
def test_demonstrations_slip_copy_and_correct_as_often_as_they_are_set_to(slips):
    num = 4000
    shown = list(itertools.islice(demonstrations(SumsTask(), slips, random.Random(3)), num))
    right = [tuple(grade(demo.problem, attempt).correct for attempt in demo.attempts) for demo in shown]
    copied = [demo.attempts[0] == demo.attempts[1] for demo in shown]
    first_right = sum(first for first, _ in right) / num
    assert first_right == pytest.approx(1 - slips.first, abs=0.03)
    after_wrong = [second for first, second in right if not first]
    assert sum(after_wrong) / len(after_wrong) == pytest.approx(slips.correct, abs=0.04)
    after_right = [second for first, second in right if first]
    assert sum(after_right) / len(after_right) == pytest.approx(slips.copy + slips.correct, abs=0.04)
    wrong_copied = [same for same, (first, _) in zip(copied, right) if not first]
    assert sum(wrong_copied) / len(wrong_copied) >= slips.copy - 0.04


def test_slips_are_choices_from_the_list_and_mostly_near_misses():
    cfg = SumsTask()
    misses = []
    for demo in itertools.islice(demonstrations(cfg, Slips(first=1.0, spread=1.0), random.Random(4)), 500):
        *numbers, target = (int(number) for number in re.findall(r"\d+", demo.problem.question))
        slip = chosen(demo.attempts[0])
        assert len(slip) == cfg.pick
        assert set(slip) <= set(numbers)
        misses.append(abs(sum(slip) - target))
    assert min(misses) == 1
    assert sorted(misses)[250] <= 2


def test_demonstrations_show_training_problems_only():
    shown = {demo.problem.id for demo in itertools.islice(demonstrations(SumsTask(), Slips(), random.Random(5)), 300)}
    held_out = {puzzle.problem.id for split in ("validation", "test") for puzzle in puzzles(SumsTask(), split, 300)}
    assert not shown & held_out


@pytest.mark.parametrize(
    ("cls", "tree", "said"),
    [
        (SumsTask, {"numbers": 3}, "numbers must lie above pick = 3 and within largest = 15, got 3"),
        (SumsTask, {"largest": 6}, "within largest = 6, got 7"),
        (SumsTask, {"largest": 1000}, "largest must be at most 999, got 1000"),
        (SumsTask, {"pick": 4}, "pick: found 4, expected 2 or 3"),
        (Slips, {"first": 1.5}, "expected probabilities"),
        (Slips, {"copy": -0.1}, "expected probabilities"),
        (Slips, {"copy": 0.6, "correct": 0.6}, "copy + correct <= 1"),
        (Slips, {"spread": 0}, "spread must be > 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(cls, tree, said):
    with pytest.raises(ConfigError) as caught:
        build(cls, [("recipe.yaml", tree)])
    assert str(caught.value).startswith("recipe.yaml: ")
    assert said in str(caught.value)


def test_a_split_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"no split 'tset'; expected one of train, validation, test"):
        load(SumsTask(), "tset")


@pytest.mark.timeout(100)
@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (SumsTask(pick=2, numbers=3, largest=6), r"only \d+ different problems of \d+ asked for in test"),
        (
            SumsTask(pick=2, numbers=30, largest=30),
            r"no problem of test with one answer|only \d+ different problems of \d+ asked for in test",
        ),
    ],
)
def test_more_problems_than_there_are_is_refused_and_does_not_hang(cfg, said):
    with pytest.raises(DataError, match=said):
        load(cfg, "test")


def test_all_problems_that_there_are_can_be_asked_for():
    cfg = SumsTask(pick=2, numbers=3, largest=6)
    there_are = {puzzle.problem.id for puzzle in puzzles(cfg, "test", 3000)}
    assert {problem.id for problem in load(SumsTask(pick=2, numbers=3, largest=6, test_size=len(there_are)), "test")} == there_are


def test_a_problem_that_is_written_out_is_read_back():
    cfg = SumsTask(pick=2, numbers=6, largest=30)
    for problem in load(cfg, "train")[:200]:
        assert posed(cfg, problem.question) == problem
    assert posed(cfg, load(cfg, "test")[0].question) == "belongs to the test set"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Which two of 3 4 5 add up to 9? ", "not in the form of a problem"),
        ("Which three of 3 4 5 9 add up to 12?", "does not ask for two numbers"),
        ("x + y + z = ? from { 3 4 5 9 }, sum = 12", "does not ask for two numbers"),
        ("Which two of 3 4 4 add up to 7?", "numbers repeat, or are not from 1 to 30"),
        ("Which two of 3 4 31 add up to 7?", "numbers repeat, or are not from 1 to 30"),
        ("Which two of 0 4 5 add up to 9?", "numbers repeat, or are not from 1 to 30"),
        ("Which two of 4 5 add up to 9?", "too few numbers"),
        ("Which two of 3 4 5 add up to 10?", "no answer"),
        ("Which two of 1 2 3 4 add up to 5?", "several answers"),
    ],
)
def test_what_is_no_problem_is_told_why(text, why):
    assert posed(SumsTask(pick=2, numbers=6, largest=30), text) == why


def test_a_file_of_problems_takes_the_place_of_generated_ones(tmp_path):
    cfg, file = SumsTask(pick=2, numbers=4, largest=30), tmp_path / "problems.jsonl"
    problems = load(cfg, "train")[:3]
    file.write_text("".join(json.dumps({"question": problem.question}) + "\n" for problem in problems))
    assert load(replace(cfg, train_file=file), "train") == problems
    assert load(replace(cfg, train_file=file), "test") == load(cfg, "test")
    file.write_text(file.read_text() + json.dumps({"question": "Which two of 3 4 5 add up to 10?"}) + "\n")
    with pytest.raises(DataError, match=r"problems.jsonl:4: `question`: no answer"):
        load(replace(cfg, train_file=file), "train")
    file.write_text((json.dumps({"question": problems[0].question}) + "\n") * 2)
    with pytest.raises(DataError, match=r"problems.jsonl:2: asks what an earlier line asks"):
        load(replace(cfg, train_file=file), "train")
