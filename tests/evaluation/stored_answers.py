"""Episodes for a page to show, made of stored outputs of real models and graded here: of one problem, one output and then another."""

import gzip
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from posttrain.config import build
from posttrain.tasks.humaneval import HumanEvalTask
from posttrain.tasks.humaneval import make as humaneval
from posttrain.tasks.math import MathTask
from posttrain.tasks.math import make as math
from posttrain.types import Completion, Episode, FinalAnswer, Problem, Task, Turn
from tests.evaluation.hand_made import in_order


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def math_episodes(data: Path, *, gsm8k: bool = False) -> list[Episode]:
    """Qwen2.5-Math's samples, or GSM8K's example solutions: of each problem, every output and the next one."""
    rows = read(data / f"{'gsm8k' if gsm8k else 'math'}_model_outputs_dev.jsonl.gz")
    problems = {row["question"]: i for i, row in enumerate(rows)}
    pairs: list[tuple[Problem, tuple[str, ...]]] = []
    for first, second in pairwise(rows):
        if first["question"] == second["question"]:
            number = problems[first["question"]]
            level = first.get("level", "").removeprefix("Level ")
            asked = Problem(id=f"stored/{number}", question=first["question"], reference=FinalAnswer(text=first["gold"]), level=level)
            pairs.append((asked, (first["output"], second["output"])))
    return graded(math(MathTask()), pairs)


def code_episodes(data: Path, limit: int = 120) -> list[Episode]:
    """HumanEval completions, two of the same problem at a time."""
    task = humaneval(build(HumanEvalTask, [("test", {"sources": {"test": str(data / "HumanEval.jsonl.gz")}})]))
    problems = {problem.id: problem for problem in task.load("test")}
    rows = sorted(read(data / "humaneval_completions_dev.jsonl.gz"), key=lambda row: row["task_id"])
    pairs = [(a, b) for a, b in pairwise(rows) if a["task_id"] == b["task_id"] and a["completion"] != b["completion"]]
    pairs = pairs[:: max(1, len(pairs) // limit)][:limit]
    return graded(task, [(problems[a["task_id"]], (a["completion"], b["completion"])) for a, b in pairs])


def graded(task: Task, pairs: Sequence[tuple[Problem, tuple[str, ...]]]) -> list[Episode]:
    verdicts = iter(task.grade([(problem, text) for problem, texts in pairs for text in texts]))
    seen: dict[str, int] = {}
    episodes = []
    for problem, texts in pairs:
        turns = []
        for text in texts:
            done = Completion(ids=tuple(range(len(text) // 4)), logprobs=(), finish="stop")
            turns.append(Turn(prompt_ids=(), completion=done, text=text, answer=task.answer(text), verdict=next(verdicts)))
        sample = seen[problem.id] = seen.get(problem.id, -1) + 1
        episodes.append(Episode(problem=problem, turns=in_order(*turns), sample=sample))
    return episodes
