"""Sampling that an interruption does not undo: episodes are appended to a file as they are made, and the same call goes on from there.

Problems are sampled in chunks, always the same ones, by one worker or by several at a time. A chunk is appended at once, one line per
sample, and flushed to disk; what a kill loses are the chunks under way. As each sample has a seed of its own and each chunk its fixed
problems, neither kills nor the number of workers change what is in the finished file.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TextIO, TypeAlias

from posttrain.config import ConfigError
from posttrain.progress import progress_bar
from posttrain.rollout.store import read_episodes, to_line, write_episodes
from posttrain.types import DataError, Episode, Problem

Sampler: TypeAlias = Callable[[Sequence[Problem]], list[Episode]]
"""Makes the graded episodes of some problems, in problem order and sample order within; one call at a time."""


def sample_into(
    file: Path, problems: Sequence[Problem], samplers: Sequence[Sampler], *, samples: int, chunk: int, name: str
) -> list[Episode]:
    """`samples` graded episodes of every problem, as far as `file` has them from there; what it lacks is sampled and appended.

    Lines stand in the order in which chunks were finished, until all are there: then in problem order. Where a sampler fails, those
    beside it finish their chunks first. Raises `DataError` if the file holds other episodes, `ConfigError` if another process writes it.
    """
    chunks = [problems[start : start + chunk] for start in range(0, len(problems), chunk)]
    with open(file, "a") as log:
        _claim(log, file)
        done = _taken_up(file, chunks, samples)
        missing = [number for number in range(len(chunks)) if number not in done]
        taken = sum(len(chunks[number]) for number in done)
        with progress_bar(len(problems), name, "problem", taken) as bar:
            for number, made in _sampled(chunks, missing, samplers):
                log.write("".join(map(to_line, made)))
                log.flush()
                os.fsync(log.fileno())
                done[number] = made
                bar.update(len(chunks[number]))
        episodes = [episode for number in range(len(chunks)) for episode in done[number]]
        if list(done) != sorted(done):
            write_episodes(file, episodes)
    return episodes


def _claim(log: TextIO, file: Path) -> None:
    """Keep others from appending to the file; the kernel lets go of it when this process ends, however it ends."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{file}: another process is writing it; wait for that one or end it, or name another --out") from None


def _sampled(
    chunks: Sequence[Sequence[Problem]], missing: Sequence[int], samplers: Sequence[Sampler]
) -> Iterator[tuple[int, list[Episode]]]:
    """(number, episodes) of each missing chunk, in the order in which they are finished."""
    if len(samplers) == 1:
        yield from ((number, samplers[0](chunks[number])) for number in missing)
        return
    todo, idle = list(missing)[::-1], list(samplers)
    under_way: dict[Future[list[Episode]], tuple[int, Sampler]] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(len(samplers)) as pool:
        while under_way or (todo and not failure):
            while idle and todo and not failure:
                number, sampler = todo.pop(), idle.pop()
                under_way[pool.submit(sampler, chunks[number])] = (number, sampler)
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                number, sampler = under_way.pop(future)
                idle.append(sampler)
                if error := future.exception():
                    failure = failure or error
                else:
                    yield number, future.result()
    if failure:
        raise failure


def _taken_up(file: Path, chunks: Sequence[Sequence[Problem]], samples: int) -> dict[int, list[Episode]]:
    """The whole chunks in `file`, by number, in the file's order; what a kill left behind the last one is cut off, and so made again."""
    with open(file, "rb") as log:
        sizes = [len(line) for line in log if line.endswith(b"\n")]
    os.truncate(file, sum(sizes))
    episodes = list(read_episodes(file))
    number_of = {problem.id: number for number, chunk in enumerate(chunks) for problem in chunk}
    done: dict[int, list[Episode]] = {}
    start = 0
    while start < len(episodes):
        number = number_of.get(episodes[start].problem.id, -1)
        expected = [(problem.id, sample) for problem in chunks[number] for sample in range(samples)] if number not in {-1, *done} else []
        made = episodes[start : start + len(expected)]
        if not made or [(episode.problem.id, episode.sample) for episode in made] != expected[: len(made)]:
            raise DataError(f"{file}:{start + 1}: holds episodes of other problems than these; remove it or name another --out")
        if len(made) < len(expected):
            os.truncate(file, sum(sizes[:start]))
            break
        done[number] = made
        start += len(made)
    return done
