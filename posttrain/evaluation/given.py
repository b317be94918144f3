"""Does a model correct its own first attempts, or any? Delta on both, of one model (arXiv 2409.12917, Fig. 4).

What was trained on fixed attempts may correct those and leave its own as they are. A pair is two evaluations of the same weights: one whose
first attempts are its own, one whose first attempts are given (`first_attempts` of a suite).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.config import ConfigError
from posttrain.evaluation.budget import recorded
from posttrain.evaluation.metrics import Summary
from posttrain.evaluation.numerals import points
from posttrain.evaluation.rows import Source
from posttrain.evaluation.section import Cell, Section, cell, toned
from posttrain.evaluation.seeds import measure, over_seeds
from posttrain.evaluation.stats import Estimate
from posttrain.evaluation.table import compare_rows
from posttrain.rollout.store import read_episodes

SAME = ("task", "split", "attempts", "sampling")  # what both evaluations of a pair must share


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One model on its own first attempts and on given ones, over its seeds."""

    name: str
    own: Summary
    given: Summary
    difference: Estimate
    """Delta on its own less Delta on the given ones."""


def on_given(source: Source) -> bool:
    """Did this evaluation start from given first attempts?"""
    return bool(recorded(source.evaluation).get("first_attempts"))


def without_pairs(found: Sequence[Source]) -> list[Source]:
    """The sources but for those on given first attempts whose model is there on its own as well: they stand in the pairs."""
    own = {_identity(recorded(source.evaluation)) for source in found if not on_given(source)}
    return [source for source in found if not on_given(source) or _identity(recorded(source.evaluation)) not in own]


def pairs(found: Sequence[Source]) -> list[Pair]:
    """Every named model that was evaluated in both ways in each of its seeds, by runs among `found`."""
    given = {_key(how): folder for folder, how in _evaluations(found) if how.get("first_attempts")}
    groups: dict[str, list[tuple[Source, Path]]] = {}
    lacking: set[str] = set()
    for source in found:
        how = recorded(source.evaluation)
        if how.get("first_attempts") or how.get("method", "revise") != "revise":
            continue
        if other := given.get(_key(how)):
            groups.setdefault(source.name, []).append((source, other))
        else:
            lacking.add(source.name)
    return [_pair(name, group) for name, group in groups.items() if name not in lacking]


def as_section(found: Sequence[Pair]) -> Section:
    """For the page: both Deltas of each model, and what became of right and wrong first attempts."""
    head = (
        "Model",
        "Change, own\nattempts",
        "Change, given\nattempts",
        "Own less\ngiven",
        "Fixed, own",
        "Fixed, given",
        "Broken, own",
        "Broken, given",
    )
    rows = [(pair.name, _cells(pair)) for pair in found]
    text = (
        "The same model revises its own first attempts, and first attempts that were given to it, on the same problems. Fixed: right at "
        "last, of those wrong at first; broken: wrong at last, of those right at first. Below each figure its 95% interval."
    )
    return Section(title="Own first attempts and given ones", text=text, head=head, rows=tuple(rows))


def as_text(found: Sequence[Pair]) -> str:
    """For a terminal, in percent."""
    lines = [f"{'On own and on given attempts:':<32}{'Delta, own':<24}{'Delta, given':<24}{'own less given'}"]
    for pair in found:
        shown = [
            f"{100 * e.value:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]" for e in (pair.own.delta, pair.given.delta, pair.difference)
        ]
        lines.append(f"{pair.name:<32}{shown[0]:<24}{shown[1]:<24}{shown[2]}")
    return "\n".join(lines)


def _cells(pair: Pair) -> tuple[Cell, ...]:
    deltas = (toned(pair.own.delta, points), toned(pair.given.delta, points), toned(pair.difference, points))
    return (*deltas, cell(pair.own.fix_rate), cell(pair.given.fix_rate), cell(pair.own.break_rate), cell(pair.given.break_rate))


def _pair(name: str, group: Sequence[tuple[Source, Path]]) -> Pair:
    """On the problems that both evaluations of every seed hold."""
    read = [[list(read_episodes(folder / "episodes.jsonl")) for folder in (source.evaluation, other)] for source, other in group]
    problems = set.intersection(*({episode.problem.id for episode in side} for both in read for side in both))
    if not problems:
        raise ConfigError(f"{name}: its evaluation on given first attempts shares no problem with the one on its own: nothing to compare")
    own, given = (
        [measure([e for e in both[side] if e.problem.id in problems], source.seed) for both, (source, _) in zip(read, group)]
        for side in (0, 1)
    )
    found, _ = compare_rows(given, own, "delta")
    return Pair(name=name, own=over_seeds(own), given=over_seeds(given), difference=found)


def _evaluations(found: Sequence[Source]) -> list[tuple[Path, dict[str, Any]]]:
    """All evaluations in the runs of these sources, with what they recorded."""
    folders = {source.evaluation: None for source in found}
    folders |= {file.parent: None for source in found for file in sorted(source.folders[-1].glob("eval/*/episodes.jsonl"))}
    return [(folder, recorded(folder)) for folder in folders]


def _key(how: dict[str, Any]) -> str:
    return repr((_identity(how), [how.get(key) for key in SAME]))


def _identity(how: dict[str, Any]) -> str:
    """The digest of the weights where it is recorded, so that one model under two names is one."""
    model = str(how.get("model", ""))
    return model.rpartition(" (weights ")[2] or model
