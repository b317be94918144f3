"""Rows that go on when they end: second attempts, feedback. Without a barrier where the engine can, in rounds where it cannot.

In rounds, no second attempt starts before the last first one is done, so that the engine runs nearly empty while the longest rows end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from posttrain.types import Completion, Engine, Sampling, TokenIds


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a row is asked for next: a completion of `prompt`, drawn from `seed`."""

    prompt: TokenIds
    sampling: Sampling
    seed: int


Said: TypeAlias = tuple[Completion, ...]
"""The completions of one row so far, in order."""
Follow: TypeAlias = Callable[[Sequence[tuple[int, Said]]], list[Request | None]]
"""Rows of which a completion just came, each with all of them -> what each is asked for next, None where it is done.

It depends on its arguments alone, as a row may be done again from its start on another server; and it may be called from several threads.
"""


@runtime_checkable
class Conversing(Protocol):
    """An engine whose rows go on by themselves, each as soon as it can."""

    def converse(self, requests: Sequence[Request], follow: Follow) -> list[Said]: ...


def converse(engine: Engine, requests: Sequence[Request], follow: Follow) -> list[Said]:
    """Row i: the completion of `requests[i]`, and then of whatever `follow` asks of it, until that is None."""
    return engine.converse(requests, follow) if isinstance(engine, Conversing) else in_rounds(engine, requests, follow)


def singly(engine: Conversing, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
    """`generate` of such an engine: one completion per prompt, in order, and nothing after it."""
    requests = [Request(prompt=prompt, sampling=sampling, seed=seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    return [completion for (completion,) in engine.converse(requests, lambda ended: [None] * len(ended))]


def in_rounds(engine: Engine, requests: Sequence[Request], follow: Follow) -> list[Said]:
    """`converse` by one call of `generate` for all rows that are asked for something in the same way."""
    said: list[Said] = [() for _ in requests]
    asked: dict[int, Request] = dict(enumerate(requests))
    while asked:
        made: dict[int, Said] = {}
        ways = dict.fromkeys(request.sampling for request in asked.values())
        for sampling in sorted(ways, key=lambda way: way.continued):  # what the next call goes on from is sampled last, and kept
            rows = [i for i, request in asked.items() if request.sampling == sampling]
            drawn = engine.generate([asked[i].prompt for i in rows], sampling, [asked[i].seed for i in rows])
            made |= {i: (*said[i], completion) for i, completion in zip(rows, drawn, strict=True)}
        for i, completions in made.items():
            said[i] = completions
        ended = sorted(made.items())
        asked = {i: request for (i, _), request in zip(ended, follow(ended), strict=True) if request is not None}
    return said
