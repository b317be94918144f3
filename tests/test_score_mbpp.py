"""The recipes for MBPP and the suites around them, by the commands that their READMEs give: a tiny model, real execution, real MBPP.

Nothing is changed but by overlays and flags. Without `shared/data` beside the checkout, the project's own problems take MBPP's place; the
id of each test names the file.
"""

import json
import math
from pathlib import Path

import pytest

from posttrain import cli
from posttrain.config import load
from posttrain.evaluation.suite import Suite
from posttrain.rl import score
from posttrain.rollout.store import read_episodes
from posttrain.run import read_jsonl
from posttrain.tasks import make_task
from tests.grading.judges import FIXTURES, need_isolation
from tests.grading.shared_data import FOLDER
from tests.test_score_math import OVERLAYS, ROOT, VISIBLE, moved
from tests.tiny_models import make_tiny_model

REAL = FOLDER / "mbpp.jsonl.gz"
PROBLEMS = REAL if REAL.is_file() else FIXTURES / "mbpp_train.jsonl"
IDS = {"train": [601, 974], "test": [11, 510], "prompt": [1, 10], "shots": [2, 3, 4]} if REAL.is_file() else {"shots": [9001, 9003]}
on_this_file = pytest.mark.parametrize("problems", [PROBLEMS], ids=lambda path: path.name)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("qwen2"), "qwen2", positions=4096)


def flags(problems: Path, *splits: str) -> list[str]:
    """Where the splits are read from."""
    words = [word for split in splits for word in (f"--task.sources.{split}", str(problems))]
    return words + [word for split in splits if split in IDS for word in (f"--task.task_ids.{split}", str(IDS[split]))]


def in_training(problems: Path) -> list[str]:
    return ["--task.shots", str(IDS["shots"]), *flags(problems, "train", "prompt")]


def train(stage: str, model: Path, problems: Path, out: Path, *words: str, lora: bool) -> int:
    overlays = [OVERLAYS / "lora.yaml"] * lora + [OVERLAYS / "tiny.yaml"]
    files = [ROOT / "recipes" / "score_mbpp" / f"{stage}.yaml", *overlays, "--model", model, "--out", out]
    return cli.main(["train", *map(str, files), *in_training(problems), *VISIBLE, *words])


def check_run(out: Path, before: Path) -> None:
    """Two steps that moved the weights, on four episodes each, every attempt judged."""
    rows = list(read_jsonl(out / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(row[f"train/gap_t{k}"] < 1e-4 for row in rows for k in (1, 2))
    assert moved(before, out / "model") > 1e-3
    for row in rows:
        episodes = list(read_episodes(out / "episodes" / f"step_{row['step']:06d}.jsonl"))
        assert len(episodes) == 4
        assert all(turn.verdict.scored for episode in episodes for turn in episode.turns)


@on_this_file
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_both_stages_train_with_real_execution(lora, problems, base, tmp_path):
    need_isolation()
    words = ["--engine.kind", "hf"]  # vLLM under this loop is test_score_math.py's
    assert train("stage1", base, problems, tmp_path / "one", *words, lora=lora) == 0
    check_run(tmp_path / "one", base)
    after_one = tmp_path / "one" / "model"
    assert train("stage2", after_one, problems, tmp_path / "two", "--reference", str(base), *words, lora=lora) == 0
    check_run(tmp_path / "two", after_one)


@on_this_file
def test_a_reference_program_in_the_papers_form_is_right_at_either_attempt(problems):
    need_isolation()
    recipe = ROOT / "recipes" / "score_mbpp" / "stage1.yaml"
    task = make_task(load(score.Config, [recipe], in_training(problems)).task)
    problem = task.load("train")[1]
    (asked,) = task.ask(problem)
    assert asked.content.count("[DONE]") == len(IDS["shots"])
    assert asked.content.endswith("[BEGIN]\n")
    forms = [
        "{}\n[DONE]",
        "{}\n[DONE]\n\n\nYou are an expert Python programmer. Your task: ...",
        "[BEGIN]\n{}\n[DONE]",
        "```python\n{}\n```",
    ]
    texts = [form.format(problem.solution.replace("\r\n", "\n")) for form in forms]
    assert [verdict.status for verdict in task.grade([(problem, text) for text in texts])] == ["correct"] * 4
    assert len({task.answer(text) for text in texts}) == 1


@on_this_file
def test_wrong_programs_of_a_weaker_model_are_repaired_by_the_suites_own_commands(problems, base, tmp_path, capfd):
    need_isolation()
    suites = ROOT / "evals" / "suites"
    split = flags(problems, "test")
    small = ["--engine.kind", "hf", "--dtype", "float32", "--sampling.max_tokens", "8", "--limit", "40"]
    rows = tmp_path / "answers.jsonl"
    task = make_task(load(Suite, [suites / "mbpp_r.yaml"], split).task)
    first, second, *_ = task.load("test")
    wrong = '{"task_id": "%s", "solution": "def f():\\n    return 1", "passed": false}\n'
    right = '{"task_id": "%s", "solution": %s, "passed": true}\n'
    rows.write_text(wrong % first.id + wrong % first.id + right % (second.id, json.dumps(second.solution)))
    kept = tmp_path / "wrong.jsonl"
    assert cli.main(["data", "repair", str(suites / "mbpp_r.yaml"), str(rows), "--out", str(kept), *split]) == 0
    said = capfd.readouterr().out
    assert "3 of 3 labels say the same" in said
    assert "kept: 1 different wrong answers to 1 problems" in said
    words = ["--model", str(base), "--first_attempts", str(kept), "--out", str(tmp_path / "eval"), *split, *small]
    assert cli.main(["eval", str(suites / "mbpp_r.yaml"), *words]) == 0
    (episode,) = read_episodes(tmp_path / "eval" / "episodes.jsonl")
    assert (episode.problem.id, episode.turns[0].given, episode.turns[0].verdict.correct) == (first.id, True, False)
    assert "return 1" in episode.turns[0].text
    assert not episode.turns[1].given


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_recipes_have_the_papers_numbers(stage):
    cfg = load(score.Config, [ROOT / "recipes" / "score_mbpp" / f"{stage}.yaml"])
    assert (cfg.problems_per_step * cfg.samples, cfg.optim.lr, cfg.sampling.temperature, 2 * cfg.steps) == (128, 1e-5, 1.0, 1500)
    weight, bonus, coef = {"stage1": ((0, 1), 0, (0.26, 0.01)), "stage2": ((1, 1), 10, (0.01, 0.01))}[stage]
    assert (cfg.weight, cfg.bonus, cfg.kl.coef, cfg.checkpoint.select) == (weight, bonus, coef, "best")
