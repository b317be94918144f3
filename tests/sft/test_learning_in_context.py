"""Learning in context happens, in seconds: rules that are new in every sequence are learnt from it, and where there is none, nothing is."""

import pytest
import torch

from posttrain.config import build
from posttrain.sft.in_context import Config, draw_batch, new_model, rate, update

STEPS = 300


def accuracy(noise: float) -> float:
    """Over the last 50 updates, of the answers late in a sequence. Each sequence gives its words labels of its own, one of three."""
    family = {"kind": "labels", "schemes": {"own": 1}, "noise": [noise], "remarks": 0, "language": {"things": 1, "qualities": 8}}
    tree = {
        "kind": "icl_pretrain",
        "model": {"hidden_size": 32, "layers": 2, "heads": 4, "mlp_size": 64, "init_std": 0.18, "context": 64},
        "families": {"labels": family},
        "steps": STEPS,
        "tokens": 512,
        "lengths": {"shortest": 16, "first_longest": 48, "longest": 48, "grow_steps": 1},
        "lr": 5e-3,
    }
    cfg = build(Config, [("recipe.yaml", tree)])
    model, tokenizer = new_model(cfg)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=cfg.weight_decay)
    rows = [update(model, optimizer, draw_batch(cfg, tokenizer, step), rate(cfg, step)) for step in range(1, STEPS + 1)]
    return sum(row["labels/accuracy"] for row in rows[-50:]) / 50


@pytest.mark.timeout(300)
def test_a_rule_of_the_sequence_is_learnt_from_the_sequence_and_labels_without_a_rule_are_not():
    assert accuracy(noise=0.0) > 0.6
    assert accuracy(noise=1.0) < 0.4
