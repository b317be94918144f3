"""Points beside a hidden plane: exact labels, balance, nothing shared between pool and test, and baselines that see what the model sees."""

import re

import numpy as np
import pytest

from posttrain.config import ConfigError, build
from posttrain.tasks.icl.linear import LinearInContext, draw, first_word, load, logistic_regression, make_icl, nearest_neighbours
from posttrain.types import DataError, FinalAnswer, Problem

PAPER = [LinearInContext(dimensions=n, per_class=64) for n in (16, 32, 64)]
TINY = [LinearInContext(dimensions=n, largest=8 if n > 2 else 32, signed=True, named=True, per_class=64) for n in (2, 4)]


def numbers(problem: Problem) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", problem.question)]


def label(problem: Problem) -> str:
    assert isinstance(problem.reference, FinalAnswer)
    return problem.reference.text


def point(*coordinates: int, foo: bool) -> Problem:
    answer = "Foo" if foo else "Bar"
    return Problem(id=str(coordinates), question=" ".join(map(str, coordinates)), reference=FinalAnswer(text=answer), solution=answer)


@pytest.mark.parametrize("cfg", PAPER + TINY, ids=str)
def test_classes_are_balanced_and_no_point_stands_twice(cfg):
    pool, test = load(cfg, "pool"), load(cfg, "test")
    assert [len(pool), len(test)] == [128, 50]
    for split in (pool, test, pool[:2], pool[:32]):
        assert [label(problem) for problem in split].count("Foo") == len(split) / 2
    assert len({problem.question for problem in pool + test}) == 178
    assert all(
        len(numbers(problem)) == cfg.dimensions and 1 <= min(numbers(problem)) <= max(numbers(problem)) <= cfg.largest for problem in pool
    )


@pytest.mark.parametrize("cfg", PAPER[:1] + TINY, ids=str)
def test_one_plane_parts_pool_and_test_without_an_exception(cfg):
    from scipy.optimize import linprog

    problems = load(cfg, "pool") + load(cfg, "test")
    x = np.array([numbers(problem) for problem in problems], dtype=float)
    side = np.array([1 if label(problem) == "Foo" else -1 for problem in problems])
    rows = -side[:, None] * np.hstack([x, -np.ones((len(x), 1))])  # side * (a.x - threshold) >= 1 has an answer where a plane parts them
    assert linprog(np.zeros(cfg.dimensions + 1), A_ub=rows, b_ub=-np.ones(len(x)), bounds=(None, None)).success


def test_the_papers_coefficients_are_positive_and_signed_ones_are_not():
    def slopes(signed: bool) -> list[float]:
        found = []
        for seed in range(8):
            pool = load(LinearInContext(dimensions=2, signed=signed, per_class=200, data_seed=seed), "pool")
            foo, bar = (np.mean([numbers(p) for p in pool if label(p) == name], axis=0) for name in ("Foo", "Bar"))
            found += list(foo - bar)
        return found

    assert sum(slope < -50 for slope in slopes(signed=False)) == 0
    assert sum(slope < -50 for slope in slopes(signed=True)) >= 3


def test_a_larger_pool_begins_with_the_smaller_one_and_leaves_the_test_points_alone():
    small, large = LinearInContext(per_class=10), LinearInContext(per_class=300)
    assert load(large, "pool")[:20] == load(small, "pool")
    assert load(large, "test") == load(small, "test")
    assert load(LinearInContext(per_class=10, data_seed=1), "pool") != load(small, "pool")


def test_questions_are_in_the_papers_words_or_in_compact_ones():
    paper, tiny = make_icl(PAPER[0]), make_icl(TINY[1])
    assert (paper.layout.question_label, paper.layout.answer_label) == ("Input: ", "\nOutput: ")
    assert re.fullmatch(r"\d+( \d+){15}", paper.load("test")[0].question)
    assert re.fullmatch(r"a\d b\d c\d d\d", tiny.load("test")[0].question)


@pytest.mark.parametrize(
    ("text", "worth"), [("Foo", 1), (" Foo\n\nInput: 1", 1), ("Bar", 0), ("", 0), ("FooFoo", 0), ("foo", 0), ("The answer is Foo", 0)]
)
def test_an_answer_is_its_first_word(text, worth):
    assert make_icl(PAPER[0]).score([(point(1, 2, foo=True), text)]) == [worth]
    assert first_word("  \n ") == ""


def test_nearest_neighbours_vote():
    shots = [point(1, 1, foo=True), point(1, 2, foo=True), point(9, 9, foo=False), point(9, 8, foo=False), point(8, 9, foo=False)]
    assert nearest_neighbours(shots, [point(9, 7, foo=False), point(2, 2, foo=True)], k=1) == [1.0, 1.0]
    assert nearest_neighbours(shots, [point(9, 7, foo=False), point(2, 2, foo=True)]) == [1.0, 0.0]  # all five vote: three Bars
    assert nearest_neighbours(shots[:1], [point(9, 9, foo=False), point(2, 2, foo=True)]) == [0.0, 1.0]


def test_logistic_regression_learns_the_plane_that_neighbours_only_guess():
    cfg = LinearInContext(dimensions=16, per_class=256, test_per_class=100)
    pool, test = load(cfg, "pool"), load(cfg, "test")
    regression, neighbours = sum(logistic_regression(pool, test)) / 200, sum(nearest_neighbours(pool, test)) / 200
    assert regression > neighbours > 0.7
    assert regression > 0.95


def test_logistic_regression_on_one_class_says_that_class():
    assert logistic_regression([point(1, 1, foo=True)], [point(5, 5, foo=True), point(6, 6, foo=False)]) == [1.0, 0.0]


def test_flipped_shots_turn_both_baselines_round():
    pool, test = load(TINY[0], "pool"), load(TINY[0], "test")
    turned = [point(*numbers(problem), foo=label(problem) == "Bar") for problem in pool]
    for learner in (nearest_neighbours, logistic_regression):
        assert sum(learner(pool, test)) > 40
        assert sum(learner(turned, test)) < 10


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 30, "named": True}, "letters for 26 axes, got dimensions 30"),
        ({"dimensions": 2, "largest": 8, "per_class": 64}, "178 different points asked for, but 2 numbers up to 8 make 64"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tree, said):
    with pytest.raises(ConfigError, match=said):
        build(LinearInContext, [("suite.yaml", tree)])


def test_a_split_or_points_that_are_not_there_are_refused():
    with pytest.raises(DataError, match="no split 'train'; expected pool or test"):
        load(PAPER[0], "train")
    with pytest.raises(DataError, match=r"32 different points of each class asked for, \d+ found"):
        draw(LinearInContext(dimensions=2, largest=6, per_class=1, test_per_class=1), np.random.default_rng(0), per_class=32)
