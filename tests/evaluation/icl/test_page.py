"""What a reader sees, from logs written by hand."""

import json
from pathlib import Path

import pytest

from posttrain.config import ConfigError
from posttrain.evaluation import show
from posttrain.evaluation.icl.charts import place
from posttrain.evaluation.icl.log import Cost, Log, Row

HOSTILE = '</td><script>alert("x")</script>'


def write_run(folder: Path, *, nll: bool = True, gain: bool = True) -> Path:
    folder.mkdir()
    log = Log(folder)
    for seed in range(2):
        for shots in (0, 4, 16):
            cell = {"arm": "solved <b>", "shots": shots, "seed": seed, "order": 0}
            rows = [
                Row(
                    **cell,
                    item=f"i{i}",
                    score=float(gain and shots > i),
                    text=HOSTILE,
                    prompt_tokens=10 + shots,
                    answer_tokens=3,
                    nll=2.0 / (1 + shots) if nll else None,
                    nll_tokens=2 if nll else 0,
                )
                for i in range(12)
            ]
            rows.append(Row(**cell, item="long", too_long=True, prompt_tokens=9999))
            log.append(rows, Cost(**cell, items=12, answer_s=0.6, answer_tokens=120, answer_cached=24))
            log.append([Row(**cell | {"arm": "k-NN"}, item="i0", score=0.5, baseline=True)], Cost(**cell | {"arm": "k-NN"}, items=0))
    (folder / "summary.json").write_text(
        json.dumps({"metric": "chrF2++", "figures": [{"arm": "solved <b>", "shots": 4, "seed": 0, "order": 0, "chrF2++": 41.25}]})
    )
    return folder


def test_the_page_of_a_run_holds_its_figures_and_no_markup_of_a_model(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    assert show.cli([str(folder), "--figure", str(tmp_path / "curves.png")]) == 0
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "solved <b>" not in page
    assert "&lt;script&gt;" in page
    assert "gains" in page
    assert "falls (−0.941 nats per token)" in page  # from 2 / 2 to 2 / 17 / 2
    assert "ChrF2++" in page
    assert "41.25" in page
    assert "2 too long" in page
    assert "<td>13<small>" in page  # the items of a point, the one that was too long included
    assert "object at 0x" not in page
    assert page.count("<svg") == 2
    assert 'stroke-dasharray="6 4"' in page
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "wrote" in capsys.readouterr().out


def test_without_likelihoods_there_is_no_panel_or_column_for_them(tmp_path):
    folder = write_run(tmp_path / "run", nll=False)
    assert show.cli([str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 1
    assert "NLL</th>" not in page.partition("Answers to read")[0]


def test_several_runs_share_a_page_under_their_names(tmp_path):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b", gain=False)
    assert show.cli([f"one={first}", f"two={second}", "--out", str(tmp_path / "page.html"), "--title", "Two"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "one: solved &lt;b&gt; gains" in page
    assert "two: solved &lt;b&gt; shows no clear change" in page


def test_runs_of_two_kinds_are_not_mixed_and_empty_ones_are_named(tmp_path):
    run, other = write_run(tmp_path / "run"), tmp_path / "other"
    other.mkdir()
    with pytest.raises(ConfigError, match=r"other: holds no answers\.jsonl"):
        show.cli([str(other), str(run)])
    (other / "answers.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"answers\.jsonl: holds no row"):
        show.cli([str(other)])


def test_shots_stand_on_a_log_axis_with_zero_before_the_fewest():
    counts = [0, 1, 4, 16]
    assert [place(count, counts) for count in counts] == [-2, 0, 2, 4]
    assert place(0, [0]) < 0
    assert place(8, [8]) == 3
