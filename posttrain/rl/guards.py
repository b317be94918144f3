"""A run that goes wrong says so: alarms read off the metrics of the last steps, with what usually helps."""

from collections.abc import Sequence
from typing import Any

from pydantic import PositiveInt

from posttrain.config import config


@config
class GuardConfig:
    """Limits on the mean over the last `window` steps; the first time that one is crossed, a warning is printed."""

    window: PositiveInt = 20
    first_drop: float = 0.10
    """Attempt 1 is being sabotaged if its training accuracy lies this far under that of the run's first window."""
    answer_change: float = 0.10
    """Collapse to copying: fewer second attempts than this share change the answer."""
    clipped: float = 0.20
    """Too many attempts hit max_tokens: their missing end is graded as wrong."""
    unscored: float = 0.02
    """The grader fails on more than this share of episodes."""
    most_unscored: float = 0.5
    """At a step where it fails on more than this share, the run stops: what is left is no fair sample of the policy's attempts."""
    gap: float = 0.05
    """Mean |log-probability of the engine - of the trainer| per sampled token, at any step: weights that did not arrive show at once."""


def alarms(history: Sequence[dict[str, Any]], cfg: GuardConfig) -> dict[str, str]:
    """Name -> what is wrong, for the run so far. `history` holds one metrics row per step, oldest first."""
    found = _gaps(history[-1], cfg.gap) if history else {}
    if len(history) < 2 * cfg.window:
        return found
    first, last = history[: cfg.window], history[-cfg.window :]

    def mean(rows: Sequence[dict[str, Any]], key: str) -> float:
        return sum(row[key] for row in rows) / len(rows)

    attempts = [k for k in range(1, 100) if f"train/acc_t{k}" in last[0]]
    before, now = mean(first, "train/acc_t1"), mean(last, "train/acc_t1")
    if now < before - cfg.first_drop:
        found["sabotage"] = f"attempt 1 fell from {before:.1%} to {now:.1%}: is it paid to fail? raise kl.coef[0], check weight and bonus"
    change = mean(last, "train/answer_change") if len(attempts) > 1 else 1.0
    if change < cfg.answer_change:
        found["copying"] = f"only {change:.1%} of second attempts change the answer: self-correction has collapsed into copying"
    for k in attempts:
        if (share := mean(last, f"train/clip_t{k}")) > cfg.clipped:
            found[f"clipped_t{k}"] = f"{share:.0%} of attempts {k} are cut at max_tokens: raise sampling.max_tokens"
    if (share := mean(last, "train/unscored")) > cfg.unscored:
        found["unscored"] = f"the grader failed on {share:.1%} of episodes: read `why` in the episodes folder"
    return found


def _gaps(row: dict[str, Any], most: float) -> dict[str, str]:
    """The attempts of one step whose tokens engine and trainer do not find equally likely."""
    gaps = {key.removeprefix("train/"): gap for key, gap in row.items() if key.startswith("train/gap_t") and gap > most}
    says = "engine and trainer differ by {:.3f} nats per token in attempt {}: set importance_cap, check precision"
    return {name: says.format(gap, name.removeprefix("gap_t")) for name, gap in gaps.items()}
