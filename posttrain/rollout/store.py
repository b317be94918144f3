"""Episodes as JSON Lines: one episode a line, everything that a later reader or grader needs, nothing derived."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from posttrain.run import write_atomic
from posttrain.types import Completion, DataError, Episode, FinalAnswer, Problem, Turn, UnitTests, Verdict


def write_episodes(path: Path, episodes: Iterable[Episode]) -> None:
    """Replace `path` by these episodes, atomically."""
    write_atomic(path, "".join(to_line(episode) for episode in episodes))


def to_line(episode: Episode) -> str:
    """One line of JSON. A later prompt repeats all earlier tokens, so only what is new in it is kept; `ValueError` if it does not.

    How many tokens an engine's cache served is not kept: it depends on what else was asked, and an episode must not.
    """
    row = _fields(episode)
    row["problem"] = _fields(episode.problem) | {"reference": _fields(episode.problem.reference)}
    row["turns"] = [_turn(turn) for turn in episode.turns]
    for number, (before, turn) in enumerate(zip(episode.turns, episode.turns[1:]), 1):
        earlier = (*before.prompt_ids, *before.completion.ids)
        if turn.prompt_ids[: len(earlier)] != earlier:
            raise ValueError(f"{episode.problem.id}: the prompt of attempt {number + 1} does not begin with the tokens of attempt {number}")
        row["turns"][number]["prompt_ids"] = turn.prompt_ids[len(earlier) :]
    return json.dumps(row, ensure_ascii=False) + "\n"


def _turn(turn: Turn) -> dict[str, Any]:
    completion = _fields(turn.completion)
    del completion["num_cached"]
    return _fields(turn) | {"completion": completion, "verdict": _fields(turn.verdict)}


def _fields(record: Any) -> dict[str, Any]:
    """As `dataclasses.asdict`, which takes ten times as long because it also copies every token, without what lies within."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def read_episodes(path: Path) -> Iterator[Episode]:
    """The episodes as they were written; raises `DataError` naming file and line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of episodes")
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield from_row(json.loads(line))
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
                raise DataError(f"{path}:{number}: not an episode: {error!r}") from None


def from_row(row: dict[str, Any]) -> Episode:
    """What `to_line` wrote; raises `KeyError` or `TypeError` where a field is missing or of another type."""
    reference = row["problem"]["reference"]
    answer = FinalAnswer(**reference) if "text" in reference else UnitTests(**reference)
    turns: list[Turn] = []
    for turn in row["turns"]:
        done = turn["completion"]
        completion = Completion(**{**done, "ids": tuple(done["ids"]), "logprobs": tuple(done["logprobs"])})
        before = (*turns[-1].prompt_ids, *turns[-1].completion.ids) if turns else ()
        verdict = Verdict(**turn["verdict"])
        prompt = (*before, *turn["prompt_ids"])
        turns.append(Turn(**{**turn, "prompt_ids": prompt, "completion": completion, "verdict": verdict}))
    problem = Problem(**{**row["problem"], "reference": answer})
    return Episode(problem=problem, turns=tuple(turns), sample=row["sample"], policy_step=row["policy_step"])
