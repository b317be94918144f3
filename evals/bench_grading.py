"""How much of a step of a `kind: score` recipe goes into grading, and how much of that its sampling hides.

    python evals/bench_grading.py recipes/score_oneliners/stage2.yaml --model MODEL --reference MODEL [--steps 20]

Grading runs in a thread beside the sampling of the next attempt, so its time and what it adds to the step are two figures. The same
steps are run twice, graded by running programs and graded by a table of the first run's verdicts, which takes no time: the difference is
what grading adds. Nothing is written but to a temporary folder.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from posttrain.config import load
from posttrain.rl.recipe import Config
from posttrain.rl.score import open_run, score_step
from posttrain.rollout.problems import draw_problems
from posttrain.tasks import make_task
from posttrain.types import Problem, Task, Verdict


@dataclass
class Graded:
    """A task's grader with a clock and a memory."""

    task: Task
    seconds: float = 0.0
    judged: int = 0
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)

    def run(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        began = time.perf_counter()
        verdicts = self.task.grade(pairs)
        self.seconds += time.perf_counter() - began
        self.judged += len(pairs)
        self.verdicts |= {(problem.id, text): verdict for (problem, text), verdict in zip(pairs, verdicts)}
        return verdicts

    def recall(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [self.verdicts[problem.id, text] for problem, text in pairs]


def seconds_of(cfg: Config, steps: int, grade: Callable[[Sequence[tuple[Problem, str]]], list[Verdict]]) -> float:
    """Wall time of `steps` updates from the recipe's model, the first one (which starts the judges) left out."""
    with tempfile.TemporaryDirectory() as folder, open_run(cfg, Path(folder) / "run", resume=False) as run:
        learner = replace(run.learner, task=replace(run.learner.task, grade=grade))
        began = 0.0
        for step in range(1, steps + 2):
            score_step(learner, draw_problems(run.problems, cfg.problems_per_step, step, cfg.seed), step)
            began = began or time.perf_counter()
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    args, flags = parser.parse_known_args()
    cfg = load(Config, [args.recipe], flags)
    graded = Graded(make_task(cfg.task))
    by_running, by_table = seconds_of(cfg, args.steps, graded.run), seconds_of(cfg, args.steps, graded.recall)
    all_steps = args.steps + 1
    print(f"{args.recipe}, {args.steps} steps of {cfg.problems_per_step} problems x {cfg.samples} samples x {len(cfg.weight)} attempts")
    print(f"a step: {by_running / args.steps:.3f} s; with verdicts known beforehand {by_table / args.steps:.3f} s")
    print(f"grading is {1 - by_table / by_running:.0%} of a step; its own wall time is {graded.seconds / all_steps:.3f} s a step")
    print(f"{graded.judged / all_steps:.0f} programs run a step, {graded.judged / graded.seconds:.0f} a second")


if __name__ == "__main__":
    main()
