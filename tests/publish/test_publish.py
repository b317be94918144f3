"""`posttrain publish`: what it makes loads with plain transformers, peft and datasets, and its card tells what was recorded."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from datasets import load_dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain import cli
from posttrain.config import build
from posttrain.evaluation.metrics import summarise
from posttrain.evaluation.model import identity
from posttrain.publish import run as publishing
from posttrain.publish.card import lineage, method
from posttrain.publish.licences import sources_of
from posttrain.rl.score import Config, main
from posttrain.rollout.store import read_episodes
from tests.evaluation.on_disk import put_evaluation
from tests.sums_base import TASK

SAMPLING = {"max_tokens": 8, "temperature": 1.0}


def train(base: Path, out: Path, **more: object) -> Path:
    """Two steps of Stage II, and an evaluation of the result that was written by hand."""
    recipe = {"model": str(base), "task": TASK, "steps": 2, "problems_per_step": 4, "samples": 4, "bonus": 10, "kl": {"coef": [0.0, 0.0]}}
    recipe |= {"sampling": SAMPLING, "optim": {"lr": 0.01, "warmup_steps": 0}, "checkpoint": {"every": 1, "select": "last"}}
    main(build(Config, [("test", recipe | more)]), out, False)
    episodes = list(read_episodes(out / "episodes" / "step_000002.jsonl"))
    put_evaluation(out / "eval" / "held_out", episodes, identity(str(out / "model")), sampling=SAMPLING, samples=2, seed=3)
    put_evaluation(out / "eval" / "earlier", episodes, "elsewhere (weights 0123456789abcdef)")
    return out


@pytest.fixture(scope="module")
def full(sums_base, tmp_path_factory) -> Path:
    return train(sums_base, tmp_path_factory.mktemp("runs") / "full")


@pytest.fixture(scope="module")
def adapted(sums_base, tmp_path_factory) -> Path:
    return train(sums_base, tmp_path_factory.mktemp("runs") / "adapted", policy={"lora": {"rank": 4, "alpha": 8}})


@pytest.fixture(scope="module")
def published(full) -> Path:
    assert cli.main(["publish", str(full), "--license", "apache-2.0"]) == 0
    return full / "published"


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits


def test_the_folder_loads_with_plain_transformers_as_the_runs_own_model(full, published):
    theirs, ours = (AutoModelForCausalLM.from_pretrained(folder) for folder in (published, full / "model"))
    assert torch.equal(logits(theirs), logits(ours))
    assert AutoTokenizer.from_pretrained(published).chat_template
    assert not {"training.pt", "state.json"} & {path.name for path in published.iterdir()}


def test_the_adapter_loads_with_peft_on_the_base_as_the_merged_model(sums_base, adapted, tmp_path):
    assert cli.main(["publish", str(adapted), "--adapter", "--out", str(tmp_path / "a")]) == 0
    base = AutoModelForCausalLM.from_pretrained(sums_base)
    before = logits(base)
    adapter = PeftModel.from_pretrained(base, tmp_path / "a")
    merged = AutoModelForCausalLM.from_pretrained(adapted / "model")
    torch.testing.assert_close(logits(adapter), logits(merged), rtol=1e-4, atol=1e-5)
    assert (logits(adapter) - before).abs().max() > 1e-3
    assert not (tmp_path / "a" / "model.safetensors").exists()
    assert "library_name: peft" in (tmp_path / "a" / "README.md").read_text()


def test_the_episodes_load_with_datasets_as_they_were_sampled(full, published, tmp_path):
    table = load_dataset("parquet", data_files=str(published / "episodes" / "train.parquet"), split="train", cache_dir=str(tmp_path))
    kept = [episode for path in sorted((full / "episodes").glob("*.jsonl")) for episode in read_episodes(path)]
    assert [(row["problem_id"], row["sample"], row["policy_step"]) for row in table] == [
        (e.problem.id, e.sample, e.policy_step) for e in kept
    ]
    assert [[turn["text"] for turn in row["turns"]] for row in table] == [[turn.text for turn in e.turns] for e in kept]
    assert [[turn["status"] for turn in row["turns"]] for row in table] == [[turn.verdict.status for turn in e.turns] for e in kept]
    assert {path.stem for path in (published / "episodes").iterdir()} == {"train", "eval_held_out", "eval_earlier"}


def test_the_card_tells_figures_with_intervals_of_these_weights_alone(full, published):
    card = (published / "README.md").read_text()
    acc = summarise(list(read_episodes(full / "eval" / "held_out" / "episodes.jsonl"))).acc[0]
    assert f"| held_out | {100 * acc.value:.1f} [{100 * acc.low:.1f}, {100 * acc.high:.1f}] |" in card
    assert "temperature 1, seed 3 |" in card
    assert "Left out, as they are of other weights: earlier." in card


def test_the_card_tells_recipe_data_commit_versions_and_seed(full, published):
    card = (published / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head == {
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["posttrain", "score", "self-correction"],
    }
    recorded = json.loads((full / "provenance.json").read_text())
    assert f"commit {recorded['commit']}, seed 0" in card
    assert f"torch {recorded['versions']['torch']}" in card
    assert "Trained by SCoRe, Stage II (arXiv 2409.12917, Eq. 4; alpha 10), from random weights." in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0]) == yaml.safe_load((full / "config.yaml").read_text())
    assert "| all | sums: generated by posttrain | Apache-2.0 |" in card


def test_the_stages_that_led_to_a_model_are_told_in_order(sums_base, full):
    assert [folder for folder, _ in lineage(full)] == [sums_base.parent, full]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"kind": "score", "weight": [0, 1], "bonus": 0}, "Trained by SCoRe, Stage I (arXiv 2409.12917, Eq. 3)"),
        ({"kind": "score", "weight": [1, 1], "bonus": 0}, "Trained by RL on 2 attempts (arXiv 2409.12917, Eq. 2)"),
        ({"kind": "score", "weight": [1], "bonus": 0}, "Trained by single-turn RL"),
        ({"kind": "grpo"}, "Trained by GRPO (arXiv 2402.03300)"),
    ],
)
def test_a_method_is_named_by_its_numbers(recipe, said):
    assert method(recipe) == said


def test_data_sets_have_their_licence_and_unknown_ones_say_so():
    (train, test) = sources_of({"kind": "math", "sources": {"train": "mine.jsonl", "test": "hub:HuggingFaceH4/MATH-500:test"}})
    assert (train.licence, test.licence, test.hub) == ("for its owner to state", "MIT", "HuggingFaceH4/MATH-500")
    assert [source.licence for source in sources_of({"kind": "mbpp"})] == ["CC BY 4.0"] * 4
    (other,) = sources_of({"kind": "gsm8k", "sources": {"train": ["hub:a/b:main:train"]}})
    assert other.licence == "not known here: see the data set's own card"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--adapter"], "trained all weights, so there is no adapter"),
        (["--public"], "--public is for --push OWNER/NAME"),
        (["--push", "nobody"], "found 'nobody', expected OWNER/NAME"),
        (["--push", "some one/model"], "--push: Repo id must use alphanumeric chars"),
        (["--push", "some/model"], "there is no token of the hub here; run `hf auth login` or set HF_TOKEN"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(full, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert cli.main(["publish", str(full), "--out", str(tmp_path / "p"), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_and_a_folder_without_a_model_is_refused(full, published, tmp_path, capsys):
    assert cli.main(["publish", str(full)]) == 2
    assert "published: is there already; remove it or name another --out" in capsys.readouterr().err
    assert cli.main(["publish", str(tmp_path)]) == 2
    assert "has no model to publish; expected a trained run" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_is_one_line_and_the_folder_stays(published, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(publishing.PublishError, match=r"--push some/model: .*; the folder to upload is "):
        publishing.push(published, "some/model", private=True)
    assert (published / "README.md").exists()
