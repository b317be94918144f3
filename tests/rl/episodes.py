"""Episodes written by hand: what was sampled, and how it was graded."""

from collections.abc import Sequence

from posttrain.types import Completion, Episode, FinalAnswer, Problem, Turn, Verdict


def episode(attempts: Sequence[tuple[Sequence[int], bool | None]], *, problem: str = "p", sample: int = 0, context: int = 2) -> Episode:
    """Attempts as (token ids, correct), None for unscored; each preceded by `context` tokens of prompt. Log-probabilities are -0.5."""
    turns: list[Turn] = []
    before: tuple[int, ...] = ()
    for ids, correct in attempts:
        prompt = (*before, *([7] * context))
        status = "unscored" if correct is None else "correct" if correct else "wrong"
        completion = Completion(ids=tuple(ids), logprobs=(-0.5,) * len(ids), finish="stop")
        turns.append(Turn(prompt_ids=prompt, completion=completion, text=str(ids), answer=str(ids), verdict=Verdict(status=status)))
        before = (*prompt, *ids)
    asked = Problem(id=problem, question="?", reference=FinalAnswer(text="1"))
    return Episode(problem=asked, turns=tuple(turns), sample=sample)
