"""A step whose episodes were sampled ahead beside one that waits for them: python evals/bench_ahead.py

Rollouts come from a vLLM server; it and the trainer have one thread each, and two cores. Blocks of steps of both kinds in turns, the same
model, problems and server; seconds by the clock, as waiting is what is saved: the machine must be idle. Writes evals/results/ahead.md.
"""

import os
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench_train import SIZES, make_model, opened

from posttrain.run import RunFolder, commit, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from posttrain.rl.loop import Run

RESULT = Path(__file__).parent / "results" / "ahead.md"
SIZE = SIZES["small"]
STEPS, BLOCKS = 3, 4  # steps timed in a block, after a first one; blocks of each kind
PUSHES = 11


@contextmanager
def ahead_of(model: Path, url: str, out: Path) -> "Iterator[Run]":
    """A run whose learner samples from the server."""
    from posttrain.rl.loop import Run

    server = {"kind": "server", "url": url, "model": "tiny"}
    learner, task = opened(model, SIZE, None, steps=10_000, importance_cap=2, sample_ahead=True, engine=server)
    yield Run(learner=learner, folder=RunFolder(out, learner.cfg), problems=task.load("train"), held_out=[])
    learner.engine.close()


def block(step: Any, run: "Run", first: int) -> dict[str, float]:
    """Median seconds of a step and its parts, over STEPS steps after one that is not counted."""
    from posttrain.rollout.problems import draw_problems

    rows = []
    for number in range(first, first + STEPS + 1):
        problems = draw_problems(run.problems, SIZE.problems, number, 0)
        began = time.perf_counter()
        _, figures = step(problems, number)
        rows.append({"step": time.perf_counter() - began, **{key: value for key, value in figures.items() if key.endswith("_s")}})
    return {key: median(row[key] for row in rows[1:]) for key in rows[0]}


def push_parts(learner: Any) -> dict[str, float]:
    """Median seconds of a push of the weights to the server, and of writing them to the folder that it reads."""
    import safetensors.torch

    from posttrain.rl.score import push

    written: list[float] = []
    save_file = safetensors.torch.save_file

    def timed(*args: Any) -> None:
        began = time.perf_counter()
        save_file(*args)
        written.append(time.perf_counter() - began)

    safetensors.torch.save_file = timed
    whole = []
    for _ in range(PUSHES):
        began = time.perf_counter()
        push(learner)
        whole.append(time.perf_counter() - began)
    safetensors.torch.save_file = save_file
    return {"push": median(whole), "written": median(written)}


def main() -> None:
    import torch

    from posttrain.rl.ahead import Ahead
    from posttrain.rl.score import score_step
    from tests.sampling.openai_server import trainable

    torch.set_num_threads(1)
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}  # GiB; else it reserves nearly all memory
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", SIZE)
        with trainable(model, Path(folder) / "log") as (url, _), ahead_of(model, url, Path(folder) / "run") as run:
            waits, ahead = [], []
            for number in range(BLOCKS):
                first = 1 + 2 * number * (STEPS + 1)
                waits.append(block(partial(score_step, run.learner), run, first))
                with Ahead(run) as sampler:
                    ahead.append(block(sampler.step, run, first + STEPS + 1))
            push = push_parts(run.learner)
            mib = sum(weight.numel() * 4 for _, weight in run.learner.policy.weights()) / 2**20
    ratios = [one["step"] / other["step"] for one, other in zip(waits, ahead, strict=True)]
    names = {"step": "step", "rollout_s": "waiting for episodes", "push_s": "push", "reference_s": "reference", "update_s": "update"}
    rows = [f"| {name} | {median(b[key] for b in waits):.2f} | {median(b[key] for b in ahead):.2f} |" for key, name in names.items()]
    share = push["push"] / median(b["step"] for b in waits)
    text = f"""# Sampling a step ahead: `make bench-ahead`

Commit {commit()}. {SIZE.title}; {SIZE.problems * SIZE.samples} episodes of two attempts a step, at most {SIZE.max_tokens} tokens each;
one vLLM server and the trainer of one thread each, on two cores; n = {BLOCKS} blocks of {STEPS} steps of each kind in turns, seconds by
the clock.

| seconds, median | waits for its episodes | has them sampled ahead |
|---|---|---|
{chr(10).join(rows)}

A step that waits takes {median(ratios):.2f} times [{min(ratios):.2f}, {max(ratios):.2f}] as long. At best, where sampling and training
cost the same, it would be 2.

## A push to the server

{mib:.0f} MiB of float32 weights, n = {PUSHES} pushes with nothing else to do: {push["push"]:.2f} s in the median, of which the trainer
writes for {push["written"]:.2f} s to a folder in memory, and vLLM reads and repacks for the rest. It is the same for any number of
episodes: of the step above that waits, {share:.1%}.
"""
    write_atomic(RESULT, text)
    print(text)


if __name__ == "__main__":
    main()
