"""Tokens drawn from logits by uniform numbers that belong to a row, not to a batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from posttrain.types import EngineError


def draw(logits_BV: Tensor, temperature: float, uniform_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens [B] by inverse CDF of softmax(logits / temperature) at `uniform_B` in [0, 1), and their log-probabilities [B].

    Temperature 0 takes the likeliest token, with its log-probability under the plain softmax. The CDF is summed in float64: in
    float32 the sum over a vocabulary of 150k ids is off by more than the probability of a rare token.
    """
    logp_BV = (logits_BV.float() / (temperature or 1.0)).log_softmax(-1)
    if logp_BV.amax(-1).isnan().any():
        raise EngineError("hf: the model's logits are not finite; are its weights?")
    if temperature == 0:
        token_B = logp_BV.argmax(-1)
    else:
        assert uniform_B is not None
        cdf_BV = logp_BV.double().exp().cumsum(-1)
        target_B1 = uniform_B[:, None] * cdf_BV[:, -1:]  # below the total even for the largest number below 1, so some token is found
        token_B = torch.searchsorted(cdf_BV, target_B1, right=True)[:, 0]
    return token_B, logp_BV.gather(-1, token_B[:, None])[:, 0]


def uniforms(seeds: Sequence[int], steps: int) -> np.ndarray:
    """Uniform numbers in [0, 1), [B, T], float64: row i from a counter-based generator keyed by `seeds[i]`, the same for every T."""
    numbers = np.empty((len(seeds), steps))
    for row, seed in zip(numbers, seeds):
        np.random.Generator(np.random.Philox(key=seed)).random(out=row)
    return numbers
