"""How likely each of a closed set of answers is after a prompt, by any engine that scores text; normalised over the set."""

import math
from collections.abc import Mapping, Sequence

from posttrain.types import Scorer, TokenIds


def choice_probs(scorer: Scorer, prompts: Sequence[TokenIds], choices: Mapping[str, TokenIds]) -> list[dict[str, float]]:
    """Row i: P(choice | prompt i, one of the choices), from the log-probabilities of whole choices.

    A choice is given as the tokens that follow the prompt, so the caller decides about the space before it.
    """
    rows = [(prompt, ids) for prompt in prompts for ids in choices.values()]
    scored = scorer.score([prompt for prompt, _ in rows], [ids for _, ids in rows])
    totals = [math.fsum(logps) for logps in scored]
    width = len(choices)
    return [_normalised(choices, totals[start : start + width]) for start in range(0, len(totals), width)]


def _normalised(choices: Mapping[str, TokenIds], logps: Sequence[float]) -> dict[str, float]:
    highest = max(logps)
    weights = [math.exp(logp - highest) for logp in logps]
    return {choice: weight / math.fsum(weights) for choice, weight in zip(choices, weights)}
