"""What N samples of each problem say of every attempt: avg@N, pass@k and maj@k, each with its interval over problems.

avg@N is the mean over all samples. pass@k is the chance that one of k samples is right (arXiv 2107.03374), maj@k that the most frequent
answer of k samples is (the rule of the vote is told in `scaling.py`); both are means over *all* choices of k out of N, counted and not
drawn, which is the unbiased estimate for fresh samples. There is no vote over programs: hardly two are the same text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posttrain.evaluation.groups import By, grouped
from posttrain.evaluation.metrics import NothingScored, acc_at, per_problem
from posttrain.evaluation.scaling import MOST, vote_accuracy
from posttrain.evaluation.seeds import proportion
from posttrain.evaluation.stats import Estimate, clustered_bootstrap, clustered_mean, clustered_proportion
from posttrain.grading.pass_at_k import pass_at_k
from posttrain.types import Episode, UnitTests

DRAWS = 1000
"""Of the bootstrap: its ends then wander by a twentieth of the half width, which the analytic one beside it does not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt over all samples."""

    avg: Estimate
    """Wilson's interval at the effective sample size; for one sample per problem it is Wilson's own."""
    analytic: Estimate
    """The same with the cluster-robust standard error and Student's t."""
    bootstrap: Estimate
    """The same with percentiles over resampled problems."""
    pass_at: dict[int, Estimate]
    maj_at: dict[int, Estimate]
    """Empty where answers are programs, and where there is one sample."""
    clip: float
    """The share that the length limit cut."""
    tokens: float
    """Mean number of sampled tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    problems: int
    episodes: int
    samples: int
    """Of each problem."""
    unscored: int
    """Episodes left out, as their grader failed; with them the whole problem is left out of pass@k and maj@k."""
    attempts: tuple[Attempt, ...]


def sampled(episodes: Sequence[Episode]) -> Sampled:
    """The figures of episodes with the same number of attempts; raises `NothingScored`."""
    scored = [episode for episode in episodes if all(turn.verdict.scored for turn in episode.turns)]
    if not scored:
        why = next(turn.verdict.why for turn in episodes[0].turns if not turn.verdict.scored)
        raise NothingScored(f"no accuracy to tell: all {len(episodes)} episodes have an unscored verdict; the first says {why!r}")
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.problem.id, []).append(episode)
    return Sampled(
        problems=len(groups),
        episodes=len(episodes),
        samples=max(map(len, groups.values())),
        unscored=len(episodes) - len(scored),
        attempts=tuple(_attempt(episodes, scored, groups, number) for number in range(len(episodes[0].turns))),
    )


def accuracy_by(episodes: Sequence[Episode], by: By) -> dict[str, Estimate]:
    """Accuracy of the first attempt per level, subject or length; groups without a verdict are left out."""
    scored = [episode for episode in episodes if episode.turns[0].verdict.scored]
    return {name: clustered_proportion(*per_problem(group, acc_at(1))) for name, group in grouped(scored, by).items()}


def as_text(found: Sampled) -> list[str]:
    """For a terminal, in percent: a line per figure."""
    lines = []
    for number, attempt in enumerate(found.attempts, 1):
        name = f"t{number} " if len(found.attempts) > 1 else ""
        lines.append(f"  {name + f'avg@{found.samples}':<14} {_cell(attempt.avg)}")
        for word, curve in (("pass", attempt.pass_at), ("maj", attempt.maj_at)):
            lines += [f"  {name + f'{word}@{k}':<14} {_cell(estimate)}" for k, estimate in curve.items() if k > 1]
    return lines


def _attempt(episodes: Sequence[Episode], scored: Sequence[Episode], groups: dict[str, list[Episode]], number: int) -> Attempt:
    counted = per_problem(scored, acc_at(number + 1))
    mean = clustered_mean(*counted)
    samples = max(map(len, groups.values()))
    whole = [group for group in groups.values() if len(group) == samples and all(t.verdict.scored for e in group for t in e.turns)]
    ks = sorted({*(2**i for i in range(samples.bit_length())), samples} - {0}) if whole else []
    ks = [k for k in ks if k <= samples]
    turns = [[episode.turns[number] for episode in group] for group in whole]
    right = [sum(turn.verdict.correct for turn in each) for each in turns]
    voted = 1 < samples <= MOST and not isinstance(episodes[0].problem.reference, UnitTests)
    votes = [vote_accuracy(each) for each in turns] if voted else []
    return Attempt(
        avg=clustered_proportion(*counted),
        analytic=Estimate(mean.value, max(0.0, mean.low), min(1.0, mean.high)),
        bootstrap=clustered_bootstrap(*counted, seed=0, draws=DRAWS),
        pass_at={k: _over([pass_at_k(samples, c, k) for c in right], k) for k in ks},
        maj_at={k: _over([vote[k] for vote in votes], k) for k in ks} if votes else {},
        clip=sum(e.turns[number].completion.finish == "length" for e in episodes) / len(episodes),
        tokens=sum(len(e.turns[number].completion.ids) for e in episodes) / len(episodes),
    )


def _over(values: Sequence[float], k: int) -> Estimate:
    """The mean over problems of a share that k samples of each were asked for."""
    return proportion(np.array([values]), len(values) * k)


def _cell(estimate: Estimate) -> str:
    return f"{100 * estimate.value:6.1f}  [{100 * estimate.low:5.1f}, {100 * estimate.high:5.1f}]"
