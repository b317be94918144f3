"""What a barrier between attempts costs, in steps of vLLM's engine: python evals/bench_barrier.py

A step decodes one token of every row under way and costs a large model about the same for few rows as for many, so steps are what a
barrier wastes. Lengths of attempts are drawn log-normal, as lengths of answers roughly are; each attempt runs to its length. The model is
random, and steps do not depend on the machine. Writes evals/results/barrier.md.
"""

import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.run import commit, write_atomic
from posttrain.sampling.converse import Follow, Request, Said
from posttrain.types import Sampling

if TYPE_CHECKING:
    from posttrain.sampling.vllm import VLLMEngine

ROWS, MEDIAN, LONGEST = 48, 24, 192
SPREADS = (0.0, 0.3, 0.6, 1.0)  # standard deviation of the logarithm of a length
SEEDS = range(3)
RESULT = Path(__file__).parent / "results" / "barrier.md"


def lengths(spread: float, seed: int) -> list[tuple[int, int]]:
    """Tokens of both attempts of each row."""
    draw = random.Random(seed)
    one = lambda: max(1, min(LONGEST, round(MEDIAN * draw.lognormvariate(0, spread))))  # noqa: E731
    return [(one(), one()) for _ in range(ROWS)]


def conversation(both: Sequence[tuple[int, int]]) -> tuple[list[Request], Follow]:
    """The first request of each row, and what makes its second one."""
    opened = [Request(prompt=tuple(range(4, 20)), sampling=Sampling(max_tokens=n), seed=i) for i, (n, _) in enumerate(both)]

    def follow(ended: Sequence[tuple[int, Said]]) -> list[Request | None]:
        return [after(opened[i], both[i][1], said) for i, said in ended]

    return opened, follow


def after(request: Request, length: int, said: Said) -> Request | None:
    if len(said) == 2:
        return None
    return Request(prompt=(*request.prompt, *said[0].ids, 5, 6, 7), sampling=Sampling(max_tokens=length), seed=request.seed + 1000)


def steps_taken(engine: "VLLMEngine", both: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Steps of the engine in rounds, and without a barrier."""
    core, steps = engine._llm.llm_engine, [0]
    step = core.step

    def counted() -> Any:
        steps[0] += 1
        return step()

    def last(ended: Sequence[tuple[int, Said]]) -> list[Request | None]:
        return [None] * len(ended)

    opened, follow = conversation(both)
    core.step = counted
    firsts = engine.converse(opened, last)
    engine.converse([request for request in follow(list(enumerate(firsts))) if request], last)
    in_rounds, steps[0] = steps[0], 0
    engine.converse(opened, follow)
    core.step = step
    return in_rounds, steps[0]


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from bench_prefix import make_model

    from posttrain.sampling.vllm import VLLMEngine

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        engine = VLLMEngine(str(make_model(Path(folder), "tiny", 1024)), [0], max_model_len=1024)
        for spread in SPREADS:
            taken = [steps_taken(engine, lengths(spread, seed)) for seed in SEEDS]
            left = sum(free for _, free in taken) / sum(barred for barred, _ in taken)
            rows.append(f"| {spread:g} | {', '.join(f'{barred} / {free}' for barred, free in taken)} | {left:.2f} |")
        engine.close()
    text = f"""# What a barrier between attempts costs: `make bench-barrier`

Commit {commit()}. {ROWS} rows of two attempts, lengths log-normal around {MEDIAN} tokens, at most {LONGEST}; steps of vLLM in rounds
and without a barrier, seeds 0 to 2. Steps, not seconds: with few rows under way a step of a small model on a CPU is cheaper, so the gain in
time is smaller there.

| spread of log length | steps in rounds / without a barrier | share left |
|---|---|---|
"""
    write_atomic(RESULT, text + "\n".join(rows) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
