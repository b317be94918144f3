"""A study of agents: recipes run from several seeds, their results in one table, and the panels that compare them.

    OUT/seed0/RUN/result.json ... · OUT/table.md · OUT/figure.png

Runs that are finished are taken as they are, so a second call goes on where the first one stopped, and may have further runs, seeds or
panels.
"""

import importlib
import json
import math
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

import posttrain.agents
from posttrain.agents.kernel.charts import Panel, draw, interval, ratio_interval, shown
from posttrain.complaint import nearest
from posttrain.config import ConfigError, build, config, merge, read_yaml
from posttrain.jobs import Job, do_all
from posttrain.run import RunFolder, write_atomic

Results = Mapping[str, Sequence[Mapping[str, float]]]
"""For each run, the numbers of every seed, in order."""


@config
class AgentRun:
    """One recipe within a study."""

    recipe: Path
    """Its YAML file, relative to where the command runs."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Keys that differ from the recipe's, nested as there."""
    model: str | None = None
    """Name of the earlier run whose `model` folder this one's key `model` names."""
    label: str
    """How tables and panels call it."""


@config
class StudyPanel:
    """A table of some numbers of some runs, and its picture: a group of bars for each run, a bar for each number; or a curve each."""

    title: str
    metrics: dict[str, str] = Field(min_length=1)
    """Keys of result.json, nested ones joined by dots -> how they are called. "a / b" is the ratio of two of them, seed by seed."""
    curve: bool = False
    """Whether the numbers follow one another, so that they make a line for each run."""
    runs: tuple[str, ...] = ()
    """Names of the runs compared; without any, all of them."""
    against: str | None = None
    """Name of the run that the others are set beside, paired by seed."""
    y_label: str = ""


@config
class Config:
    """Several recipes of agents, each from every seed."""

    kind: Literal["agent_study"] = "agent_study"
    title: str
    runs: dict[str, AgentRun] = Field(min_length=1)
    """Name -> run, in the order they are run."""
    panels: tuple[StudyPanel, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    """Each runs everything."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys that replace those of every recipe, nested as in it, e.g. {env_steps: 4000} for a quick look."""
    workers: PositiveInt = 2
    """Runs at a time, each in a process of one thread."""

    def __post_init__(self) -> None:
        names: list[str] = []
        for name, run in self.runs.items():
            if run.model is not None and run.model not in names:
                raise ValueError(f"runs.{name}: names {run.model!r}, expected an earlier run{nearest(run.model, names)}")
            names.append(name)
        for i, panel in enumerate(self.panels):
            for named in (*panel.runs, *([panel.against] if panel.against else [])):
                if named not in self.runs:
                    raise ValueError(f"panels.{i}: names run {named!r}, expected one of runs{nearest(named, self.runs)}")
            if panel.against and panel.runs and panel.against not in panel.runs:
                raise ValueError(f"panels.{i}: its runs are set against {panel.against!r}, which is not one of them: add it to its runs")


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Run what is not finished, then write and print the tables and draw the panels; returns the code of the first run that stops."""
    jobs = {
        (name, seed): _job(cfg, run, out / f"seed{seed}" / name, seed) for seed in cfg.seeds for name, run in cfg.runs.items()
    }  # every recipe is read before anything runs
    RunFolder(out, cfg, resume=resume, free=[field.name for field in fields(Config)])  # every run checks its own recipe
    if code := do_all([job for job in jobs.values() if not _is_finished(job)], cfg.workers):
        return code
    results = {name: [result_of(jobs[name, seed].folder) for seed in cfg.seeds] for name in cfg.runs}
    text = f"# {cfg.title}\n\n{_origin(cfg, jobs.values())}\n\n" + "\n\n".join(table(cfg, panel, results) for panel in cfg.panels) + "\n"
    write_atomic(out / "table.md", text)
    draw(out / "figure.png", [_picture(cfg, panel, results) for panel in cfg.panels])
    print(f"{text}\nThe same in {out / 'table.md'}, the picture: {out / 'figure.png'}")
    return 0


def result_of(folder: Path) -> dict[str, float]:
    """The numbers of a run's result.json, nested keys joined by dots."""
    return _flat(json.loads((folder / "result.json").read_text()))


def table(cfg: Config, panel: StudyPanel, results: Results) -> str:
    """A panel's runs as Markdown: every seed, mean with Student's interval, and what is paired with `against`.

    Raises `ConfigError` where a run has no number of that name.
    """
    rows = [f"## {panel.title}"]
    for key, called in panel.metrics.items():
        head = ["", *(f"seed {seed}" for seed in cfg.seeds), "mean"]
        base = _numbers(results, panel.against, key) if panel.against else []
        if panel.against:
            label = cfg.runs[panel.against].label
            head += [f"less {label}", f"over {label}"]
        rows += ["", f"**{called}**" if len(panel.metrics) > 1 else "", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for name in panel.runs or cfg.runs:
            values = _numbers(results, name, key)
            cells = [cfg.runs[name].label, *(f"{value:.3f}" for value in values), shown(values)]
            if name == panel.against:
                cells += ["", ""]
            elif panel.against:
                cells += [shown([value - other for value, other in zip(values, base, strict=True)]), _ratio(values, base)]
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(row for i, row in enumerate(rows) if row or rows[i - 1])


def _ratio(values: Sequence[float], base: Sequence[float]) -> str:
    """ "ratio [low, high]", or a dash where the base is not clearly above 0, so that no ratio to it is known."""
    if interval(base)[1] <= 0:
        return "–"
    ratio, low, high = ratio_interval(values, base)
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


def _numbers(results: Results, name: str, key: str) -> list[float]:
    if " / " in key:
        above, below = (_numbers(results, name, part) for part in key.split(" / ", 1))
        return [a / b if b else math.nan for a, b in zip(above, below, strict=True)]
    for numbers in results[name]:
        if key not in numbers:
            raise ConfigError(f"panels: names the number {key!r}, but run {name!r} has {', '.join(numbers)}{nearest(key, numbers)}")
    return [numbers[key] for numbers in results[name]]


def _picture(cfg: Config, panel: StudyPanel, results: Results) -> Panel:
    names = panel.runs or tuple(cfg.runs)
    labels = [cfg.runs[name].label for name in names]
    if panel.curve:
        curves = {label: [_numbers(results, name, key) for key in panel.metrics] for name, label in zip(names, labels, strict=True)}
        return Panel(panel.title, list(panel.metrics.values()), curves, panel.y_label)
    lines = {called: [_numbers(results, name, key) for name in names] for key, called in panel.metrics.items()}
    return Panel(panel.title, labels, lines, panel.y_label, ordered=False, bars=True)


def _origin(cfg: Config, jobs: Any) -> str:
    """What a figure has to name: commits, seeds, and what the intervals are."""
    commits = sorted({json.loads((job.folder / "provenance.json").read_text())["commit"] for job in jobs})
    seeds = ", ".join(map(str, cfg.seeds))
    return (
        f"Commit {', '.join(commits)}; seeds {seeds}; means over seeds with Student's 95% interval, differences and ratios paired by seed."
    )


def _is_finished(job: Job) -> bool:
    """Whether the run has its result; raises `ConfigError` if that of another recipe stands in its folder."""
    if not (job.folder / "result.json").exists():
        return False
    RunFolder(job.folder, job.recipe, resume=True)
    return True


def _job(cfg: Config, run: AgentRun, folder: Path, seed: int) -> Job:
    layer = read_yaml(run.recipe)
    agents = [module.name for module in pkgutil.iter_modules(posttrain.agents.__path__)]
    kind = layer[1].get("kind")
    module: Any = importlib.import_module(f"posttrain.agents.{kind}") if kind in agents else None
    if not hasattr(module, "main"):
        raise ConfigError(f"{run.recipe}: found kind {kind!r}, expected an agent's{nearest(str(kind), agents)}")
    links = {"model": str(folder.parent / run.model / "model")} if run.model else {}
    recipe = build(module.Config, [layer, ("changes", run.changes), ("study", merge({"seed": seed} | links, cfg.overrides))])
    needs = frozenset({folder.parent / run.model} if run.model else ())
    return Job(folder=folder, model=folder, trainer=module.__name__, recipe=recipe, suites={}, label=None, needs=needs)


def _flat(tree: Any, prefix: str = "") -> dict[str, float]:
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree} if isinstance(tree, int | float) else {}
    return {key: value for name, node in tree.items() for key, value in _flat(node, f"{prefix}{name}.").items()}
