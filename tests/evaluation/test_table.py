"""The table of a study: its rows, what is tested against what, its cost, and its forms."""

import csv
import io
import math
from dataclasses import replace

import pytest

from posttrain import cli
from posttrain.config import ConfigError
from posttrain.evaluation.budget import Budget, budget_of
from posttrain.evaluation.metrics import acc_at, compare
from posttrain.evaluation.paper import PAPER_ROWS
from posttrain.evaluation.rows import find_row, load_rows, sources, study_sources
from posttrain.evaluation.seeds import measure
from posttrain.evaluation.stats import mcnemar
from posttrain.evaluation.table import as_csv, as_markdown, as_section, as_text, compare_rows, holm, make_table
from posttrain.rollout.store import read_episodes
from tests.evaluation.hand_made import each_its_problem, episode, population
from tests.evaluation.on_disk import put_evaluation, put_run, put_study, steps


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return put_study(tmp_path_factory.mktemp("study") / "bench")


@pytest.fixture(scope="module")
def rows(study):
    return load_rows(list(study_sources(study)))


def test_a_study_is_its_labelled_runs_in_all_their_seeds(study, rows):
    assert [(row.name, [seed.seed for seed in row.seeds]) for row in rows] == [
        ("Base", [0, 1, 2]),
        ("Plain RL", [0, 1, 2]),
        ("SCoRe", [0, 1, 2]),
    ]
    assert [folder.name for folder in next(s for s in study_sources(study) if s.name == "SCoRe").folders] == ["stage1", "score"]


def test_a_budget_counts_every_stage_and_not_the_base(rows):
    assert [row.budget for row in rows] == [
        Budget(),
        Budget(samples=5000, tokens=35000, updates=50),
        Budget(samples=5000, tokens=35000, updates=50),
    ]


def test_a_study_that_was_moved_still_knows_its_stages(study, tmp_path):
    moved = tmp_path / "elsewhere"
    study.rename(moved)
    try:
        assert load_rows(list(study_sources(moved)))[2].budget.updates == 50
    finally:
        moved.rename(study)


def test_a_budget_follows_checkpoints_hubs_rounds_and_given_attempts(tmp_path):
    stage1 = put_run(tmp_path / "stage1", {"kind": "score", "model": "Qwen/Qwen2.5-1.5B"}, steps(10))
    part = put_run(tmp_path / "a", {"kind": "score", "model": str(stage1 / "checkpoints" / "step_000004")}, steps(2))
    assert budget_of(part) == Budget(samples=600, tokens=4200, updates=6)
    twice = put_run(tmp_path / "b", {"kind": "think_twice", "model": str(stage1 / "model")}, steps(3, **{"train/updates": 2.0}))
    assert budget_of(twice).updates == 10 + 6
    star = put_run(tmp_path / "c", {"kind": "self_training", "model": "x", "rounds": 3, "fit": {"steps": 20}}, steps(1))
    assert budget_of(star) == Budget(samples=100, tokens=700, updates=60)
    after = put_run(tmp_path / "d", {"kind": "sft", "model": {"kind": "loaded", "name": str(star / "round_2" / "model")}, "steps": 7}, [])
    assert budget_of(after).updates == 67
    put_evaluation(tmp_path / "given", each_its_problem("cc", "wc"), "m")
    offline = {"episodes": str(tmp_path / "given" / "episodes.jsonl"), "share": 0.5}
    from_given = put_run(tmp_path / "e", {"kind": "score", "model": "m", "offline": offline}, steps(1))
    assert budget_of(from_given) == Budget(samples=102, tokens=706, updates=1)


def test_a_stage_that_is_not_there_makes_the_cost_a_lower_bound(tmp_path):
    run = put_run(tmp_path / "run", {"kind": "score", "model": "runs/gone/stage1/model", "seed": 0}, steps(5))
    put_evaluation(run / "eval" / "x", population(1, 20, acc=0.5, fix=0.3, broke=0.1, copy=0.5), "m")
    row = load_rows(sources([str(run)], None))[0]
    assert row.budget == Budget(samples=500, tokens=3500, updates=5, missing=("no run behind runs/gone/stage1/model",))
    table = make_table([row], None)
    assert "≥ 500" in as_text(table)
    assert any("run: its cost is a lower bound: no run behind runs/gone/stage1/model." in note for note in table.notes)


def test_a_log_without_counts_is_a_lower_bound_too(tmp_path):
    run = put_run(tmp_path / "run", {"kind": "grpo", "model": "owner/name"}, [{"step": 1, "train/acc_t1": 0.5}])
    assert budget_of(run) == Budget(updates=1, missing=(f"no count of samples in {run}",))


def test_a_model_evaluated_elsewhere_costs_what_its_run_did(study, tmp_path):
    model = f"{study / 'seed0' / 'score' / 'model'} (weights score0)"
    folder = put_evaluation(tmp_path / "seen", population(1, 20, acc=0.5, fix=0.3, broke=0.1, copy=0.5), model)
    assert load_rows(sources([str(folder)], None))[0].budget.updates == 50


def test_rows_of_one_seed_are_compared_by_the_exact_test_over_problems():
    first, second = each_its_problem(*["cc"] * 10, *["ww"] * 10), each_its_problem(*["cc"] * 9, "cw", *["wc"] * 7, *["ww"] * 3)
    found, p_value = compare_rows([measure(first, 0)], [measure(second, 0)], "acc_t2")
    assert found.value == pytest.approx((7 - 1) / 20)
    assert p_value == pytest.approx(mcnemar(7, 1))


def test_a_difference_of_one_seed_is_near_the_bootstraps():
    first, second = (population(seed, 400, acc=0.5, fix=0.2 + seed / 10, broke=0.1, copy=0.5, samples=2) for seed in (1, 2))
    ours, _ = compare_rows([measure(first, 0)], [measure(second, 0)], "acc_t2")
    theirs = compare(first, second, acc_at(2))
    assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high), abs=0.008)


def test_differences_are_paired_by_seed_where_the_seeds_are_the_same(study, rows):
    base, score = rows[0], rows[2]
    found, _ = compare_rows(base.seeds, score.seeds, "acc_t2")
    accs = [score.seeds[i].summary.acc[1].value - base.seeds[i].summary.acc[1].value for i in range(3)]
    assert found.value == pytest.approx(sum(accs) / 3)
    others = [replace(seed, seed=seed.seed + 10) for seed in score.seeds]
    table = make_table([base, replace(score, seeds=tuple(others))], base)
    assert any("but for SCoRe: other seeds" in note for note in table.notes)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_every_row_but_the_chosen_one_is_tested(rows):
    table = make_table(rows, find_row(rows, "Base"))
    assert list(table.differences) == ["Plain RL", "SCoRe"]
    assert table.differences["SCoRe"]["delta"].estimate.low > 0
    assert table.differences["SCoRe"]["delta"].holm >= table.differences["SCoRe"]["delta"].p_value
    assert make_table(rows, None).differences == {}


def test_a_row_on_other_problems_is_told_and_not_tested(tmp_path):
    put_evaluation(tmp_path / "a", each_its_problem("cc", "wc", "cw"), "a", samples=1)
    put_evaluation(tmp_path / "b", [episode("cc", problem=f"q{i}") for i in range(3)], "b", samples=2)
    found = load_rows(sources([str(tmp_path / "a"), str(tmp_path / "b")], None))
    table = make_table(found, found[0])
    assert table.differences == {}
    assert "b shares no problems with a, so nothing is tested." in table.notes
    assert "b was evaluated otherwise than a: samples." in table.notes
    for made in (as_text(table), as_markdown(table), as_csv(table)):
        assert "b" in made


def test_the_text_has_every_seed_then_the_rows_then_the_papers(rows):
    lines = as_text(make_table(rows, rows[0])).splitlines()
    assert [line[:32].strip() for line in lines[1:4]] == ["Base (seed 0)", "Plain RL (seed 0)", "SCoRe (seed 0)"]
    over = lines.index("Over all seeds:")
    assert [line[:32].strip() for line in lines[over + 1 : over + 4]] == ["Base", "Plain RL", "SCoRe"]
    assert lines[-len(PAPER_ROWS) :][0].startswith("Base ")
    s = rows[0].seeds[0].summary
    assert f"{100 * s.acc[0].value:7.1f}{100 * s.acc[1].value:7.1f}{100 * s.delta.value:+8.1f}" in lines[1]


def test_the_markdown_has_as_many_columns_in_every_line(rows):
    named = [replace(row, name=row.name + " | *x*") for row in rows]
    lines = as_markdown(make_table(named, named[0])).splitlines()[:5]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_the_csv_reads_back_to_the_figures(rows):
    found = list(csv.DictReader(io.StringIO(as_csv(make_table(rows, rows[0])))))
    assert [(line["row"], line["seed"]) for line in found][:4] == [("Base", "all"), ("Plain RL", "all"), ("SCoRe", "all"), ("Base", "0")]
    assert len(found) == 3 + 9
    assert float(found[2]["delta"]) == rows[2].summary.delta.value
    assert float(found[2]["delta_less_base_low"]) > 0
    assert found[2]["samples"] == "5000"
    assert not any(math.isnan(float(line["acc_t1"])) for line in found)


def test_the_section_has_a_cell_for_every_column(rows):
    for against in (rows[0], None):
        section = as_section(make_table(rows, against))
        assert {len(cells) for _, cells in section.rows} == {len(section.head) - 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{study}", "--against", "Plan RL"], "no row is called 'Plan RL'; found 'Base', 'Plain RL', 'SCoRe'; did you mean 'Plain RL'?"),
        (["X={study}"], "a study's runs have names of their own; leave out X="),
        (["{study}", "--suite", "other"], "none of this study's runs was evaluated on 'other'"),
        (["{study}/seed0/score", "{study}/seed0/score"], "is 'score' with seed 0"),
        (["{study}/nowhere"], "no such run folder"),
        (["{study}", "--scaling"], "Base: found 1 samples per problem"),
    ],
)
def test_a_wrong_call_is_one_clear_line(study, capsys, words, said):
    assert cli.main(["report", *(word.format(study=study) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_the_command_writes_the_page_and_every_form_of_the_table(study, tmp_path, capsys):
    assert cli.main(["report", str(study), "--against", "Base", "--out", str(tmp_path / "out"), "--markdown"]) == 0
    told = capsys.readouterr()
    assert told.out == (tmp_path / "out" / "table.md").read_text()
    assert "table.txt, .md and .csv" in told.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "table.csv", "table.md", "table.txt"]
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("A study", "Made by hand.", "Against Base, and at what cost", "over problems and seeds", "are of seed 0"):
        assert words in page


def test_the_files_of_another_suite_stand_beside_those_of_the_first(study, tmp_path):
    assert cli.main(["report", str(study), "--out", str(tmp_path)]) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert cli.main(["report", str(study), "--suite", "held_out", "--out", str(tmp_path)]) == 0
    assert {name: (tmp_path / name).read_bytes() for name in first} == first
    added = {path.name for path in tmp_path.iterdir()} - set(first)
    assert added == {"report_held_out.html", "table_held_out.csv", "table_held_out.md", "table_held_out.txt"}


def test_runs_of_one_name_are_seeds_of_one_row(study, capsys, tmp_path):
    words = [f"SCoRe={study}/seed{seed}/score" for seed in (2, 0)] + [f"Plain={study}/seed0/plain"]
    assert [(row.name, [seed.seed for seed in row.seeds]) for row in load_rows(sources(words, None))] == [("SCoRe", [0, 2]), ("Plain", [0])]


def test_a_broken_record_is_one_clear_line(tmp_path):
    (tmp_path / "config.yaml").write_text("kind: [")
    with pytest.raises(ConfigError, match="not a recorded recipe"):
        sources([str(tmp_path)], None)


def test_episodes_come_back_as_they_were_put(study):
    file = study / "seed0" / "base" / "eval" / "held_out" / "episodes.jsonl"
    assert len(list(read_episodes(file))) == 200


def test_a_study_that_is_not_finished_is_shown_as_far_as_it_is_and_what_lacks_is_named(tmp_path, capsys):
    folder = put_study(tmp_path / "study", num=20)
    (folder / "seed2" / "score" / "eval" / "held_out" / "summary.json").unlink()
    (folder / "seed0" / "plain" / "eval" / "held_out" / "summary.json").unlink()
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "shown")]) == 0
    lacking = "Left out, as not evaluated yet: Plain RL (seed 0); SCoRe (seed 2)."
    assert lacking in capsys.readouterr().err
    assert lacking in (tmp_path / "shown" / "report.html").read_text()
    assert [(row.name, [seed.seed for seed in row.seeds]) for row in load_rows(list(study_sources(folder)))] == [
        ("Base", [0, 1, 2]),
        ("Plain RL", [1, 2]),
        ("SCoRe", [0, 1]),
    ]
