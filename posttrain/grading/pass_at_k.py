"""pass@k: the chance that one of k samples passes, estimated without bias from n samples of which c passed (arXiv 2107.03374, sec. 2.1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PassAtK:
    """Mean over problems, and its standard error; problems are drawn, samples within them are not counted as independent."""

    k: int
    value: float
    standard_error: float | None
    """None with one problem, which tells no spread."""
    problems: int


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k) as a product without large numbers; 1 where fewer than k samples failed. Needs n >= k >= 1."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"need 0 <= c <= n and 1 <= k <= n, got n = {n}, c = {c}, k = {k}")
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def mean_pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> PassAtK | None:
    """Over problems with (samples, passed) each; None unless every problem has k samples.

    The spread between problems' estimates holds both their difference in difficulty and the chance of each one's samples, so that it is
    s / sqrt(problems) for any number of samples.
    """
    if not counts or min(n for n, _ in counts) < k:
        return None
    values = [pass_at_k(n, c, k) for n, c in counts]
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    error = math.sqrt(spread / (len(values) - 1) / len(values)) if len(values) > 1 else None
    return PassAtK(k=k, value=mean, standard_error=error, problems=len(values))
