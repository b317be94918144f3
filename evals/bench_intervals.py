"""How often the intervals of `posttrain/evaluation/stats.py` cover the truth, and how often the tests reject it, on synthetic data.

    python evals/bench_intervals.py [--draws 10000] [--seed 1]

Every case draws a data set of a known truth, asks for its 95% interval and counts how often the truth lies within. Problems differ in
difficulty (a beta distribution); samples of one problem share it. Data sets that repeat are asked about once.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from posttrain.evaluation.compare import paired
from posttrain.evaluation.stats import (
    Estimate,
    clustered_bootstrap,
    clustered_mean,
    clustered_proportion,
    detectable_gap,
    mcnemar,
    paired_bootstrap,
    paired_difference,
    sign_flip,
    wilson,
)

Draw = Callable[[np.random.Generator], tuple[int, ...]]
"""A data set, as numbers that tell it completely."""


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    truth: float
    draw: Draw
    interval: Callable[[tuple[int, ...]], Estimate]
    quick: bool = True
    """Cheap enough for the tests."""


def coverage(case: Case, *, draws: int, seed: int) -> float:
    """The share of `draws` data sets whose interval holds the truth."""
    rng = np.random.default_rng(seed)
    known: dict[tuple[int, ...], bool] = {}
    covered = 0
    for _ in range(draws):
        data = case.draw(rng)
        if data not in known:
            found = case.interval(data)
            known[data] = found.low <= case.truth <= found.high
        covered += known[data]
    return covered / draws


def right(problems: int, p: float) -> Draw:
    """One sample per problem: how many are right."""
    return lambda rng: (int(rng.binomial(problems, p)),)


def grouped(problems: int, samples: int, a: float, b: float) -> Draw:
    """Several samples per problem, difficulty drawn from Beta(a, b): how many problems have 0, 1, ..., all samples right."""

    def draw(rng: np.random.Generator) -> tuple[int, ...]:
        right_G = rng.binomial(samples, rng.beta(a, b, size=problems))
        return tuple(np.bincount(right_G, minlength=samples + 1).tolist())

    return draw


def changed(problems: int, up: float, down: float) -> Draw:
    """One sample per problem on two sides: how many are gained and lost."""
    return lambda rng: tuple(rng.multinomial(problems, [up, down, 1 - up - down])[:2].tolist())


def changed_groups(problems: int, samples: int) -> Draw:
    """Several samples per problem and two sides whose accuracies are 0.6 and 0.65 on average: both counts of every problem."""

    def draw(rng: np.random.Generator) -> tuple[int, ...]:
        first_G = rng.beta(0.6, 0.4, size=problems)
        second_G = np.where(rng.random(problems) < 0.125, 0.4 + first_G * 0.6, first_G)  # 0.125 * 0.4 * (1 - 0.6) = 0.02 better
        return (*rng.binomial(samples, first_G).tolist(), *rng.binomial(samples, second_G).tolist())

    return draw


def spread(counts: Sequence[int]) -> tuple[list[int], list[int]]:
    """(totals, sizes) per problem from how many problems have 0, 1, ..., all samples right."""
    totals = [right for right, problems in enumerate(counts) for _ in range(problems)]
    return totals, [len(counts) - 1] * len(totals)


def single(counts: tuple[int, ...], problems: int) -> tuple[list[int], list[int]]:
    return [1] * counts[0] + [0] * (problems - counts[0]), [1] * problems


def differences(counts: tuple[int, ...], problems: int) -> list[int]:
    return [1] * counts[0] + [-1] * counts[1] + [0] * (problems - sum(counts))


def halves(counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(counts).reshape(2, -1)
    return both[0], both[1]


def of_compare(counts: tuple[int, ...], samples: int) -> Estimate:
    """As `posttrain compare` sees it: the right samples of both sides meet each other first, which is one pairing of many."""
    first, second = halves(counts)
    number_S = np.arange(samples)
    return paired((number_S < second[:, None]).astype(int) - (number_S < first[:, None]))


CASES = (
    Case(name="Wilson, 500 problems", truth=0.526, draw=right(500, 0.526), interval=lambda c: wilson(c[0], 500)),
    Case(name="Wilson, 1,319 problems", truth=0.85, draw=right(1319, 0.85), interval=lambda c: wilson(c[0], 1319)),
    Case(
        name="Wilson at the effective size, 200 problems x 8",
        truth=0.6,
        draw=grouped(200, 8, 0.6, 0.4),
        interval=lambda c: clustered_proportion(*spread(c)),
    ),
    Case(
        name="Student's t over problems, 200 x 8",
        truth=0.6,
        draw=grouped(200, 8, 0.6, 0.4),
        interval=lambda c: clustered_mean(*spread(c)),
    ),
    Case(
        name="bootstrap over problems, 500 x 1",
        truth=0.526,
        draw=right(500, 0.526),
        interval=lambda c: clustered_bootstrap(*single(c, 500), seed=c[0]),
    ),
    Case(
        name="bootstrap over problems, 200 x 8",
        truth=0.6,
        draw=grouped(200, 8, 0.6, 0.4),
        interval=lambda c: clustered_bootstrap(*spread(c), seed=c[0], draws=1000),
        quick=False,
    ),
    Case(
        name="paired difference, 500 x 1",
        truth=0.04,
        draw=changed(500, 0.14, 0.10),
        interval=lambda c: paired_difference(differences(c, 500), [1] * sum(c) + [0] * (500 - sum(c)), [1] * 500),
    ),
    Case(
        name="paired difference of posttrain compare, 200 x 4",
        truth=0.02,
        draw=changed_groups(200, 4),
        interval=lambda c: of_compare(c, 4),
    ),
    Case(
        name="paired bootstrap, 200 x 4",
        truth=0.02,
        draw=changed_groups(200, 4),
        interval=lambda c: paired_bootstrap((halves(c)[0], [4] * 200), (halves(c)[1], [4] * 200), seed=c[0], draws=1000),
        quick=False,
    ),
)


def rejections(draws: int, seed: int) -> dict[str, float]:
    """How often a difference is found at 5% where there is none, and where it has the detectable size."""
    rng = np.random.default_rng(seed)
    null = [mcnemar(*changed(500, 0.12, 0.12)(rng)) < 0.05 for _ in range(draws)]
    flips = [sign_flip(no_change(rng)) < 0.05 for _ in range(draws // 10)]
    typical = paired_difference(differences((60, 60), 500), [1] * 120 + [0] * 380, [1] * 500)
    gap = detectable_gap(typical)
    seen = [mcnemar(*changed(500, 0.12 + gap / 2, 0.12 - gap / 2)(rng)) < 0.05 for _ in range(draws)]
    return {
        "McNemar exact rejects no difference (24% of 500 changed)": float(np.mean(null)),
        "sign flips reject no difference (200 problems x 4)": float(np.mean(flips)),
        f"McNemar exact sees the detectable gap, {100 * gap:.1f} points": float(np.mean(seen)),
    }


def no_change(rng: np.random.Generator) -> np.ndarray:
    """200 problems answered four times each by two models that are the same: the differences of their right samples."""
    difficulty_G = rng.beta(0.6, 0.4, size=200)
    return rng.binomial(4, difficulty_G) - rng.binomial(4, difficulty_G)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(f"coverage of 95% intervals, {args.draws:,} draws, seed {args.seed}")
    for case in CASES:
        began = time.perf_counter()
        share = coverage(case, draws=args.draws, seed=args.seed)
        error = 1.96 * (share * (1 - share) / args.draws) ** 0.5
        print(f"  {case.name:<55} {100 * share:5.1f}% +- {100 * error:.1f}   ({time.perf_counter() - began:.0f} s)", flush=True)
    print("tests at 5%")
    for name, share in rejections(args.draws, args.seed).items():
        print(f"  {name:<75} {100 * share:5.1f}%")


if __name__ == "__main__":
    main()
