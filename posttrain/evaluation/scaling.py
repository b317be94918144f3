"""Which use of a budget is better: 2K first attempts, or K first attempts with one revision each? (arXiv 2409.12917, sec. 6.3)

Either way 2K solutions are sampled and the most frequent final answer is given: over the 2K first attempts, or over the K second ones. One
evaluation with N samples per problem tells both for every K with 2K <= N: the accuracy is the mean over *all* subsets of that size, counted
and not drawn, which is the unbiased estimate for fresh samples. Intervals are over problems, and seeds where there are several.

The rule of the vote: attempts without an answer have no voice; a tie is broken by a fair draw among the answers that lead, and its
expectation is taken; answers are the same if the task reads them as the same text; where nobody has a voice the answer is wrong.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from posttrain.evaluation.numerals import percent, points
from posttrain.evaluation.section import Cell, Plot, Section, Series, cell, toned
from posttrain.evaluation.seeds import difference, proportion
from posttrain.evaluation.stats import Estimate
from posttrain.types import Episode, Turn

MOST = 1000  # samples per problem; binomial coefficients of more leave the range of floats


class TooFewSamples(ValueError):
    """There is nothing to vote on; the message says how many samples there are and how to get more."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """Both uses of the same number of solutions per problem."""

    solutions: int
    """2K."""
    parallel: Estimate
    """The vote over 2K first attempts."""
    revised: Estimate
    """The vote over the second attempts of K."""
    gain: Estimate
    """`revised` less `parallel`, paired."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    name: str
    problems: int
    left_out: int
    """Problems without a full set of graded samples."""
    samples: int
    alone: Estimate
    """One first attempt, nothing to vote on."""
    points: tuple[Point, ...]


def scaling(name: str, seeds: Sequence[Sequence[Episode]]) -> Curve:
    """The curve over K = 1, 2, 4, ... of one model's evaluations, one per seed; raises `TooFewSamples`."""
    by_problem = [_turns(episodes) for episodes in seeds]
    samples = max(len(turns) for groups in by_problem for turns in groups.values())
    if not 2 <= samples <= MOST:
        hint = "evaluate with samples: 32 and temperature: 0.7, as evals/suites/sums_scaling.yaml does"
        raise TooFewSamples(f"{name}: found {samples} samples per problem, expected 2 to {MOST}; {hint}")
    every = list(dict.fromkeys(problem for groups in by_problem for problem in groups))
    whole = [problem for problem in every if all(len(groups.get(problem, ())) == samples for groups in by_problem)]
    if len(whole) < 2:
        raise TooFewSamples(f"{name}: {len(whole)} problems have all {samples} samples graded in every seed, expected at least 2")
    first_SGM, second_SGM = (_expected(by_problem, whole, attempt) for attempt in (0, 1))
    found = []
    for k in (2**i for i in range(int(math.log2(samples)))):
        parallel_SG, revised_SG = first_SGM[:, :, 2 * k], second_SGM[:, :, k]
        gain, _ = difference(revised_SG - parallel_SG)
        shares = (proportion(side, side.size * 2 * k) for side in (parallel_SG, revised_SG))
        found.append(Point(solutions=2 * k, **dict(zip(("parallel", "revised"), shares)), gain=gain))
    alone = proportion(first_SGM[:, :, 1], first_SGM[:, :, 1].size * samples)
    return Curve(name=name, problems=len(whole), left_out=len(every) - len(whole), samples=samples, alone=alone, points=tuple(found))


def vote_accuracy(turns: Sequence[Turn]) -> np.ndarray:
    """Entry m: how often the vote over m of these N attempts is right, the mean over all subsets of m; entry 0 is 0."""
    votes = Counter(turn.answer for turn in turns if turn.answer is not None)
    silent = len(turns) - votes.total()
    right = np.zeros(len(turns) + 1)
    for answer, count in votes.items():
        share = sum(turn.verdict.correct for turn in turns if turn.answer == answer) / count
        if share:
            others = list(votes.values())
            others.remove(count)
            right += share * _win_prob(count, tuple(sorted(others)), silent)
    return right


def as_section(curves: Sequence[Curve]) -> Section:
    """For the page: both curves of each model, and the figures below them."""
    head = (
        "Model",
        "Solutions per\nproblem, 2K",
        "Vote over 2K\nfirst attempts",
        "Vote over K\nsecond attempts",
        "Gain of\nrevising",
    )
    rows = [
        (c.name if i == 0 else "", (Cell(value=str(p.solutions)), cell(p.parallel), cell(p.revised), toned(p.gain, points)))
        for c in curves
        for i, p in enumerate(c.points)
    ]
    told = [e for c in curves for p in c.points for e in (p.parallel, p.revised)] + [c.alone for c in curves]
    bounds = (min(e.low for e in told), max(e.high for e in told))
    plots = tuple(_plot(c, bounds) for c in curves)
    said = " ".join(
        f"{c.name}: {c.problems:,} problems of {c.samples} samples, one attempt alone {percent(c.alone.value)} % (dashed)"
        + (f", {c.left_out} problems left out for ungraded samples." if c.left_out else ".")
        for c in curves
    )
    rule = (
        "The same number of solutions, used in two ways; the most frequent answer counts, ties are broken by a fair draw, attempts without "
        "an answer have no voice. Means over all subsets of the samples; bands and small figures are 95% intervals."
    )
    return Section(title="More solutions, or revised ones", text=f"{rule} {said}", head=head, rows=tuple(rows), plots=plots)


def as_text(curve: Curve) -> str:
    """For a terminal, in percent."""
    lines = [f"{curve.name}: {curve.problems} problems of {curve.samples} samples; one attempt alone {percent(curve.alone.value)}"]
    lines.append(f"{'solutions':>10}  {'2K first attempts':<24}{'K revised':<24}gain")
    for p in curve.points:
        shown = [f"{percent(e.value):>5} [{percent(e.low)}, {percent(e.high)}]" for e in (p.parallel, p.revised)]
        gain = f"{100 * p.gain.value:+.1f} [{100 * p.gain.low:+.1f}, {100 * p.gain.high:+.1f}]"
        lines.append(f"{p.solutions:>10}  {shown[0]:<24}{shown[1]:<24}{gain}")
    return "\n".join(lines)


def _plot(curve: Curve, bounds: tuple[float, float]) -> Plot:
    lines = (("2K first attempts", "t1", "parallel"), ("K attempts, each revised", "t2", "revised"))
    series = tuple(_line(name, colour, [getattr(point, which) for point in curve.points]) for name, colour, which in lines)
    ticks = tuple((math.log2(point.solutions), f"{point.solutions:,}") for point in curve.points)
    return Plot(
        title=f"{curve.name}: accuracy of the vote, %",
        x=tuple(x for x, _ in ticks),
        x_name="solutions, 2K",
        series=series,
        bounds=bounds,
        ticks=ticks,
        level=(curve.alone.value, "one attempt alone"),
    )


def _line(name: str, colour: str, each: Sequence[Estimate]) -> Series:
    values, low, high = (tuple(getattr(e, part) for e in each) for part in ("value", "low", "high"))
    return Series(name=name, colour=colour, y=values, low=low, high=high, mark="joined dots")


def _turns(episodes: Sequence[Episode]) -> dict[str, list[tuple[Turn, Turn]]]:
    """The first two turns of every episode whose verdicts are all scored, by problem."""
    groups: dict[str, list[tuple[Turn, Turn]]] = {}
    for episode in episodes:
        group = groups.setdefault(episode.problem.id, [])
        if all(turn.verdict.scored for turn in episode.turns[:2]):
            group.append((episode.turns[0], episode.turns[1]))
    return groups


def _expected(by_problem: Sequence[dict[str, list[tuple[Turn, Turn]]]], problems: Sequence[str], attempt: int) -> np.ndarray:
    """`vote_accuracy` as [seed, problem, number of votes]."""
    return np.array([[vote_accuracy([pair[attempt] for pair in groups[problem]]) for problem in problems] for groups in by_problem])


@lru_cache(maxsize=1 << 16)
def _win_prob(own: int, others: tuple[int, ...], silent: int) -> np.ndarray:
    """Entry m: the chance that an answer given `own` times wins the vote over a random subset of m of all attempts.

    `ways[v - 1, j, x]` counts the choices of x other attempts by which no other answer has more than v votes and j of them have v; an
    answer with v votes of its own then wins with chance 1 / (j + 1).
    """
    total = own + sum(others) + silent
    ways = np.zeros((own, len(others) + 1, total + 1))
    ways[:, 0, : silent + 1] = [math.comb(silent, x) for x in range(silent + 1)]
    for count in others:
        before, ways = ways, np.zeros_like(ways)
        for votes in range(count + 1):
            moved = math.comb(count, votes) * before[:, :, : total + 1 - votes]
            ways[votes:, :, votes:] += moved[votes:]  # fewer than v
            if 1 <= votes <= own:
                ways[votes - 1, 1:, votes:] += moved[votes - 1, :-1]
    shared = (ways / np.arange(1, len(others) + 2)[:, None]).sum(1)
    won = np.zeros(total + 1)
    for votes in range(1, own + 1):
        won[votes:] += math.comb(own, votes) * shared[votes - 1, : total + 1 - votes]
    won /= [math.comb(total, m) for m in range(total + 1)]
    won.flags.writeable = False  # one array for all who ask
    return won
