"""Episodes by what their problems are: level, subject, or length of the question."""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from posttrain.types import Episode

By: TypeAlias = Literal["level", "subject", "length"]
ALL_BY: tuple[By, ...] = ("level", "subject", "length")
PARTS = 4


def grouped(episodes: Sequence[Episode], by: By) -> dict[str, list[Episode]]:
    """Value -> its episodes, in natural order ("2" before "10"); problems without the value are left out.

    Lengths are characters of the question, in quarters of the problems, as "121-180 characters"; fewer where many are alike.
    """
    edges = _edges(episodes) if by == "length" else []
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        name = _span(len(episode.problem.question), edges) if by == "length" else getattr(episode.problem, by)
        groups.setdefault(name, []).append(episode)
    return {name: groups[name] for name in sorted(groups, key=_natural) if name}


def _edges(episodes: Sequence[Episode]) -> list[int]:
    """The shortest length, less one, then the longest of each quarter."""
    lengths = sorted({episode.problem.id: len(episode.problem.question) for episode in episodes}.values())
    ends = np.quantile(lengths, [part / PARTS for part in range(1, PARTS + 1)], method="lower")
    return [lengths[0] - 1, *sorted({int(end) for end in ends})]


def _span(length: int, edges: Sequence[int]) -> str:
    last = int(np.searchsorted(edges, length))
    return f"{edges[last - 1] + 1}-{edges[last]} characters"


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
