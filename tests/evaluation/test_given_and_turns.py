"""The page's parts on given first attempts, and on more than two attempts."""

import pytest

from posttrain import cli
from posttrain.evaluation import given, turns
from posttrain.evaluation.metrics import summarise
from posttrain.evaluation.rows import load_rows, sources
from tests.evaluation.hand_made import each_its_problem, episode
from tests.evaluation.on_disk import put_evaluation, put_run, steps

OWN, GIVEN = ["cc"] * 6 + ["wc"] * 1 + ["ww"] * 5, ["cc"] * 2 + ["wc"] * 6 + ["ww"] * 4


@pytest.fixture
def run(tmp_path):
    """One model, evaluated on its own first attempts and on the base's."""
    folder = put_run(tmp_path / "sft", {"kind": "score", "model": "m", "seed": 0}, steps(3))
    put_evaluation(folder / "eval" / "own", each_its_problem(*OWN), "sft/model (weights abc)")
    put_evaluation(folder / "eval" / "given", each_its_problem(*GIVEN), "sft/model (weights abc)", first_attempts="base/episodes.jsonl")
    return folder


def test_a_model_is_paired_with_itself_on_given_attempts(run):
    pair = given.pairs(sources([str(run)], "own"))[0]
    assert (pair.name, pair.own.delta.value, pair.given.delta.value) == ("sft", pytest.approx(1 / 12), pytest.approx(6 / 12))
    assert pair.difference.value == pytest.approx(-5 / 12)
    assert (pair.own.fix_rate.value, pair.given.fix_rate.value) == (pytest.approx(1 / 6), pytest.approx(6 / 10))


def test_a_pair_is_of_the_problems_that_both_evaluations_hold(run):
    put_evaluation(run / "eval" / "given", each_its_problem(*GIVEN[:8]), "sft/model (weights abc)", first_attempts="base/episodes.jsonl")
    pair = given.pairs(sources([str(run)], "own"))[0]
    assert (pair.own.problems, pair.own.delta.value, pair.given.delta.value) == (8, pytest.approx(1 / 8), pytest.approx(6 / 8))
    assert pair.difference.value == pytest.approx(-5 / 8)


def test_other_weights_another_task_or_self_refine_are_no_pair(run):
    for number, change in enumerate([{"model": "sft/model (weights xyz)"}, {"task": {"kind": "math"}}, {"method": "self_refine"}]):
        folder = run.parent / f"other{number}"
        put_evaluation(folder, each_its_problem(*OWN), **{"model": "sft/model (weights abc)", **change})
        assert given.pairs(sources([str(folder), f"given={run}/eval/given"], None)) == []


def test_a_row_on_given_attempts_stands_in_the_table_only_where_it_has_no_pair(run):
    own, fixed = f"own={run}/eval/own", f"fixed={run}/eval/given"
    assert [source.name for source in given.without_pairs(sources([own, fixed], None))] == ["own"]
    assert [source.name for source in given.without_pairs(sources([fixed], None))] == ["fixed"]


def test_a_seed_without_a_pair_takes_the_whole_row_out(run):
    again = put_run(run.parent / "again", {"kind": "score", "model": "m", "seed": 1}, steps(3))
    put_evaluation(again / "eval" / "own", each_its_problem(*OWN), "again/model (weights def)")
    assert given.pairs(sources([f"M={run}", f"M={again}"], "own")) == []


def test_the_command_shows_both(run, capsys):
    assert cli.main(["report", str(run), "--suite", "own"]) == 0
    told = capsys.readouterr().out
    assert "On own and on given attempts:" in told
    page = (run / "report_own.html").read_text()
    assert "Own first attempts and given ones" in page
    assert "−41.7" in page


def test_ten_attempts_are_shown_one_by_one():
    rows = [
        ("Long", summarise([episode("w" * i + "c" * (10 - i), problem=f"p{i}") for i in range(8)])),
        ("Short", summarise(each_its_problem("cw"))),
    ]
    section = turns.as_section(rows)
    assert [name for name, _ in section.rows] == ["Long"]
    assert section.head == ("Model", *(f"Acc@t{k}" for k in range(1, 11)))
    assert [cell.value for cell in section.rows[0][1]][:3] == ["12.5", "25.0", "37.5"]
    assert section.plots[0].series[0].y[:3] == (0.125, 0.25, 0.375)
    assert len(section.plots[0].x) == 10
    assert turns.as_section(rows[1:]) is None


def test_the_command_reports_an_evaluation_of_ten_attempts(tmp_path, capsys):
    put_evaluation(tmp_path / "ten", [episode("w" * i + "c" * (10 - i), problem=f"p{i}") for i in range(8)], "m", attempts=10)
    assert cli.main(["report", str(tmp_path / "ten"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Accuracy by attempt" in page
    assert "Acc@t10" in page
    assert load_rows(sources([str(tmp_path / "ten")], None))[0].how["attempts"] == 10
