"""All that a run needs to go on exactly: parts with a `state_dict`, generators and plain numbers, in one file, whole or absent."""

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save(path: Path, parts: Mapping[str, Any], **numbers: Any) -> None:
    """Replace `path` in one step: a kill at any moment leaves the old file or the new one, never half of either."""
    state = {name: part.get_state() if isinstance(part, torch.Generator) else part.state_dict() for name, part in parts.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            torch.save({"parts": state, "numbers": numbers}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def restore(path: Path, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Give every part its saved state; returns the plain numbers. Raises `ValueError` if the file holds other parts."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["parts"].keys() != parts.keys():
        raise ValueError(f"{path}: holds {sorted(saved['parts'])}, expected {sorted(parts)}")
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            part.set_state(saved["parts"][name])
        else:
            part.load_state_dict(saved["parts"][name])
    return dict(saved["numbers"])


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for an agent's draws; torch's and Python's own are seeded too, for the first weights."""
    torch.manual_seed(seed)
    random.seed(seed)
    return torch.Generator(device).manual_seed(seed)
