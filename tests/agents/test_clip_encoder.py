"""The small CLIP: its pairs are true, it learns, what it writes is a checkpoint like any other, a resumed run is the same run."""

import json

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from posttrain.agents import clip_encoder
from posttrain.agents.clip_encoder import Config, pairs
from posttrain.agents.kernel.clip import load_dual_encoder, preparation_of
from posttrain.config import ConfigError, build
from tests.agents.resumed import assert_resumes

SMALL = {"n": 3, "width": 16, "layers": 1, "joint": 16, "batch": 32, "log_every": 10, "final_batches": 2}


def test_a_pair_depends_on_its_number_alone_and_half_of_the_agents_stand_at_an_object():
    cfg = Config(batch=64)
    (picture, captions), again, other = pairs(cfg, 3), pairs(cfg, 3), pairs(cfg, 4)
    assert torch.equal(picture, again[0])
    assert captions == again[1] != other[1]
    at_object = [text for text in captions if " at the " in text or " on the " in text]
    assert len(at_object) == pytest.approx(0.5 * 0.7 * 64, abs=12)  # seven captions in ten are about the agent


def test_pictures_find_their_captions_far_better_than_at_the_start_and_the_checkpoint_is_read_by_auto_classes(tmp_path):
    found = {}
    for steps in (1, 120):
        cfg = build(Config, [("test", SMALL | {"steps": steps, "learning_rate": 5e-3})])
        assert clip_encoder.main(cfg, tmp_path / str(steps), False) == 0
        found[steps] = json.loads((tmp_path / str(steps) / "result.json").read_text())
    assert found[120]["loss"] < found[1]["loss"] - 0.5
    folder = tmp_path / "120" / "model"
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert (model.config.model_type, type(processor).__name__) == ("clip", "CLIPProcessor")
    assert sum(p.numel() for p in model.parameters()) == found[120]["parameters"]
    picture, captions = pairs(cfg, "end 0")
    encoder = load_dual_encoder(str(folder))
    cos = encoder.images(picture) @ encoder.texts(captions).T
    own = torch.tensor([[a == b for b in captions] for a in captions])
    assert cos[own].mean() > cos[~own].mean() + 0.05


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    cfg = build(Config, [("test", SMALL | {"steps": 20, "checkpoint_every": 5, "log_every": 2})])
    assert len(assert_resumes(clip_encoder, cfg, tmp_path, monkeypatch, ends_in="update", call=13)) == 10
    whole, killed = (AutoModel.from_pretrained(tmp_path / name / "model").state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_the_scale_never_goes_beyond_a_hundred():
    cfg = build(Config, [("test", SMALL)])
    processor = clip_encoder.make_processor(cfg)
    model = clip_encoder.make_model(cfg, processor.tokenizer)
    model.logit_scale.data.fill_(7.0)
    clip_encoder.update(
        model, torch.optim.AdamW(model.parameters()), processor.tokenizer, preparation_of(processor.image_processor), cfg, step=1
    )
    assert model.logit_scale.exp().item() == pytest.approx(100, abs=0.01)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="width: found 10, expected a multiple of heads = 4"):
        build(Config, [("test", {"width": 10, "heads": 4})])
