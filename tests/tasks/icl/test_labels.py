"""Annotators and their rules: the tone is the language's, the label the annotator's, slips are the pool's alone."""

import dataclasses

import pytest

from posttrain.config import ConfigError, build
from posttrain.tasks.icl.labels import ABSTRACT, TONES, LabelsInContext, Language, label_in, load, make_icl, tones
from posttrain.types import DataError, Problem

CFG = LabelsInContext(pool_size=600, test_size=100)


def under(scheme: str, **changed) -> LabelsInContext:
    return dataclasses.replace(CFG, scheme=scheme, **changed)


def quality(problem: Problem) -> int:
    return int(problem.question.split("quality")[1])


def order_of(problems: list[Problem]) -> tuple[str, ...]:
    """The label that each tone gets; every quality of a tone gets the same one."""
    known = tones(CFG.language)
    found = [set().union(*(labels for q, labels in rule(problems).items() if known[q] == tone)) for tone in range(3)]
    assert [len(labels) for labels in found] == [1, 1, 1]
    return tuple(labels.pop() for labels in found)


def rule(problems: list[Problem]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for problem in problems:
        found.setdefault(quality(problem), set()).add(label_in(problem.solution))
    return found


def test_no_item_stands_twice_and_all_schemes_ask_the_same_ones():
    pool, test = load(CFG, "pool"), load(CFG, "test")
    assert len({problem.question for problem in pool + test}) == 700
    for scheme in ("flipped", "shuffled", "abstract", "own"):
        assert [problem.question for problem in load(under(scheme), "test")] == [problem.question for problem in test]


def test_default_labels_are_the_languages_tones_and_another_language_has_others():
    known = tones(CFG.language)
    assert sorted(map(known.count, range(3))) == [32, 32, 32]
    for data_seed in (0, 1):
        assert rule(load(under("default", data_seed=data_seed), "pool")) == {q: {TONES[tone]} for q, tone in enumerate(known)}
    assert tones(Language(seed=1)) != known


def test_flipped_labels_are_the_default_ones_rotated_by_one():
    rotated = {"negative": "neutral", "neutral": "positive", "positive": "negative"}
    default, flipped = load(under("default"), "test"), load(under("flipped"), "test")
    assert [problem.solution for problem in flipped] == [rotated[problem.solution] for problem in default]


def test_shuffled_labels_are_neither_default_nor_flipped_and_every_such_order_occurs():
    orders = {order_of(load(under("shuffled", data_seed=data_seed), "pool")) for data_seed in range(30)}
    assert len(orders) == 4
    assert not orders & {TONES, ("neutral", "positive", "negative")}


def test_abstract_labels_stand_one_for_each_tone_in_an_order_of_the_annotators():
    orders = {order_of(load(under("abstract", data_seed=data_seed), "pool")) for data_seed in range(40)}
    assert len(orders) == 6
    assert all(set(order) == set(ABSTRACT) for order in orders)


def test_an_annotators_own_labels_follow_no_tone_but_hold_in_pool_and_test():
    cfg = under("own")
    found = rule(load(cfg, "pool") + load(cfg, "test"))
    assert all(len(labels) == 1 for labels in found.values())
    by_tone = [{next(iter(found[q])) for q in found if tones(CFG.language)[q] == tone} for tone in range(3)]
    assert by_tone == [set(TONES)] * 3


def test_slips_come_as_often_as_they_are_set_to_and_in_the_pool_alone():
    clean, noisy = load(under("flipped"), "pool"), load(under("flipped", noise=0.6), "pool")
    changed = sum(a.solution != b.solution for a, b in zip(clean, noisy)) / len(clean)
    assert changed == pytest.approx(0.6 * 2 / 3, abs=0.06)
    assert load(under("flipped", noise=0.6), "test") == load(under("flipped"), "test")
    assert [problem.reference for problem in noisy] == [problem.reference for problem in clean]


def test_a_remark_depends_on_the_thing_and_the_annotator_and_does_not_touch_the_label():
    remarked = load(under("own", remarks=True), "pool")
    by_thing: dict[str, set[str]] = {}
    assert len({problem.solution.split()[1] for problem in remarked}) == 3
    for problem in remarked:
        remark = problem.solution.split()[0]
        by_thing.setdefault(problem.question.split()[0], set()).add(remark)
    assert all(len(remarks) == 1 for remarks in by_thing.values())
    assert len(set.union(*by_thing.values())) > 8
    other = load(under("own", remarks=True, data_seed=1), "pool")
    others = {problem.question.split()[0]: problem.solution.split()[0] for problem in other}
    assert sum({others[thing]} == remarks for thing, remarks in by_thing.items()) < 12


@pytest.mark.parametrize(
    ("text", "label"),
    [("remark3 positive\nthing1", "positive"), (" negative ", "negative"), ("", ""), ("\n\n", ""), ("remark3", "remark3")],
)
def test_the_label_is_the_last_word_of_the_first_line(text, label):
    assert label_in(text) == label


def test_only_the_label_counts():
    task = make_icl(under("default", remarks=True))
    problem = task.load("test")[0]
    label = problem.solution.split()[1]
    wrong = next(tone for tone in TONES if tone != label)
    assert task.score([(problem, text) for text in (problem.solution, label, f"remark99 {label}", wrong, f"{label} {wrong}")]) == [
        1,
        1,
        1,
        0,
        0,
    ]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"asked for 4600 \+ 250, 4608 can be said"):
        build(LabelsInContext, [("suite.yaml", {"pool_size": 4600})])
    with pytest.raises(ConfigError, match=r"noise must be a probability below 1, got 1\.0"):
        build(LabelsInContext, [("suite.yaml", {"noise": 1.0})])
    with pytest.raises(DataError, match="no split 'train'; expected pool or test"):
        load(CFG, "train")
