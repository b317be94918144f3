"""A study: several recipes run one after the other for each seed, evaluated on the same problems, shown on one page.

Runs that are finished are taken as they are, so a second call goes on where the first one stopped.
"""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from posttrain.complaint import nearest
from posttrain.config import ConfigError, build, config, merge, read_yaml
from posttrain.evaluation import report
from posttrain.evaluation.entries import Entry, load_entry
from posttrain.evaluation.metrics import Summary
from posttrain.evaluation.run import Suite, evaluate_model
from posttrain.run import RunFolder, write_atomic

TRAINERS = {"score": "posttrain.rl.score", "sft": "posttrain.sft.train", "self_training": "posttrain.sft.self_training"}


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
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys that replace those of every recipe, nested as in a recipe, e.g. {steps: 20} for a quick look."""
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
    """Run everything, print the table, write it with OUT/report.html and OUT/figure.png; returns the code of the first run that stops."""
    suite = build(Suite, [read_yaml(cfg.suite)])
    plans = {seed: dict(_plan(cfg, out / f"seed{seed}", seed)) for seed in cfg.seeds}  # every recipe is checked before anything runs
    RunFolder(out, cfg, resume=resume)
    rows: list[tuple[int, str, Summary]] = []
    for seed, plan in plans.items():
        for name, (module, run_cfg) in plan.items():
            folder = out / f"seed{seed}" / name
            if code := module.main(run_cfg, folder, True):
                return code
            if label := cfg.runs[name].label:
                summary = evaluate_model(suite, f"{label}, {cfg.suite.stem}", str(folder / "model"), folder / "eval" / cfg.suite.stem)
                rows.append((seed, label, summary))
    table = _table(rows, several=len(cfg.seeds) > 1)
    print(table)
    write_atomic(out / "table.txt", table + "\n")
    entries = [_entry(cfg, out / f"seed{cfg.seeds[0]}", name) for name, run in cfg.runs.items() if run.label]
    report.write_report(out / "report.html", cfg.title, entries, notes=cfg.notes)
    report.write_figure(out / "figure.png", entries)
    print(f"\nThe page to read: {out / 'report.html'}")
    return 0


def _entry(cfg: Config, seed_folder: Path, name: str) -> Entry:
    """What the page shows of a labelled run: its own folder, after those that led to it."""
    run, names = cfg.runs[name], [name]
    while (before := cfg.runs[names[0]].after) is not None:
        names.insert(0, before)
    return load_entry(run.label or name, [seed_folder / n for n in names], cfg.suite.stem)


def _table(rows: Sequence[tuple[int, str, Summary]], several: bool) -> str:
    """One line per model and seed, in percent, then the paper's rows, marked as another model and task."""
    head = f"{'':<32}{'t1':>7}{'t2':>7}{'Delta':>8}  {'95% interval':<15}{'i->c':>6}{'c->i':>6}{'changed':>9}{'p':>9}"
    lines = [head]
    for seed, label, s in rows:
        name = f"{label} (seed {seed})" if several else label
        interval = f"[{100 * s.delta.low:+.1f}, {100 * s.delta.high:+.1f}]"
        figures = f"{100 * s.acc[0].value:7.1f}{100 * s.acc[1].value:7.1f}{100 * s.delta.value:+8.1f}  {interval:<15}"
        rates = f"{100 * s.fixed.value:6.1f}{100 * s.broken.value:6.1f}{100 * s.answer_change.value:9.1f}{report.p_text(s.p_value):>9}"
        lines.append(f"{name:<32}{figures}{rates}")
    lines.append(f"\n{report.PAPER_TITLE}:")
    lines += [f"{r.name:<32}{r.t1:7.1f}{r.t2:7.1f}{r.delta:+8.1f}  {'':<15}{r.fixed:6.1f}{r.broken:6.1f}" for r in report.PAPER_ROWS]
    return "\n".join(lines)


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
