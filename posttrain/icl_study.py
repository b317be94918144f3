"""A study of learning in context: models trained from several seeds, and from each its curves.

    OUT/seed0/MODEL/ · OUT/seed0/CURVES/report.html ... · OUT/CURVES.png · OUT/table.txt

A figure pools the seeds: models, data sets and draws of shots together. Runs that are finished are taken as they are, so a second call
goes on where the first one stopped.
"""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from posttrain.complaint import nearest
from posttrain.config import ConfigError, build, config, merge, read_yaml
from posttrain.evaluation.icl import charts, page
from posttrain.evaluation.icl import run as icl
from posttrain.evaluation.icl.curves import Curves, curves_of
from posttrain.evaluation.icl.log import Cost, Row
from posttrain.run import RunFolder, write_atomic
from posttrain.tasks.icl import make_icl_task

TRAINERS = {"icl_pretrain": "posttrain.sft.in_context", "sft": "posttrain.sft.train"}
APART = 1_000  # seeds of one model's data sets lie below this, so that no two models share one in the pooled log


@config
class StudyCurves:
    """What is drawn of one model."""

    model: str
    """A name under `models`."""
    suite: Path
    """A suite of kind icl."""


@config
class Config:
    """Recipes, seeds, and the curves of what they train."""

    kind: Literal["icl_study"] = "icl_study"
    models: dict[str, Path] = Field(min_length=1)
    """Name -> the recipe that trains it, relative to where the command runs."""
    curves: dict[str, StudyCurves] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Each trains every model."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys that replace those of every recipe, nested as in it, e.g. {steps: 100} for a quick look."""
    quick: dict[str, Any] = Field(default_factory=dict)
    """Keys that replace those of every suite, e.g. {items: 20}."""

    def __post_init__(self) -> None:
        for name, drawn in self.curves.items():
            if drawn.model not in self.models:
                raise ValueError(f"curves.{name}: names model {drawn.model!r}, expected one of models{nearest(drawn.model, self.models)}")


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train what is not trained, draw every curve, print the pooled tables; returns the code of the first run that stops."""
    plans = {seed: {name: _recipe(cfg, path, seed) for name, path in cfg.models.items()} for seed in cfg.seeds}
    suites = {name: build(icl.Suite, [read_yaml(drawn.suite), ("study", cfg.quick)]) for name, drawn in cfg.curves.items()}
    RunFolder(out, cfg, resume=resume)
    for seed, plan in plans.items():
        for name, (trainer, recipe) in plan.items():
            if code := trainer.main(recipe, out / f"seed{seed}" / name, True):
                return code
    for seed in cfg.seeds:
        for name, suite in suites.items():
            folder = out / f"seed{seed}"
            if code := icl.run(suite, name, str(folder / cfg.curves[name].model / "model"), folder / name):
                return code
    tables = []
    for name, suite in suites.items():
        curves = pooled([out / f"seed{seed}" / name for seed in cfg.seeds])
        charts.draw(out / f"{name}.png", curves.points, make_icl_task(suite.task).metric)
        tables.append(f"{name}: {suite.title} (models from seeds {', '.join(map(str, cfg.seeds))})\n{page.table(curves)}")
    write_atomic(out / "table.txt", "\n\n".join(tables) + "\n")
    print("\n" + "\n\n".join(tables) + f"\n\nFigures and pages: {out}")
    return 0


def pooled(folders: Sequence[Path]) -> Curves:
    """The curves over the rows of several models' runs of one suite, each model's data sets counted as seeds of their own."""
    rows: list[Row] = []
    costs: list[Cost] = []
    for i, folder in enumerate(folders):
        found, spent = page.load([(folder.name, folder)])
        rows += [replace(row, seed=APART * i + row.seed) for row in found]
        costs += [replace(cost, seed=APART * i + cost.seed) for cost in spent]
    return curves_of(rows, costs)


def _recipe(cfg: Config, path: Path, seed: int) -> tuple[Any, Any]:
    """The trainer's module, and the recipe as it is resolved for a seed."""
    layer = read_yaml(path)
    kind = layer[1].get("kind")
    if kind not in TRAINERS:
        raise ConfigError(f"{path}: found kind {kind!r}, expected one of {', '.join(TRAINERS)}{nearest(str(kind), TRAINERS)}")
    module = importlib.import_module(TRAINERS[kind])
    return module, build(module.Config, [layer, ("study", merge({"seed": seed}, cfg.overrides))])
