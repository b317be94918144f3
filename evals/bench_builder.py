"""Building a many-shot prompt under a token budget, against encoding the whole text again at every step.

    python evals/bench_builder.py MODEL_OR_FOLDER [--shots 8192]

Shots are generated sums; only the tokenizer of the model is used. Encoding the whole text again is timed at steps spread over all, as
doing it at every one of 8,192 steps takes hours; its cost in between is read off the straight line from one timed step to the next.
"""

import argparse
import time
from itertools import pairwise

from posttrain.prompting.manyshot import build, plain_encode
from posttrain.prompting.selection import Rules, select
from posttrain.prompting.shots import human_shots
from posttrain.tasks.icl.sums import SumsInContext, make_icl
from posttrain.tasks.show import load_tokenizer
from posttrain.tasks.sums import SumsTask

STEPS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--shots", type=int, default=8192)
    args = parser.parse_args()
    encode = plain_encode(load_tokenizer(args.model))
    task = make_icl(SumsInContext(problems=SumsTask(pick=2, numbers=6, largest=30, train_size=args.shots, test_size=500)))
    began = time.perf_counter()
    shots = select(human_shots(task.load("pool")), Rules(), test=task.load("test")).shots
    print(f"select {len(shots)} shots (problems generated, duplicates, near-duplicates, leaks): {time.perf_counter() - began:.2f} s")
    ours: dict[int, float] = {}
    for num in (len(shots) // 8, len(shots) // 4, len(shots) // 2, len(shots)):
        began = time.perf_counter()
        prompt = build(shots[:num], task.layout, encode)
        prompt.largest_K(prompt.ends[-1])
        ours[num] = time.perf_counter() - began
        print(f"build {num:>6} shots, {prompt.ends[-1]:>9,} tokens: {ours[num]:.3f} s, {1e6 * ours[num] / num:.0f} us a shot")
    pieces = [f"{task.layout.question_label}{s.question}{task.layout.answer_label}{s.answer}{task.layout.divider}" for s in shots]
    timed = [(0, 0.0)]
    for step in range(1, STEPS + 1):
        num = step * len(shots) // STEPS
        text = "".join(pieces[:num])
        began = time.perf_counter()
        encode(text)
        timed.append((num, time.perf_counter() - began))
    again = sum((b - a) * (before + after) / 2 for (a, before), (b, after) in pairwise(timed))
    print(f"encode the whole again: {timed[-1][1]:.3f} s at the last step, {again:,.0f} s over all {len(shots)} steps")
    print(f"{again / ours[len(shots)]:,.0f} times faster")


if __name__ == "__main__":
    main()
