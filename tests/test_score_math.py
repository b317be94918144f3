"""The recipes and the suite for real data, by the commands that their READMEs give: tiny models, real vLLM, and MATH where it is there.

Nothing is changed but by `tiny.yaml` and flags. Without `shared/data` beside the checkout, the project's own problems take MATH's place;
the id of each test names the file.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain import cli
from posttrain.config import load
from posttrain.rl import score
from posttrain.rollout.store import read_episodes
from posttrain.run import read_jsonl
from posttrain.sampling.engine import open_engine
from posttrain.types import Engine, EngineError, Episode
from tests.tiny_models import make_tiny_model

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
OVERLAYS = ROOT / "recipes" / "overlays"
VISIBLE = ["--optim.lr", "0.01", "--optim.warmup_steps", "0"]  # a step that log-probabilities show, as the recipe's first ones do not


def math_file(real: str, own: str) -> Path:
    return SHARED / real if (SHARED / real).is_file() else ROOT / "data" / "fixtures" / own


TRAIN = math_file("math_train.jsonl.gz", "math_train.jsonl")
TEST = math_file("math500.jsonl", "math_test.jsonl")
on_train_file = pytest.mark.parametrize("problems", [TRAIN], ids=lambda path: path.name)
on_test_file = pytest.mark.parametrize("problems", [TEST], ids=lambda path: path.name)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory) -> Callable[[str], Path]:
    """Family -> a model of as many positions as the recipes ask of the engine."""
    made: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in made:
            made[family] = make_tiny_model(tmp_path_factory.mktemp(family), family, positions=4096)
        return made[family]

    return folder_of


def train(stage: str, model: Path, problems: Path, out: Path, *words: str, lora: bool = False) -> int:
    overlays = [OVERLAYS / "lora.yaml"] * lora + [OVERLAYS / "tiny.yaml"]
    recipe = ROOT / "recipes" / "score_math" / f"{stage}.yaml"
    files = ["--model", model, "--task.sources.train", problems, "--out", out]
    return cli.main(["train", *map(str, [recipe, *overlays, *files]), *VISIBLE, *words])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def moved(before: Path, after: Path) -> float:
    old, new = weights_of(before), weights_of(after)
    return max(float((old[name] - new[name]).abs().max()) for name in old)


def check_run(out: Path, base: Path, *, gap: float) -> list[dict]:
    """Two steps' metrics, after a look at everything that a run leaves."""
    rows = list(read_jsonl(out / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert moved(base, out / "checkpoints" / "step_000001") > 1e-3  # so step 2 was sampled from other weights than the engine started with
    assert all(row[f"train/gap_t{k}"] < gap for row in rows for k in (1, 2))
    assert (out / "model").resolve().parent == (out / "checkpoints").resolve()
    assert len(AutoTokenizer.from_pretrained(out / "model")) <= len(weights_of(out / "model")["model.embed_tokens.weight"])
    for row in rows:
        episodes = list(read_episodes(out / "episodes" / f"step_{row['step']:06d}.jsonl"))
        assert len(episodes) == 4
        for k in (1, 2):
            assert row[f"train/clip_t{k}"] == share_cut(episodes, k)
        assert all("error" in text_of(out / "model", e.turns[1].prompt_ids) for e in episodes)  # the instruction stands whole
    return rows


def share_cut(episodes: list[Episode], attempt: int) -> float:
    return sum(e.turns[attempt - 1].completion.finish == "length" for e in episodes) / len(episodes)


def text_of(folder: Path, ids: tuple[int, ...]) -> str:
    return AutoTokenizer.from_pretrained(folder).decode(list(ids))


@on_train_file
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_both_stages_train_and_vllm_follows_the_trainer_through_weight_pushes(lora, problems, model_of, no_vllm_runs, tmp_path):
    base = model_of("qwen2")
    assert train("stage1", base, problems, tmp_path / "one", lora=lora) == 0
    first = check_run(tmp_path / "one", base, gap=1e-4)
    assert abs(first[0]["train/kl_t1"]) < 1e-3  # the reference is the model itself, not yet moved
    after_one = tmp_path / "one" / "model"
    assert train("stage2", after_one, problems, tmp_path / "two", "--reference", str(base), lora=lora) == 0
    second = check_run(tmp_path / "two", after_one, gap=1e-4)
    assert second[0]["train/kl_t1"] > 0.1  # the reference is the base, not Stage I's model


@on_train_file
@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_other_architectures_tokenizers_and_templates_train_as_well(family, problems, model_of, no_vllm_runs, tmp_path):
    base = model_of(family)
    assert train("stage1", base, problems, tmp_path / "run") == 0
    check_run(tmp_path / "run", base, gap=1e-4)


@on_train_file
def test_in_the_recipes_own_precision_sampler_and_trainer_differ_by_rounding_only(problems, model_of, no_vllm_runs, tmp_path):
    base, as_written = model_of("qwen2"), ["--policy.precision", "bf16_autocast", "--policy.gradient_checkpointing", "true"]
    assert train("stage1", base, problems, tmp_path / "run", *as_written) == 0
    rows = check_run(tmp_path / "run", base, gap=0.05)
    assert rows[0]["train/gap_t1"] > 1e-4  # or it was not in bfloat16 at all


@on_test_file
def test_the_math_suite_evaluates_through_vllm_and_goes_on_with_the_same_bytes(problems, model_of, no_vllm_runs, tmp_path, capfd):
    suite = f"{ROOT}/evals/suites/math500_two_attempts.yaml"
    words = ["eval", suite, "--model", str(model_of("qwen2")), "--task.sources.test", str(problems), "--out", str(tmp_path / "out")]
    words += ["--limit", "8", "--chunk", "2", "--sampling.max_tokens", "16"]
    assert cli.main(words) == 0
    assert "Acc@t1" in capfd.readouterr().out
    whole = {name: (tmp_path / "out" / name).read_bytes() for name in ("episodes.jsonl", "summary.json")}
    episodes = list(read_episodes(tmp_path / "out" / "episodes.jsonl"))
    assert len(episodes) == min(8, len(problems.read_text().splitlines()))
    assert all(len(e.turns) == 2 and len(turn.completion.ids) <= 16 for e in episodes for turn in e.turns)
    summary = json.loads(whole["summary.json"])["summary"]
    assert summary["clip"] == [share_cut(episodes, 1), share_cut(episodes, 2)]

    (tmp_path / "out" / "episodes.jsonl").write_bytes(b"".join(whole["episodes.jsonl"].splitlines(keepends=True)[:-1]))
    (tmp_path / "out" / "summary.json").unlink()
    assert cli.main(words) == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in whole} == whole


class DiesInStep:
    """A real engine that dies while it samples the first attempts of a step."""

    def __init__(self, engine: Engine, step: int) -> None:
        self.engine, self.pushes, self.step = engine, 0, step

    def load_weights(self, weights):
        self.pushes += 1
        self.engine.load_weights(weights)

    def generate(self, prompts, sampling, seeds):
        if self.pushes == self.step:
            raise EngineError("vllm: no answer within 1800 s; the engine may be stuck")
        return self.engine.generate(prompts, sampling, seeds)

    def close(self):
        self.engine.close()


def told(capfd) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("posttrain: ")]


@on_train_file
def test_a_run_whose_engine_dies_resumes_to_the_same_bits(problems, model_of, tmp_path, monkeypatch, capfd):
    base, words = model_of("qwen2"), ["--engine.kind", "hf", "--steps", "4"]
    assert train("stage1", base, problems, tmp_path / "whole", *words) == 0
    with monkeypatch.context() as patch:
        patch.setattr(score, "open_engine", lambda *a, **options: DiesInStep(open_engine(*a, **options), step=3))
        assert train("stage1", base, problems, tmp_path / "run", *words) == 1
    (line,) = told(capfd)
    assert "step 3" in line
    assert "no answer within 1800 s" in line
    assert f"{tmp_path}/run/checkpoints/step_000002" in line
    assert train("stage1", base, problems, tmp_path / "run", *words, "--resume", "--checkpoint.keep", "3") == 0
    assert moved(tmp_path / "run" / "model", tmp_path / "whole" / "model") == 0.0
    assert train("stage1", base, problems, tmp_path / "run", *words, "--resume", "--samples", "4") == 2
    assert told(capfd)[-1].endswith("the recipe differs from the recorded one in: samples")


@on_train_file
def test_an_engine_that_cannot_start_is_one_line_and_leaves_the_folder_to_the_next_try(problems, model_of, no_vllm_runs, tmp_path, capfd):
    too_long = ["--engine.max_model_len", "100000"]
    assert train("stage1", model_of("qwen2"), problems, tmp_path / "run", *too_long) == 1
    (line,) = told(capfd)
    assert "max_model_len (100000)" in line
    assert train("stage1", model_of("qwen2"), problems, tmp_path / "run", "--engine.kind", "hf") == 0


@on_train_file
def test_a_reference_with_another_vocabulary_is_refused_before_anything_is_written(problems, model_of, tmp_path, capfd):
    other = make_tiny_model(tmp_path / "other", "qwen2", vocab=300)
    assert train("stage1", model_of("qwen2"), problems, tmp_path / "run", "--reference", str(other)) == 2
    (line,) = told(capfd)
    assert "has 300 tokens, the model's tokenizer 384" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_recipes_have_the_papers_numbers(stage):
    cfg = load(score.Config, [ROOT / "recipes" / "score_math" / f"{stage}.yaml"])
    assert (cfg.problems_per_step * cfg.samples, cfg.optim.lr, cfg.sampling.temperature, 2 * cfg.steps) == (512, 5e-6, 1.0, 3000)
    weight, bonus, coef = {"stage1": ((0, 1), 0, (0.11, 0.01)), "stage2": ((1, 1), 10, (0.01, 0.01))}[stage]
    assert (cfg.weight, cfg.bonus, cfg.kl.coef, cfg.checkpoint.select) == (weight, bonus, coef, "best")
