"""Attempt, then attempt again: y1 ~ pi(.|x), y2 ~ pi(.|x, y1, p), ..., each graded (arXiv 2409.12917, sec. 3)."""

import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from posttrain.prompting import revise
from posttrain.prompting.raw import PromptFormat
from posttrain.run import seed_for
from posttrain.types import Completion, DataError, Engine, Episode, Problem, Sampling, Task, TokenIds, Turn, Verdict

FirstAttempts: TypeAlias = Mapping[str, Sequence[str]]
"""Problem id -> texts of earlier attempts at it, of this model or another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """How episodes are sampled. `seed` and `step` enter every draw, with the problem's id, the sample and the attempt."""

    sampling: Sampling
    attempts: int = 2
    samples: int = 1
    shared_first: bool = False
    """One first attempt per problem for all its samples, instead of one each. Then the bonus of Stage II cancels (`rl/reward.py`)."""
    given: FirstAttempts = field(default_factory=lambda: MappingProxyType({}))
    """First attempts to put before the model instead of its own; see `given_share`."""
    given_share: float = 0.0
    """The chance that an episode starts from a given first attempt; 1 needs one for every problem."""
    self_refine: bool = False
    """Ask for feedback on each attempt before the next one (Self-Refine, arXiv 2303.17651); the feedback is part of the next prompt."""
    seed: int = 0
    step: int = 0


def self_correct(problems: Sequence[Problem], task: Task, engine: Engine, chat: PromptFormat, how: Rollout) -> list[Episode]:
    """`how.samples` episodes of each problem, in problem order and sample order within.

    A truncated attempt still gets its successor, and the instruction is never cut: an attempt's prompt is all earlier tokens. An attempt
    is graded in a thread of its own while the next one is sampled, each text about a problem once. Results do not depend on how the
    engine batches rows, as each row has a seed of its own.
    """
    rows = [(problem, sample) for problem in problems for sample in range(how.samples)]
    first_prompts = [chat.ask(task.ask(problem)) for problem in problems]
    prompts: list[TokenIds] = [first_prompts[i // how.samples] for i in range(len(rows))]
    attempts: list[_Attempt] = []
    known: dict[tuple[str, str], Verdict] = {}  # the grader's thread alone reads and writes it
    with ThreadPoolExecutor(1) as grader:
        for attempt in range(how.attempts):
            given = {} if attempt else {i: _completed(text, chat) for i, row in enumerate(rows) if (text := _given(*row, how)) is not None}
            completions = _sample(engine, prompts, rows, attempt, how, given)
            texts = [chat.text(completion.ids) for completion in completions]
            graded = grader.submit(_grade, task, [(problem, text) for (problem, _), text in zip(rows, texts)], known)
            attempts.append(_Attempt(prompts, completions, texts, graded, given))
            if attempt + 1 < how.attempts:
                seeds = [seed_for(how.seed, how.step, problem.id, sample, attempt, "feedback") for problem, sample in rows]
                prompts = _next_prompts(engine, chat, task, list(zip(prompts, completions)), seeds, how)
    turns: list[list[Turn]] = [[] for _ in rows]
    for each in attempts:
        for i, (text, verdict) in enumerate(zip(each.texts, each.graded.result(), strict=True)):
            made = {"prompt_ids": each.prompts[i], "completion": each.completions[i], "text": text, "given": i in each.given}
            turns[i].append(Turn(answer=task.answer(text), verdict=verdict, **made))
    return [
        Episode(problem=problem, turns=tuple(turns[i]), sample=sample, policy_step=how.step) for i, (problem, sample) in enumerate(rows)
    ]


RolloutFunction: TypeAlias = Callable[[Sequence[Problem], Task, Engine, PromptFormat, Rollout], list[Episode]]
"""`self_correct`, or another way to make episodes in the same order."""


class _Attempt(NamedTuple):
    """One attempt of every row; `graded` holds the verdicts once they are there."""

    prompts: Sequence[TokenIds]
    completions: Sequence[Completion]
    texts: Sequence[str]
    graded: Future[list[Verdict]]
    given: Container[int]


def _grade(task: Task, pairs: Sequence[tuple[Problem, str]], known: dict[tuple[str, str], Verdict]) -> list[Verdict]:
    """A verdict for each pair; only what is not in `known` is graded, and put there. A second attempt often repeats the first."""
    asked = {(problem.id, text): (problem, text) for problem, text in pairs}
    fresh = {key: pair for key, pair in asked.items() if key not in known or not known[key].scored}
    known.update(zip(fresh, task.grade(list(fresh.values())) if fresh else (), strict=True))
    return [known[problem.id, text] for problem, text in pairs]


def _next_prompts(
    engine: Engine, chat: PromptFormat, task: Task, made: Sequence[tuple[TokenIds, Completion]], seeds: Sequence[int], how: Rollout
) -> list[TokenIds]:
    """What comes after each (prompt, attempt): the instruction to revise, or feedback of the model's own and the instruction to use it."""
    if not how.self_refine:
        return [chat.revise(prompt, attempt.ids, task.revise) for prompt, attempt in made]
    asked = [chat.revise(prompt, attempt.ids, revise.FEEDBACK) for prompt, attempt in made]
    feedback = engine.generate(asked, replace(how.sampling, continued=True), seeds)
    return [chat.revise(prompt, said.ids, revise.REFINE) for prompt, said in zip(asked, feedback)]


def first_attempts(episodes: Iterable[Episode]) -> dict[str, list[str]]:
    """The first attempts of stored episodes, by problem, each text once."""
    found: dict[str, dict[str, None]] = {}
    for episode in episodes:
        found.setdefault(episode.problem.id, {})[episode.turns[0].text] = None
    return {problem: list(texts) for problem, texts in found.items()}


def _given(problem: Problem, sample: int, how: Rollout) -> str | None:
    """The first attempt that this episode starts from, None where the model makes its own; a seeded draw."""
    if not how.given_share:
        return None
    draw = random.Random(seed_for(how.seed, how.step, problem.id, sample, "given"))
    texts = how.given.get(problem.id, ())
    if how.given_share >= 1 and not texts:
        raise DataError(f"{problem.id}: no first attempt is given for it, and every episode is to start from a given one")
    return draw.choice(texts) if texts and draw.random() < how.given_share else None


def _completed(text: str, chat: PromptFormat) -> Completion:
    return Completion(ids=(*chat.encode(text), chat.eos_ids[0]), logprobs=(), finish="stop")


def _sample(
    engine: Engine,
    prompts: Sequence[TokenIds],
    rows: Sequence[tuple[Problem, int]],
    attempt: int,
    how: Rollout,
    given: Mapping[int, Completion],
) -> list[Completion]:
    """One completion per row, drawn where none is `given`; under `shared_first`, a problem's first rows are one draw."""
    shared = how.shared_first and attempt == 0
    seeds = [seed_for(how.seed, how.step, problem.id, 0 if shared else sample, attempt) for problem, sample in rows]
    sampling = replace(how.sampling, continued=attempt + 1 < how.attempts)
    if shared:
        drawn = engine.generate(prompts[:: how.samples], sampling, seeds[:: how.samples])
        return [completion for completion in drawn for _ in range(how.samples)]
    own = [i for i in range(len(rows)) if i not in given]
    drawn = engine.generate([prompts[i] for i in own], sampling, [seeds[i] for i in own]) if own else []
    made = {**given, **dict(zip(own, drawn, strict=True))}
    return [made[i] for i in range(len(rows))]
