"""Images as answers: a verdict on each, whatever the file is, and the command that grades a file of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from posttrain.agents.kernel.clip import load_dual_encoder
from posttrain.cli import main as posttrain
from posttrain.grading.image import Asked, Wording, asked, image_grader
from posttrain.types import FinalAnswer, Problem
from tests.tiny_clips import make_tiny_clip

GOALS = ("red ring", "blue square", "green cross")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("clip"), "clip")


@pytest.fixture(scope="module")
def encoder(model):
    return load_dual_encoder(str(model))


def drawn(path, size=(64, 48), mode="RGB", seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def test_the_verdict_is_the_probability_against_the_threshold(encoder, tmp_path):
    paths = [drawn(tmp_path / f"{i}.png", size, seed=i) for i, size in enumerate([(64, 48), (100, 90), (64, 48)])]
    rows = [Asked(image=path, goal=goal, others=GOALS) for path in paths for goal in GOALS]
    verdicts = asked(encoder, rows, Wording(templates=("a {}",)))
    text = encoder.texts([f"a {goal}" for goal in GOALS])
    for i, path in enumerate(paths):
        image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
        prob = (encoder.images(image) @ text.T / encoder.temperature).softmax(1)[0]
        for j in range(3):
            assert float(verdicts[3 * i + j].pred_form) == pytest.approx(prob[j].item(), abs=1e-4)
    probs = sorted(float(verdict.pred_form) for verdict in verdicts)
    middle = (probs[3] + probs[4]) / 2
    again = asked(encoder, rows, Wording(templates=("a {}",), threshold=middle))
    assert [verdict.status == "correct" for verdict in again] == [float(verdict.pred_form) >= middle for verdict in verdicts]
    assert sum(verdict.correct for verdict in again) == 5


def test_a_negative_is_a_whole_text_and_another_goal_is_worded_as_the_goal_is(encoder, tmp_path):
    path, wording = drawn(tmp_path / "a.png"), Wording(templates=("a {}", "the {}"))
    by_hand = [
        Asked(image=path, goal="red ring", negatives=("a blue square",)),
        Asked(image=path, goal="red ring", others=("blue square",)),
    ]
    whole, worded = asked(encoder, by_hand, Wording(templates=("a {}",)))
    assert whole.pred_form == worded.pred_form
    whole, worded = asked(encoder, by_hand, wording)  # "a blue square" alone against the mean of "a" and "the blue square"
    assert whole.pred_form != worded.pred_form


def bad(folder, name):
    path = folder / name
    match name:
        case "text.png":
            path.write_text("no image")
        case "cut.png":
            path.write_bytes(drawn(folder / "whole.png").read_bytes()[:2000])
        case "clear.png":
            drawn(path, mode="RGBA")
        case "palette.png":
            drawn(path, mode="P")
        case "deep.png":
            Image.fromarray(np.zeros((64, 64), dtype=np.uint16)).save(path)
        case "small.png":
            drawn(path, size=(64, 20))
        case "huge.png":
            Image.new("1", (60_000, 1_000)).save(path)
        case "folder.png":
            path.mkdir()
    return path


@pytest.mark.parametrize(
    ("name", "status", "why"),
    [
        ("missing.png", "no_answer", "no such image file"),
        ("folder.png", "no_answer", "no such image file"),
        ("nul\0.png", "no_answer", ""),
        ("text.png", "no_answer", "not an image of a known format"),
        ("cut.png", "no_answer", "cannot be read: "),
        ("clear.png", "no_answer", "mode RGBA, expected RGB or L: convert it"),
        ("palette.png", "no_answer", "mode P, expected RGB or L"),
        ("deep.png", "no_answer", "mode I;16, expected RGB or L"),
        ("small.png", "no_answer", "64 x 20 pixels, expected 32 x 32 at least, one patch of the encoder"),
        ("huge.png", "limit", "60000 x 1000 pixels, expected at most 50,000,000 in all"),
    ],
)
def test_what_is_no_image_gets_a_verdict_and_spoils_no_other(encoder, tmp_path, name, status, why):
    rows = [Asked(image=path, goal="red ring", others=GOALS) for path in (bad(tmp_path, name), drawn(tmp_path / "good.png"))]
    first, second = asked(encoder, rows, Wording(threshold=1e-6))
    assert (first.status, second.status) == (status, "correct")
    assert f"{name}: {why}" in first.why


def test_a_grey_image_is_graded_as_the_same_in_rgb(encoder, tmp_path):
    grey = drawn(tmp_path / "grey.png", mode="L")
    Image.open(grey).convert("RGB").save(tmp_path / "rgb.png")
    rows = [Asked(image=path, goal="red ring", others=GOALS) for path in (grey, tmp_path / "rgb.png")]
    one, other = asked(encoder, rows)
    assert one == other


def test_it_is_the_grader_of_a_task(encoder, tmp_path):
    grade = image_grader(encoder, ["blue square"], Wording(threshold=1e-6))
    problem = Problem(id="1", question="Draw a red ring.", reference=FinalAnswer(text="red ring"))
    path = drawn(tmp_path / "a.png")
    verdicts = grade([(problem, f"{path}\n"), (problem, "I cannot draw."), (problem, "")])
    assert [verdict.status for verdict in verdicts] == ["correct", "no_answer", "no_answer"]


def test_a_goal_without_negatives_is_refused(tmp_path):
    with pytest.raises(ValueError, match="goal 'ring' stands against nothing"):
        Asked(image=tmp_path, goal="ring", others=("ring",))


def written(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_file_of_images_is_graded(model, tmp_path, capsys):
    drawn(tmp_path / "a.png")
    rows = [{"image": "a.png", "goal": goal, "expected": goal == "red ring"} for goal in GOALS] + [{"image": "b.png", "goal": "red ring"}]
    flags = ["--model", str(model), "--others", "--negative", "photo", "--template", "a {}", "--threshold", "0.000001", "--json"]
    assert posttrain(["grade", "image", written(tmp_path, rows), *flags, "--out", str(tmp_path / "out.jsonl")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["statuses"] == {"correct": 3, "no_answer": 1}
    assert summary["agreement"] == {"judged": 3, "agree": 1, "false_accepts": 2, "false_rejects": 0}
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sum(float(row["pred_form"]) for row in graded[:3]) < 1  # "photo" has a share
    assert "against 3 other texts" in graded[0]["why"]


@pytest.mark.parametrize(
    ("row", "flags", "message"),
    [
        ({"goal": "ring"}, [], "rows.jsonl:1: needs text in 'image'"),
        ({"image": "a.png"}, [], "rows.jsonl:1: needs text in 'goal'"),
        ({"image": "a.png", "goal": "ring"}, [], "rows.jsonl:1: goal 'ring' stands against nothing, and would"),
        ({"image": "a.png", "goal": "ring", "negatives": "cross"}, [], "rows.jsonl:1: 'negatives' must be a list of texts"),
        ({"image": "a.png", "goal": "ring", "negatives": ["a"]}, ["--template", "ring"], "flags: templates: found 'ring', expected texts"),
        ({"image": "a.png", "goal": "ring", "negatives": ["a"]}, ["--threshold", "2"], "flags: found threshold 2.0"),
        ({"image": "a.png", "goal": "ring", "negatives": ["a"]}, ["--model", "/nowhere"], "--model: cannot load '/nowhere'"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(model, tmp_path, capsys, row, flags, message):
    assert posttrain(["grade", "image", written(tmp_path, [row]), "--model", str(model), *flags]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert said.count("rows.jsonl") <= 1
