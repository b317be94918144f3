"""Run folders and studies as training and evaluation leave them, with hand-made episodes."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from posttrain.evaluation.metrics import summarise
from posttrain.rollout.store import write_episodes
from posttrain.types import Episode
from tests.evaluation.hand_made import population


def put_run(folder: Path, recipe: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def put_evaluation(folder: Path, episodes: Sequence[Episode], model: str, **suite: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_episodes(folder / "episodes.jsonl", episodes)
    how = {
        "model": model,
        "kind": "eval",
        "task": {"kind": "sums"},
        "attempts": 2,
        "samples": 1,
        "method": "revise",
        "first_attempts": None,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(how | suite))
    (folder / "summary.json").write_text(json.dumps({"summary": asdict(summarise(episodes))}))
    return folder


def steps(num: int, first: int = 1, samples: float = 100, tokens: float = 700, **more: float) -> list[dict[str, Any]]:
    spent = {"train/samples": samples, "train/tokens": tokens, "train/acc_t1": 0.5, "train/acc_t2": 0.5, "train/answer_change": 0.3}
    return [{"step": 0, "val/acc_t1": 0.4}, *({"step": step, **spent, **more} for step in range(first, first + num))]


def put_study(folder: Path, seeds: Sequence[int] = (0, 1, 2), num: int = 200) -> Path:
    """Base, plain RL, and SCoRe after an unlabelled Stage I."""
    study = {
        "kind": "study",
        "title": "A study",
        "suite": "evals/suites/held_out.yaml",
        "seeds": list(seeds),
        "notes": ["Made by hand."],
        "runs": {
            "base": {"recipe": "base.yaml", "label": "Base"},
            "plain": {"recipe": "plain.yaml", "model": "base", "label": "Plain RL"},
            "stage1": {"recipe": "stage1.yaml", "model": "base"},
            "score": {"recipe": "stage2.yaml", "model": "stage1", "label": "SCoRe", "after": "stage1"},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(study))
    figures = {"base": (0.4, 0.1, 0.3), "plain": (0.6, 0.1, 0.1), "score": (0.58, 0.3, 0.05)}
    for seed in seeds:
        at = folder / f"seed{seed}"
        put_run(at / "base", {"kind": "sft", "model": {"kind": "new"}, "steps": 4000, "seed": seed}, [{"step": 50, "train/loss": 1.0}])
        put_run(at / "plain", {"kind": "score", "model": str(at / "base" / "model"), "seed": seed}, steps(50))
        put_run(at / "stage1", {"kind": "score", "model": str(at / "base" / "model"), "seed": seed}, steps(15))
        put_run(at / "score", {"kind": "score", "model": str(at / "stage1" / "model"), "seed": seed}, steps(35))
        for name, (acc, fix, broke) in figures.items():
            made = population(100 * seed + len(name), num, acc=acc, fix=fix, broke=broke, copy=0.5)
            put_evaluation(at / name / "eval" / "held_out", made, f"{at / name / 'model'} (weights {name}{seed})")
    return folder
