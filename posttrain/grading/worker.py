"""The process in which algebra runs: one question a line on stdin, one verdict a line on stdout, until stdin ends.

It starts with a ceiling on memory, and each question with one on CPU time, so the kernel ends it even where its parent is gone. It
imports neither torch nor anything of ours but the grader.
"""

import json
import resource
import signal
import sys
from dataclasses import astuple
from typing import Any

from posttrain.grading import math
from posttrain.grading.policy import MathPolicy
from posttrain.types import Verdict


def main(cpu_s: float, memory_mib: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from posttrain.grading.algebra import prove  # under the ceiling already, and not for other graders that are served from here

    def grade(gold: str, answer: str, policy: MathPolicy) -> Verdict:
        return math.grade(gold, answer, policy, prove)

    serve(cpu_s, grade, ("\\tan 3y", "\\tan y \\sec y", {}))


def serve(cpu_s: float, grade: Any, first: tuple[str, str, dict[str, Any]]) -> None:
    """Answer questions with `grade`; `first` is asked before, as it imports and warms what every later one needs."""
    verdict_of(grade, *first)
    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # CPU time of this process; nothing handles the signal, so the kernel ends it
        verdict = verdict_of(grade, *question)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(astuple(verdict)), flush=True)


def verdict_of(grade: Any, gold: str, answer: str, policy: dict[str, Any]) -> Verdict:
    try:
        return grade(gold, answer, MathPolicy(**policy))
    except MemoryError:
        return Verdict(status="unscored", why="grader out of memory")
    except Exception as error:  # sympy raises nearly anything on odd input: the grader's fault, so no verdict
        return Verdict(status="unscored", why=f"grader raised {type(error).__name__}: {str(error)[:200]}")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
