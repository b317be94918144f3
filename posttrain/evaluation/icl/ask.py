"""Asking an engine all items behind one prefix: answers, their grades, and how likely the reference answers and the choices are."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from posttrain.evaluation.icl.log import Cell, Cost, Row
from posttrain.prompting.manyshot import ManyShotPrompt
from posttrain.prompting.shots import InContextTask, Shot
from posttrain.prompting.stop import before_stop
from posttrain.run import seed_for
from posttrain.types import Engine, FinalAnswer, Problem, Sampling, Scorer, TokenIds


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How items are asked. `decode` turns sampled ids into text; `seed` enters every draw at a temperature above 0."""

    engine: Engine
    decode: Callable[[TokenIds], str]
    answers: Literal["generate", "choose"]
    nll: bool
    temperature: float
    max_tokens: int
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What items are asked behind: a nested prompt, and the shots that are added for an item alone, if any."""

    task: InContextTask
    prompt: ManyShotPrompt
    tail: Callable[[Problem], tuple[Shot, ...]] = lambda problem: ()


def ask(how: Asking, shown: Shown, cell: Cell, items: Sequence[Problem]) -> tuple[list[Row], Cost]:
    """One row per item, in order, and what they cost. An item that does not fit into the context is not sent, and its row says so."""
    task, prefix = shown.task, shown.prompt.prefix_ids(cell.shots)
    asked = [(*prefix, *shown.prompt.item_ids(item, shown.tail(item))) for item in items]
    scored = [_to_score(how, task, shown.prompt, item) for item in items]
    room = [max([0 if how.answers == "choose" else how.max_tokens, *map(len, each.values())]) for each in scored]
    fits = [len(ids) + more <= how.engine.max_length for ids, more in zip(asked, room)]
    rows = [
        Row(**cell._asdict(), item=item.id, subject=item.subject, prompt_tokens=len(ids), too_long=not fit)
        for item, ids, fit in zip(items, asked, fits)
    ]
    sent = [i for i, fit in enumerate(fits) if fit]
    cost = Cost(**cell._asdict(), items=len(sent))
    if sent and how.answers == "generate":
        cost = _generate(how, task, cell, rows, [asked[i] for i in sent], sent, cost)
    if sent and any(scored[i] for i in sent):
        cost = _score(how, task, items, rows, [asked[i] for i in sent], [scored[i] for i in sent], sent, cost)
    values = task.score([(items[i], rows[i].text) for i in sent])
    for i, value in zip(sent, values, strict=True):
        rows[i] = replace(rows[i], score=value)
    return rows, cost


def reference_answer(problem: Problem) -> str:
    """The answer as a person wrote it, or the bare reference where the data set has no more."""
    if problem.solution:
        return problem.solution
    return problem.reference.text if isinstance(problem.reference, FinalAnswer) else problem.reference.code


def _to_score(how: Asking, task: InContextTask, prompt: ManyShotPrompt, item: Problem) -> dict[str, TokenIds]:
    """The texts whose likelihood is asked for behind an item: the choices, and the reference answer."""
    weighed = how.answers == "choose" or task.weigh is not None
    texts = [*(task.choices if weighed else ()), *([reference_answer(item)] if how.nll else ())]
    return {text: prompt.answer_ids(item, text) for text in texts}


def _generate(
    how: Asking, task: InContextTask, cell: Cell, rows: list[Row], prompts: Sequence[TokenIds], sent: Sequence[int], cost: Cost
) -> Cost:
    """Fill in the text of the rows that were sent."""
    sampling = Sampling(max_tokens=how.max_tokens, temperature=how.temperature, stop=task.stop)
    seeds = [seed_for(how.seed, *cell, rows[i].item) for i in sent]
    began = time.monotonic()
    completions = how.engine.generate(prompts, sampling, seeds)
    seconds = time.monotonic() - began
    for i, completion in zip(sent, completions, strict=True):
        text = before_stop(how.decode(completion.ids), task.stop)
        num, cached_num = len(completion.ids), completion.num_cached
        rows[i] = replace(rows[i], text=text, finish=completion.finish, answer_tokens=num, cached_tokens=cached_num)
    cached = sum(completion.num_cached or 0 for completion in completions)
    return replace(cost, answer_s=seconds, answer_tokens=sum(map(len, prompts)), answer_cached=cached)


def _score(
    how: Asking,
    task: InContextTask,
    items: Sequence[Problem],
    rows: list[Row],
    prompts: Sequence[TokenIds],
    scored: Sequence[dict[str, TokenIds]],
    sent: Sequence[int],
    cost: Cost,
) -> Cost:
    """Fill in the likelihood of the reference and of the choices, and under "choose" the likeliest choice as the text."""
    engine: Scorer = how.engine  # type: ignore[assignment]  # checked when the run began
    befores = [prompt for prompt, texts in zip(prompts, scored) for _ in texts]
    began = time.monotonic()
    logps = iter(engine.score(befores, [ids for texts in scored for ids in texts.values()]))
    cost = replace(cost, score_s=time.monotonic() - began, score_tokens=sum(map(len, befores)), score_cached=engine.cached_tokens)
    for i, texts in zip(sent, scored):
        logp = {text: math.fsum(next(logps)) for text in texts}
        if how.nll:
            reference = reference_answer(items[i])
            rows[i] = replace(rows[i], nll=-logp[reference], nll_tokens=len(texts[reference]))
        choices = task.choices if all(choice in logp for choice in task.choices) else ()
        if choices:
            most = max(logp[choice] for choice in choices)
            weight = {choice: math.exp(logp[choice] - most) for choice in choices}
            rows[i] = replace(rows[i], choices={choice: w / math.fsum(weight.values()) for choice, w in weight.items()})
        if how.answers == "choose":
            rows[i] = replace(rows[i], text=max(choices, key=logp.__getitem__), finish="stop", cached_tokens=None)
    return cost
