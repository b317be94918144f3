"""`posttrain compare A B`: is B better than A, on which suites, by how much, and which items changed? Everything is paired by problem.

A and B are evaluations, or runs that were evaluated on several suites (`RUN/eval/<suite>`); suites that both have are compared. A p-value
is exact wherever both sides have the same number of samples of each problem: McNemar's test for one sample, Fisher's randomisation over
problems for several (`stats.sign_flip`). With several tests at once Holm's correction says which differences stand. The minimum
detectable gap tells what this number of problems could have shown at all.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.config import ConfigError
from posttrain.evaluation.budget import recorded
from posttrain.evaluation.metrics import acc_at, delta_of
from posttrain.evaluation.numerals import p_text
from posttrain.evaluation.rows import HOW
from posttrain.evaluation.seeds import difference
from posttrain.evaluation.stats import POWER, Estimate, detectable_gap, paired_bootstrap, paired_difference, sign_flip
from posttrain.evaluation.table import SIGNIFICANT, holm
from posttrain.rollout.store import read_episodes
from posttrain.run import write_atomic
from posttrain.types import Episode

TINY = 1e-12  # means of the same samples in another order may differ by less
HELP = """\
Two checkpoints on the same problems: each measure's difference with its 95% interval and exact paired p-value, the smallest gap that this
many problems would show in 80% of cases (MDG), and the items that changed.

    posttrain compare runs/eval/math500_two_attempts/base runs/eval/math500_two_attempts/score
    posttrain compare RUN_A RUN_B                  every suite that both were evaluated on
    posttrain compare A B --items 50 --out changed.json
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One measure on both sides, over the problems that both have a verdict on."""

    name: str
    first: float
    second: float
    difference: Estimate
    """`second` less `first`."""
    bootstrap: Estimate
    """The same with a percentile interval over problems."""
    p_value: float
    exact: bool
    gained: int
    """Problems on which the second side is better."""
    lost: int
    gap: float
    """Minimum detectable gap at 80% power."""
    holm: float = 1.0
    """The p-value corrected for all measures of all suites of the comparison."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """A problem whose accuracy at the last attempt differs: the shares of right samples before and after."""

    problem: str
    before: float
    after: float
    question: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One suite."""

    suite: str
    problems: int
    samples: tuple[float, float]
    """Mean number of samples per problem, of either side."""
    measures: tuple[Measured, ...]
    changed: tuple[Changed, ...]
    notes: tuple[str, ...]


def compare_evaluations(suite: str, first: Path, second: Path) -> Comparison:
    """Two evaluations of the same problems. Raises `ConfigError` where they share none with a verdict on both sides, and `DataError`."""
    sides = [_scored(first), _scored(second)]
    shared = [problem for problem in sides[0] if problem in sides[1]]
    if not shared:
        raise ConfigError(f"{first} and {second}: no problem has a verdict in both: nothing to compare")
    groups = [[side[problem] for problem in shared] for side in sides]
    attempts = min(len(group[0].turns) for side in groups for group in side)
    wanted: dict[str, Callable[[Episode], float]] = {f"Acc@t{k}": acc_at(k) for k in range(1, attempts + 1)}
    if attempts > 1:
        wanted["Delta"] = delta_of
    means_PG = [np.array([_mean(group, acc_at(attempts)) for group in side]) for side in groups]
    changed = [
        Changed(problem=problem, before=float(a), after=float(b), question=groups[0][i][0].problem.question)
        for i, (problem, a, b) in enumerate(zip(shared, *means_PG))
        if a != b
    ]
    return Comparison(
        suite=suite,
        problems=len(shared),
        samples=(_samples(groups[0]), _samples(groups[1])),
        measures=tuple(_measured(name, how, *groups) for name, how in wanted.items()),
        changed=tuple(sorted(changed, key=lambda c: (c.before - c.after, c.problem))),
        notes=tuple(_notes(first, second, sides, shared)),
    )


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with `holm` filled in, for all their measures together."""
    p_values = iter(holm([each.p_value for comparison in found for each in comparison.measures]))
    return [dataclasses.replace(c, measures=tuple(dataclasses.replace(each, holm=next(p_values)) for each in c.measures)) for c in found]


def as_text(found: Sequence[Comparison], names: tuple[str, str], items: int) -> str:
    """For a terminal, in percent and points."""
    lines = [f"A  {names[0]}", f"B  {names[1]}", ""]
    lines.append(f"{'':<30}{'A':>7}{'B':>7}  {'B - A':<24}{'p':>8} {'p (Holm)':>9}{'B+':>6}{'B-':>6}{'MDG':>7}")
    for comparison in found:
        lines.append(f"{comparison.suite}: {comparison.problems} problems")
        for each in comparison.measures:
            d = each.difference
            span = f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
            mark = "*" if each.holm < SIGNIFICANT else " "
            figures = f"{100 * each.first:7.1f}{100 * each.second:7.1f}  {span:<24}{p_text(each.p_value):>8} {p_text(each.holm) + mark:>9}"
            lines.append(f"  {each.name:<28}{figures}{each.gained:>6}{each.lost:>6}{100 * each.gap:7.1f}")
        lines += [f"  {note}" for note in comparison.notes]
    exact = all(each.exact for comparison in found for each in comparison.measures)
    lines.append("")
    lines.append(
        f"Paired by problem; p is {'exact' if exact else 'exact where both sides have equally many samples, else of t'}; * stands at "
        f"{SIGNIFICANT:.0%} with Holm's correction; B+ and B- count problems; MDG: the gap seen in {POWER:.0%} of cases."
    )
    for comparison in found:
        lines += _items(comparison, items)
    return "\n".join(lines)


def cli(argv: Sequence[str]) -> int:
    """`posttrain compare`."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="posttrain compare", description=HELP, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("first", type=Path, metavar="A", help="an evaluation, or a run with RUN/eval/<suite>")
    parser.add_argument("second", type=Path, metavar="B", help="the one that is asked to be better")
    parser.add_argument("--suite", help="only this suite, where the runs have several")
    parser.add_argument("--items", type=int, default=10, metavar="N", help="list so many gained and so many lost items (default: 10)")
    parser.add_argument("--out", type=Path, help="write everything, all changed items included, as JSON")
    parser.add_argument("--json", action="store_true", help="print that JSON instead of the table")
    args = parser.parse_args(argv)
    found = corrected([compare_evaluations(*each) for each in evaluations(args.first, args.second, args.suite)])
    record = json.dumps({"A": str(args.first), "B": str(args.second), "suites": [dataclasses.asdict(c) for c in found]}, indent=1)
    if args.out:
        try:
            write_atomic(args.out, record + "\n")
        except OSError as error:
            raise ConfigError(f"{args.out}: cannot write the comparison: {error.strerror}") from None
    print(record if args.json else as_text(found, (str(args.first), str(args.second)), args.items))
    return 0


def evaluations(first: Path, second: Path, suite: str | None) -> list[tuple[str, Path, Path]]:
    """(suite, folder of A, folder of B) for every suite that both were evaluated on. Raises `ConfigError`."""
    sides = [_by_suite(folder) for folder in (first, second)]
    shared = [name for name in sides[0] if name in sides[1] and suite in (None, name)]
    if not shared and suite is None and all(len(side) == 1 for side in sides):  # two evaluations that the caller holds for comparable
        (name, own), (other, theirs) = (*sides[0].items(), *sides[1].items())
        return [(f"{name} against {other}", own, theirs)]
    if not shared:
        told = " and ".join(f"{folder} has {', '.join(sorted(side))}" for folder, side in zip((first, second), sides))
        raise ConfigError(f"no suite{f' {suite!r}' if suite else ''} that both were evaluated on: {told}")
    return [(name, sides[0][name], sides[1][name]) for name in shared]


def _by_suite(folder: Path) -> dict[str, Path]:
    """The evaluations of a folder, by suite: itself, or those in its `eval`."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected an evaluation made by posttrain eval, or a run that holds some")
    places = [folder] if (folder / "episodes.jsonl").is_file() else sorted(file.parent for file in folder.glob("eval/*/episodes.jsonl"))
    if not places:
        raise ConfigError(f"{folder}: holds no evaluation; expected episodes.jsonl or eval/<suite>/episodes.jsonl in it")
    return {_suite_of(place): place for place in places}


def _suite_of(folder: Path) -> str:
    """The suite's name, as a finished evaluation records it; else the folder's own."""
    summary = folder / "summary.json"
    return (json.loads(summary.read_text()).get("suite") if summary.is_file() else None) or folder.resolve().name


def _measured(name: str, how: Callable[[Episode], float], first: Sequence[list[Episode]], second: Sequence[list[Episode]]) -> Measured:
    before, after = ([[how(episode) for episode in group] for group in side] for side in (first, second))
    means_PG = np.array([[sum(group) / len(group) for group in side] for side in (before, after)])
    change_G = means_PG[1] - means_PG[0]
    samples = {len(group) for side in (before, after) for group in side}
    if len(samples) == 1:
        changes_PS = np.array(after) - np.array(before)
        found, p_value = paired(changes_PS), sign_flip(changes_PS.sum(1).round())
    else:
        found, p_value = difference(change_G[None], bound=2.0 if name == "Delta" else 1.0)
    return Measured(
        name=name,
        first=float(means_PG[0].mean()),
        second=float(means_PG[1].mean()),
        difference=found,
        bootstrap=paired_bootstrap(*((means_G, [1] * len(first)) for means_G in means_PG), seed=0),
        p_value=p_value,
        exact=len(samples) == 1,
        gained=int((change_G > TINY).sum()),
        lost=int((change_G < -TINY).sum()),
        gap=detectable_gap(found),
    )


def paired(changes_PS: np.ndarray) -> Estimate:
    """The mean change and its interval, from the change of each of a problem's samples, [problem, sample]."""
    return paired_difference(changes_PS.sum(1), (changes_PS**2).sum(1), [changes_PS.shape[1]] * len(changes_PS))


def _scored(folder: Path) -> dict[str, list[Episode]]:
    groups: dict[str, list[Episode]] = {}
    for episode in read_episodes(folder / "episodes.jsonl"):
        if all(turn.verdict.scored for turn in episode.turns):
            groups.setdefault(episode.problem.id, []).append(episode)
    return groups


def _mean(group: Sequence[Episode], how: Callable[[Episode], float]) -> float:
    return sum(map(how, group)) / len(group)


def _samples(groups: Sequence[Sequence[Episode]]) -> float:
    return sum(map(len, groups)) / len(groups)


def _notes(first: Path, second: Path, sides: Sequence[dict[str, Any]], shared: Sequence[str]) -> Iterator[str]:
    """What a reader must know before believing the difference."""
    how = [recorded(folder) for folder in (first, second)]
    otherwise = [key for key in HOW if all(key in each for each in how) and how[0][key] != how[1][key]]
    if otherwise:
        yield f"evaluated otherwise: {', '.join(otherwise)} differ"
    if how[0].get("model") and how[0].get("model") == how[1].get("model"):
        yield f"both sides are the same weights: {how[0]['model']}"
    if alone := len(sides[0]) + len(sides[1]) - 2 * len(shared):
        yield f"{alone} problems have a verdict on one side only and are left out"


def _items(comparison: Comparison, items: int) -> Iterator[str]:
    gained = [c for c in comparison.changed if c.after > c.before]
    lost = [c for c in comparison.changed if c.after < c.before][::-1]
    for word, group in (("gained", gained), ("lost", lost)):
        if group and items > 0:
            yield f"\n{comparison.suite}: {len(group)} {word} at the last attempt (share of right samples, A -> B)"
            for c in group[:items]:
                yield f"  {c.problem:<24} {c.before:.2f} -> {c.after:.2f}  {' '.join(c.question.split())[:80]}"
            if len(group) > items:
                yield f"  ... and {len(group) - items} more; --items or --out has them"
