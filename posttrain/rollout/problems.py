"""Which problems a step trains on: epochs of a seeded shuffle, a pure function of the step, so that a resumed run draws the same."""

import random
from collections.abc import Sequence
from functools import lru_cache

from posttrain.run import seed_for
from posttrain.types import Problem


def draw_problems(problems: Sequence[Problem], count: int, step: int, seed: int) -> list[Problem]:
    """The `count` problems of `step` (from 1). Each epoch holds every problem once, in an order of its own."""
    if not problems:
        raise ValueError("no problems to train on")
    positions = range((step - 1) * count, step * count)
    return [problems[_order(len(problems), seed, position // len(problems))[position % len(problems)]] for position in positions]


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(size))
    random.Random(seed_for(seed, "epoch", epoch)).shuffle(order)
    return tuple(order)
