"""Votes over subsets, against plain enumeration of every subset and every tie."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from posttrain.evaluation.metrics import summarise
from posttrain.evaluation.scaling import TooFewSamples, as_section, as_text, scaling, vote_accuracy
from tests.evaluation.hand_made import episode, turn


def enumerated(turns, size: int) -> float:
    """The mean over all subsets, one by one."""
    found = []
    for subset in itertools.combinations(turns, size):
        votes = Counter(t.answer for t in subset if t.answer is not None)
        leading = [answer for answer, count in votes.items() if count == max(votes.values())]
        shares = [np.mean([t.verdict.correct for t in turns if t.answer == answer]) for answer in leading]
        found.append(np.mean(shares) if shares else 0.0)
    return float(np.mean(found))


def test_a_vote_is_the_mean_over_every_subset():
    rng = random.Random(0)
    for _ in range(40):
        answers = [rng.choice("aabcd-") for _ in range(rng.randint(1, 8))]
        turns = [turn("n" if a == "-" else "c" if a == "a" else "w", None if a == "-" else a, "") for a in answers]
        found = vote_accuracy(turns)
        assert found[1:] == pytest.approx([enumerated(turns, size) for size in range(1, len(turns) + 1)])


def test_two_wordings_of_the_right_answer_split_its_votes():
    turns = [turn("c", "1/2", ""), turn("c", "0.5", ""), turn("w", "2", ""), turn("w", "2", "")]
    assert vote_accuracy(turns)[4] == 0.0
    assert vote_accuracy(turns)[1:] == pytest.approx([enumerated(turns, size) for size in range(1, 5)])


def test_a_tie_is_a_fair_draw_and_silence_has_no_voice():
    right, wrong, silent = turn("c", "7", ""), turn("w", "8", ""), turn("n", None, "")
    assert vote_accuracy([right, wrong])[2] == 0.5
    assert vote_accuracy([right, silent, silent])[3] == 1.0
    assert vote_accuracy([silent, silent]).tolist() == [0.0, 0.0, 0.0]


def test_thirty_two_samples_are_counted_as_drawn_ones_would_come_out():
    rng = random.Random(1)
    answers = [rng.choice(["7"] * 3 + list("abcde")) for _ in range(32)]
    turns = [turn("c" if a == "7" else "w", a, "") for a in answers]
    drawn = []
    for _ in range(4000):
        votes = Counter(t.answer for t in rng.sample(turns, 8))
        leading = [a for a, count in votes.items() if count == max(votes.values())]
        drawn.append(rng.choice(leading) == "7")
    assert vote_accuracy(turns)[8] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 4000**0.5)


def many(marks_of, problems: int = 30, samples: int = 8):
    rng = random.Random(2)
    return [episode(marks_of(rng, p), problem=f"p{p}", sample=s) for p in range(problems) for s in range(samples)]


def test_the_ends_of_the_curve_are_plain_accuracies():
    made = many(lambda rng, p: rng.choice(["cc", "wc", "cw", "ww"]))
    found, summary = scaling("M", [made]), summarise(made)
    assert [p.solutions for p in found.points] == [2, 4, 8]
    assert found.alone.value == pytest.approx(summary.acc[0].value)
    assert found.points[0].revised.value == pytest.approx(summary.acc[1].value)  # a vote of one
    assert (found.problems, found.left_out, found.samples) == (30, 0, 8)


def test_revising_wins_where_it_corrects_and_loses_where_it_breaks():
    better = scaling("M", [many(lambda rng, p: rng.choice(["wc", "wc", "wc", "ww"]))]).points[0].gain
    worse = scaling("M", [many(lambda rng, p: rng.choice(["cw", "cw", "cw", "cc"]))]).points[0].gain
    assert better.low > 0 > worse.high


def test_several_seeds_widen_the_interval_by_what_they_differ():
    good, bad = (many(lambda rng, p, right=right: "cc" if rng.random() < right else "ww") for right in (0.8, 0.5))
    one, both = scaling("M", [good]), scaling("M", [good, bad])
    assert both.points[0].parallel.value == pytest.approx((one.points[0].parallel.value + scaling("M", [bad]).points[0].parallel.value) / 2)
    assert both.points[0].parallel.high - both.points[0].parallel.low > one.points[0].parallel.high - one.points[0].parallel.low


def test_problems_with_ungraded_samples_are_left_out_and_counted():
    made = [*many(lambda rng, p: "cc", problems=3, samples=4), *(episode("uc" if s else "cc", problem="bad", sample=s) for s in range(4))]
    found = scaling("M", [made])
    assert (found.problems, found.left_out) == (3, 1)
    assert "1 problems left out" in as_section([found]).text


def test_one_sample_is_nothing_to_vote_on():
    with pytest.raises(TooFewSamples, match="M: found 1 samples per problem, expected 2 to 1000; evaluate with samples: 32"):
        scaling("M", [many(lambda rng, p: "cc", samples=1)])


def test_what_is_shown_names_every_size_of_the_vote():
    found = scaling("M", [many(lambda rng, p: rng.choice(["cc", "wc", "ww"]))])
    section, text = as_section([found]), as_text(found)
    assert [cells[0].value for _, cells in section.rows] == ["2", "4", "8"]
    (plot,) = section.plots
    assert [label for _, label in plot.ticks] == ["2", "4", "8"]
    assert plot.x == (1, 2, 3)  # on a log axis
    assert [series.y for series in plot.series] == [
        tuple(p.parallel.value for p in found.points),
        tuple(p.revised.value for p in found.points),
    ]
    assert plot.level == (found.alone.value, "one attempt alone")
    assert len(text.splitlines()) == 5
