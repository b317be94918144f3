"""The core that a recipe names is the one that is made, with all of its keys."""

import math

import pytest
import torch

from posttrain.agents.cores import GRUConfig, LSTMConfig, S5Config, TransformerConfig, make_core
from posttrain.agents.kernel import cores, s5


def test_every_key_of_s5_is_heard():
    core = make_core(S5Config(layers=3, states=6, discretisation="bilinear", timescales=(0.2, 0.4), norm=False), 8)
    assert isinstance(core, s5.S5)
    assert core.first_state(2)[0].shape == (2, 3, 3)
    for block in core.blocks:
        assert isinstance(block.norm, torch.nn.Identity)
        assert block.layer.discretisation == "bilinear"
        assert block.layer.log_delta_P.min() >= math.log(0.2)
        assert block.layer.log_delta_P.max() <= math.log(0.4)
    assert isinstance(make_core(S5Config(), 8).blocks[0].norm, torch.nn.LayerNorm)


@pytest.mark.parametrize(("cfg", "kind"), [(GRUConfig(layers=3), cores.GRU), (LSTMConfig(layers=3), cores.LSTM)])
def test_recurrent_cores_have_the_layers_asked_for(cfg, kind):
    core = make_core(cfg, 8)
    assert isinstance(core, kind)
    assert all(x.shape == (2, 3, 8) for x in core.first_state(2))


def test_a_transformer_has_the_layers_heads_and_window_asked_for():
    core = make_core(TransformerConfig(layers=3, heads=2, window=5), 8)
    assert isinstance(core, cores.Transformer)
    assert core.first_state(2)[0].shape == (2, 3, 2, 2, 4, 4)
