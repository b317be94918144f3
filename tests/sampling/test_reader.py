"""Reading what prompts share once must not change what the model says: the truth is a plain forward pass per row."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from posttrain.sampling.hf import HFEngine
from posttrain.sampling.reader import PACK
from posttrain.types import EngineError, Sampling
from tests.sampling.reference import FAMILIES, forward_logprobs, load, some_prompts, with_lora, worst_gap
from tests.tiny_models import make_tiny_model

GREEDY = Sampling(max_tokens=12, temperature=0)
SAMPLED = Sampling(max_tokens=12, temperature=1.0)


def behind(prefix: tuple[int, ...], tails: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [(*prefix, *tail) for tail in tails]


def tokens_read(model: torch.nn.Module, work) -> tuple[int, object]:
    """How many tokens the model was shown while `work` ran, padding included, and what it returned."""
    shown: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, __, kwargs: shown.append(kwargs["input_ids"].numel()), with_kwargs=True)
    result = work()
    hook.remove()
    return sum(shown), result


@pytest.fixture(scope="module")
def many_shot(tiny_qwen2):
    """Two nested prefixes of 300 and 700 tokens, with ten items of 1 to 40 tokens behind each."""
    (long,), items = some_prompts(300, (700,)), some_prompts(380, (1, 5, 40, 17, 3, 9, 12, 2, 33, 8))
    return behind(long[:300], items) + behind(long, items)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_rows_behind_shared_prefixes_are_continued_as_each_is_alone(family, temperature, tiny_folder, many_shot):
    model = load(tiny_folder(family))  # gemma's window is 64: shorter than the prefixes and, with 40 tokens, than prefix and item
    sampling = Sampling(max_tokens=12, temperature=temperature)
    prompts = [tuple(i % model.config.vocab_size for i in prompt) for prompt in many_shot]
    together = HFEngine(model, [0]).generate(prompts, sampling, range(20))
    alone = [HFEngine(model, [0]).generate([prompt], sampling, [i])[0] for i, prompt in enumerate(prompts)]
    assert [c.ids for c in together] == [c.ids for c in alone]
    assert worst_gap(model, prompts, together, temperature) < 1e-4


def test_one_prefix_is_read_once_for_all_rows_and_the_counts_say_so(tiny_qwen2, many_shot):
    model = load(tiny_qwen2)
    engine = HFEngine(model, [0])
    one = Sampling(max_tokens=1)
    read, completions = tokens_read(model, lambda: engine.generate(many_shot, one, range(20)))
    items = sum(map(len, many_shot)) - 10 * 300 - 10 * 700
    assert read == 700 + items
    assert engine.cached_tokens == sum(c.num_cached for c in completions) == sum(map(len, many_shot)) - read
    again, _ = tokens_read(model, lambda: engine.generate(many_shot[10:], one, range(10)))
    assert again == items / 2  # the longer prefix is still held
    assert engine.cached_tokens == 10 * 700


def test_a_longer_prefix_is_read_from_where_the_held_one_ends(tiny_qwen2, many_shot):
    model = load(tiny_qwen2)
    engine = HFEngine(model, [0])
    engine.generate(many_shot[:10], GREEDY, range(10))
    read, grown = tokens_read(model, lambda: engine.generate(many_shot[10:], Sampling(max_tokens=1), range(10)))
    assert read == 400 + sum(map(len, many_shot[10:])) - 7000
    assert worst_gap(model, many_shot[10:], grown) < 1e-4


def test_equal_prompts_are_read_once_behind_a_prefix_too(tiny_qwen2, many_shot):
    model = load(tiny_qwen2)
    prompts = [prompt for prompt in many_shot[:4] for _ in range(3)]
    completions = HFEngine(model, [0]).generate(prompts, SAMPLED, range(12))
    assert worst_gap(model, prompts, completions) < 1e-4
    assert len({c.ids for c in completions}) == 12
    again = [len(prompt) for prompt in many_shot[:4]]
    assert [c.num_cached for c in completions[3:]] == [n for length in again[1:] for n in (300, length, length)]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_log_probabilities_of_a_plain_forward_pass(family, tiny_folder, many_shot):
    model = load(tiny_folder(family))
    num_ids = model.config.vocab_size
    prompts = [tuple(i % num_ids for i in prompt) for prompt in [*many_shot, *some_prompts(num_ids)]]
    continuations = [*some_prompts(num_ids, tuple(1 + i % 50 for i in range(26))), ()]
    scores = HFEngine(model, [0]).score(prompts, continuations)
    for prompt, continuation, found in zip(prompts[:-1], continuations, scores):
        assert found == pytest.approx(forward_logprobs(model, prompt, continuation), abs=1e-4)
    assert scores[-1] == ()


def test_scores_of_several_continuations_of_one_prompt_read_it_once(tiny_qwen2):
    model = load(tiny_qwen2)
    (prompt,), choices = some_prompts(384, (200,)), [(7,), (8, 9), (10, 11, 12)]
    engine = HFEngine(model, [0])
    read, scores = tokens_read(model, lambda: engine.score([prompt] * 3, choices))
    assert read == 199 + 1 + 2 + 3
    assert engine.cached_tokens == 2 * 199
    for choice, found in zip(choices, scores):
        assert found == pytest.approx(forward_logprobs(model, prompt, choice), abs=1e-5)


def test_more_rows_than_a_pack_holds_and_rows_longer_than_one(tiny_qwen2):
    model = load(tiny_qwen2)
    (prefix,), tails = some_prompts(384, (100,)), some_prompts(384, (PACK + 40, *[50] * 15, PACK - 1))
    prompts = behind(prefix, tails)
    continuations = some_prompts(384, (3,) * len(prompts))
    for prompt, continuation, found in zip(prompts, continuations, HFEngine(model, [0]).score(prompts, continuations)):
        assert found == pytest.approx(forward_logprobs(model, prompt, continuation), abs=1e-4)
    assert worst_gap(model, prompts, HFEngine(model, [0]).generate(prompts, SAMPLED, range(len(prompts)))) < 1e-4


def test_prefixes_and_lone_rows_longer_than_a_chunk_are_read_piece_by_piece(tiny_qwen2, monkeypatch):
    monkeypatch.setattr("posttrain.sampling.reader.CHUNK", 64)
    model = load(tiny_qwen2)
    long, lone = some_prompts(384, (300, 150))
    prompts = [*behind(long, [(1,), (2, 3)]), lone]
    widest: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, __, kwargs: widest.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    scores = HFEngine(model, [0]).score(prompts, [(5, 6)] * 3)
    hook.remove()
    assert max(widest) == 64
    for prompt, found in zip(prompts, scores):
        assert found == pytest.approx(forward_logprobs(model, prompt, (5, 6)), abs=1e-4)


def test_a_model_with_absolute_positions_or_an_adapter_shares_as_well(tiny_qwen2, many_shot):
    torch.manual_seed(0)
    shape = {"n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 384, "n_positions": 800, "initializer_range": 0.15}
    for model in (AutoModelForCausalLM.from_config(GPT2Config(**shape)).eval(), with_lora(load(tiny_qwen2)).eval()):
        engine = HFEngine(model, [0], shared=True)
        assert worst_gap(model, many_shot, engine.generate(many_shot, SAMPLED, range(20))) < 1e-4
        assert engine.cached_tokens > 0
        (found,) = engine.score(many_shot[:1], [(4, 5)])
        assert found == pytest.approx(forward_logprobs(model, many_shot[0], (4, 5)), abs=1e-4)


def test_nothing_is_held_of_weights_that_have_changed(tiny_qwen2, tmp_path, many_shot):
    from posttrain.sampling.weights import merged_weights

    engine = HFEngine(load(tiny_qwen2), [0])
    engine.generate(many_shot, GREEDY, range(20))
    other = load(make_tiny_model(tmp_path, "qwen2", seed=1))
    engine.load_weights(merged_weights(other))
    assert worst_gap(other, many_shot, engine.generate(many_shot, SAMPLED, range(20))) < 1e-4
    policy = load(tiny_qwen2)
    shared = HFEngine(policy, [0], shared=True)
    shared.generate(many_shot, GREEDY, range(20))
    with torch.no_grad():
        policy.model.layers[0].mlp.down_proj.weight.mul_(-1)
    assert worst_gap(policy, many_shot, shared.generate(many_shot, SAMPLED, range(20))) < 1e-4


def test_rows_decoded_together_are_bounded_in_tokens(tiny_qwen2, many_shot):
    model = load(tiny_qwen2)
    most: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, __, kwargs: most.append(kwargs["input_ids"].shape[0]), with_kwargs=True)
    bounded = HFEngine(model, [0], max_cache_tokens=1000).generate(many_shot, SAMPLED, range(20))
    hook.remove()
    assert max(most) == 3  # three rows of 300 tokens, or one of 700
    assert [c.ids for c in bounded] == [c.ids for c in HFEngine(model, [0]).generate(many_shot, SAMPLED, range(20))]


def test_what_does_not_fit_is_refused_before_anything_is_read(tiny_qwen2):
    engine = HFEngine(load(tiny_qwen2), [0])
    engine.max_length = 50
    with pytest.raises(EngineError, match="prompt and continuation 1 have 55 tokens together; the model takes 50"):
        engine.score([(1,) * 30, (1,) * 40], [(1,), (2,) * 15])
    with pytest.raises(EngineError, match="continuation 0 holds id 9999, the model has 384"):
        engine.score([(1, 2)], [(9999,)])


def test_a_row_ends_with_the_token_that_completes_a_stop(tiny_qwen2):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    model = load(tiny_qwen2)
    prompts = some_prompts(380)
    free = HFEngine(model, [0], pad_id=0).generate(prompts, Sampling(max_tokens=40, temperature=0), range(7))
    texts = [tokenizer.decode(c.ids, skip_special_tokens=True) for c in free]
    stops = (texts[0][6:9], texts[1][-4:-2])
    stopped = HFEngine(model, [0], pad_id=0, tokenizer=tokenizer).generate(
        prompts, Sampling(max_tokens=40, temperature=0, stop=stops), range(7)
    )
    for whole, cut in zip(free, stopped):
        text = tokenizer.decode(cut.ids, skip_special_tokens=True)
        before = tokenizer.decode(cut.ids[:-1], skip_special_tokens=True)
        assert cut.ids == whole.ids[: len(cut.ids)]
        assert any(stop in text for stop in stops) == (len(cut.ids) < len(whole.ids) or cut.finish == "stop")
        assert not any(stop in before for stop in stops)
    assert {c.finish for c in stopped} >= {"stop"}
    with pytest.raises(EngineError, match="text stops need the tokenizer"):
        HFEngine(model, [0]).generate(prompts, Sampling(max_tokens=4, stop=("x",)), range(7))
