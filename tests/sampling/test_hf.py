import math

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from posttrain.sampling.drawing import draw, uniforms
from posttrain.sampling.hf import HFEngine
from posttrain.sampling.weights import merged_weights
from posttrain.types import EngineError, Sampling
from tests.sampling.reference import FAMILIES, forward_logprobs, load, some_prompts, with_lora, worst_gap
from tests.tiny_models import make_tiny_model

GREEDY = Sampling(max_tokens=16, temperature=0)
SAMPLED = Sampling(max_tokens=16, temperature=1.0)


@pytest.fixture(scope="module")
def model(tiny_qwen2):
    return load(tiny_qwen2)


@pytest.fixture(scope="module")
def prompts(model):
    return some_prompts(model.config.vocab_size)


@pytest.fixture(scope="module")
def engine(model):
    return HFEngine(model, model.generation_config.eos_token_id, pad_id=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers_generate(family, tiny_folder):
    model = load(tiny_folder(family))
    eos = model.generation_config.eos_token_id
    engine = HFEngine(model, eos if isinstance(eos, list) else [eos], pad_id=0)
    prompts = some_prompts(model.config.vocab_size)
    for prompt, completion in zip(prompts, engine.generate(prompts, GREEDY, range(len(prompts)))):
        plain = model.generate(torch.tensor([prompt]), max_new_tokens=GREEDY.max_tokens, do_sample=False, attention_mask=None)
        assert completion.ids == tuple(plain[0, len(prompt) :].tolist())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_log_probabilities_are_those_of_a_plain_forward_pass(family, temperature, tiny_folder):
    model = load(tiny_folder(family))
    prompts = some_prompts(model.config.vocab_size, (5, 40, 5, 17, 90, 90, 12))
    completions = HFEngine(model, [0]).generate(prompts, Sampling(max_tokens=16, temperature=temperature), range(7))
    assert worst_gap(model, prompts, completions, temperature) < 1e-4


@pytest.mark.parametrize("max_rows", [1, 7, 1000])
def test_a_draw_does_not_depend_on_how_rows_are_batched(model, engine, max_rows):
    prompts = [p for p in some_prompts(model.config.vocab_size) for _ in range(4)]
    seeds = [1000 + i for i in range(len(prompts))]
    together = engine.generate(prompts, SAMPLED, seeds)
    split = HFEngine(model, engine.eos_ids, pad_id=0, max_rows=max_rows).generate(prompts, SAMPLED, seeds)
    assert [c.ids for c in split] == [c.ids for c in together]
    assert all(a.logprobs == pytest.approx(b.logprobs, abs=1e-5) for a, b in zip(split, together))


def test_rows_keep_their_answers_when_their_order_changes(engine, prompts):
    seeds = list(range(len(prompts)))
    forwards = engine.generate(prompts, SAMPLED, seeds)
    backwards = engine.generate(prompts[::-1], SAMPLED, seeds[::-1])
    assert [c.ids for c in backwards[::-1]] == [c.ids for c in forwards]


def test_equal_prompts_with_other_seeds_get_other_answers(engine, prompts):
    answers = engine.generate([prompts[0]] * 20, SAMPLED, range(20))
    assert len({c.ids for c in answers}) == 20
    assert engine.generate([prompts[0]] * 20, SAMPLED, [7] * 20) == [engine.generate([prompts[0]] * 20, SAMPLED, [7] * 20)[0]] * 20


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_prompts_give_what_each_gives_alone(family, tiny_folder):
    model = load(tiny_folder(family))
    engine = HFEngine(model, [0], pad_id=3)
    prompts = some_prompts(model.config.vocab_size, (1, 2, 80, 33, 34))  # gemma's window is 64: padding must not push tokens out of it
    together = engine.generate(prompts, GREEDY, range(5))
    assert [c.ids for c in together] == [engine.generate([prompt], GREEDY, [0])[0].ids for prompt in prompts]
    assert worst_gap(model, prompts, together, 0) < 1e-4


def test_each_of_several_eos_ids_ends_a_row_and_is_kept(model, prompts):
    free = HFEngine(model, [0], pad_id=0).generate(prompts, GREEDY, range(len(prompts)))
    a, b = free[0].ids[5], free[1].ids[9]
    for whole, cut in zip(free, HFEngine(model, [a, b], pad_id=0).generate(prompts, GREEDY, range(len(prompts)))):
        end = next((t + 1 for t, i in enumerate(whole.ids) if i in (a, b)), None)
        assert cut.ids == whole.ids[:end]
        assert cut.finish == ("length" if end is None else "stop")
        assert len(cut.logprobs) == len(cut.ids)


def test_a_row_cut_by_max_tokens_says_length(model, prompts):
    for completion in HFEngine(model, [0]).generate(prompts, Sampling(max_tokens=3, temperature=0), range(len(prompts))):
        assert (len(completion.ids), completion.finish) == (3, "length")


def absolute_position_model(positions: int) -> torch.nn.Module:
    """GPT-2's architecture: it looks its positions up in a table, so a wrong one shows, and one past the end fails."""
    torch.manual_seed(0)
    shape = {"n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 384, "n_positions": positions, "initializer_range": 0.15}
    return AutoModelForCausalLM.from_config(GPT2Config(**shape)).eval()


def test_positions_are_counted_from_each_rows_first_token():
    model = absolute_position_model(200)
    prompts = some_prompts(384)
    assert worst_gap(model, prompts, HFEngine(model, [0]).generate(prompts, SAMPLED, range(7))) < 1e-4


def test_a_row_ends_where_the_models_positions_end():
    model = absolute_position_model(50)
    short, long, full = some_prompts(384, (4, 45, 50))
    engine = HFEngine(model, [0])
    assert [(len(c.ids), c.finish) for c in engine.generate([short, long], GREEDY, [0, 0])] == [(16, "length"), (5, "length")]
    assert [len(c.ids) for c in engine.generate([long, *[short] * 20], GREEDY, range(21))] == [5, *[16] * 20]
    with pytest.raises(EngineError, match="prompt 1 has 50 tokens; the model takes 1 to 49"):
        engine.generate([short, full], GREEDY, [0, 1])


def test_a_pad_id_that_is_an_eos_id_changes_nothing(model, prompts):
    eos = model.generation_config.eos_token_id
    seeds = range(len(prompts))
    as_eos = HFEngine(model, eos, pad_id=eos[0]).generate(prompts, SAMPLED, seeds)
    assert as_eos == HFEngine(model, eos, pad_id=9).generate(prompts, SAMPLED, seeds)


def test_rows_that_ended_are_not_computed_and_the_last_end_stops_the_loop(model, prompts):
    free = HFEngine(model, [0], pad_id=0).generate(prompts, GREEDY, range(len(prompts)))
    eos = [c.ids[3] for c in free[1:]]  # all but the first row end within 4 tokens
    rows_per_pass: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, __, kwargs: rows_per_pass.append(len(kwargs["input_ids"])), with_kwargs=True)
    done = HFEngine(model, eos, pad_id=0).generate(prompts, GREEDY, range(len(prompts)))
    hook.remove()
    assert len(rows_per_pass) == max(len(c.ids) for c in done)
    assert rows_per_pass[-1] == sum(len(c.ids) == len(rows_per_pass) for c in done)


def test_sampling_from_a_module_in_training_is_sampling_in_eval_mode_and_leaves_it_training(tiny_qwen2, engine, prompts):
    policy = AutoModelForCausalLM.from_pretrained(tiny_qwen2, dtype=torch.float32, attention_dropout=0.5)
    policy.gradient_checkpointing_enable()
    policy.train()
    policy.model.norm.eval()  # a part that its owner has frozen
    flags = [module.training for module in policy.modules()]
    shared = HFEngine(policy, engine.eos_ids, pad_id=0, shared=True)
    assert shared.generate(prompts, SAMPLED, range(7)) == engine.generate(prompts, SAMPLED, range(7))
    assert [module.training for module in policy.modules()] == flags
    policy(input_ids=torch.tensor([prompts[0]])).logits.sum().backward()
    assert all(p.grad is not None for p in policy.parameters())


def test_an_adapted_module_is_sampled_with_its_adapter(tiny_qwen2, prompts):
    policy = with_lora(load(tiny_qwen2)).eval()
    completions = HFEngine(policy, [0], shared=True).generate(prompts, SAMPLED, range(7))
    assert worst_gap(policy, prompts, completions) < 1e-4


def test_draws_invert_the_cumulative_distribution():
    logits = torch.tensor([[-math.inf, math.log(0.25), math.log(0.5), math.log(0.25), -math.inf]]).repeat(6, 1)
    almost_one = math.nextafter(1.0, 0.0)
    token, logp = draw(logits, 1.0, torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501, almost_one], dtype=torch.float64))
    assert token.tolist() == [1, 1, 2, 2, 3, 3]  # the impossible tokens at both ends are never drawn
    assert logp.exp().tolist() == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.25, 0.25])
    for width in range(2, 50):  # probabilities whose sum is a little above or below 1
        thin = torch.cat([torch.full((1, width), math.log(1 / width)), torch.tensor([[-math.inf]])], 1)
        assert draw(thin, 1.0, torch.tensor([almost_one], dtype=torch.float64))[0].item() == width - 1


def test_drawn_tokens_have_the_frequencies_of_the_softmax_at_the_temperature():
    prob = torch.tensor([0.1, 0.2, 0.7])
    uniform = torch.from_numpy(uniforms(range(40_000), 1))[:, 0]
    token, _ = draw((2 * prob.log())[None].repeat(40_000, 1), 2.0, uniform)  # logits twice as steep, at temperature 2
    found = token.bincount(minlength=3) / 40_000
    assert found.tolist() == pytest.approx(prob.tolist(), abs=0.01)  # four standard errors


def test_a_rows_uniform_numbers_do_not_depend_on_how_many_are_drawn():
    assert (uniforms([5, 6], 30)[:, :4] == uniforms([5, 6], 4)).all()


def test_probe_is_the_log_probability_of_each_token_but_the_first(model, engine, prompts):
    prompt = prompts[1]
    assert engine.probe_logprobs(prompt) == pytest.approx(forward_logprobs(model, prompt[:1], prompt[1:]), abs=1e-5)


def test_after_a_push_the_engine_samples_from_the_new_weights(tiny_qwen2, tmp_path, prompts):
    engine = HFEngine(load(tiny_qwen2), [0])
    other = load(make_tiny_model(tmp_path, "qwen2", seed=1))
    engine.load_weights(merged_weights(other))
    assert worst_gap(other, prompts, engine.generate(prompts, SAMPLED, range(7))) < 1e-4
    adapted = with_lora(other).eval()
    engine.load_weights(merged_weights(adapted))
    assert worst_gap(adapted, prompts, engine.generate(prompts, SAMPLED, range(7))) < 1e-4


def test_a_push_with_wrong_names_or_shapes_says_which(tiny_qwen2):
    engine = HFEngine(load(tiny_qwen2), [0])
    weights = dict(merged_weights(load(tiny_qwen2)))
    norm = weights.pop("model.norm.weight")
    with pytest.raises(EngineError, match=r"1 of \d+ weights were not pushed: model\.norm\.weight"):
        engine.load_weights(weights.items())
    with pytest.raises(EngineError, match=r"no weight 'model\.norm\.wait'"):
        engine.load_weights({**weights, "model.norm.wait": norm}.items())
    with pytest.raises(EngineError, match=r"shape \(63,\), expected \(64,\)"):
        engine.load_weights({**weights, "model.norm.weight": norm[:-1]}.items())


def test_wrong_calls_say_what_is_wrong(model, engine, prompts):
    with pytest.raises(EngineError, match="1 prompts but 2 seeds"):
        engine.generate(prompts[:1], GREEDY, [0, 1])
    with pytest.raises(EngineError, match="prompt 1 has 0 tokens"):
        engine.generate([prompts[0], ()], GREEDY, [0, 1])
    with pytest.raises(EngineError, match="holds id 9999, the model has 384"):
        engine.generate([(1, 9999)], GREEDY, [0])
    with pytest.raises(EngineError, match="eos ids"):
        HFEngine(model, [384])
    with pytest.raises(EngineError, match="adapter"):
        HFEngine(with_lora(AutoModelForCausalLM.from_config(model.config)), [0])
    assert engine.generate([], GREEDY, []) == []
