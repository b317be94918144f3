"""An evaluation leaves as Parquet or in lm-evaluation-harness's layout, and comes back from there."""

import hashlib
import json
from dataclasses import replace

import pytest

from posttrain import cli
from posttrain.evaluation.export import rows, write_parquet
from posttrain.evaluation.harness import read, write
from posttrain.rollout.store import read_episodes
from tests.evaluation.hand_made import each_its_problem, episode
from tests.evaluation.on_disk import put_evaluation


def with_prompts(folder, episodes, **suite):
    put_evaluation(folder, episodes, "org/model (weights 12ab)", **suite)
    (folder / "summary.json").write_text(json.dumps({"model": "org/model (weights 12ab)", "suite": "held_out"}))
    prompts = {e.problem.id: f"<user>{e.problem.question}<assistant>" for e in episodes}
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"problem": p, "prompt": text}) + "\n" for p, text in prompts.items()))
    return folder


def test_parquet_loads_with_datasets_row_by_row(tmp_path, capsys):
    from datasets import load_dataset

    episodes = [*each_its_problem("cw", "uc", "nn"), episode("cc", problem="é 漢 😀", texts=["a\nb", 'say "x"'])]
    folder = with_prompts(tmp_path / "e", episodes)
    assert cli.main(["export", str(folder), "--parquet", str(tmp_path / "e.parquet")]) == 0
    assert "8 attempts" in capsys.readouterr().out
    data = load_dataset("parquet", data_files=str(tmp_path / "e.parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(data) == list(rows(episodes, {e.problem.id: "<user>3 + 4?<assistant>" for e in episodes}))
    assert [row["correct"] for row in data] == [True, False, None, True, False, False, True, True]
    assert data[0]["completion_ids"] == [7, 7, 7]
    assert (data[0]["prompt"], data[1]["prompt"]) == ("<user>3 + 4?<assistant>", None)


def test_a_column_that_is_empty_everywhere_keeps_its_type(tmp_path):
    import pyarrow.parquet as parquet

    write_parquet(tmp_path / "e.parquet", each_its_problem("nn"), {})
    schema = parquet.read_schema(tmp_path / "e.parquet")
    assert str(schema.field("answer").type) == "string"
    assert str(schema.field("completion_logprobs").type) == "list<element: double>"


def test_lm_evals_layout_holds_a_task_per_attempt(tmp_path):
    made = [episode(m, problem=f"p{i}", sample=s) for i, each in enumerate((["cc", "wc"], ["ww", "wc"])) for s, m in enumerate(each)]
    folder = with_prompts(tmp_path / "e", made, samples=2)
    assert cli.main(["export", str(folder), "--lm-eval", str(tmp_path / "out")]) == 0
    (place,) = (tmp_path / "out").iterdir()
    assert place.name == "org__model"
    results = json.loads(next(place.glob("results_*.json")).read_text())
    assert results["results"]["held_out_t1"]["acc,none"] == 1 / 4
    assert results["results"]["held_out_t2"]["acc,none"] == 3 / 4
    assert results["n-samples"]["held_out_t1"] == {"original": 2, "effective": 2}
    first = [json.loads(line) for line in next(place.glob("samples_held_out_t1_*.jsonl")).read_text().splitlines()]
    assert [row["acc"] for row in first] == [0.5, 0.0]
    assert first[0]["resps"] == [["It is 7.", "It is 8."]]
    assert first[0]["arguments"]["gen_args_0"]["arg_0"] == "<user>3 + 4?<assistant>"
    assert first[0]["prompt_hash"] == hashlib.sha256(b"<user>3 + 4?<assistant>").hexdigest()
    second = json.loads(next(place.glob("samples_held_out_t2_*.jsonl")).read_text().splitlines()[0])
    assert second["doc"]["earlier_attempts"] == [["It is 7."], ["It is 8."]]


def test_the_standard_error_is_over_problems(tmp_path):
    made = [episode(m, problem=f"p{i}", sample=s) for i, m in enumerate("ccww") for s in range(3)]
    write.write(tmp_path, made, {}, model="m", suite="s")
    results = json.loads(next((tmp_path / "m").glob("results_*.json")).read_text())["results"]["s_t1"]
    assert results["acc_stderr,none"] == pytest.approx((0.25 / 3) ** 0.5)  # s / sqrt(4), s^2 = 1/3


def test_what_was_exported_comes_back_and_can_be_graded_and_compared(tmp_path, capsys):
    made = each_its_problem("cw", "wc", "uc", "cc")
    folder = with_prompts(tmp_path / "e", made)
    assert cli.main(["export", str(folder), "--lm-eval", str(tmp_path / "out")]) == 0
    samples = next(tmp_path.glob("out/*/samples_held_out_t1_*.jsonl"))
    assert cli.main(["import", str(samples), "--out", str(tmp_path / "back")]) == 0
    assert "held_out_t1: org/model" in capsys.readouterr().out
    back = list(read_episodes(tmp_path / "back" / "episodes.jsonl"))
    assert [(e.problem.id, e.turns[0].text, e.turns[0].verdict.correct) for e in back] == [
        (e.problem.id, e.turns[0].text, e.turns[0].verdict.correct) for e in made
    ]
    assert back[2].turns[0].verdict.status == "unscored"
    assert cli.main(["compare", str(folder), str(tmp_path / "back"), "--json"]) == 0
    (suite,) = json.loads(capsys.readouterr().out)["suites"]
    assert suite["measures"][0]["difference"]["value"] == 0.0
    assert cli.main(["regrade", str(tmp_path / "back"), "--with", "ours"]) == 0


THEIRS = {  # a row of lm-eval 0.4.13's gsm8k, shortened
    "doc_id": 0,
    "doc": {"question": "2 + 2?", "answer": "#### 4"},
    "target": "#### 4",
    "arguments": {"gen_args_0": {"arg_0": "Question: 2 + 2?\nAnswer:", "arg_1": {"until": ["Question:"]}}},
    "resps": [[" It is 4.\n#### 4"]],
    "filtered_resps": ["4"],
    "filter": "strict-match",
    "metrics": ["exact_match"],
    "doc_hash": "0",
    "prompt_hash": "0",
    "target_hash": "0",
    "exact_match": 1.0,
}


def put_rows(file, *found):
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return file


def test_rows_of_its_own_tasks_are_read(tmp_path):
    other = THEIRS | {"doc_id": 1, "doc": THEIRS["doc"] | {"question": "2 + 3?"}, "exact_match": 0.0}
    first, second = read.episodes_of(put_rows(tmp_path / "samples_gsm8k_2025.jsonl", THEIRS, other))
    assert (first.problem.id, first.problem.question, first.problem.reference.text) == ("0", "2 + 2?", "4")
    assert (first.turns[0].text, first.turns[0].answer, first.turns[0].verdict.correct) == (" It is 4.\n#### 4", "4", True)
    assert second.turns[0].verdict.why == "exact_match = 0.0"


def test_a_second_attempt_brings_its_first_along(tmp_path):
    row = THEIRS | {
        "doc": {"id": "x", "question": "?", "first_attempt": "3"},
        "metrics": ["acc_t1", "acc_t2"],
        "acc_t1": 0.0,
        "acc_t2": 1.0,
    }
    (found,) = read.episodes_of(put_rows(tmp_path / "s.jsonl", row))
    assert [(turn.text, turn.verdict.correct) for turn in found.turns] == [("3", False), (" It is 4.\n#### 4", True)]


@pytest.mark.parametrize(
    ("found", "words", "said"),
    [
        ([THEIRS, THEIRS | {"filter": "flexible-extract"}], [], "choose one of strict-match, flexible-extract with --filter"),
        ([THEIRS], ["--filter", "strict"], "--filter strict: "),
        ([THEIRS | {"metrics": ["bleu"]}], [], "choose one of bleu with --metric"),
        ([THEIRS, THEIRS], [], "samples_x_2025.jsonl:2: the document '0' stands already in "),
        ([{"filter": "none", "metrics": ["acc"], "acc": 1}], [], "samples_x_2025.jsonl:1: not a row of lm-eval's samples"),
        ([THEIRS | {"resps": [[["-0.1", "True"]]]}], [], "only tasks that generate text can be taken"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(tmp_path, capsys, found, words, said):
    file = put_rows(tmp_path / "samples_x_2025.jsonl", *found)
    assert cli.main(["import", str(file), "--out", str(tmp_path / "o"), *words]) == 2
    assert said in capsys.readouterr().err


def test_an_unfinished_evaluation_is_told(tmp_path, capsys):
    folder = put_evaluation(tmp_path / "e", each_its_problem("cc", "ww"), "m")
    (folder / "summary.json").unlink()
    assert cli.main(["export", str(folder), "--lm-eval", str(tmp_path / "o")]) == 2
    assert "it is not finished" in capsys.readouterr().err


def test_the_tasks_folder_holds_both_attempts(capsys):
    assert cli.main(["import", "--tasks"]) == 0
    folder = capsys.readouterr().out.strip()
    assert folder == str(read.TASKS)
    assert {file.name for file in read.TASKS.glob("*.yaml")} == {"posttrain_first.yaml", "posttrain_second.yaml"}


def test_a_problem_without_a_known_prompt_is_exported_all_the_same(tmp_path):
    (only,) = each_its_problem("cc")
    write.write(tmp_path, [replace(only, turns=only.turns[:1])], {}, model="m", suite="s")
    assert json.loads(next((tmp_path / "m").glob("samples_*")).read_text())["arguments"]["gen_args_0"]["arg_0"] == ""
