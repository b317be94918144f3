"""`posttrain eval evals/suites/out_of_domain.yaml --model M --against BASE`: several suites in one call, and what a model gained on each.

    OUT/eval/<suite>/ (an evaluation each) · BASE_OUT/eval/<suite>/ · OUT/compare.json

Does self-correction that was learnt on MATH hold on problems of another kind? The suites tell, each paired with the model before.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from posttrain.config import ConfigError, build, config, read_yaml
from posttrain.evaluation.compare import as_text, compare_evaluations, corrected
from posttrain.evaluation.metrics import Summary
from posttrain.evaluation.run import evaluate_model
from posttrain.evaluation.suite import Suite
from posttrain.run import write_atomic


@config
class Battery:
    """Several suites, one after the other."""

    kind: Literal["battery"] = "battery"
    suites: tuple[Path, ...] = Field(min_length=1)
    """Suite files, relative to this one."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Keys that replace those of every suite, nested as there: an engine, a limit."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Suite's name -> a local file in place of its test split's source."""


def resolved(cfg: Battery, folder: Path) -> dict[str, Suite]:
    """Name -> suite, all checked before anything runs; raises `ConfigError`."""
    named = {path.stem: folder / path for path in cfg.suites}
    if unknown := [name for name in cfg.sources if name not in named]:
        raise ConfigError(f"sources.{unknown[0]}: no such suite among {', '.join(named)}")
    local = {name: {"task": {"sources": {"test": source}}} for name, source in cfg.sources.items()}
    return {
        name: build(Suite, [read_yaml(path), ("changes", cfg.changes), ("sources", local.get(name, {}))]) for name, path in named.items()
    }


def run(suites: dict[str, Suite], model: str, out: Path, against: str | None) -> int:
    """Evaluate `model`, and `against` beside it, on every suite; print Delta per suite, and the paired tests."""
    figures = {name: evaluate_model(suite, name, model, out / "eval" / name) for name, suite in suites.items()}
    print(f"{model}\n{'':<32}{'t1':>7}{'t2':>7}   Delta")
    for name, found in figures.items():
        print(f"{name:<32}{_line(found)}")
    if against is None:
        return 0
    base = out.parent / Path(against.rstrip("/")).name
    if base.resolve() == out.resolve():
        base = out.with_name(f"{out.name}_against")
    for name, suite in suites.items():
        evaluate_model(suite, f"{name}, {against}", against, base / "eval" / name)
    tested = corrected([compare_evaluations(name, base / "eval" / name, out / "eval" / name) for name in suites])
    print(f"\n{as_text(tested, (against, model), items=0)}")
    write_atomic(out / "compare.json", json.dumps([dataclasses.asdict(each) for each in tested], indent=1) + "\n")
    return 0


def _line(found: Any) -> str:
    if not isinstance(found, Summary):
        return f"{100 * found.attempts[0].avg.value:7.1f}"
    d = found.delta
    return (
        f"{100 * found.acc[0].value:7.1f}{100 * found.acc[1].value:7.1f}   {100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
    )
