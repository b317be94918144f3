"""A study: several recipes run one after the other for each seed, evaluated on the same problems, shown on one page.

Runs that are finished are taken as they are, so a second call goes on where the first one stopped, and may have further runs or seeds.
"""

import importlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from posttrain.complaint import nearest
from posttrain.config import ConfigError, build, config, read_yaml
from posttrain.evaluation import figure, show
from posttrain.evaluation.rows import study_sources
from posttrain.evaluation.suite import Suite
from posttrain.jobs import Job, do_all
from posttrain.run import RunFolder

TRAINERS = {
    "score": "posttrain.rl.score",
    "think_twice": "posttrain.rl.think_twice",
    "pag": "posttrain.rl.pag",
    "grpo": "posttrain.rl.grpo",
    "sft": "posttrain.sft.train",
    "self_training": "posttrain.sft.self_training",
}


@config
class StudyRun:
    """One recipe within a study, or one more evaluation of an earlier run's model."""

    recipe: Path | None = None
    """Its YAML file, relative to where the command runs; null trains nothing and evaluates `model` as it is."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Keys that differ from the recipe's, nested as there: an ablation is a recipe and its changes."""
    hub: str | None = None
    """Folder or hub id of a model that no run here makes: evaluated as it is, and started from by the runs that name this one."""
    model: str | None = None
    """Name of the earlier run whose model this one starts from; null keeps the recipe's own."""
    reference: str | None = None
    """Name of the earlier run whose model is the KL reference."""
    first_attempts: str | None = None
    """Name of the evaluated run whose first attempts this one starts from: the recipe's `offline`, or those to be revised at evaluation."""
    suite: Path | None = None
    """How this run is evaluated, where it is not as the others are."""
    also: tuple[Path, ...] = ()
    """Further suites that its model is evaluated on, for `posttrain report --suite NAME`."""
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
    against: str | None = None
    """Label of the run that every other one is tested against; null tests nothing."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys that replace those of every recipe that has them, nested as in a recipe, e.g. {steps: 20} for a quick look."""
    notes: tuple[str, ...] = ()
    """Sentences for the page: what was done, and what it cannot show."""
    workers: PositiveInt = 1
    """Runs at a time, each in a process with its share of the cores; above 1, what a run prints is in its log.txt."""

    def __post_init__(self) -> None:
        names: list[str] = []
        for name, run in self.runs.items():
            for word in (run.model, run.reference, run.after, run.first_attempts):
                if word is not None and word not in names:
                    raise ValueError(f"runs.{name}: names {word!r}, expected an earlier run{nearest(word, names)}")
            if run.recipe is None and run.model is None and run.hub is None:
                raise ValueError(f"runs.{name}: has neither a recipe nor a model: nothing to train and nothing to evaluate")
            if run.hub and (run.recipe or run.model):
                raise ValueError(f"runs.{name}: names the model {run.hub!r} in `hub`, which is only evaluated: leave out recipe and model")
            names.append(name)
        labels = [run.label for run in self.runs.values() if run.label]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"runs: several have the label {twice[0]!r}: give each its own, as it names a row of the table")
        if self.against is not None and self.against not in labels:
            raise ValueError(f"against: names {self.against!r}, expected the label of a run{nearest(self.against, labels)}")


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Run everything, print the table, write OUT/table.*, report.html and figure.png; returns the code of the first run that stops."""
    jobs = [job for seed in cfg.seeds for job in _plan(cfg, out / f"seed{seed}", seed)]  # every recipe is checked before anything runs
    RunFolder(out, cfg, resume=resume, free=[field.name for field in fields(Config)])  # every run checks its own recipe
    if code := do_all(jobs, cfg.workers):
        return code
    shown = show.figures(list(study_sources(out)), cfg.against)
    print(show.as_text(shown))
    show.write_tables(out, shown)
    show.write_page(out / "report.html", cfg.title, shown, cfg.notes)
    figure.write_figure(out / "figure.png", shown.entries, shown.rows)
    print(f"\nThe page to read: {out / 'report.html'}")
    return 0


def _plan(cfg: Config, out: Path, seed: int) -> Iterator[Job]:
    """The jobs of one seed in order; raises `ConfigError` on a recipe, suite or override that does not resolve."""
    known = {field.name for run in cfg.runs.values() if run.recipe for field in fields(_trainer(run.recipe).Config)}
    for key in cfg.overrides:
        if key not in known:
            raise ConfigError(f"overrides.{key}: no recipe of this study has such a key{nearest(key, sorted(known))}")
    for name, run in cfg.runs.items():
        suite_files = (run.suite or cfg.suite, *run.also) if run.label else ()
        begun_by = _attempts_of(cfg, out, run.first_attempts) if run.first_attempts else None
        given = {"first_attempts": begun_by} if begun_by and run.recipe is None else {}
        yield Job(
            folder=out / name,
            model=_model_of(cfg, out, name),
            trainer=None if run.recipe is None else TRAINERS[_kind(run.recipe)],
            recipe=None if run.recipe is None else _recipe(cfg, out, run, run.recipe, seed, begun_by),
            suites={file.stem: build(Suite, [read_yaml(file), ("study", given)]) for file in suite_files},
            label=run.label,
            needs=frozenset(out / named for named in (run.model, run.reference, run.first_attempts) if named),
        )


def _recipe(cfg: Config, out: Path, run: StudyRun, recipe: Path, seed: int, begun_by: str | None) -> Any:
    """The run's recipe with its own changes, the study's, and the folders of the runs that it names."""
    links: dict[str, Any] = {key: str(_model_of(cfg, out, named)) for key in ("model", "reference") if (named := getattr(run, key))}
    if begun_by:
        links["offline"] = {"episodes": begun_by}
    module = _trainer(recipe)
    known = {field.name for field in fields(module.Config)}
    overrides = {key: value for key, value in cfg.overrides.items() if key in known}
    layers = [read_yaml(recipe), ("study", {"seed": seed}), ("changes", run.changes), ("overrides", overrides), ("study", links)]
    return build(module.Config, layers)


def _model_of(cfg: Config, out: Path, name: str) -> Path:
    """Where a run's model stands: in its own folder, or in that of the run which it only evaluates."""
    run = cfg.runs[name]
    if run.hub:
        return Path(run.hub)
    if run.recipe:
        return out / name / "model"
    assert run.model is not None  # the config has checked it
    return _model_of(cfg, out, run.model)


def _attempts_of(cfg: Config, out: Path, name: str) -> str:
    return str(out / name / "eval" / (cfg.runs[name].suite or cfg.suite).stem / "episodes.jsonl")


def _trainer(recipe: Path) -> Any:
    return importlib.import_module(TRAINERS[_kind(recipe)])


def _kind(recipe: Path) -> str:
    kind = read_yaml(recipe)[1].get("kind")
    if kind not in TRAINERS:
        raise ConfigError(f"{recipe}: found kind {kind!r}, expected one of {', '.join(TRAINERS)}{nearest(str(kind), TRAINERS)}")
    return kind
