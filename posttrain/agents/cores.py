"""Which recurrent core a recipe names: the keys of each kind, and the core itself by `make_core`."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from posttrain.agents.kernel.cores import GRU, LSTM, Transformer
from posttrain.agents.kernel.s5 import S5
from posttrain.config import config


@config
class S5Config:
    """A diagonal state space with resets."""

    kind: Literal["s5"] = "s5"
    layers: PositiveInt = 2
    states: int = Field(default=32, gt=0, multiple_of=2)
    """Numbers of state of a layer: half as many complex ones."""
    discretisation: Literal["zoh", "bilinear"] = "zoh"
    timescales: tuple[PositiveFloat, PositiveFloat] = (1e-3, 1e-1)
    """Smallest and largest first step Delta: a state fades over about 2 / Delta steps."""
    norm: bool = True
    """A layer norm before each layer; none in the paper's POPGym runs."""


@config
class GRUConfig:
    """Gated recurrent units."""

    kind: Literal["gru"] = "gru"
    layers: PositiveInt = 1


@config
class LSTMConfig:
    """Long short-term memory."""

    kind: Literal["lstm"] = "lstm"
    layers: PositiveInt = 1


@config
class TransformerConfig:
    """Causal attention over a window."""

    kind: Literal["transformer"] = "transformer"
    layers: PositiveInt = 2
    heads: PositiveInt = 2
    window: PositiveInt = 128
    """Inputs known, the present one among them."""


RecurrentConfig: TypeAlias = S5Config | GRUConfig | LSTMConfig
"""A core whose state is some numbers, however much it has read."""
CoreConfig: TypeAlias = Annotated[RecurrentConfig | TransformerConfig, Field(discriminator="kind")]


def make_core(cfg: CoreConfig, width: int) -> nn.Module:
    match cfg:
        case S5Config():
            return S5(width, cfg.layers, cfg.states, cfg.discretisation, cfg.timescales, cfg.norm)
        case GRUConfig():
            return GRU(width, cfg.layers)
        case LSTMConfig():
            return LSTM(width, cfg.layers)
        case TransformerConfig():
            return Transformer(width, cfg.layers, cfg.heads, cfg.window)
