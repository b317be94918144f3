"""The meter: known streams judged right, files read or refused with their line, walks, and a study that goes on where it stopped."""

import json
import random
from itertools import pairwise

import pytest

from posttrain.agents import openended
from posttrain.agents.environments import MazeConfig
from posttrain.agents.kernel.observers import Deflate, NGram
from posttrain.agents.kernel.openness import SHORTEST, judge
from posttrain.agents.kernel.streams import KNOWN, constant, growing
from posttrain.agents.openended import Config, along, losses, walked
from posttrain.cli import main as posttrain
from posttrain.config import ConfigError, build
from tests.tiny_models import make_tiny_model


@pytest.mark.parametrize("name", KNOWN)
def test_a_stream_with_a_known_answer_is_judged_right(name):
    stream, verdict = KNOWN[name]
    texts = stream(960, random.Random(7))
    assert judge(losses(Deflate(), texts)).verdict == verdict


def test_an_n_gram_tells_growth_from_its_end():
    for name in ("growing", "saturating"):
        stream, verdict = KNOWN[name]
        assert judge(losses(NGram(), stream(960, random.Random(7)))).verdict == verdict


def test_losses_are_by_byte_or_by_artifact():
    texts = constant(SHORTEST, random.Random(0))
    byte, artifact = losses(Deflate(), texts), losses(Deflate(), texts, per="artifact")
    assert artifact[0][0] == pytest.approx(49 * byte[0][0])
    assert [len(row) for row in byte] == [144, 126, 108, 90, 72, 36]


def test_a_curve_starts_where_its_history_ends():
    rows = [[float(i) for i in range(24)], [float(i) for i in range(12, 24)]]
    assert along(rows, 4) == [[2.5, 8.5, 14.5, 20.5], [None, None, 14.5, 20.5]]


def test_a_walk_steps_from_cell_to_cell():
    episodes = walked(MazeConfig(n=5, limit=12, layouts=1), 20, seed=3)
    assert len(episodes) == 20
    assert episodes == walked(MazeConfig(n=5, limit=12, layouts=1), 20, seed=3)
    for episode in episodes:
        cells = [(ord(cell[0]) - 97, int(cell[1:])) for cell in episode.split()]
        assert 1 <= len(cells) <= 12
        assert all(abs(a - c) + abs(b - d) <= 1 for (a, b), (c, d) in pairwise(cells))


def small(**changes):
    layer = {"seeds": 2, "artifacts": 144, "streams": ["constant", "noise"], "observers": {"deflate": {"kind": "deflate"}}}
    return build(Config, [("test", layer | {"walks": {"maze": {"kind": "maze", "n": 5, "limit": 10}}} | changes)])


def test_a_study_that_stopped_goes_on_and_comes_to_the_same(tmp_path, monkeypatch):
    cfg = small()
    openended.main(cfg, tmp_path / "whole", False)
    real, calls = openended.judge, []

    def third_fails(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(openended, "judge", third_fails)
    with pytest.raises(KeyboardInterrupt):
        openended.main(cfg, tmp_path / "cut", False)
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "str')  # as a kill in the middle of a line leaves it
    monkeypatch.setattr(openended, "judge", real)
    openended.main(cfg, tmp_path / "cut", True)
    for name in ("result.json", "table.md", "figure.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert json.loads((tmp_path / "whole" / "result.json").read_text())["deflate"]["constant"] == 1.0


def test_an_unknown_stream_is_refused():
    with pytest.raises(ConfigError, match="streams: found 'groving', expected some of constant"):
        small(streams=["groving"])


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_file_is_judged_and_the_answer_written(tmp_path, capsys):
    rows = [{"turns": [{"text": text}]} for text in growing(960, random.Random(7))]
    files = [written(tmp_path / "a.jsonl", rows[:500]), written(tmp_path / "b.jsonl", rows[500:])]
    assert posttrain(["openended", *files, "--field", "turns.0.text", "--observer", "deflate", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "960 artifacts" in said
    assert "within this horizon, to this observer: open-ended" in said
    found = json.loads((tmp_path / "out" / "judgement.json").read_text())
    assert found["verdict"] == "open-ended"
    assert found["p_novel"] == max(rise["p"] for rise in found["rises"])
    assert (tmp_path / "out" / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_a_horizon_and_thinning_shorten_the_stream(tmp_path, capsys):
    file = written(tmp_path / "a.jsonl", [{"text": text} for text in growing(960, random.Random(7))])
    posttrain(["openended", file, "--observer", "deflate", "--thin", "2", "--horizon", "300", "--out", str(tmp_path / "out")])
    assert "300 artifacts" in capsys.readouterr().out


def test_a_language_model_judges_a_file(tmp_path, capsys):
    model = make_tiny_model(tmp_path / "model", "qwen2", positions=64)
    file = written(tmp_path / "a.jsonl", [{"text": "abc"}] * SHORTEST)
    flags = ["--observer", "language_model", "--model", str(model), "--out", str(tmp_path / "out")]
    assert posttrain(["openended", file, *flags]) == 0
    assert "to this observer: neither" in capsys.readouterr().out  # random weights learn nothing from their context


@pytest.mark.parametrize(
    ("lines", "flags", "message"),
    [
        (['{"text": "a"}', '{"text": '], [], "s.jsonl:2: not JSON"),
        (['{"text": "a"}', "[1]"], [], "s.jsonl:2: expected an object with fields, found list"),
        (['{"text": "a"}', '{"txt": "a"}'], [], "s.jsonl:2: has no 'text'; the row has 'txt': name another --field"),
        (['{"text": 3}'], [], "s.jsonl:1: 'text' is int, expected text"),
        (['{"text": "\\ud800"}'], [], "s.jsonl:1: 'text' holds half a character"),
        ([""], [], "s.jsonl:1: not JSON"),
        (['{"text": "a"}'], [], "s.jsonl: holds 1 artifacts to judge, expected 144 or more"),
        (['{"text": "a"}'], ["--alpha", "2"], "flags: alpha: found 2.0"),
        (['{"text": "a"}'], ["--order", "0"], "flags: order: found 0"),
        (['{"text": "a"}'], ["--thin", "0"], "--thin must be 1 or more"),
        (['{"text": "a"}'], ["--observer", "language_model"], "needs --model"),
        (['{"text": "a"}'], ["--observer", "language_model", "--model", "/nowhere"], "observer: cannot load '/nowhere'"),
    ],
)
def test_what_is_no_stream_is_refused_in_one_line(tmp_path, capsys, lines, flags, message):
    file = tmp_path / "s.jsonl"
    file.write_text("\n".join(lines) + "\n")
    assert posttrain(["openended", str(file), *flags, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
