"""Attempt, judge the attempt, and attempt again only where it was judged wrong: the rollout of PAG (arXiv 2506.10406)."""

import re
from collections.abc import Sequence
from dataclasses import replace

from posttrain.config import ConfigError
from posttrain.prompting.raw import PromptFormat
from posttrain.rollout.self_correct import Rollout, self_correct
from posttrain.run import seed_for
from posttrain.types import Completion, Engine, Episode, Problem, Task, TokenIds, Turn, Verdict


def verify_then_revise(problems: Sequence[Problem], task: Task, engine: Engine, chat: PromptFormat, how: Rollout) -> list[Episode]:
    """`how.samples` episodes of each problem, of three turns: y1 ~ pi(.|x), v ~ pi(.|x, y1, q), y2 ~ pi(.|x, y1, q, v, p).

    The second turn's `answer` is the judgement and its `verdict` whether that is so. Only where it is "wrong" is a third one sampled;
    elsewhere the third turn is the first attempt kept: without tokens, `given`, with that attempt's text and verdict. So all episodes
    have three turns, the last holds the final answer, and what was not sampled is not trained on. Raises `ConfigError` for a task that
    has no instruction to verify.
    """
    if not task.verify:
        raise ConfigError(f"{task.name}: the task has no instruction to verify an attempt (`verify` of its Task)")
    tried = self_correct(problems, task, engine, chat, replace(how, attempts=1))
    firsts = [episode.turns[0] for episode in tried]
    asked = [chat.revise(turn.prompt_ids, turn.completion.ids, task.verify) for turn in firsts]
    said = engine.generate(asked, how.sampling, [_seed(how, episode, "verify") for episode in tried])
    judged = [_judged(*each, chat.text(each[2].ids), task) for each in zip(firsts, asked, said, strict=True)]

    doubted = [i for i, turn in enumerate(judged) if turn.answer == "wrong"]
    prompts = [chat.revise(judged[i].prompt_ids, judged[i].completion.ids, task.revise) for i in doubted]
    drawn = engine.generate(prompts, how.sampling, [_seed(how, tried[i], 1) for i in doubted]) if doubted else []
    texts = [chat.text(completion.ids) for completion in drawn]
    verdicts = task.grade([(tried[i].problem, text) for i, text in zip(doubted, texts)])
    lasts = [_kept(first, turn) for first, turn in zip(firsts, judged)]
    for i, prompt, completion, text, verdict in zip(doubted, prompts, drawn, texts, verdicts, strict=True):
        lasts[i] = Turn(prompt_ids=prompt, completion=completion, text=text, answer=task.answer(text), verdict=verdict)
    return [replace(episode, turns=turns) for episode, turns in zip(tried, zip(firsts, judged, lasts))]


def attempts_with_verdict(problems: Sequence[Problem], task: Task, engine: Engine, chat: PromptFormat, how: Rollout) -> list[Episode]:
    """The same, as two attempts each: what is said between them stands in the last one's prompt only."""
    return [attempts_of(episode) for episode in verify_then_revise(problems, task, engine, chat, how)]


def attempts_of(episode: Episode) -> Episode:
    first, _, last = episode.turns
    return replace(episode, turns=(first, last))


def judgement(text: str, words: tuple[str, str]) -> str | None:
    """ "right" or "wrong", where the text ends with the first or the second of `words`."""
    right, wrong = (re.escape(word.strip()) for word in words)
    found = re.search(rf"\b(?:({right})|{wrong})\W*$", text, re.IGNORECASE)
    return None if found is None else "right" if found[1] else "wrong"


def _judged(first: Turn, prompt: TokenIds, completion: Completion, text: str, task: Task) -> Turn:
    """The turn that judges `first`: correct where it calls a right attempt right or any other wrong."""
    said = judgement(text, task.verdicts)
    if not first.verdict.scored:
        verdict = first.verdict
    elif said is None:
        verdict = Verdict(status="no_answer", why="ends with no judgement")
    else:
        so = (said == "right") == first.verdict.correct
        verdict = Verdict(status="correct" if so else "wrong", why=f"calls {said} an attempt that is {first.verdict.status}")
    return Turn(prompt_ids=prompt, completion=completion, text=text, answer=said, verdict=verdict)


def _kept(first: Turn, judged: Turn) -> Turn:
    nothing = Completion(ids=(), logprobs=(), finish="stop")
    return replace(first, prompt_ids=(*judged.prompt_ids, *judged.completion.ids), completion=nothing, given=True)


def _seed(how: Rollout, episode: Episode, turn: int | str) -> int:
    return seed_for(how.seed, how.step, episode.problem.id, episode.sample, turn)
