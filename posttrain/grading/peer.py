"""math-verify's opinion on answers, for `posttrain grade math --audit` and the benchmark: a peer to compare with, never the grader.

It runs in worker processes like our algebra, as it has no limits of its own off the main thread. Run as a module, this file is the worker.
"""

import importlib.util
import resource
import sys
from collections.abc import Callable, Sequence

from posttrain.config import ConfigError
from posttrain.grading.batch import Limits, Pool
from posttrain.types import Verdict

PEERS = ("math-verify",)
Opinions = Callable[[Sequence[tuple[str, str | None]]], list[bool | None]]
LIMITS = Limits(cpu_s=10.0, wall_s=60.0, memory_mib=2048)


def opinions(peer: str) -> Opinions:
    """A function from (reference, answer) pairs to verdicts, None where the peer failed. Raises `ConfigError` if it is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise ConfigError(f"--audit {peer}: not installed; install it with: pip install 'math-verify[antlr4_13_2]==0.9.0'")
    arguments = ["-P", "-m", "posttrain.grading.peer", str(LIMITS.cpu_s), str(LIMITS.memory_mib)]

    def ask(pairs: Sequence[tuple[str, str | None]]) -> list[bool | None]:
        pool = Pool(2, LIMITS, arguments)
        try:
            verdicts = pool.ask_all([(gold, answer or "") for gold, answer in pairs])
        finally:
            pool.close()
        return [verdict.correct if verdict.scored and verdict.status != "timeout" else None for verdict in verdicts]

    return ask


def grade(gold: str, answer: str, policy: object = None) -> Verdict:
    """math-verify's verdict on two bare expressions, in dollars as it wants them."""
    from math_verify import parse, verify

    wrapped = [text if "$" in text or "\\boxed" in text else f"${text}$" for text in (gold, answer)]
    reference, said = (parse(text, parsing_timeout=None) for text in wrapped)
    if not reference:
        return Verdict(status="gold_unparsable", why="math-verify cannot read the reference")
    equal = verify(reference, said, timeout_seconds=None)
    return Verdict(status="correct" if equal else "wrong", why="math-verify")


def main(cpu_s: float, memory_mib: int) -> None:
    import logging

    from posttrain.grading.worker import serve

    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    logging.disable(logging.WARNING)  # math-verify warns that it has no time limit: it needs none here
    serve(cpu_s, grade, ("x+1", "1+x", {}))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
