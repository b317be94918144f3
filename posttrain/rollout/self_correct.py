"""Attempt, then attempt again: y1 ~ pi(.|x), y2 ~ pi(.|x, y1, p), ..., each graded (arXiv 2409.12917, sec. 3)."""

import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import accumulate
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeAlias

from posttrain.prompting import revise
from posttrain.prompting.raw import PromptFormat
from posttrain.run import seed_for
from posttrain.sampling.converse import Request, Said, converse
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

    A truncated attempt still gets its successor, and the instruction is never cut: an attempt's prompt is all earlier tokens. A second
    attempt starts as soon as its first is done, where the engine can do that, and attempts are graded meanwhile in a thread of their own,
    each text about a problem once. Results do not depend on how the engine batches rows, as each row has a seed of its own.
    """
    talks = _talks(problems, task, engine, chat, how)
    asked = [(talk, request) for talk in talks if (request := talk.next(()))]
    with _Grading(task) as grading:
        grading.add([talk.attempt(()) for talk in talks if talk.begun])

        def follow(ended: Sequence[tuple[int, Said]]) -> list[Request | None]:
            talked = [(asked[n][0], said) for n, said in ended]
            grading.add([talk.attempt(said) for talk, said in talked if talk.ends_with_attempt(said)])
            return [talk.next(said) for talk, said in talked]

        rows = converse(engine, [request for _, request in asked], follow)
    said = {talk.row: completions for (talk, _), completions in zip(asked, rows, strict=True)}
    return [talk.episode(said.get(talk.row, ()), [grading.graded[talk.row, k] for k in range(how.attempts)]) for talk in talks]


RolloutFunction: TypeAlias = Callable[[Sequence[Problem], Task, Engine, PromptFormat, Rollout], list[Episode]]
"""`self_correct`, or another way to make episodes in the same order."""


def first_attempts(episodes: Iterable[Episode]) -> dict[str, list[str]]:
    """The first attempts of stored episodes, by problem, each text once."""
    found: dict[str, dict[str, None]] = {}
    for episode in episodes:
        found.setdefault(episode.problem.id, {})[episode.turns[0].text] = None
    return {problem: list(texts) for problem, texts in found.items()}


class _Attempt(NamedTuple):
    """The text of one attempt of one row."""

    row: int
    number: int
    problem: Problem
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Talk:
    """One row: what is said in it is an attempt, or, under `self_refine`, an attempt and feedback on it in turn."""

    row: int
    problem: Problem
    sample: int
    question: TokenIds
    begun: Said
    """The first attempt, where it was not this row that drew it."""
    given: bool
    task: Task
    chat: PromptFormat
    how: Rollout

    def next(self, said: Said) -> Request | None:
        """What is asked for after all this; the last attempt is followed by nothing."""
        how, made = self.how, (*self.begun, *said)
        attempt, feedback = divmod(len(made), self._stride)
        if attempt + bool(feedback) >= how.attempts:
            return None
        after = attempt + 1 < how.attempts
        of = (how.seed, how.step, self.problem.id, self.sample, attempt)
        seed = seed_for(*of, "feedback") if feedback else seed_for(*of)
        return Request(prompt=self._prompts(made)[-1], sampling=replace(how.sampling, continued=after), seed=seed)

    def ends_with_attempt(self, said: Said) -> bool:
        return (len(self.begun) + len(said) - 1) % self._stride == 0

    def attempt(self, said: Said) -> _Attempt:
        """What was said last, an attempt."""
        made = (*self.begun, *said)
        return _Attempt(self.row, (len(made) - 1) // self._stride, self.problem, self.chat.text(made[-1].ids))

    def episode(self, said: Said, graded: Sequence[tuple[str, Verdict]]) -> Episode:
        """All of it, with the text and the verdict of each attempt."""
        made = (*self.begun, *said)
        attempts = list(zip(self._prompts(made[:-1]), made, strict=True))[:: self._stride]
        turns = tuple(
            Turn(
                prompt_ids=prompt,
                completion=completion,
                text=text,
                answer=self.task.answer(text),
                verdict=verdict,
                given=self.given and k == 0,
            )
            for k, ((prompt, completion), (text, verdict)) in enumerate(zip(attempts, graded, strict=True))
        )
        return Episode(problem=self.problem, turns=turns, sample=self.sample, policy_step=self.how.step)

    @property
    def _stride(self) -> int:
        return 2 if self.how.self_refine else 1

    def _prompts(self, made: Said) -> list[TokenIds]:
        """The prompt of each thing said, and of what comes next: all before it, and the instruction to revise or to say what is wrong."""
        steps = (revise.FEEDBACK, revise.REFINE) if self.how.self_refine else (self.task.revise,)
        told = [(completion.ids, steps[n % len(steps)]) for n, completion in enumerate(made)]
        return list(accumulate(told, lambda prompt, step: self.chat.revise(prompt, *step), initial=self.question))


class _Grading:
    """Texts and verdicts by row and attempt, from one thread: what gathers while it is busy is graded in one call, and each text once.

    A text that the grader failed on is graded anew when it comes again. What was raised in the thread is raised at the end of `with`.
    """

    def __init__(self, task: Task) -> None:
        self.graded: dict[tuple[int, int], tuple[str, Verdict]] = {}
        self._task, self._known = task, dict[tuple[str, str], Verdict]()
        self._lock, self._waiting = threading.Lock(), list[_Attempt]()
        self._thread, self._calls = ThreadPoolExecutor(1), list[Future[None]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for call in self._calls:
                call.result()

    def add(self, attempts: Sequence[_Attempt]) -> None:
        """Attempts to grade; of the same row and number the later one counts."""
        if attempts:
            with self._lock:
                self._waiting += attempts
                self._calls.append(self._thread.submit(self._grade))

    def _grade(self) -> None:
        with self._lock:
            attempts, self._waiting = self._waiting, []
        asked = {(each.problem.id, each.text): (each.problem, each.text) for each in attempts}
        fresh = {key: pair for key, pair in asked.items() if key not in self._known or not self._known[key].scored}
        self._known.update(zip(fresh, self._task.grade(list(fresh.values())) if fresh else (), strict=True))
        self.graded |= {(each.row, each.number): (each.text, self._known[each.problem.id, each.text]) for each in attempts}


def _talks(problems: Sequence[Problem], task: Task, engine: Engine, chat: PromptFormat, how: Rollout) -> list[_Talk]:
    """The rows, with the first attempts that they do not draw themselves: given ones, and those that a problem's samples share."""
    questions = [chat.ask(task.ask(problem)) for problem in problems]
    shared: list[Completion] = []
    if how.shared_first and problems:
        sampling = replace(how.sampling, continued=how.attempts > 1)
        seeds = [seed_for(how.seed, how.step, problem.id, 0, 0) for problem in problems]
        shared = engine.generate(questions, sampling, seeds)
    talks: list[_Talk] = []
    for at, (problem, question) in enumerate(zip(problems, questions)):
        for sample in range(how.samples):
            text = _given(problem, sample, how)
            begun = (_completed(text, chat),) if text is not None else (shared[at],) if shared else ()
            of: dict[str, Any] = {"row": len(talks), "problem": problem, "sample": sample, "question": question}
            talks.append(_Talk(**of, begun=begun, given=text is not None, task=task, chat=chat, how=how))
    return talks


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
