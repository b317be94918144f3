"""Our tasks within lm-evaluation-harness itself: the same prompts and verdicts as `posttrain eval`, the second attempt behind the first.

lm-eval is not among the project's dependencies; `make bench-lm-eval` makes an environment that has it, whose Python runs these tests.
"""

import json
from pathlib import Path

import pytest
import yaml

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: .venv/peers-lm-eval/bin/python -m pytest tests/evaluation/test_lm_eval.py")
from lm_eval.loggers import EvaluationTracker  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.utils import make_table  # noqa: E402

from posttrain import cli  # noqa: E402
from posttrain.config import load  # noqa: E402
from posttrain.evaluation.harness.read import TASKS  # noqa: E402
from posttrain.evaluation.run import evaluate_model  # noqa: E402
from posttrain.evaluation.suite import Suite  # noqa: E402
from posttrain.rollout.store import read_episodes  # noqa: E402
from tests.sums_base import TASK  # noqa: E402

ITEMS = 11


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("suite") / "s.yaml"
    file.write_text(yaml.safe_dump({"task": TASK | {"test_size": ITEMS}, "sampling": {"max_tokens": 8}, "attempts": 2, "dtype": "float32"}))
    return file


def harness(model: Path, out: Path, task: str, **metadata) -> Path:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    tracker = EvaluationTracker(output_path=str(out))
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        device="cpu",
        batch_size=4,
        tasks=[task],
        task_manager=manager,
        apply_chat_template=True,
        log_samples=True,
        evaluation_tracker=tracker,
        bootstrap_iters=0,
    )
    samples = found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=samples)
    tracker.save_results_samples(task_name=task, samples=samples[task])
    (file,) = out.rglob(f"samples_{task}_*.jsonl")
    return file


def test_both_attempts_have_the_prompts_texts_and_verdicts_of_posttrain_eval(sums_base, suite_file, tmp_path, capsys):
    evaluate_model(load(Suite, [suite_file]), "s", str(sums_base), tmp_path / "ours")
    ours = list(read_episodes(tmp_path / "ours" / "episodes.jsonl"))
    first = harness(sums_base, tmp_path / "theirs", "posttrain_first", suite=str(suite_file))
    second = harness(sums_base, tmp_path / "theirs", "posttrain_second", suite=str(suite_file), first=str(first))
    shown = {row["problem"]: row.get("prompt") for row in map(json.loads, (tmp_path / "ours" / "prompts.jsonl").read_text().splitlines())}
    for row in map(json.loads, first.read_text().splitlines()):
        assert row["arguments"]["gen_args_0"]["arg_0"] == shown[row["doc"]["id"]]
    assert cli.main(["import", str(second), "--out", str(tmp_path / "back")]) == 0
    theirs = list(read_episodes(tmp_path / "back" / "episodes.jsonl"))
    assert [[(t.text, t.verdict.correct) for t in e.turns] for e in theirs] == [
        [(t.text, t.verdict.correct) for t in e.turns] for e in ours
    ]
    assert any(turn.verdict.correct for e in ours for turn in e.turns)


def told(episodes):
    return [[(turn.text, turn.verdict.correct) for turn in episode.turns] for episode in episodes]


def test_its_own_table_reads_our_export(sums_base, suite_file, tmp_path):
    evaluate_model(load(Suite, [suite_file]), "s", str(sums_base), tmp_path / "ours")
    assert cli.main(["export", str(tmp_path / "ours"), "--lm-eval", str(tmp_path / "out")]) == 0
    results = json.loads(next(tmp_path.glob("out/*/results_*.json")).read_text())
    shown = make_table(results)
    assert "s_t1" in shown
    assert f"{results['results']['s_t2']['acc,none']:.4f}" in shown


@pytest.mark.parametrize(
    ("task", "metadata", "said"), [("posttrain_first", {}, "name a suite file"), ("posttrain_second", {"suite": ""}, "first")]
)
def test_a_task_without_its_files_says_what_to_name(suite_file, task, metadata, said):
    given = {key: str(suite_file) for key in metadata}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=given)
    with pytest.raises(ValueError, match=said):
        manager.load([task])
