import shutil

import pytest
import torch

from posttrain.config import ConfigError, build, config
from posttrain.sampling.engine import EngineConfig, HFEngineConfig, ServerEngineConfig, VLLMEngineConfig, open_engine
from posttrain.sampling.scripted import ScriptedEngine
from posttrain.types import EngineError, Sampling
from tests.sampling.reference import load, some_prompts, with_lora, worst_gap
from tests.tiny_models import make_tiny_model

SAMPLED = Sampling(max_tokens=8)


@config
class Recipe:
    engine: EngineConfig = HFEngineConfig()


def test_a_recipe_names_an_engine_by_its_kind():
    assert build(Recipe, [("r", {"engine": {"kind": "vllm", "max_model_len": 512}})]).engine == VLLMEngineConfig(max_model_len=512)
    with pytest.raises(ConfigError, match=r"r: engine\.max_rowz: unknown key; did you mean 'max_rows'"):
        build(Recipe, [("r", {"engine": {"kind": "hf", "max_rowz": 1}})])
    with pytest.raises(ConfigError, match=r"gpu_memory_utilization: found 2, expected a number less than or equal to 1"):
        build(Recipe, [("r", {"engine": {"kind": "vllm", "gpu_memory_utilization": 2}})])


def test_hf_samples_from_the_very_module_that_is_trained(tiny_qwen2):
    policy = load(tiny_qwen2)
    engine = open_engine(HFEngineConfig(max_rows=3), str(tiny_qwen2), eos_ids=[0], pad_id=None, dtype="float32", model=policy)
    prompts = some_prompts(policy.config.vocab_size)
    before = engine.generate(prompts, SAMPLED, range(7))
    with torch.no_grad():
        policy.model.layers[0].mlp.down_proj.weight.mul_(-1)
    after = engine.generate(prompts, SAMPLED, range(7))
    assert before != after
    assert worst_gap(policy, prompts, after) < 1e-4
    adapted = open_engine(HFEngineConfig(), str(tiny_qwen2), eos_ids=[0], pad_id=None, dtype="float32", model=with_lora(policy))
    assert len(adapted.generate(prompts, SAMPLED, range(7))) == 7


def test_hf_without_a_policy_loads_the_folder(tiny_llama):
    engine = open_engine(HFEngineConfig(), str(tiny_llama), eos_ids=[0], pad_id=0, dtype="float32")
    prompts = some_prompts(300)
    assert worst_gap(load(tiny_llama), prompts, engine.generate(prompts, SAMPLED, range(7))) < 1e-4


def test_a_tokenizer_with_more_ids_than_the_model_is_refused_at_the_start(tiny_qwen2, tmp_path):
    make_tiny_model(tmp_path / "mixed", "qwen2", vocab=300)
    shutil.copy(tiny_qwen2 / "tokenizer.json", tmp_path / "mixed")
    with pytest.raises(ConfigError, match="the tokenizer has 384 ids but the model only 300"):
        open_engine(VLLMEngineConfig(), str(tmp_path / "mixed"), eos_ids=[0], pad_id=0, dtype="float32")


def test_a_policy_with_another_vocabulary_than_the_engine_is_refused_at_the_start(tiny_qwen2, tmp_path):
    policy = load(make_tiny_model(tmp_path, "qwen2", vocab=300))
    with pytest.raises(ConfigError, match="the engine's model has 384 ids, the policy 300"):
        open_engine(VLLMEngineConfig(), str(tiny_qwen2), eos_ids=[0], pad_id=0, dtype="float32", model=policy)


def test_what_cannot_be_opened_says_so_in_one_line(tiny_qwen2, tmp_path):
    with pytest.raises(ConfigError, match="not a model folder or hub id"):
        open_engine(HFEngineConfig(), str(tmp_path / "none"), eos_ids=[0], pad_id=0, dtype="float32")
    no_key = ServerEngineConfig(url="http://127.0.0.1:1/v1", model="m", api_key_env="NO_SUCH_KEY")
    with pytest.raises(EngineError, match=r"engine\.api_key_env names NO_SUCH_KEY, but that environment variable is not set"):
        open_engine(no_key, str(tiny_qwen2), eos_ids=[0], pad_id=0, dtype="float32")


def test_a_recipe_names_one_address_or_several():
    assert ServerEngineConfig(url="http://a/v1", model="m").url == "http://a/v1"
    assert ServerEngineConfig(url=["http://a/v1", "http://b/v1"], model="m").url == ("http://a/v1", "http://b/v1")
    for nothing in ("", []):
        with pytest.raises(ValueError, match="at least 1"):
            ServerEngineConfig(url=nothing, model="m")


def test_a_scripted_engine_answers_as_written_and_cuts_at_the_limit():
    engine = ScriptedEngine(lambda prompt, seed: (*prompt, seed))
    short, long = engine.generate([(1,), (1, 2, 3)], Sampling(max_tokens=3), [7, 8])
    assert (short.ids, short.finish, short.logprobs) == ((1, 7), "stop", (0.0, 0.0))
    assert (long.ids, long.finish) == ((1, 2, 3), "length")
