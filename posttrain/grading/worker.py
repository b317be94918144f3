"""The process in which algebra runs: one question a line on stdin, one verdict a line on stdout, until stdin ends.

It starts with a ceiling on memory, and each question with one on CPU time, so the kernel ends it even where its parent is gone. It
imports neither torch nor anything of ours but the grader.
"""

import json
import logging
import resource
import signal
import sys

from posttrain.grading.math import compare_by_algebra
from posttrain.types import Verdict


def main(cpu_s: float, memory_mib: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.WARNING)  # math-verify warns that it has no time limit: it needs none here
    compare_by_algebra("x+1", "1+x")  # imports and warms what every later question needs
    print("ready", flush=True)
    for line in sys.stdin:
        reference, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # CPU time of this process; nothing handles the signal, so the kernel ends it
        verdict = _verdict(reference, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps([verdict.status, verdict.why]), flush=True)


def _verdict(reference: str, answer: str) -> Verdict:
    try:
        return compare_by_algebra(reference, answer)
    except MemoryError:
        return Verdict(status="unscored", why="grader out of memory")
    except Exception as error:  # sympy and antlr raise nearly anything on odd input: the grader's fault, so no verdict
        return Verdict(status="unscored", why=f"grader raised {type(error).__name__}: {str(error)[:200]}")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
