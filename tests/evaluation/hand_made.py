"""Hand-made episodes: what a model could have written, with verdicts set by the test. No test of ours needs a tokenizer for them."""

import dataclasses
import random

from posttrain.types import Completion, Episode, FinalAnswer, Problem, Turn, Verdict

STATUS = {"c": "correct", "w": "wrong", "n": "no_answer", "u": "unscored"}


def turn(mark: str, answer: str | None, text: str, finish: str = "stop", num_tokens: int = 3) -> Turn:
    done = Completion(ids=(7,) * num_tokens, logprobs=(), finish=finish)
    return Turn(prompt_ids=(1, 2), completion=done, text=text, answer=answer, verdict=Verdict(status=STATUS[mark], why="by hand"))


def in_order(*turns: Turn) -> tuple[Turn, ...]:
    """The turns with prompts that repeat all earlier tokens, as a rollout's do."""
    made: list[Turn] = []
    for each in turns:
        before = (*made[-1].prompt_ids, *made[-1].completion.ids) if made else ()
        made.append(dataclasses.replace(each, prompt_ids=(*before, *each.prompt_ids)))
    return tuple(made)


def episode(marks: str, *, problem: str = "p", sample: int = 0, answers=None, texts=None, finish=None, level="", subject="") -> Episode:
    """`marks` is one of c, w, n, u per attempt: right, wrong, no answer, unscored."""
    answers = answers or [None if m == "n" else "7" if m == "c" else "8" for m in marks]
    texts = texts or [f"It is {a}." for a in answers]
    finish = finish or ["stop"] * len(marks)
    asked = Problem(id=problem, question="3 + 4?", reference=FinalAnswer(text="7"), level=level, subject=subject)
    turns = in_order(*(turn(*each) for each in zip(marks, answers, texts, finish, strict=True)))
    return Episode(problem=asked, turns=turns, sample=sample)


def each_its_problem(*marks: str) -> list[Episode]:
    return [episode(m, problem=f"p{i}") for i, m in enumerate(marks)]


def population(seed: int, num: int, *, acc: float, fix: float, broke: float, copy: float, samples: int = 1) -> list[Episode]:
    """Realistic episodes of a small arithmetic task: worked lines, a boxed answer, second attempts that copy, rewrite or slip."""
    rng, made = random.Random(seed), []
    for i in range(num):
        a, b = rng.randint(100, 9999), rng.randint(100, 9999)
        asked = Problem(
            id=f"sum-{i:04d}",
            question=f"What is {a} plus {b}?",
            reference=FinalAnswer(text=str(a + b)),
            level=f"{len(str(max(a, b)))} digits",
        )
        for sample in range(samples):
            first = a + b if rng.random() < acc else a + b + rng.choice([-100, -10, 10, 1, 100])
            right = first == a + b
            changed = rng.random() < (broke if right else fix)
            second = (a + b + rng.choice([-10, 10]) if right else a + b) if changed else first
            if not changed and not right and rng.random() > copy:
                second = a + b + rng.choice([-20, 20, 2])
            texts = [f"We add {a} and {b}.\nThe units first, then the carry.\nSo {a} + {b} = {first}.\n\\boxed{{{first}}}"]
            same = second == first and rng.random() < copy
            texts.append(texts[0] if same else f"Let us check {a} + {b} again, digit by digit.\nIt comes to {second}.\n\\boxed{{{second}}}")
            turns = in_order(
                turn("c" if right else "w", str(first), texts[0], num_tokens=40),
                turn("c" if second == a + b else "w", str(second), texts[1], num_tokens=36),
            )
            made.append(Episode(problem=asked, turns=turns, sample=sample))
    return made
