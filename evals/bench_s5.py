"""What a resettable core costs against the length of its sequences: python evals/bench_s5.py

One layer of each kind, 8 sequences of 64 features, a reset at one step in a hundred, one thread, float32; forward alone, and forward with
backward to inputs and weights. Within a length all kinds take turns, several rounds, and medians of CPU time are shown, so that whatever
else the machine does meets all of them alike. What knows no resets is named so: torch's fused loops bound what cutting sequences at their
resets could save a GRU. The mask of attention is made beforehand, as layers share one. Writes evals/results/s5.md and s5.png.
"""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch.nn.functional import scaled_dot_product_attention

from posttrain.agents.kernel.charts import COLOURS
from posttrain.agents.kernel.cores import GRU, LSTM, TransformerBlock, rotations
from posttrain.agents.kernel.s5 import S5, scan
from posttrain.run import commit, write_atomic

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
LONGEST_MASK = 4096  # numbers of a mask grow with the square: half a GB here
SEQUENCES, WIDTH, STATES, RESETS = 8, 64, 64, 0.01
RESULT = Path(__file__).parent / "results" / "s5.md"
S5_BLOCK, GRU_LOOP, TRANSFORMER = "S5 block, resets", "GRU of cells, resets", "transformer block, resets"
SCAN = "the scan of S5 alone, resets"
DRAWN = (S5_BLOCK, GRU_LOOP, "LSTM of cells, resets", TRANSFORMER, "attention alone, no resets", "torch's fused LSTM, no resets")

Pass: TypeAlias = Callable[[], Tensor]
"""Something of every output, from fixed inputs that want a gradient."""


def passes(length: int) -> dict[str, Pass]:
    """Every kind's forward pass over sequences of this length."""
    draws = torch.Generator().manual_seed(length)
    x_TBH = torch.randn(length, SEQUENCES, WIDTH, generator=draws).requires_grad_()
    reset_TB = torch.rand(length, SEQUENCES, generator=draws) < RESETS
    s5, gru, lstm = S5(WIDTH, 1, STATES), GRU(WIDTH, 1), LSTM(WIDTH, 1)
    fused_gru, fused_lstm = nn.GRU(WIDTH, WIDTH), nn.LSTM(WIDTH, WIDTH)
    a_P = torch.polar(0.9 + 0.1 * torch.rand(STATES // 2), torch.rand(STATES // 2)).requires_grad_()
    b_TBP = torch.randn(length, SEQUENCES, STATES // 2, dtype=torch.complex64, requires_grad=True)
    state_BP, gate_TBP = torch.zeros_like(b_TBP[0]), (a_P * ~reset_TB[..., None]).detach().requires_grad_()
    qkv = torch.randn(3, SEQUENCES, 1, length, WIDTH, requires_grad=True)
    made: dict[str, Pass] = {
        S5_BLOCK: lambda: s5(x_TBH, reset_TB, s5.first_state(SEQUENCES))[0].sum(),
        GRU_LOOP: lambda: gru(x_TBH, reset_TB, gru.first_state(SEQUENCES))[0].sum(),
        "LSTM of cells, resets": lambda: lstm(x_TBH, reset_TB, lstm.first_state(SEQUENCES))[0].sum(),
        "attention alone, no resets": lambda: scaled_dot_product_attention(*qkv, is_causal=True).sum(),
        "torch's fused GRU, no resets": lambda: fused_gru(x_TBH)[0].sum(),
        "torch's fused LSTM, no resets": lambda: fused_lstm(x_TBH)[0].sum(),
        SCAN: lambda: torch.view_as_real(scan(a_P, b_TBP, reset_TB, state_BP)).sum(),
        "torch's associative_scan in its place": lambda: torch.view_as_real(by_operator(gate_TBP, b_TBP)).sum(),
    }
    if length <= LONGEST_MASK:
        transformer, turn_SD, mask = TransformerBlock(WIDTH, 1), rotations(torch.arange(length), WIDTH), mask_of(reset_TB)
        nothing = torch.zeros(SEQUENCES, 2, 1, 0, WIDTH)
        made[TRANSFORMER] = lambda: transformer(x_TBH.transpose(0, 1), nothing, mask, turn_SD)[0].sum()
    return made


def by_operator(gate_TBP: Tensor, b_TBP: Tensor) -> Tensor:
    """The same recurrence by torch's operator, which takes any associative function."""
    return associative_scan(lambda x, y: (y[0] * x[0], y[0] * x[1] + y[1]), (gate_TBP, b_TBP), 0, combine_mode="generic")[1]


def mask_of(reset_TB: Tensor) -> Tensor:
    """0 where attention may look, that is back within the same sequence, else -inf, [B, 1, T, T]."""
    episode_BT = reset_TB.T.long().cumsum(1)
    later_TT = torch.ones(len(reset_TB), len(reset_TB), dtype=torch.bool).triu(1)
    mask_BTT = torch.zeros(SEQUENCES, len(reset_TB), len(reset_TB))
    for one, episode_T in zip(mask_BTT, episode_BT, strict=True):
        one.masked_fill_(later_TT | (episode_T[:, None] != episode_T), -math.inf)
    return mask_BTT[:, None]


def measured(length: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds forward, and forward with backward, of every round; up to 4,096 steps, the first one is thrown away."""
    taken = defaultdict(list)
    made = passes(length)
    for number in range(6 if length < 4096 else 4 if length == 4096 else 1):
        for name, run in made.items():
            with torch.no_grad():
                forward_ms = timed(run)
            both_ms = timed(lambda run=run: run().backward())
            if number or length > 4096:
                taken[name].append((forward_ms, both_ms))
    return taken


def timed(run: Callable[[], object]) -> float:
    before_s = time.process_time()
    run()
    return 1e3 * (time.process_time() - before_s)


def table(results: Mapping[int, Mapping[str, Sequence[tuple[float, float]]]], which: int) -> str:
    """Medians, one row for each kind; growth is the exponent of the length between the two longest that are eight times apart."""
    rows = ["| | " + " | ".join(f"{length:,}" for length in results) + " | growth |", "|---" * (len(results) + 2) + "|"]
    for name in results[LENGTHS[0]]:
        cells = [median(results, length, name, which) for length in results]
        known = [cell for cell in cells if cell is not None]
        growth = math.log(known[-1] / known[-4]) / math.log(8)
        rows.append(
            f"| {name} | "
            + " | ".join("" if cell is None else f"{cell:,.0f}" if cell >= 1000 else f"{cell:.3g}" for cell in cells)
            + f" | {growth:.2f} |"
        )
    return "\n".join(rows)


def median(results: Mapping[int, Mapping[str, Sequence[tuple[float, float]]]], length: int, name: str, which: int) -> float | None:
    rounds = results[length].get(name)
    return statistics.median(both[which] for both in rounds) if rounds else None


def ratios(results: Mapping[int, Mapping[str, Sequence[tuple[float, float]]]], length: int) -> str:
    """How many times as long as an S5 block everything takes at one length, round by round."""
    rows = ["| | forward | training |", "|---|---|---|"]
    for name, rounds in results[length].items():
        cells = []
        for which in (0, 1):
            each = [both[which] / base[which] for both, base in zip(rounds, results[length][S5_BLOCK], strict=True)]
            cells.append(f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def picture(results: Mapping[int, Mapping[str, Sequence[tuple[float, float]]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for which, (axis, title) in enumerate(zip(axes, ("forward", "forward and backward"), strict=True)):
        for name, colour in zip(DRAWN, COLOURS, strict=True):
            points = [(length, ms) for length in results if (ms := median(results, length, name, which)) is not None]
            axis.plot(*zip(*points, strict=True), "o--" if "no resets" in name else "o-", color=colour, label=name, markersize=4, lw=1.4)
        axis.set(title=title, xlabel="length", xscale="log", yscale="log")
        axis.set_xticks(list(results), [f"{length:,}" for length in results], rotation=30)
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("CPU ms")
    axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for length in LENGTHS:
        results[length] = measured(length)
        print(length, {name: statistics.median(both for _, both in rounds) for name, rounds in results[length].items()}, flush=True)
    text = f"""# What a resettable core costs against length: `make bench-s5`

Commit {commit()}. One layer, {SEQUENCES} sequences of {WIDTH} features ({STATES} states: {STATES // 2} complex ones), resets at 1 step
in 100, float32, one thread of torch {torch.__version__}; medians of CPU milliseconds over 5 rounds, 3 at length 4,096 and 1 beyond,
all kinds taking turns. Growth: the exponent of the length over its last eightfold.

![CPU time against length](s5.png)

## Forward

{table(results, 0)}

## Forward and backward

{table(results, 1)}

## Times that of the S5 block, at length 4,096 (lowest to highest round)

{ratios(results, 4096)}

The S5 block has norm, scan and gate; the transformer block norms, attention and an MLP of four times the width, its mask made beforehand.
"Attention alone, no resets" is causal attention without mask, projections and MLP: a lower bound for any transformer.
`torch.associative_scan` runs on a CPU in its mode "generic", backward too; its mode "pointwise" refuses tensors that are not on a GPU.
"""
    write_atomic(RESULT, text)
    picture(results, RESULT.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
