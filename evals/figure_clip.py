"""The picture of recipes/clip_reward/README.md, from the runs of its study: python evals/figure_clip.py STUDY_DIR OUT.png"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from posttrain.agents.kernel.charts import Panel, draw

SIZES = ("small", "medium", "large")
THRESHOLDS = ("10", "20", "30", "50")  # percent, as the study's runs are called
RECALLS = ("10", "30", "50", "70", "90")


def main(study: Path, out: Path) -> None:
    seeds = sorted(folder for folder in study.glob("seed*") if (folder / "hot" / "result.json").exists())

    def of(run: str, number: Callable[[dict], float]) -> list[float]:
        return [number(json.loads((seed / run / "result.json").read_text())) for seed in seeds]

    precision = {
        size: [of(f"{size}_20", lambda r, level=level: r["offline"]["precision_at_recall"][level]) for level in RECALLS] for size in SIZES
    }
    shares = {
        "at the goal before the end (true return)": "true_return",
        "paid at the goal (right)": "right",
        "paid elsewhere (hacked)": "hacked",
    }
    runs = {"untrained": "untrained", **{size: f"{size}_20" for size in SIZES}, "truth": "truth"}
    agents = {called: [of(run, lambda r, key=key: r[key]) for run in runs.values()] for called, key in shares.items()}
    panels = [
        Panel("Offline: precision of the reward", [f"{int(level) / 100:g}" for level in RECALLS], precision, "precision at recall"),
        Panel("Agents by what pays them, threshold .2", list(runs), agents, "share of episodes", ordered=False, bars=True),
    ]
    for called, key in shares.items():
        lines = {size: [of(f"{size}_{threshold}", lambda r, key=key: r[key]) for threshold in THRESHOLDS] for size in SIZES}
        panels.append(Panel(called, [f"{int(threshold) / 100:g}" for threshold in THRESHOLDS], lines, "share of episodes, by threshold"))
    recall = {
        size: [of(f"{size}_20", lambda r, level=level: r["offline"]["at_threshold"][level]["recall"]) for level in THRESHOLDS]
        for size in SIZES
    }
    panels.append(Panel("Offline: recall of the reward", [f"{int(level) / 100:g}" for level in THRESHOLDS], recall, "recall, by threshold"))
    draw(out, panels)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
