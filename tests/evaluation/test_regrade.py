"""Stored answers under a second grader: which verdicts differ, and where they are kept."""

import json
from dataclasses import replace

import pytest

from posttrain import cli
from posttrain.evaluation.regrade import as_text, regrade, table
from posttrain.rollout.store import write_episodes
from posttrain.types import UnitTests, Verdict
from tests.evaluation.hand_made import each_its_problem, episode
from tests.evaluation.on_disk import put_evaluation

HALVES = [  # the reference is 7 everywhere
    episode("cw", problem="agrees", texts=["\\boxed{7}", "\\boxed{8}"]),
    episode("ww", problem="too strict", texts=["\\boxed{\\frac{14}{2}}", "\\boxed{8}"]),
    episode("cc", problem="too kind", texts=["\\boxed{70}", "The answer is 7."]),
    episode("nw", problem="silent", texts=["I do not know.", "$x = 8$"], answers=[None, "8"]),
]


def accepting(*texts: str):
    return lambda pairs: [Verdict(status="correct" if text in texts else "wrong") for _, text in pairs]


def test_the_table_counts_each_attempt_by_hand():
    rows = table(regrade(each_its_problem("cw", "wc", "cc"), accepting("It is 7.")), "other")
    assert rows["t1"] == {
        "answers": 3, "no_opinion": 0, "both_accept": 2, "stored_only": 0, "other_only": 0, "both_reject": 1,
        "accuracy_stored": 2 / 3, "accuracy_other": 2 / 3, "p_value": 1.0,
    }  # fmt: skip


def test_a_text_is_graded_once_however_often_it_stands():
    asked = []

    def counting(pairs):
        asked.extend(pairs)
        return [Verdict(status="wrong") for _ in pairs]

    regrade([episode("cc", problem="p", sample=s) for s in range(5)], counting)
    assert len(asked) == 1


def test_an_answer_without_an_opinion_of_either_is_counted_and_not_compared():
    rows = table(regrade([episode("uc"), episode("cw")], lambda pairs: [Verdict(status="wrong") for _ in pairs]), "other")
    assert rows["t1"]["no_opinion"] == 1
    assert rows["t1"]["stored_only"] == 1


@pytest.mark.parametrize("name", ["ours", "math-verify"])
def test_wrong_stored_verdicts_are_found(tmp_path, capsys, name):
    if name == "math-verify":
        pytest.importorskip("math_verify")
    folder = put_evaluation(tmp_path / "e", HALVES, "m", task={"kind": "math"})
    assert cli.main(["regrade", str(folder), "--with", name]) == 0
    said = capsys.readouterr().out
    assert "2 of 8 answers are judged differently" in said
    assert f"too strict sample 0 t1: stored wrong, {name} correct" in said
    assert f"too kind sample 0 t1: stored correct, {name} wrong" in said
    rows = [json.loads(line) for line in (folder / "verdicts" / f"{name}.jsonl").read_text().splitlines()]
    assert ("silent", 1) in [(row["problem"], row["attempt"]) for row in rows if row["status"] == "no_answer"]
    assert len(rows) == 8
    assert json.loads((folder / "verdicts" / f"{name}.provenance.json").read_text())["commit"]


def test_the_episodes_stay_as_they_are(tmp_path):
    folder = put_evaluation(tmp_path / "e", HALVES, "m", task={"kind": "math"})
    before = (folder / "episodes.jsonl").read_bytes()
    assert cli.main(["regrade", str(folder), "--with", "ours", "--json"]) == 0
    assert (folder / "episodes.jsonl").read_bytes() == before


def test_the_recorded_task_decides_how_ours_grades(tmp_path, capsys):
    folder = put_evaluation(tmp_path / "e", HALVES[:1], "m")  # sums: a boxed sum, which 7 is not
    assert cli.main(["regrade", str(folder), "--with", "ours"]) == 0
    assert "1 of 2 answers are judged differently" in capsys.readouterr().out
    file = tmp_path / "alone" / "episodes.jsonl"
    file.parent.mkdir()
    write_episodes(file, HALVES[:1])
    assert cli.main(["regrade", str(file), "--with", "ours"]) == 0
    assert "0 of 2 answers" in capsys.readouterr().out


def test_a_long_list_is_cut_and_said_so():
    text = as_text(regrade(each_its_problem(*["cc"] * 9), accepting()), "other", 4)
    assert text.count("stored correct, other wrong") == 4
    assert "... and 14 more" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--with", "ours"], "nowhere: no such file of episodes"),
        (["{code}", "--with", "math-verify"], "these answers are programs"),
        (["{run}", "--with", "ours"], "holds no episodes.jsonl; name an evaluation in it, such as {run}/eval/code"),
    ],
)
def test_a_wrong_call_is_one_clear_line(tmp_path, capsys, words, said):
    code = replace(HALVES[0], problem=replace(HALVES[0].problem, reference=UnitTests(entry_point="f", code="")))
    put_evaluation(tmp_path / "code", [code], "m")
    put_evaluation(tmp_path / "run" / "eval" / "code", [code], "m")
    places = {"code": tmp_path / "code", "run": tmp_path / "run"}
    assert cli.main(["regrade", *(word.format(**places) for word in words)]) == 2
    assert said.format(**places) in capsys.readouterr().err
