"""The demo's base model, as small as it can be: for tests that need a model which is right some of the time."""

from pathlib import Path
from typing import Any

from posttrain.config import build

TASK = {"kind": "sums", "pick": 2, "numbers": 4, "largest": 6, "train_size": 30, "validation_size": 2}


def make_sums_base(folder: Path, *, steps: int = 300) -> Path:
    """The model folder of an sft run in `folder`: half a minute's learning of a problem set that fits on a page."""
    from posttrain.sft.train import Config, main

    recipe: dict[str, Any] = {
        "kind": "sft",
        "model": {"kind": "new", "hidden_size": 32, "heads": 2, "mlp_size": 64},
        "task": TASK,
        "demonstrations": 5000,
        "steps": steps,
        "batch": 64,
        "lr": 5e-3,
        "warmup_steps": 20,
    }
    main(build(Config, [("test", recipe)]), folder, resume=False)
    return folder / "model"
