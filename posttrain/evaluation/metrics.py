"""What a set of episodes says about self-correction: the metrics of arXiv 2409.12917, each with its interval.

Accuracies leave out episodes that hold an unscored verdict (the grader's failure) and count them; figures that need no verdict use all
episodes. Rates and differences are fractions in [-1, 1], never percent.
"""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rapidfuzz.distance import Levenshtein

from posttrain.evaluation.groups import By, grouped
from posttrain.evaluation.stats import Estimate, clustered_mean, clustered_proportion, paired_bootstrap, paired_difference, sign_flip
from posttrain.types import Episode

Outcome = Literal["kept", "fixed", "broken", "still wrong"]
OUTCOMES: tuple[Outcome, ...] = ("kept", "fixed", "broken", "still wrong")


class NothingScored(ValueError):
    """The grader failed on every episode, so there is no accuracy to tell; the message quotes it."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The figures of one evaluation. `between` names the two attempts that all paired figures compare, counted from 1."""

    problems: int
    episodes: int
    unscored: int
    """Episodes left out of everything that needs a verdict."""
    between: tuple[int, int]
    acc: tuple[Estimate, ...]
    """Acc@t1, Acc@t2, ..."""
    delta: Estimate
    """Acc@t2 - Acc@t1 = fixed - broken."""
    fixed: Estimate
    """Delta i->c: wrong, then right, of *all* episodes."""
    broken: Estimate
    """Delta c->i: right, then wrong, of *all* episodes."""
    fix_rate: Estimate | None
    """Right at last, of those wrong at first; None where none was wrong."""
    break_rate: Estimate | None
    """Wrong at last, of those right at first; None where none was right."""
    num_fixed: int
    num_broken: int
    p_value: float
    """Of Delta = 0: McNemar's exact test, as `stats.sign_flip` over problems where there are several samples of each."""
    answer_change: Estimate
    """The final answers differ; two attempts without an answer do not."""
    text_copy: Estimate
    """The two texts are the same, letter by letter."""
    edit_ratio: Estimate
    """Mean of `edit_distance_ratio`."""
    clip: tuple[float, ...]
    """Per attempt, the share that the length limit cut."""
    tokens: tuple[float, ...]
    """Per attempt, the mean number of sampled tokens."""


def summarise(episodes: Sequence[Episode], *, first: int = 1, second: int = 2) -> Summary:
    """All metrics of episodes with the same number of attempts, pairing attempts `first` and `second`; raises `ValueError` if it cannot."""
    attempts = _attempts(episodes, first, second)
    scored = [episode for episode in episodes if all(turn.verdict.scored for turn in episode.turns)]
    if not scored:
        raise NothingScored(
            f"no accuracy to tell: all {len(episodes)} episodes have an unscored verdict; the first says {_why(episodes)!r}"
        )
    a, b = first - 1, second - 1
    fixed, broken = _proportion(scored, lambda e: outcome(e, a, b) == "fixed"), _proportion(scored, lambda e: outcome(e, a, b) == "broken")
    acc = tuple(_proportion(scored, _right(k)) for k in range(attempts))
    delta, p_value = _difference(scored, a, b)
    assert abs(delta.value - (acc[b].value - acc[a].value)) < 1e-9, "Delta is Acc@t2 - Acc@t1"
    assert abs(delta.value - (fixed.value - broken.value)) < 1e-9, "Delta is Delta i->c - Delta c->i"
    return Summary(
        problems=len({episode.problem.id for episode in episodes}),
        episodes=len(episodes),
        unscored=len(episodes) - len(scored),
        between=(first, second),
        acc=acc,
        delta=delta,
        fixed=fixed,
        broken=broken,
        fix_rate=_rate([e for e in scored if not e.turns[a].verdict.correct], lambda e: e.turns[b].verdict.correct),
        break_rate=_rate([e for e in scored if e.turns[a].verdict.correct], lambda e: not e.turns[b].verdict.correct),
        num_fixed=sum(outcome(e, a, b) == "fixed" for e in scored),
        num_broken=sum(outcome(e, a, b) == "broken" for e in scored),
        p_value=p_value,
        answer_change=_proportion(episodes, lambda e: e.turns[a].answer != e.turns[b].answer),
        text_copy=_proportion(episodes, lambda e: e.turns[a].text == e.turns[b].text),
        edit_ratio=_mean_share(episodes, lambda e: edit_distance_ratio(e.turns[a].text, e.turns[b].text)),
        clip=tuple(sum(e.turns[k].completion.finish == "length" for e in episodes) / len(episodes) for k in range(attempts)),
        tokens=tuple(sum(len(e.turns[k].completion.ids) for e in episodes) / len(episodes) for k in range(attempts)),
    )


def breakdown(episodes: Sequence[Episode], by: By) -> dict[str, Summary]:
    """One summary for each value of the problems' `by`, in natural order ("2" before "10"); groups without a verdict are left out."""
    groups = grouped(episodes, by)
    return {name: summarise(group) for name, group in groups.items() if any(all(t.verdict.scored for t in e.turns) for e in group)}


def compare(first: Sequence[Episode], second: Sequence[Episode], measure: Callable[[Episode], float], *, seed: int = 0) -> Estimate:
    """Mean `measure` of `second` minus that of `first`, for two models over the same problems, e.g. `measure=acc_at(2)`.

    Paired by problem, with a bootstrap interval; problems that either side lacks, or has unscored, are left out of both.
    """
    left, right = _scored_by_problem(first), _scored_by_problem(second)
    shared = [problem for problem in left if problem in right]
    if not shared:
        raise ValueError("no problem is scored on both sides: nothing to compare")
    sides = [per_problem([e for problem in shared for e in side[problem]], measure) for side in (left, right)]
    return paired_bootstrap(*sides, seed=seed)


def acc_at(attempt: int) -> Callable[[Episode], float]:
    return lambda episode: float(episode.turns[attempt - 1].verdict.correct)


def delta_of(episode: Episode) -> float:
    return acc_at(2)(episode) - acc_at(1)(episode)


def outcome(episode: Episode, first: int = 0, second: int = 1) -> Outcome:
    """What became of the answer between two turns, given by index; only for scored turns."""
    before, after = episode.turns[first].verdict.correct, episode.turns[second].verdict.correct
    return OUTCOMES[0 if before and after else 1 if after else 2 if before else 3]


def verifier_accuracy(episodes: Sequence[Episode]) -> Estimate:
    """How often a first attempt was kept and right, or revised and not: of two attempts with the model's own verdict between them."""
    scored = [episode for episode in episodes if all(turn.verdict.scored for turn in episode.turns)]
    if not scored:
        raise NothingScored(f"no accuracy of verdicts to tell: all {len(episodes)} episodes are unscored")
    return _proportion(scored, lambda e: e.turns[0].verdict.correct == e.turns[1].given)


def edit_distance_ratio(first: str, second: str) -> float:
    """Levenshtein distance in characters over the sum of lengths, in [0, 1]; 0 for two empty texts (arXiv 2409.12917, sec. 4)."""
    length = len(first) + len(second)
    return Levenshtein.distance(first, second) / length if length else 0.0


def flat(summary: Summary, prefix: str = "") -> dict[str, float]:
    """The figures as one flat row for `metrics.jsonl`: `acc_t1`, `delta`, `delta_low`, `answer_change`, `clip_t1`, ..."""
    row: dict[str, float] = {}
    for k in range(len(summary.acc)):
        row |= {f"acc_t{k + 1}": summary.acc[k].value, f"clip_t{k + 1}": summary.clip[k], f"tokens_t{k + 1}": summary.tokens[k]}
    row |= {"delta": summary.delta.value, "delta_low": summary.delta.low, "delta_high": summary.delta.high, "delta_p": summary.p_value}
    row |= {name: getattr(summary, name).value for name in ("fixed", "broken", "answer_change", "text_copy", "edit_ratio")}
    row |= {"unscored": summary.unscored / summary.episodes}
    return {prefix + key: value for key, value in row.items()}


def training_row(episodes: Sequence[Episode], prefix: str) -> dict[str, float]:
    """What a training run logs of a step's episodes: `flat`, or its part that one attempt has. Raises `NothingScored`."""
    if len(episodes[0].turns) > 1:
        return flat(summarise(episodes), prefix)
    turns = [episode.turns[0] for episode in episodes]
    scored = [turn for turn in turns if turn.verdict.scored]
    if not scored:
        raise NothingScored(f"no accuracy to tell: all {len(turns)} verdicts are unscored; the first says {turns[0].verdict.why!r}")
    return {
        f"{prefix}acc_t1": sum(turn.verdict.correct for turn in scored) / len(scored),
        f"{prefix}clip_t1": sum(turn.completion.finish == "length" for turn in turns) / len(turns),
        f"{prefix}tokens_t1": sum(len(turn.completion.ids) for turn in turns) / len(turns),
        f"{prefix}unscored": 1 - len(scored) / len(turns),
    }


def cached_share(episodes: Sequence[Episode]) -> list[float]:
    """Of each attempt's prompt tokens, the share whose keys and values the engine had already, none where it cannot tell."""
    shares = []
    for turns in zip(*(episode.turns for episode in episodes), strict=True):
        asked = [turn for turn in turns if not turn.given]
        read = sum(len(turn.prompt_ids) for turn in asked)
        shares.append(sum(turn.completion.num_cached or 0 for turn in asked) / max(1, read))
    return shares


def from_row(row: dict[str, Any]) -> Summary:
    """The summary whose `dataclasses.asdict` was written as JSON."""

    def estimate(value: Any) -> Any:
        return Estimate(**value) if isinstance(value, dict) else value

    fields = {field.name: row[field.name] for field in dataclasses.fields(Summary)}
    made: dict[str, Any] = {k: tuple(map(estimate, v)) if isinstance(v, list) else estimate(v) for k, v in fields.items()}
    return Summary(**made)


def per_problem(episodes: Sequence[Episode], measure: Callable[[Episode], float]) -> tuple[list[float], list[int]]:
    """Sums of `measure` over the samples of each problem, and how many samples each has; problems in order of appearance."""
    totals: dict[Hashable, float] = {}
    sizes: dict[Hashable, int] = {}
    for episode in episodes:
        key = episode.problem.id
        totals[key] = totals.get(key, 0) + measure(episode)
        sizes[key] = sizes.get(key, 0) + 1
    return list(totals.values()), list(sizes.values())


def _right(attempt: int) -> Callable[[Episode], bool]:
    return lambda episode: episode.turns[attempt].verdict.correct


def _proportion(episodes: Sequence[Episode], claim: Callable[[Episode], bool]) -> Estimate:
    return clustered_proportion(*per_problem(episodes, claim))


def _rate(episodes: Sequence[Episode], claim: Callable[[Episode], bool]) -> Estimate | None:
    """None where there is no episode to be right or wrong of."""
    return _proportion(episodes, claim) if episodes else None


def _mean_share(episodes: Sequence[Episode], share: Callable[[Episode], float]) -> Estimate:
    """The mean of a quantity in [0, 1]; its interval is cut there, so that one problem alone gives [0, 1]."""
    mean = clustered_mean(*per_problem(episodes, share))
    return Estimate(mean.value, max(0.0, mean.low), min(1.0, mean.high))


def _difference(episodes: Sequence[Episode], a: int, b: int) -> tuple[Estimate, float]:
    """Delta with its interval, and the exact p-value of no difference."""

    def change(episode: Episode) -> int:
        return episode.turns[b].verdict.correct - episode.turns[a].verdict.correct

    totals, sizes = per_problem(episodes, change)
    changed, _ = per_problem(episodes, lambda e: abs(change(e)))
    return paired_difference(totals, changed, sizes), sign_flip([int(total) for total in totals])


def _attempts(episodes: Sequence[Episode], first: int, second: int) -> int:
    if not episodes:
        raise ValueError("no episodes to summarise")
    counts = sorted({len(episode.turns) for episode in episodes})
    if len(counts) > 1 or not 1 <= first < second <= counts[0]:
        raise ValueError(f"need episodes that all hold attempts {first} and {second}, found episodes of {counts} attempts")
    return counts[0]


def _scored_by_problem(episodes: Sequence[Episode]) -> dict[str, list[Episode]]:
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        if all(turn.verdict.scored for turn in episode.turns):
            groups.setdefault(episode.problem.id, []).append(episode)
    return groups


def _why(episodes: Sequence[Episode]) -> str:
    return next(turn.verdict.why for turn in episodes[0].turns if not turn.verdict.scored)
