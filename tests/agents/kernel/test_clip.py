"""Rewards from encoders of images and texts: formulas against slow twins, and random CLIP and SigLIP checkpoints through the real path."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from transformers import AutoModel, AutoProcessor

from posttrain.agents.kernel.clip import (
    GoalReward,
    average_precision,
    contrastive_loss,
    ensembled,
    goal_probability,
    load_dual_encoder,
    precision_recall,
    prepared,
)
from tests.tiny_clips import make_tiny_clip
from tests.tiny_models import make_tiny_model


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request, tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp(request.param), request.param)


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def pictures(count, height, width, seed=0):
    return torch.randint(256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_a_goals_probability_is_a_softmax_over_itself_and_its_own_negatives():
    image, text, goal = unit(6, 5), unit(4, 5, seed=1), [0, 2, 1, 0, 2, 1]
    rivals = torch.tensor([[False, True, False, True], [False, False, False, True], [True, True, True, True]])
    got = goal_probability(image, text, torch.tensor(goal), rivals, 0.1)
    for i, g in enumerate(goal):
        weight = [math.exp(float(image[i] @ text[k]) / 0.1) for k in range(4)]
        against = sum(weight[k] for k in range(4) if rivals[g, k] and k != g)
        assert got[i].item() == pytest.approx(weight[g] / (weight[g] + against), rel=1e-4)


def test_a_lower_temperature_moves_every_probability_away_from_even():
    image, text, goal = unit(20, 5), unit(2, 5, seed=1), torch.zeros(20, dtype=torch.long)
    cold, hot = (goal_probability(image, text, goal, torch.ones(2, 2, dtype=torch.bool), t) for t in (0.1, 1.0))
    assert bool(((cold - 0.5).abs() > (hot - 0.5).abs()).all())
    assert torch.equal(cold > 0.5, hot > 0.5)


def test_wordings_are_averaged_as_directions():
    one = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert ensembled(one)[0].tolist() == pytest.approx([0.5**0.5] * 2)
    assert torch.allclose(ensembled(unit(1, 3, 4)), unit(1, 3, 4)[0])


def test_the_contrastive_loss_is_that_of_its_slow_twin():
    image, text, caption, scale = unit(5, 3), unit(5, 3, seed=1), [0, 1, 0, 2, 3], 7.0
    total = 0.0
    for a, b in ((image, text), (text, image)):
        for i in range(5):
            logits = [scale * float(a[i] @ b[j]) for j in range(5)]
            norm = math.log(sum(map(math.exp, logits)))
            same = [j for j in range(5) if caption[j] == caption[i]]
            total -= sum(logits[j] - norm for j in same) / len(same)
    assert contrastive_loss(image, text, torch.tensor(scale), torch.tensor(caption)).item() == pytest.approx(total / 10, rel=1e-5)


def test_precision_and_recall_take_ties_together():
    score, true = torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([True, True, False, False])
    threshold, precision, recall = precision_recall(score, true)
    assert threshold.tolist() == pytest.approx([0.9, 0.5, 0.1])
    assert precision.tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert recall.tolist() == pytest.approx([1 / 2, 1, 1])


def test_average_precision_is_sklearns():
    g = torch.Generator().manual_seed(0)
    score, true = torch.rand(200, generator=g).mul(20).round() / 20, torch.rand(200, generator=g) < 0.3
    _, precision, recall = precision_recall(score, true)
    assert average_precision(precision, recall) == pytest.approx(average_precision_score(true.numpy(), score.numpy()))
    with pytest.raises(ValueError, match="found no true example"):
        precision_recall(score, torch.zeros(200, dtype=torch.bool))


@pytest.mark.parametrize("size", [(40, 40), (300, 260), (260, 301), (224, 224)])
def test_images_are_prepared_as_the_checkpoints_own_processor_does(folder, size):
    image = pictures(2, *size)
    smooth = torch.nn.functional.avg_pool2d(image.float(), 3, 1, 1).to(torch.uint8)
    theirs = AutoProcessor.from_pretrained(folder).image_processor(list(smooth.permute(0, 2, 3, 1).numpy()), return_tensors="pt")
    ours = prepared(smooth, load_dual_encoder(str(folder)).how)
    assert ours.shape == theirs["pixel_values"].shape
    level = 1 / 255 / 0.25  # of 255, in units of the smallest standard deviation
    assert (ours - theirs["pixel_values"]).abs().max() < 1.1 * level


def test_probabilities_are_those_of_the_model_called_as_its_users_call_it(folder):
    image, goals = pictures(3, 224, 224), ["red ring", "blue square", "green cross"]
    reward = GoalReward(load_dual_encoder(str(folder)), goals, ["a photo of a {}"], [], others=True)
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    shown = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in image]
    given = processor(text=[f"a photo of a {goal}" for goal in goals], images=shown, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        expected = model(**given).logits_per_image.softmax(1)  # SigLIP's bias is the same for all texts
    got = torch.stack([reward(image, torch.full((3,), g)) for g in range(3)], 1)
    assert torch.allclose(got, expected, atol=1e-4)
    assert got.max() - got.min() > 0.01


def test_without_the_others_a_goal_stands_against_the_negatives_alone(folder):
    image, encoder = pictures(3, 224, 224), load_dual_encoder(str(folder))
    reward = GoalReward(encoder, ["red ring", "blue square"], ["{}"], ["nothing"], others=False, temperature=0.1)
    alone = GoalReward(encoder, ["red ring"], ["{}"], ["nothing"], others=False, temperature=0.1)
    first = torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(reward(image, first), alone(image, first))


def test_a_text_and_an_image_are_embedded_once(folder, monkeypatch):
    encoder = load_dual_encoder(str(folder))
    read, seen = [], []
    real_text, real_image = encoder.model.get_text_features, encoder.model.get_image_features
    monkeypatch.setattr(encoder.model, "get_text_features", lambda **x: read.append(len(x["input_ids"])) or real_text(**x))
    monkeypatch.setattr(encoder.model, "get_image_features", lambda **x: seen.append(len(x["pixel_values"])) or real_image(**x))
    reward = GoalReward(encoder, ["ring", "cross"], ["a {}", "the {}"], ["a square"], others=True, keep=5)
    GoalReward(encoder, ["ring", "cross"], ["a {}"], ["a square"], others=True)
    assert sum(read) == 5
    image = pictures(4, 64, 64)
    first = reward(image[[0, 1, 0]], torch.tensor([0, 1, 1]))
    again = reward(image[[1, 0, 2]], torch.tensor([1, 1, 0]))
    assert seen == [2, 1]
    assert torch.allclose(first[[1, 2]], again[:2])
    reward(image[[3]], torch.tensor([0]))
    reward(pictures(2, 64, 64, seed=1), torch.tensor([0, 0]))  # the sixth image does not fit: all are forgotten
    reward(image[[0]], torch.tensor([0]))
    assert seen == [2, 1, 1, 2, 1]


def test_what_was_embedded_is_kept_in_the_state(folder):
    encoder, image, goal = load_dual_encoder(str(folder)), pictures(3, 64, 64), torch.tensor([0, 1, 0])
    one, other = (GoalReward(encoder, ["ring", "cross"], ["a {}"], [], others=True) for _ in range(2))
    other.load_state_dict(one.state_dict())  # of nothing
    expected = one(image, goal)
    other.load_state_dict(one.state_dict())
    other.encoder = None  # nothing is left to embed
    assert torch.allclose(other(image[[2, 0, 1]], goal[[2, 0, 1]]), expected[[2, 0, 1]])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 3, 64, 64), r"shape \(2, 3, 64, 64\) and torch.float32, expected \[B, 3, H, W\] of torch.uint8"),
        (torch.zeros(2, 4, 64, 64, dtype=torch.uint8), r"shape \(2, 4, 64, 64\)"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), r"shape \(3, 64, 64\)"),
        (torch.zeros(2, 3, 64, 20, dtype=torch.uint8), "64 x 20 pixels, expected 32 x 32 at least"),
    ],
)
def test_what_is_no_picture_is_refused(folder, image, message):
    with pytest.raises(ValueError, match=message):
        load_dual_encoder(str(folder)).images(image)


def test_a_text_that_would_not_be_read_whole_is_refused(folder):
    encoder = load_dual_encoder(str(folder))
    with pytest.raises(ValueError, match=f"the encoder reads {encoder.longest} at most: 'ring ring"):
        encoder.texts(["ring " * 80])
    with pytest.raises(ValueError, match="what the encoder's tokenizer does not know: 'a blå ring'"):
        encoder.texts(["a blå ring"])  # where CLIP's "unknown" is its "end of text"


@pytest.mark.parametrize(
    ("templates", "negatives", "others", "message"),
    [
        (["ring"], [], True, r"template 'ring', expected a text with one \{\}"),
        (["{} and {}"], [], True, "template '{} and {}'"),
        (["a {}"], [], False, "no negative"),
        ([], ["a"], True, "no template"),
    ],
)
def test_a_reward_that_could_not_tell_is_refused(folder, templates, negatives, others, message):
    with pytest.raises(ValueError, match=message):
        GoalReward(load_dual_encoder(str(folder)), ["ring", "cross"], templates, negatives, others)


def test_what_is_no_encoder_of_both_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot load '/nowhere'"):
        load_dual_encoder("/nowhere")
    model = make_tiny_model(tmp_path / "lm", "qwen2")
    with pytest.raises(ValueError, match="is a model of kind 'qwen2', expected an encoder of images and texts"):
        load_dual_encoder(str(model))


def test_the_checkpoints_own_temperature_is_the_default(folder):
    encoder = load_dual_encoder(str(folder))
    assert encoder.temperature == pytest.approx(float(np.exp(-encoder.model.logit_scale.item())))
    assert GoalReward(encoder, ["ring"], ["{}"], ["cross"], others=False).temperature == encoder.temperature
