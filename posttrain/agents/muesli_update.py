"""Muesli's update (`kernel/cmpo.py`) as a recipe's keys ask for it: what the agents that learn by it have in common."""

from typing import NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from posttrain.agents.kernel.cmpo import Learner, M, Sequences, muesli_loss, targets_of
from posttrain.agents.kernel.nets import WorldModel
from posttrain.config import config


@config
class LossConfig:
    """The update, with the values of the paper's tables where they are known."""

    gamma: float = Field(default=0.97, gt=0, lt=1)
    """Discount a step; 0.995 on Atari."""
    retrace_lambda: float = Field(default=0.95, ge=0, le=1)
    clip: PositiveFloat = 1.0
    """Largest absolute advantage in the CMPO target."""
    weight_kl: PositiveFloat = 1.0
    """Of KL(pi_CMPO || pi)."""
    weight_value: PositiveFloat = 0.25
    unroll: PositiveInt = 4
    """Model steps that the loss looks ahead; 5 in the paper."""
    variance_decay: float = Field(default=0.99, ge=0, lt=1)
    """Of the moving average of (G - v')^2, which is corrected for its start."""


class Reading(NamedTuple):
    """A world model, and the states that it begins at, [T, N, D]."""

    world: WorldModel
    state: Tensor


def improve(
    learner: Learner[M], average: Reading, model: Reading, batch: Sequences, gamma: float | Tensor, cfg: LossConfig, progress: float
) -> dict[str, Tensor]:
    """One step of learning from T + 1 actions; the parts of the loss.

    The moving average has read all of them, the model all but the last. `gamma` is that of `targets_of`; `progress` from 0 to 1 is how much
    of the run is over.
    """
    scale = learner.scale
    targets = targets_of(average.world, average.state, batch, scale, gamma=gamma, retrace_lambda=cfg.retrace_lambda, clip=cfg.clip)
    learner.remember(targets.surprise)
    loss, parts = muesli_loss(
        model.world, model.state, batch, targets, ahead=cfg.unroll, weight_kl=cfg.weight_kl, weight_value=cfg.weight_value
    )
    learner.descend(loss, progress)
    return parts | {"loss": loss.detach(), "surprise": targets.surprise}
