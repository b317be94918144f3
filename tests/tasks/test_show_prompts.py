from pathlib import Path

import pytest
from transformers import AutoTokenizer

from posttrain.config import ConfigError
from posttrain.prompting import revise
from posttrain.tasks.show import PLACEHOLDER, cli
from posttrain.types import DataError

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"


@pytest.fixture
def recipe(tmp_path) -> str:
    (tmp_path / "recipe.yaml").write_text(f"kind: score\ntask: {{kind: math, sources: {{train: {FIXTURES / 'math_train.jsonl'}}}}}\n")
    return str(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("model", ["tiny_qwen2", "tiny_llama", "tiny_gemma"])
def test_both_prompts_are_shown_as_the_model_reads_them(recipe, capsys, model, request):
    folder = request.getfixturevalue(model)
    assert cli([recipe, "--model", str(folder), "-n", "1"]) == 0
    out = capsys.readouterr().out
    assert "train/1: first prompt" in out
    assert "train/2" not in out
    assert out.count("What is the remainder when $2^{10}$ is divided by $7$?") == 2
    assert out.count(PLACEHOLDER) == 1
    assert out.index(PLACEHOLDER) < out.index(revise.MATH)
    assert "the template keeps history" in out


def test_token_counts_are_those_of_the_tokenizer(recipe, capsys, tiny_qwen2):
    cli([recipe, "--model", str(tiny_qwen2), "-n", "1"])
    shown = capsys.readouterr().out
    first = shown.split(" tokens =====\n")[1].split("\n===== train/1: second")[0]
    count = int(shown.split("train/1: first prompt, ")[1].split()[0])
    assert len(AutoTokenizer.from_pretrained(tiny_qwen2)(first, add_special_tokens=False)["input_ids"]) == count


def test_a_template_that_rewrites_history_is_refused_in_one_line(recipe, tiny_qwen2, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'].split('</think>')[-1]")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="the chat template rewrites earlier reasoning") as error:
        cli([recipe, "--model", str(tmp_path / "model")])
    assert "\n" not in str(error.value)


def test_a_model_without_template_tokenizer_or_folder_is_refused(recipe, tiny_qwen2, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="has no chat template"):
        cli([recipe, "--model", str(tmp_path / "model")])
    for absent in (str(tmp_path / "absent"), "runs/absent/model"):
        with pytest.raises(DataError, match="no such model folder; train it first"):
            cli([recipe, "--model", absent])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no tokenizer can be loaded"):
        cli([recipe, "--model", str(tmp_path / "empty")])


def test_the_number_of_problems_must_be_positive(recipe, tiny_qwen2):
    with pytest.raises(ConfigError, match="--n must be at least 1, found 0"):
        cli([recipe, "--model", str(tiny_qwen2), "-n", "0"])
