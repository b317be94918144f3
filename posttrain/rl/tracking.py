"""Figures of a run in a tracker that the user chose, beside metrics.jsonl, which always has them. The trackers are accelerate's."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

from posttrain.config import ConfigError
from posttrain.run import RunFolder
from posttrain.schema import plain

TrackerName: TypeAlias = Literal["none", "tensorboard", "wandb", "trackio"]
Track: TypeAlias = Callable[[int, Mapping[str, float]], None]
"""(step, its figures), once for each step."""


def check_tracker(name: TrackerName) -> None:
    """Raises `ConfigError` where the tracker is not installed."""
    if name != "none" and find_spec(name) is None:
        raise ConfigError(f"tracker: {name} is not installed: pip install {name}, or set tracker to none")


@contextlib.contextmanager
def tracking(name: TrackerName, folder: RunFolder, cfg: Any) -> Iterator[Track]:
    """A function that sends figures to the tracker, named as the run folder is; one that does nothing for "none".

    TensorBoard writes into RUN/tensorboard. A run that is gone on with is another run to a tracker, with the steps counted on.
    """
    if name == "none":
        yield lambda step, figures: None
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # accelerate's own logging asks for it
    kind = LOGGER_TYPE_TO_CLASS[name]
    where = {"logging_dir": str(folder.path)} if kind.requires_logging_directory else {}
    tracker = kind("tensorboard" if name == "tensorboard" else folder.path.resolve().name, **where)
    tracker.start()
    if name != "tensorboard":  # whose table of settings takes no lists; config.yaml stands beside it
        tracker.store_init_configuration(plain(cfg))
    try:
        yield lambda step, figures: tracker.log(dict(figures), step=step)
    finally:
        tracker.finish()
