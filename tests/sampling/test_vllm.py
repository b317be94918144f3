import random
import re

import pytest
import torch
from transformers import AutoTokenizer

from posttrain.sampling.hf import HFEngine
from posttrain.sampling.weights import merged_weights
from posttrain.types import EngineError, Sampling
from tests.sampling.reference import FAMILIES, forward_logprobs, load, some_prompts, with_lora, worst_gap
from tests.tiny_models import CORPUS, make_tiny_model

GREEDY = Sampling(max_tokens=16, temperature=0)
SAMPLED = Sampling(max_tokens=16, temperature=1.0)
LENGTHS = (5, 40, 5, 17, 200, 41, 12)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_the_hf_engine(family, vllm_for, tiny_folder):
    engine, model = vllm_for(family), load(tiny_folder(family))
    prompts = some_prompts(model.config.vocab_size, LENGTHS)
    engine.load_weights(merged_weights(model))
    expected = HFEngine(model, engine.eos_ids).generate(prompts, GREEDY, range(7))
    found = engine.generate(prompts, GREEDY, range(7))
    assert [(c.ids, c.finish) for c in found] == [(c.ids, c.finish) for c in expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_a_plain_forward_pass_before_and_after_pushes(family, vllm_for, tiny_folder, tmp_path):
    engine = vllm_for(family, fresh=True)
    first, other = load(tiny_folder(family)), make_tiny_model(tmp_path, family, seed=1)
    all_linear = with_lora(load(other), target_modules="all-linear").eval()
    prompts = some_prompts(first.config.vocab_size, LENGTHS)
    probe = prompts[1]
    assert worst_gap(first, prompts, engine.generate(prompts, SAMPLED, range(7))) < 1e-4
    for policy in (load(other), all_linear, with_lora(first).eval()):
        engine.load_weights(merged_weights(policy))
        assert engine.probe_logprobs(probe) == pytest.approx(forward_logprobs(policy, probe[:1], probe[1:]), abs=1e-4)
        for temperature in (1.0, 0.7, 0.0):
            completions = engine.generate(prompts, Sampling(max_tokens=16, temperature=temperature), range(7))
            assert worst_gap(policy, prompts, completions, temperature) < 1e-4


def test_a_row_repeats_with_its_seed_whatever_runs_beside_it(vllm_for):
    engine = vllm_for("qwen2")
    prompts = some_prompts(engine.num_ids, LENGTHS)
    together = engine.generate(prompts, SAMPLED, range(7))
    assert [engine.generate([prompt], SAMPLED, [i])[0].ids for i, prompt in enumerate(prompts)] == [c.ids for c in together]
    assert len({c.ids for c in engine.generate([prompts[0]] * 8, SAMPLED, range(8))}) == 8


def test_many_long_seeded_prompts_at_once_are_sampled(vllm_for):
    engine = vllm_for("qwen2")
    prompts = some_prompts(engine.num_ids, (490,) * 40)  # more tokens than one step takes: none may be split
    completions = engine.generate(prompts, Sampling(max_tokens=2), range(40))
    assert completions[39].ids == engine.generate(prompts[39:], Sampling(max_tokens=2), [39])[0].ids


def test_each_of_several_eos_ids_ends_a_row_and_is_kept(vllm_for, monkeypatch):
    engine = vllm_for("qwen2")
    prompts = some_prompts(engine.num_ids, LENGTHS)
    monkeypatch.setattr(engine, "eos_ids", (0,))
    free = engine.generate(prompts, GREEDY, range(7))
    a, b = free[0].ids[5], free[1].ids[9]
    monkeypatch.setattr(engine, "eos_ids", (a, b))
    for whole, cut in zip(free, engine.generate(prompts, GREEDY, range(7))):
        end = next((t + 1 for t, i in enumerate(whole.ids) if i in (a, b)), None)
        assert (cut.ids, cut.finish) == (whole.ids[:end], "length" if end is None else "stop")


def test_a_second_turn_reads_the_first_from_the_prefix_cache_and_a_push_empties_it(vllm_for, tiny_folder):
    engine = vllm_for("qwen2")
    weights = dict(merged_weights(load(tiny_folder("qwen2"))))
    engine.load_weights(weights.items())
    (prompt,) = some_prompts(engine.num_ids, (100,))
    (first,) = engine.generate([prompt], SAMPLED, [0])
    assert engine.cached_tokens == 0
    second_prompt = (*prompt, *first.ids, 5, 6, 7)
    engine.generate([second_prompt], SAMPLED, [1])
    assert engine.cached_tokens >= 96  # whole blocks of 32
    engine.load_weights(weights.items())
    engine.generate([second_prompt], SAMPLED, [1])
    assert engine.cached_tokens == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens_per_request", [8, 512])  # the short continuations token by token, or none
def test_scores_are_those_of_a_plain_forward_pass_and_shared_prefixes_come_from_the_cache(
    family, tokens_per_request, vllm_for, tiny_folder, monkeypatch
):
    monkeypatch.setattr("posttrain.sampling.vllm.TOKENS_PER_REQUEST", tokens_per_request)
    engine, model = vllm_for(family, fresh=True), load(tiny_folder(family))
    (prefix,), items = some_prompts(engine.num_ids, (320,)), some_prompts(engine.num_ids, (5, 32, 31, 1, 64, 17, 33))
    prompts = [(*prefix, *item) for item in items] + some_prompts(engine.num_ids, (300, 7))
    continuations = some_prompts(engine.num_ids, (1, 1, 1, 2, 40, 70, 3, 8, 1))
    for _ in range(2):  # the second time the cache holds the continuations too
        scores = engine.score([*prompts, prompts[0]], [*continuations, ()])
        for prompt, continuation, found in zip(prompts, continuations, scores):
            assert found == pytest.approx(forward_logprobs(model, prompt, continuation), abs=1e-4)
        assert scores[-1] == ()
        assert engine.cached_tokens >= 7 * 320


def test_each_row_says_how_much_of_its_prompt_was_cached(vllm_for):
    engine = vllm_for("qwen2", fresh=True)
    prefix, *items = some_prompts(engine.num_ids, (320, 5, 12, 31))
    first, *others = engine.generate([(*prefix, *item) for item in items], GREEDY, range(3))
    assert first.num_cached == 0
    assert [c.num_cached for c in others] == [320, 320]
    assert engine.cached_tokens == 640


def test_a_row_ends_with_the_token_that_completes_a_stop_as_in_the_hf_engine(tiny_folder, vllm_for, running_vllm):
    from posttrain.sampling.vllm import VLLMEngine

    vllm_for("qwen2")  # skips where there is none
    running_vllm.pop("qwen2").close()
    folder = tiny_folder("qwen2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tuple(tokenizer(text)["input_ids"]) for text in CORPUS]  # no half letters, which vLLM would join
    engine = VLLMEngine(str(folder), [0], max_model_len=512, timeout_s=500, text_stops=True)
    running_vllm["stops"] = engine
    texts = [tokenizer.decode(c.ids, skip_special_tokens=True) for c in engine.generate(prompts, GREEDY, range(5))]
    letters = [re.findall(r"[ -~]{2}", text)[-1] for text in texts[:2]]  # of whole letters: half ones are decoded as it comes
    stopping = Sampling(max_tokens=16, temperature=0, stop=tuple(letters))
    found = engine.generate(prompts, stopping, range(5))
    expected = HFEngine(load(folder), [0], tokenizer=tokenizer).generate(prompts, stopping, range(5))
    assert [(c.ids, c.finish) for c in found] == [(c.ids, c.finish) for c in expected]
    assert min(len(c.ids) for c in found) < 16


def test_starting_leaves_the_process_as_it_was(vllm_for):
    set_num_threads, torch_state, python_state = torch.set_num_threads, torch.get_rng_state(), random.getstate()
    threads = torch.get_num_threads()
    import numba  # noqa: F401  # as the search for similar shots does; vLLM looks through all that is loaded

    vllm_for("qwen2", fresh=True)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert torch.set_num_threads is set_num_threads
    assert torch.get_num_threads() == threads


def test_an_engine_that_gives_no_answer_in_time_is_an_error_and_not_a_hang(vllm_for, monkeypatch):
    engine = vllm_for("qwen2")
    prompts = some_prompts(engine.num_ids, LENGTHS)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "timeout_s", 0.001)
        with pytest.raises(EngineError, match=r"no answer within 0\.001 s"):
            engine.generate(prompts, SAMPLED, range(7))
    assert len(engine.generate(prompts, SAMPLED, range(7))) == 7  # it was only slow


def test_an_engine_that_died_says_why_and_another_can_be_opened(vllm_for, tiny_folder):
    engine = vllm_for("qwen2")
    prompts = some_prompts(engine.num_ids, LENGTHS)
    weights = dict(merged_weights(load(tiny_folder("qwen2"))))
    lost = {name: tensor for name, tensor in weights.items() if "layers.1.mlp" not in name}
    with pytest.raises(EngineError, match=r"3 of \d+ weights were not pushed: model\.layers\.1\.mlp"):
        engine.load_weights(lost.items())
    with pytest.raises(EngineError, match=r"this engine is gone.*weights were not pushed"):
        engine.generate(prompts, SAMPLED, range(7))
    another = vllm_for("qwen2", fresh=True)
    assert len(another.generate(prompts, SAMPLED, range(7))) == 7


def test_what_vllm_says_when_it_fails_is_shown(vllm_for, tmp_path):
    vllm_for("qwen2")
    from posttrain.sampling.vllm import VLLMEngine

    folder = make_tiny_model(tmp_path, "qwen2")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(EngineError, match=r"vllm: .*[Hh]eader"):
        VLLMEngine(str(folder), [0], max_model_len=64)


def test_wrong_calls_say_what_is_wrong_and_do_no_harm(vllm_for):
    engine = vllm_for("qwen2")
    with pytest.raises(EngineError, match="1 prompts but 2 seeds"):
        engine.generate([(1, 2)], GREEDY, [0, 1])
    with pytest.raises(EngineError, match="prompt 0 has 512 tokens; expected 1 to 511"):
        engine.generate([(1,) * 512], GREEDY, [0])
    with pytest.raises(EngineError, match="holds id 9999, the model has 384"):
        engine.generate([(1, 9999)], GREEDY, [0])
    with pytest.raises(EngineError, match="prompt 0 has 515 tokens; expected 1 to 511"):
        engine.score([(1,) * 500], [(2,) * 15])
    with pytest.raises(EngineError, match="opened without a tokenizer, which text stops need"):
        engine.generate([(1, 2)], Sampling(max_tokens=2, stop=("x",)), [0])
    assert engine.generate([], GREEDY, []) == []
    assert len(engine.generate([(1, 2)], GREEDY, [0])) == 1
