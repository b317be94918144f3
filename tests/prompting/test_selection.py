import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.prompting.order import POLICIES, easy_to_hard, similarity_path
from posttrain.prompting.selection import Rules, letters_and_digits, listed, near_pairs, select
from posttrain.prompting.shots import PromptError, Shot, human_shots, read_shots, write_shots
from posttrain.prompting.similar import SimilarShots
from posttrain.tasks.icl.math import MathInContext, load
from posttrain.types import DataError, FinalAnswer, Problem
from tests.grading.shared_data import FOLDER

DROP = Rules(leaks="drop")


def shot(name: str, question: str, answer: str = "5", problem: str = "", level: str = "") -> Shot:
    return Shot(id=name, question=question, answer=answer, source="model", problem=problem, level=level)


def asked(question: str) -> Problem:
    return Problem(id="test/1", question=question, reference=FinalAnswer(text="5"))


def reasons(shots, rules=DROP, **more) -> dict[str, str]:
    return {dropped.shot.id: dropped.rule for dropped in select(shots, rules, **more).dropped}


def test_each_rule_counts_what_it_left_out():
    text = "A train travels for 2 hours at 30 miles an hour and stops at the station by the river. How far did it go?"
    shots = [
        shot("fine", "What is 2 + 3?"),
        shot("bare", "What is 9 + 1?", ""),
        shot("leak", "What is 7+8 ?"),
        shot("again", "What is $2+3$?", "6"),
        shot("train", text),
        shot("almost", text.replace("river", "rivers")),
        shot("long", "What is 100 + 1?", "x" * 50),
    ]
    selection = select(shots, Rules(leaks="drop", max_tokens=40), test=[asked("What is 7 + 8?")], count=lambda s: len(s.answer))
    assert [s.id for s in selection.shots] == ["fine", "train"]
    assert {d.shot.id: (d.rule, d.beside) for d in selection.dropped} == {
        "bare": ("no answer", ""),
        "leak": ("in the test set", "test/1"),
        "again": ("duplicate", "fine"),
        "almost": ("near-duplicate", "train"),
        "long": ("too long", ""),
    }
    assert str(selection).startswith("2 of 7 shots; left out: 1 no answer, 1 in the test set")


def test_a_leak_is_refused_unless_the_rules_say_otherwise():
    with pytest.raises(PromptError, match="1 of 2 shots are in the test set: a = test/1; `leaks: drop` leaves such shots out"):
        select([shot("a", "What is 2+3?"), shot("b", "What is 1+1?")], Rules(), test=[asked("What is $2 + 3$?")])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_no_selected_shot_is_a_test_question(pool, test):
    shots = [shot(f"{i}", f"What is {n} + 1?") for i, n in enumerate(pool)]
    problems = [Problem(id=f"{n}", question=f"What is {n} + 1 ?", reference=FinalAnswer(text="")) for n in test]
    try:
        left = {letters_and_digits(s.question) for s in select(shots, DROP, test=problems).shots}
    except PromptError:
        left = set()
    assert left == {letters_and_digits(f"What is {n} + 1?") for n in set(pool) - set(test)}


def test_the_cap_counts_different_answers_to_one_problem():
    answers = [shot(f"p#{i}", "What is 2 + 3?", answer, "p") for i, answer in enumerate(("5", " 5 ", "five", "it is 5"))]
    assert reasons(answers) == {"p#1": "duplicate", "p#2": "over the cap", "p#3": "over the cap"}
    assert reasons(answers, Rules(per_problem=2)) == {"p#1": "duplicate", "p#3": "over the cap"}


def test_the_same_words_around_other_numbers_are_another_problem():
    shots = [shot(str(n), f"What is the sum of all the multiples of {n} between 100 and 200?") for n in range(3, 9)]
    assert reasons(shots) == {}


def test_white_space_between_digits_tells_lists_of_numbers_apart_and_other_spelling_does_not():
    assert letters_and_digits("sum of 1 23") != letters_and_digits("sum of 12 3")
    assert letters_and_digits("$x^{2} + 3$") == letters_and_digits("x^2+3")
    assert letters_and_digits("Evaluate $\\log_8 2$.") == letters_and_digits("Evaluate $\\log_82$.")
    assert letters_and_digits("面积") != letters_and_digits("体积")
    assert letters_and_digits("+ - +") != letters_and_digits("- + -")


def test_near_pairs_are_those_of_a_plain_comparison_of_all_with_all():
    from random import Random

    from rapidfuzz.distance import Indel

    rng = Random(0)
    base = ["".join(rng.choices("abcd ", k=rng.randint(20, 60))) for _ in range(40)]
    texts = base + [text[:i] + rng.choice("abcd") + text[i + 1 :] for text in base for i in (3, 9)]
    keys = [letters_and_digits(text) for text in texts]
    plain = [(i, j) for i in range(len(keys)) for j in range(i + 1, len(keys)) if Indel.normalized_similarity(keys[i], keys[j]) >= 0.93]
    assert list(near_pairs(texts, 0.93, lambda i, j: True)) == plain
    assert plain


def test_an_empty_pool_says_which_rules_emptied_it():
    with pytest.raises(PromptError, match="the pool is empty: 0 of 2 shots; left out: 2 no answer"):
        select([shot("a", "x?", ""), shot("b", "y?", " ")], Rules())


def test_the_overlaps_and_duplicates_of_the_math_files_are_left_out():
    if not (FOLDER / "math_train.jsonl.gz").is_file():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    test = (str(FOLDER / "math500.jsonl"), str(FOLDER / "math_test_rest.jsonl.gz"))
    cfg = MathInContext(sources={"pool": str(FOLDER / "math_train.jsonl.gz"), "test": test})
    pool, problems = load(cfg, "pool"), load(cfg, "test")
    with pytest.raises(PromptError, match="of 7498 shots are in the test set"):
        select(human_shots(pool), Rules(), test=problems)

    def spelled(question):
        return "".join(char for char in question.lower() if char.isascii() and char.isalnum())

    in_pool = {spelled(problem.question) for problem in pool}
    overlaps = [problem for problem in problems if spelled(problem.question) in in_pool]
    assert len(overlaps) == 11
    selection = select(human_shots(pool), DROP, test=problems)
    assert not {spelled(problem.question) for problem in overlaps} & {spelled(s.question) for s in selection.shots}
    assert len(pool) - len({spelled(problem.question) for problem in pool}) == 9
    left = [spelled(s.question) for s in select(human_shots(pool), Rules(near=None)).shots]
    assert len(left) == len(pool) - 9 == len(set(left))


def test_a_subset_keeps_the_order_of_its_file_and_refuses_strangers():
    shots = [shot("a", "x?"), shot("b", "y?")]
    assert [s.id for s in listed(shots, ["b", "a"], "ids.txt")] == ["b", "a"]
    with pytest.raises(PromptError, match=r"ids.txt: 1 of 2 ids are not in the pool of 2 shots, e.g. 'c'"):
        listed(shots, ["a", "c"], "ids.txt")


@pytest.mark.parametrize("policy", POLICIES.values())
def test_an_order_is_the_same_for_the_same_seed_and_loses_nothing(policy):
    shots = [shot(str(i), f"question about {word} and {i}", level=str(i % 3)) for i, word in enumerate(["apples", "pears"] * 5)]
    assert policy(shots, 1) == policy(shots, 1)
    assert sorted(s.id for s in policy(shots, 1)) == sorted(s.id for s in shots)
    assert policy(shots, 1) != policy(shots, 2)


def test_orders_do_what_they_are_named_for():
    shots = [shot(str(i), f"question about {word} {word}s", level=str(9 - i)) for i, word in enumerate(["apple", "pear", "apple", "pear"])]
    assert [s.level for s in easy_to_hard(shots, 0)] == ["6", "7", "8", "9"]
    topics = ["apple" in s.question for s in similarity_path(shots, 0)]
    assert sum(a != b for a, b in itertools.pairwise(topics)) == 1
    with pytest.raises(PromptError, match="1 of 1 shots have no level"):
        easy_to_hard([shot("a", "x?")], 0)


def test_the_most_similar_shot_stands_next_to_the_item():
    shots = [
        shot("bread", "How is bread baked?"),
        shot("circle", "Find the area of a circle."),
        shot("square", "Find the area of a square."),
    ]
    nearest = SimilarShots(shots).nearest(asked("What is the area of a circle of radius 2?"), 2)
    assert [s.id for s in nearest] == ["square", "circle"]
    with pytest.raises(PromptError, match="a tail of 4 shots was asked for, but only 3"):
        SimilarShots(shots).nearest(asked("x"), 4)


def test_shots_read_back_as_written_and_a_stranger_s_file_is_refused(tmp_path):
    shots = [shot("a#1", "x\n?", "é", "a", "3")]
    write_shots(tmp_path / "shots.jsonl", shots)
    assert read_shots(tmp_path / "shots.jsonl") == shots
    (tmp_path / "other.jsonl").write_text('{"text": 1}\n')
    with pytest.raises(DataError, match=r"other.jsonl:1: not a shot"):
        read_shots(tmp_path / "other.jsonl")
