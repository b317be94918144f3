"""What a reader sees, from logs written by hand."""

import json
import re
from pathlib import Path

import pytest

from posttrain.config import ConfigError
from posttrain.evaluation import show
from posttrain.evaluation.icl import answers, charts, page
from posttrain.evaluation.icl.charts import place
from posttrain.evaluation.icl.curves import curves_of
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
    text = (folder / "report.html").read_text()
    assert 'alert("x")' not in text
    assert "solved <b>" not in text
    assert "gains" in text
    assert "falls (−0.941 nats per token)" in text  # from 2 / 2 to 2 / 17 / 2
    assert "ChrF2++" in text
    assert "41.25" in text
    assert "2 too long" in text
    assert "<td>13<small>" in text  # the items of a point, the one that was too long included
    assert "object at 0x" not in text
    assert [plot["title"] for plot in plots_of(text)] == ["ChrF2++, %", "NLL of the reference answer, nats per token"]
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "wrote" in capsys.readouterr().out


def plots_of(text: str) -> list[dict]:
    data = re.search(r'<script type="application/json" id="plots">(.*?)</script>', text)
    assert data is not None
    return [plot for section in json.loads(data[1]) for plot in section]


def test_a_curve_has_its_band_its_seeds_and_other_learners_dashed(tmp_path):
    score = charts.plot(curves_of(*page.load([("run", write_run(tmp_path / "run"))])).points, "score", "t")
    assert [label for _, label in score.ticks] == ["0", "4", "16"]
    mean = next(series for series in score.series if series.name == "solved <b>")
    assert mean.y == pytest.approx((0, 1 / 3, 1))
    assert all(low - 1e-9 <= y <= high + 1e-9 for low, y, high in zip(mean.low, mean.y, mean.high))
    assert [series.y for series in score.series if series.mark == "dots"] == [pytest.approx((0, 1 / 3, 1))] * 2
    assert [series.name for series in score.series if series.mark == "dashed"] == ["k-NN"]


def test_an_item_is_read_from_the_fewest_to_the_most_shots(tmp_path):
    rows, _ = page.load([("run", write_run(tmp_path / "run"))])
    found = answers.reading(rows)
    assert found.labels == (("0 shots", "4 shots", "16 shots"),)
    assert len(found.items) == 26  # 13 items, two draws of shots; no other learner's
    outcomes = [found.outcomes[item.outcome][1] for item in found.items if item.outcome >= 0]
    assert outcomes == ["fixed"] * 24
    by_id = {item.id: item for item in found.items}
    assert [attempt.status for attempt in by_id["i2"].attempts] == ["wrong", "correct", "correct"]
    assert [attempt.status for attempt in by_id["long"].attempts] == ["too long"] * 3


def test_scores_between_right_and_wrong_rise_and_fall():
    rows = [
        Row(arm="a", shots=n, seed=0, order=0, item=i, score=s)
        for i, pair in {"x": (0.2, 0.5), "y": (0.5, 0.2)}.items()
        for n, s in enumerate(pair)
    ]
    found = answers.reading(rows)
    assert [found.outcomes[item.outcome][1] for item in found.items] == ["score rose", "score fell"]
    assert found.items[0].attempts[1].status == "score 0.5"


def test_without_likelihoods_there_is_no_plot_or_column_for_them(tmp_path):
    folder = write_run(tmp_path / "run", nll=False)
    assert show.cli([str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert len(plots_of(text)) == 1
    assert ">NLL</th>" not in text


def test_several_runs_share_a_page_under_their_names(tmp_path):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b", gain=False)
    assert show.cli([f"one={first}", f"two={second}", "--out", str(tmp_path / "page.html"), "--title", "Two"]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "one: solved &lt;b&gt; gains" in text
    assert "two: solved &lt;b&gt; shows no clear change" in text


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
