"""What it cost to get a model: attempts sampled, tokens sampled and updates made, over every run that led to it.

The chain is read from what the runs recorded: `model` in a run's config.yaml names the model it started from, which stands in the folder
of the run before (Stage I for Stage II). A model from random weights or from a hub is the base, which no method is charged for.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from posttrain.config import ConfigError
from posttrain.rollout.store import read_episodes
from posttrain.run import read_jsonl

CHECKPOINT = re.compile(r"step_(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Sampling and training that led to a model."""

    samples: int = 0
    """Attempts that were sampled."""
    tokens: int = 0
    """Their tokens."""
    updates: int = 0
    missing: tuple[str, ...] = ()
    """What could not be counted, in words: the figures are then a lower bound."""

    def __add__(self, other: "Budget") -> "Budget":
        return Budget(
            samples=self.samples + other.samples,
            tokens=self.tokens + other.tokens,
            updates=self.updates + other.updates,
            missing=(*self.missing, *other.missing),
        )


def budget_of(run: Path, until: int | None = None) -> Budget:
    """Of the model in a run's folder (of its checkpoint after step `until`), or behind an evaluation's, the runs before it included."""
    recipe = recorded(run)
    if _makes_base(recipe):
        return Budget()
    if not (run / "metrics.jsonl").is_file():
        return _before(recipe, run)
    rows = [row for row in read_jsonl(run / "metrics.jsonl") if until is None or row["step"] <= until]
    own = Budget(
        samples=round(sum(row.get("train/samples", 0) for row in rows)),
        tokens=round(sum(row.get("train/tokens", 0) for row in rows)),
        updates=_updates(recipe, rows),
        missing=(f"no count of samples in {run}",) if any(map(_uncounted, rows)) else (),
    )
    return own + _given(recipe, run) + _before(recipe, run)


def recorded(folder: Path) -> dict[str, Any]:
    """The recipe or suite that a folder was made by; empty where none is recorded."""
    path = folder / "config.yaml"
    try:
        tree = yaml.safe_load(path.read_text()) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a recorded recipe: {' '.join(str(error).split())}") from None
    return tree if isinstance(tree, dict) else {}


def _before(recipe: dict[str, Any], run: Path) -> Budget:
    """Of the model that the run started from."""
    named = recipe.get("model")
    name = named.get("name") if isinstance(named, dict) else named
    if not isinstance(name, str):
        return Budget()
    name = name.partition(" (weights ")[0]  # as an evaluation records it
    model = Path(name)
    folder = _found(_run_folder(model), run)
    if folder is None:
        looks_local = name.startswith((".", "/")) or name.count("/") > 1
        return Budget(missing=(f"no run behind {name}",)) if looks_local else Budget()  # owner/name: a hub's
    step = CHECKPOINT.fullmatch(model.name)
    return budget_of(folder, int(step[1]) if step else None)


def _given(recipe: dict[str, Any], run: Path) -> Budget:
    """Of the stored first attempts that the run started from: somebody sampled them."""
    offline = recipe.get("offline")
    if not offline:
        return Budget()
    file = Path(offline["episodes"])
    if not file.is_file():
        return Budget(missing=(f"no file {file}",))
    sizes = [len(episode.turns[0].completion.ids) for episode in read_episodes(file)]
    return Budget(samples=len(sizes), tokens=sum(sizes))


def _run_folder(model: Path) -> Path:
    """RUN of RUN/model, RUN/checkpoints/step_N and RUN/round_N/model."""
    folder = model.parent
    return folder.parent if folder.name == "checkpoints" or folder.name.startswith("round_") else folder


def _found(folder: Path, run: Path) -> Path | None:
    """The folder as it was named, or beside `run`, where a study that was moved has it."""
    places = (folder, *(parent / folder.name for parent in run.parents[:3]))
    return next((place for place in places if (place / "config.yaml").is_file() and place != run), None)


def _makes_base(recipe: dict[str, Any]) -> bool:
    """Is this the run that made the base: a model from random weights?"""
    model = recipe.get("model")
    return isinstance(model, dict) and model.get("kind") == "new"


def _uncounted(row: dict[str, Any]) -> bool:
    """A step that graded samples of its own without saying how many they were."""
    return "train/acc_t1" in row and "train/samples" not in row


def _updates(recipe: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    """As many as were logged, one a step unless the row says otherwise; supervised runs log every so many, and their recipe tells."""
    if recipe.get("kind") == "self_training":
        return recipe["rounds"] * recipe["fit"]["steps"]
    if recipe.get("kind") == "sft":
        return recipe["steps"]
    return round(sum(row.get("train/updates", 1) for row in rows if row["step"] > 0))
