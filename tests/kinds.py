"""The config class of any recipe or suite in the repository, by the verb that runs its kind."""

import importlib
from typing import Any

from posttrain.cli import KINDS

OTHERS = {
    "eval": ("posttrain.evaluation.run", "Suite"),
    "battery": ("posttrain.evaluation.battery", "Battery"),
    "icl": ("posttrain.evaluation.icl.run", "Suite"),
    "manyshot": ("posttrain.tasks.manyshot", "Config"),
    "reinforce": ("posttrain.evaluation.reinforce", "Config"),
}


def class_of(tree: dict[str, Any]) -> type:
    module, name = OTHERS.get(tree["kind"]) or (KINDS[tree["kind"]], "Config")
    return getattr(importlib.import_module(module), name)
