"""A study: several recipes run one after the other for each seed, evaluated on the same problems, shown on one page.

Runs that are finished are taken as they are, so a second call goes on where the first one stopped.
"""

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from posttrain.config import ConfigError, build, config, merge, nearest, read_yaml
from posttrain.evaluation import report
from posttrain.evaluation.entries import Entry
from posttrain.evaluation.metrics import Summary
from posttrain.evaluation.run import Suite, evaluate_model
from posttrain.run import RunFolder

TRAINERS = {"score": "posttrain.rl.score", "sft": "posttrain.sft.train"}


@config
class StudyRun:
    """One recipe within a study."""

    recipe: Path
    """Its YAML file, relative to where the command runs."""
    model: str | None = None
    """Name of the earlier run whose model this one starts from; null keeps the recipe's own."""
    reference: str | None = None
    """Name of the earlier run whose model is the KL reference."""
    label: str | None = None
    """How tables call it; runs without a label are not evaluated."""
    after: str | None = None
    """Name of the run whose curves come before this one's on the page: Stage I for Stage II."""


@config
class Config:
    """Several recipes, one evaluation."""

    kind: Literal["study"] = "study"
    title: str
    runs: dict[str, StudyRun]
    """Name -> run, in the order they are run."""
    suite: Path
    """The evaluation of every labelled run (`evals/suites/`)."""
    seeds: tuple[int, ...] = (0,)
    """Each seed runs everything, the base model included."""
    overrides: dict[str, Any] = {}
    """Keys that replace those of every recipe, by dotted path, e.g. {steps: 2} for a quick look."""
    notes: tuple[str, ...] = ()
    """Sentences for the page: what was done, and what it cannot show."""

    def __post_init__(self) -> None:
        names: list[str] = []
        for name, run in self.runs.items():
            for word in (run.model, run.reference, run.after):
                if word is not None and word not in names:
                    raise ValueError(f"runs.{name}: names {word!r}, expected an earlier run{nearest(word, names)}")
            names.append(name)


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Run everything, print the table, write OUT/report.html and OUT/figure.png."""
    suite = build(Suite, [read_yaml(cfg.suite)])
    plans = {seed: dict(_plan(cfg, out / f"seed{seed}", seed)) for seed in cfg.seeds}  # every recipe is checked before anything runs
    RunFolder(out, cfg, resume=resume)
    entries: dict[int, list[Entry]] = {}
    for seed, plan in plans.items():
        entries[seed] = []
        for name, (module, run_cfg) in plan.items():
            folder = out / f"seed{seed}" / name
            if code := module.main(run_cfg, folder, True):
                return code
            run = cfg.runs[name]
            if run.label:
                evaluate_model(suite, str(folder / "model"), folder / "eval" / suite.name)
                before = [out / f"seed{seed}" / run.after] if run.after else []
                entries[seed].append(Entry.read(run.label, [*before, folder]))
    return 0


def _plan(cfg: Config, out: Path, seed: int) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(name, (trainer module, its resolved config)) of each run."""
    for name, run in cfg.runs.items():
        layer = read_yaml(run.recipe)
        kind = layer[1].get("kind")
        if kind not in TRAINERS:
            raise ConfigError(f"{run.recipe}: found kind {kind!r}, expected one of {', '.join(TRAINERS)}{nearest(str(kind), TRAINERS)}")
        module = importlib.import_module(TRAINERS[kind])
        links = {key: str(out / named / "model") for key in ("model", "reference") if (named := getattr(run, key))}
        yield name, (module, build(module.Config, [layer, ("study", merge({"seed": seed, **links}, cfg.overrides))]))
