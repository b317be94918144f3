"""Attempt, then attempt again: y1 ~ pi(.|x), y2 ~ pi(.|x, y1, p), ..., each graded (arXiv 2409.12917, sec. 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.prompting.chat import ChatFormat
from posttrain.run import seed_for
from posttrain.types import Completion, Engine, Episode, Problem, Sampling, Task, TokenIds, Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """How episodes are sampled. `seed` and `step` enter every draw, with the problem's id, the sample and the attempt."""

    sampling: Sampling
    attempts: int = 2
    samples: int = 1
    shared_first: bool = False
    """One first attempt per problem for all its samples, instead of one each. Then the bonus of Stage II cancels (`rl/reward.py`)."""
    seed: int = 0
    step: int = 0


def self_correct(problems: Sequence[Problem], task: Task, engine: Engine, chat: ChatFormat, how: Rollout) -> list[Episode]:
    """`how.samples` episodes of each problem, in problem order and sample order within.

    A truncated attempt still gets its successor, and the instruction is never cut: an attempt's prompt is all earlier tokens.
    Results do not depend on how the engine batches rows, as each row has a seed of its own.
    """
    rows = [(problem, sample) for problem in problems for sample in range(how.samples)]
    first_prompts = [chat.ask(task.ask(problem)) for problem in problems]
    prompts: list[TokenIds] = [first_prompts[i // how.samples] for i in range(len(rows))]
    turns: list[list[Turn]] = [[] for _ in rows]
    for attempt in range(how.attempts):
        completions = _sample(engine, prompts, rows, attempt, how)
        texts = [chat.text(completion.ids) for completion in completions]
        verdicts = task.grade([(problem, text) for (problem, _), text in zip(rows, texts)])
        for i, (completion, text, verdict) in enumerate(zip(completions, texts, verdicts, strict=True)):
            turn = Turn(prompt_ids=prompts[i], completion=completion, text=text, answer=task.answer(text), verdict=verdict)
            turns[i].append(turn)
        if attempt + 1 < how.attempts:
            prompts = [chat.revise(prompt, completion.ids, task.revise) for prompt, completion in zip(prompts, completions)]
    return [
        Episode(problem=problem, turns=tuple(turns[i]), sample=sample, policy_step=how.step) for i, (problem, sample) in enumerate(rows)
    ]


def _sample(
    engine: Engine, prompts: Sequence[TokenIds], rows: Sequence[tuple[Problem, int]], attempt: int, how: Rollout
) -> list[Completion]:
    """One completion per row; under `shared_first`, a problem's first rows are one draw."""
    shared = how.shared_first and attempt == 0
    seeds = [seed_for(how.seed, how.step, problem.id, 0 if shared else sample, attempt) for problem, sample in rows]
    if not shared:
        return engine.generate(prompts, how.sampling, seeds)
    drawn = engine.generate(prompts[:: how.samples], how.sampling, seeds[:: how.samples])
    return [completion for completion in drawn for _ in range(how.samples)]
