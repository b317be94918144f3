"""A run's episodes as Parquet tables: one row an episode, one table for training and one for each evaluation.

load_dataset("parquet", data_files="OUT/episodes/train.parquet")
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from posttrain.rollout.store import read_episodes
from posttrain.types import Episode, FinalAnswer


def write_parquet(run: Path, out: Path) -> dict[str, int]:
    """Table name -> number of episodes, for every table that there is something for; raises `DataError` on a damaged file."""
    files = {"train": sorted((run / "episodes").glob("step_*.jsonl"))}
    files |= {f"eval_{path.parent.name}": [path] for path in sorted(run.glob("eval/*/episodes.jsonl"))}
    made = {}
    for name, paths in files.items():
        rows = [row for path in paths for row in _rows(read_episodes(path))]
        if rows:
            out.mkdir(parents=True, exist_ok=True)
            _table(rows, out / f"{name}.parquet")
            made[name] = len(rows)
    return made


def _rows(episodes: Iterable[Episode]) -> Iterator[dict[str, Any]]:
    for episode in episodes:
        problem = episode.problem
        reference = problem.reference.text if isinstance(problem.reference, FinalAnswer) else problem.reference.code
        yield {
            "problem_id": problem.id,
            "question": problem.question,
            "reference": reference,
            "level": problem.level,
            "subject": problem.subject,
            "sample": episode.sample,
            "policy_step": episode.policy_step,
            "turns": [
                {
                    "text": turn.text,
                    "answer": turn.answer,
                    "status": turn.verdict.status,
                    "why": turn.verdict.why,
                    "finish": turn.completion.finish,
                    "num_tokens": len(turn.completion.ids),
                    "given": turn.given,
                }
                for turn in episode.turns
            ],
        }


def _table(rows: list[dict[str, Any]], path: Path) -> None:
    """Types are named, so that a column of which every value is missing keeps its own."""
    from datasets import Dataset, Features, List, Value

    text, number = Value("string"), Value("int64")
    turn = dict.fromkeys(("text", "answer", "status", "why", "finish"), text) | {"num_tokens": number, "given": Value("bool")}
    columns = dict.fromkeys(("problem_id", "question", "reference", "level", "subject"), text)
    features = Features(columns | {"sample": number, "policy_step": number, "turns": List(turn)})
    Dataset.from_list(rows, features=features).to_parquet(path)
