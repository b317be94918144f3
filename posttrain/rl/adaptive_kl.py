"""A KL coefficient that follows a target, for the "adaptive beta2" that arXiv 2409.12917 (sec. 5.1) mentions without a formula.

This is the controller of arXiv 1909.08593 (sec. 2.2) per attempt. It is a function of the metrics logged so far, so a resumed run
goes on with the very same coefficients.
"""

import math
from collections.abc import Sequence
from typing import Any

RATE, CLIP = 0.1, 0.2  # per step; the paper of the controller has 0.1 and 0.2


def kl_coefficients(coef: Sequence[float], target: Sequence[float | None] | None, history: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    """coef_k * prod over past steps of (1 + 0.1 clip(KL_k / target_k - 1, -0.2, 0.2)); an attempt without a target keeps its own.

    `history` holds one row of metrics per step with `train/kl_t1`, `train/kl_t2`, ... in nats per attempt.
    """
    if target is None:
        return tuple(coef)
    return tuple(c if goal is None else c * _factor(f"train/kl_t{k}", goal, history) for k, (c, goal) in enumerate(zip(coef, target), 1))


def _factor(key: str, target: float, history: Sequence[dict[str, Any]]) -> float:
    return math.prod(1 + RATE * min(CLIP, max(-CLIP, row[key] / target - 1)) for row in history)
