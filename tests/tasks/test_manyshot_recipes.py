"""`posttrain prompt` on recipes of kind manyshot, with the fixtures and generated sums."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from posttrain.config import ConfigError
from posttrain.evaluation.prompt import cli
from posttrain.prompting.shots import PromptError

ROOT = Path(__file__).parents[2]
SUMS = {"kind": "sums", "problems": {"pick": 2, "numbers": 5, "largest": 20, "train_size": 60, "test_size": 8}}


def rows(tmp_path: Path, model: Path, recipe: dict, *flags: str) -> list[dict]:
    (tmp_path / "recipe.yaml").write_text(json.dumps({"kind": "manyshot", "task": SUMS, **recipe}))
    out = tmp_path / "prompts.jsonl"
    assert cli([str(tmp_path / "recipe.yaml"), "--model", str(model), "--out", str(out), *flags]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("recipe", [{"method": "human"}, {"method": "unsupervised"}, {"method": "human", "shape": "turns"}])
def test_the_same_seed_gives_the_same_bytes_and_larger_prompts_begin_with_smaller_ones(tmp_path, tiny_qwen2, recipe):
    asked = recipe | {"shots": [2, 8, 30], "seeds": [0, 1], "output": "ids", "items": 2}
    made = rows(tmp_path, tiny_qwen2, asked)
    first = (tmp_path / "prompts.jsonl").read_bytes()
    assert rows(tmp_path, tiny_qwen2, asked) == made
    assert (tmp_path / "prompts.jsonl").read_bytes() == first
    assert len(made) == 2 * 3 * 2
    by = {(row["seed"], row["shots"], row["item"]): row for row in made}
    for (seed, num, item), row in by.items():
        prefix = row["ids"][: row["prefix_tokens"]]
        assert by[seed, 30, item]["ids"][: len(prefix)] == prefix
        assert len(row["ids"]) == row["tokens"]
        assert len(row["provenance"]) == num


def test_the_budget_holds_for_every_item_and_is_used_up(tmp_path, tiny_qwen2):
    made = rows(tmp_path, tiny_qwen2, {"method": "human", "budget": 900, "items": None})
    assert len({row["shots"] for row in made}) == 1
    assert max(row["tokens"] for row in made) + 40 <= 900
    with pytest.raises(PromptError, match=f"{made[0]['shots'] + 1} shots need .* more than the budget of 900"):
        rows(tmp_path, tiny_qwen2, {"method": "human", "budget": 900, "items": None, "shots": [made[0]["shots"] + 1]})
    with pytest.raises(PromptError, match="a budget of 60 tokens is too small for one shot"):
        rows(tmp_path, tiny_qwen2, {"method": "human", "budget": 60})


def test_no_solution_stands_in_an_unsupervised_prompt(tmp_path, tiny_qwen2):
    text = rows(tmp_path, tiny_qwen2, {"method": "unsupervised", "shots": [40]})[0]["text"]
    assert text.count("Problem:") == 41
    assert text.count("boxed") == 1  # the instruction's


def test_a_tail_is_the_item_s_own_and_comes_from_outside_the_block(tmp_path, tiny_qwen2):
    one, other = rows(tmp_path, tiny_qwen2, {"method": "human", "shots": [10], "tail": 3, "items": 2})
    block, tail = ([entry["id"] for entry in one["provenance"] if entry["place"] == place] for place in ("block", "tail"))
    assert [entry["id"] for entry in other["provenance"]][:10] == block
    assert len(tail) == 3
    assert not set(tail) & set(block)


def test_easy_shots_come_first_among_those_that_were_drawn(tmp_path, tiny_qwen2):
    source = {"pool": str(ROOT / "data/fixtures/math_train.jsonl"), "test": str(ROOT / "data/fixtures/math_test.jsonl")}
    math = {"task": {"kind": "math", "sources": source}, "method": "human", "shots": [6], "rules": {"leaks": "drop"}}
    drawn = rows(tmp_path, tiny_qwen2, math)[0]["provenance"]
    ordered = rows(tmp_path, tiny_qwen2, math | {"order": "easy_to_hard"})[0]["provenance"]
    assert sorted(entry["id"] for entry in drawn) == sorted(entry["id"] for entry in ordered)


def test_a_subset_is_taken_as_listed(tmp_path, tiny_qwen2):
    ids = [entry["id"] for entry in rows(tmp_path, tiny_qwen2, {"method": "human", "shots": [5]})[0]["provenance"]]
    (tmp_path / "ids.txt").write_text("\n".join(reversed(ids)))
    made = rows(tmp_path, tiny_qwen2, {"method": "human", "subset": str(tmp_path / "ids.txt")})
    assert [entry["id"] for entry in made[0]["provenance"]] == ids[::-1]


def test_the_skeleton_names_counts_and_cost(tmp_path, tiny_qwen2, capsys):
    rows(tmp_path, tiny_qwen2, {"method": "human", "shots": [4], "items": 5}, "--show")
    told = capsys.readouterr().out
    assert "sums, human, seed 0, raw: 4 shots; pool: 60 of 60 shots; left out: none" in told
    assert "to read for 5 items" in told


def test_more_shots_than_the_pool_and_a_missing_template_are_refused(tmp_path, tiny_qwen2):
    with pytest.raises(PromptError, match="61 shots were asked for, but the pool has 60"):
        rows(tmp_path, tiny_qwen2, {"method": "human", "shots": [61]})
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="has no chat template"):
        rows(tmp_path, tmp_path / "bare", {"method": "human", "shots": [2], "shape": "turns"})
    with pytest.raises(ConfigError, match="needs shots or a budget"):
        rows(tmp_path, tiny_qwen2, {"method": "human"})
    with pytest.raises(ConfigError, match=r"layout.preambel: unknown key.*preamble"):
        rows(tmp_path, tiny_qwen2, {"method": "human", "shots": [2], "layout": {"preambel": "x"}})
