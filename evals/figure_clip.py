"""The picture of recipes/clip_reward/README.md, from the runs of its studies: python evals/figure_clip.py STUDY_DIR OUT.png"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from posttrain.agents.kernel.charts import Panel, draw

SIZES = ("small", "medium", "large")
THRESHOLDS = ("10", "20", "30", "50")  # percent, as the runs are called
RECALLS = ("10", "30", "50", "70", "90")
SHARES = {"true return": "true_return", "right": "right", "hacked": "hacked"}


def main(study: Path, out: Path) -> None:
    def of(run: str, number: Callable[[dict], float]) -> list[float]:
        """Of every seed that has finished it."""
        return [number(json.loads(file.read_text())) for file in sorted(study.glob(f"seed*/{run}/result.json"))]

    precision = {
        size: [of(f"{size}_20", lambda r, level=level: r["offline"]["precision_at_recall"][level]) for level in RECALLS] for size in SIZES
    }
    runs = {"untrained": "untrained", **{size: f"{size}_20" for size in SIZES}, "paid by\nthe truth": "truth"}
    agents = {called: [of(run, lambda r, key=key: r[key]) for run in runs.values()] for called, key in SHARES.items()}
    panels = [
        Panel("Precision of the reward by its recall, offline", _percent(RECALLS), precision, "precision"),
        Panel("Agents by what pays them, threshold .2", list(runs), agents, "share of episodes", ordered=False, bars=True),
    ]
    for title, key in (("Paid at the goal, by threshold", "right"), ("Paid elsewhere, by threshold", "hacked")):
        lines = {size: [of(f"{size}_{threshold}", lambda r, key=key: r[key]) for threshold in THRESHOLDS] for size in SIZES}
        panels.append(Panel(title, _percent(THRESHOLDS), lines, "share of episodes"))
    draw(out, panels)


def _percent(numbers: tuple[str, ...]) -> list[str]:
    return [f".{number.rstrip('0')}" for number in numbers]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
