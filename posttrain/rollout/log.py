"""Sampling that an interruption does not undo: episodes are appended to a file chunk by chunk, and the same call goes on from there."""

import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from posttrain.prompting.chat import ChatFormat
from posttrain.rollout.self_correct import Rollout, Sampler, self_correct
from posttrain.rollout.store import read_episodes, to_line
from posttrain.types import DataError, Engine, Episode, Problem, Task


def sample_into(
    file: Path,
    problems: Sequence[Problem],
    task: Task,
    engine: Engine,
    chat: ChatFormat,
    how: Rollout,
    *,
    chunk: int,
    name: str,
    sample: Sampler = self_correct,
) -> list[Episode]:
    """`how.samples` graded episodes of every problem, as far as `file` has them from there; what it lacks is sampled and appended.

    `chunk` problems are sampled together, the most that an interruption loses; the same bytes come out as without one. Raises
    `DataError` if the file holds other episodes.
    """
    episodes = _taken_up(file, problems, how.samples, chunk)
    start = len(episodes) // how.samples
    with open(file, "a") as log, tqdm(total=len(problems), initial=start, desc=name, unit="problem", dynamic_ncols=True) as bar:
        for first in range(start, len(problems), chunk):
            made = sample(problems[first : first + chunk], task, engine, chat, how)
            log.write("".join(map(to_line, made)))
            log.flush()
            os.fsync(log.fileno())
            episodes += made
            bar.update(len(made) // how.samples)
    return episodes


def _taken_up(file: Path, problems: Sequence[Problem], samples: int, chunk: int) -> list[Episode]:
    """The episodes of the whole chunks in `file`; what a kill left behind them is cut off, and so made again in the same batches."""
    if not file.exists():
        return []
    with open(file, "rb") as log:
        sizes = [len(line) for line in log if line.endswith(b"\n")]
    expected = [(problem.id, sample) for problem in problems for sample in range(samples)]
    per_chunk = chunk * samples
    keep = len(sizes) if len(sizes) == len(expected) else len(sizes) // per_chunk * per_chunk
    os.truncate(file, sum(sizes[:keep]))
    episodes = list(read_episodes(file))
    if [(episode.problem.id, episode.sample) for episode in episodes] != expected[:keep]:
        raise DataError(f"{file}: holds episodes of other problems than these; remove it or name another --out")
    return episodes
