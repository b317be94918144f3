"""Which of a model's own attempts it is trained on: the data sets of the supervised baselines in arXiv 2409.12917, sec. 4.

    star         D_STaR     wrong, then right: successful revisions
    star_plus    D_STaR+    these, and right, then right
    pairs        D_SFT      a wrong first attempt beside a right one of another sample, as if it had been revised to that
    pairs_plus   D_SFT+     these, and two different right ones
    verdicts     for PAG    any first attempt, the grader's word on it, and behind "wrong" the second attempt, whatever it is

Every set holds a text pair once, at most `per_problem` of a problem for each kind, and no attempt that the length limit cut.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from posttrain.evaluation.metrics import outcome
from posttrain.prompting.chat import ChatFormat
from posttrain.types import Completion, Episode, Task, Turn, Verdict

Traces: TypeAlias = Literal["star", "star_plus", "pairs", "pairs_plus", "verdicts"]


def select(episodes: Sequence[Episode], kind: Traces, chat: ChatFormat, task: Task, *, per_problem: int, seed: int) -> list[Episode]:
    """The episodes of `kind` to train on, in a seeded order: two attempts, or for verdicts an attempt, a verdict and perhaps another."""
    shuffled = random.Random(seed).sample(list(episodes), len(episodes))
    whole = [e for e in shuffled if all(turn.verdict.scored and turn.completion.finish == "stop" for turn in e.turns)]
    wanted = ("fixed",) if kind in ("star", "pairs") else ("fixed", "kept")
    found: Iterable[Episode] = whole
    if kind.startswith("pairs"):
        found = _paired(whole, chat, task, random.Random(seed))
    elif kind == "verdicts":
        found = (judged(episode, chat, task) for episode in whole)
    chosen: dict[tuple[str, ...], Episode] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for episode in found:
        key = (episode.problem.id, *(turn.text for turn in episode.turns))
        group = (episode.problem.id, outcome(episode))
        if group[1] in wanted and key not in chosen and counts[group] < per_problem:
            chosen[key] = episode
            counts[group] += 1
    return list(chosen.values())


def balance(episodes: Iterable[Episode]) -> dict[str, int]:
    """How many of the episodes fix their first attempt, and how many keep a right one."""
    counts = Counter(outcome(episode) for episode in episodes)
    return {"fixed": counts["fixed"], "kept": counts["kept"]}


def _paired(episodes: Sequence[Episode], chat: ChatFormat, task: Task, rng: random.Random) -> Iterator[Episode]:
    """Each first attempt followed by a right one of another sample of its problem, as the second attempt that it might have had."""
    right: dict[str, list[Turn]] = {}
    for episode in episodes:
        if episode.turns[0].verdict.correct:
            right.setdefault(episode.problem.id, []).append(episode.turns[0])
    for episode in episodes:
        first = episode.turns[0]
        others = [turn for turn in right.get(episode.problem.id, ()) if turn.text != first.text]
        if others and first.answer is not None:
            better = rng.choice(others)
            prompt = chat.revise(first.prompt_ids, first.completion.ids, task.revise)
            second = Turn(prompt_ids=prompt, completion=better.completion, text=better.text, answer=better.answer, verdict=better.verdict)
            yield Episode(problem=episode.problem, turns=(first, second), sample=episode.sample, policy_step=episode.policy_step)


def judged(episode: Episode, chat: ChatFormat, task: Task) -> Episode:
    """The episode with the grader's word between its attempts, as the model would have said it; a right first attempt is the last one."""
    first, second = episode.turns
    right = first.verdict.correct
    word = task.verdicts[0 if right else 1]
    prompt = chat.revise(first.prompt_ids, first.completion.ids, task.verify)
    said = Completion(ids=(*chat.encode(word), chat.eos_ids[0]), logprobs=(), finish="stop")
    verdict = Turn(prompt_ids=prompt, completion=said, text=word, answer="right" if right else "wrong", verdict=Verdict(status="correct"))
    again = replace(second, prompt_ids=chat.revise(prompt, said.ids, task.revise))
    return replace(episode, turns=(first, verdict) if right else (first, verdict, again))
