"""Rows that go on from rows of the call before: what was computed is found again, and nothing else changes."""

import random
from dataclasses import replace

import pytest
import torch

from posttrain.sampling.hf import HFEngine
from posttrain.types import Completion, Sampling, TokenIds
from tests.sampling.reference import load, some_prompts, with_lora, worst_gap

FIRST = Sampling(max_tokens=12, continued=True)
SECOND = Sampling(max_tokens=12)
SEEDS = range(28)


@pytest.fixture(scope="module")
def model(tiny_qwen2):
    return load(tiny_qwen2)


def prompts_of(model: torch.nn.Module) -> list[TokenIds]:
    """Four samples of each of seven prompts."""
    return [prompt for prompt in some_prompts(model.config.vocab_size) for _ in range(4)]


def engine_of(model: torch.nn.Module, **options) -> HFEngine:
    """Many ends, so that rows end at any time."""
    return HFEngine(model, list(range(0, 370, 10)), pad_id=3, **options)


def gone_on(prompts: list[TokenIds], completions: list[Completion], seed: int = 0) -> list[TokenIds]:
    """Each row with a tail of its own length."""
    draw = random.Random(seed)
    tails = [tuple(draw.randrange(300) for _ in range(draw.randrange(1, 9))) for _ in prompts]
    return [(*prompt, *completion.ids, *tail) for prompt, completion, tail in zip(prompts, completions, tails)]


def read_before(prompts: list[TokenIds], completions: list[Completion]) -> list[int]:
    """All of a row but its last token, which was drawn and never read."""
    return [len(prompt) + len(completion.ids) - 1 for prompt, completion in zip(prompts, completions)]


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("options", [{}, {"max_rows": 3}], ids=["one batch", "many batches"])
def test_every_attempt_after_the_first_reads_only_what_is_new_and_draws_the_same(family, options, tiny_folder):
    model = load(tiny_folder(family))
    engine, fresh = engine_of(model, **options), engine_of(model)
    prompts = prompts_of(model)
    made = engine.generate(prompts, FIRST, SEEDS)
    assert len({len(completion.ids) for completion in made}) > 5  # rows ended at many times
    for sampling in (FIRST, FIRST, SECOND):
        expected = read_before(prompts, made)
        prompts = gone_on(prompts, made)
        made = engine.generate(prompts, sampling, SEEDS)
        assert [completion.num_cached for completion in made] == expected
        assert engine.cached_tokens == sum(expected)
        alone = fresh.generate(prompts, SECOND, SEEDS)
        assert [c.ids for c in made] == [c.ids for c in alone]
        assert all(a.logprobs == pytest.approx(b.logprobs, abs=2e-5) for a, b in zip(made, alone))


def test_an_adapted_module_in_training_goes_on_like_any(tiny_qwen2):
    policy = with_lora(load(tiny_qwen2)).train()
    engine = engine_of(policy, shared=True)
    prompts = prompts_of(policy)
    made = engine.generate(prompts, FIRST, SEEDS)
    prompts = gone_on(prompts, made)
    second = engine.generate(prompts, SECOND, SEEDS)
    assert all(completion.num_cached > 4 for completion in second)
    assert worst_gap(policy.eval(), prompts, second) < 1e-4


def test_rows_that_nobody_said_would_go_on_are_not_kept(model):
    engine, prompts = engine_of(model), prompts_of(model)
    first = engine.generate(prompts, SECOND, SEEDS)
    second = engine.generate(gone_on(prompts, first), SECOND, SEEDS)
    assert engine.cached_tokens < sum(read_before(prompts, first)) / 3  # a prompt that others begin with, at most
    assert second == engine_of(model).generate(gone_on(prompts, first), SECOND, SEEDS)


def test_no_kept_row_outlives_the_weights_it_was_computed_with(tiny_qwen2):
    model = load(tiny_qwen2)
    engine, prompts = engine_of(model, shared=True), prompts_of(model)
    prompts = gone_on(prompts, engine.generate(prompts, FIRST, SEEDS))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.5)  # as an optimizer would, and nobody tells the engine
    assert worst_gap(model, prompts, engine.generate(prompts, SECOND, SEEDS)) < 1e-4


def test_a_window_that_slides_over_tokens_keeps_no_row_and_draws_the_same(tiny_gemma):
    model = load(tiny_gemma)
    engine, prompts = engine_of(model), prompts_of(model)
    prompts = gone_on(prompts, engine.generate(prompts, FIRST, SEEDS))
    assert worst_gap(model, prompts, engine.generate(prompts, SECOND, SEEDS)) < 1e-4


def test_rows_that_go_on_and_rows_that_do_not_share_a_call(model):
    engine, prompts = engine_of(model), prompts_of(model)
    first = engine.generate(prompts[:8], FIRST, SEEDS[:8])
    mixed = [*gone_on(prompts[:8], first), *prompts[8:]]
    together = engine.generate(mixed, SECOND, SEEDS)
    assert [c.num_cached for c in together[:8]] == read_before(prompts[:8], first)
    assert [c.ids for c in together] == [c.ids for c in engine_of(model).generate(mixed, SECOND, SEEDS)]


def test_the_longest_of_several_kept_beginnings_is_taken(model):
    engine = engine_of(model)
    one = replace(FIRST, max_tokens=1)  # its only token is never read: what is kept is the prompt
    engine.generate([(1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5), (9,)], one, range(4))
    asked = [(1, 2, 3, 4, 6), (1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 7, 6), (1, 2, 3), (8, 9)]
    assert [completion.num_cached for completion in engine.generate(asked, SECOND, range(5))] == [4, 5, 3, 0, 0]


def test_kept_tokens_stay_within_the_bound_and_the_oldest_go_first(model):
    engine, prompts = engine_of(model, max_rows=7, max_cache_tokens=1200), prompts_of(model)
    first = engine.generate(prompts, FIRST, SEEDS)
    held = sum(block.slot_RL.numel() for block in engine._kept._blocks.values())
    assert 0 < held <= 1200
    second = engine.generate(gone_on(prompts, first), SECOND, SEEDS)
    cached = [completion.num_cached for completion in second]
    assert 0 in cached
    assert max(cached) > 40
    assert [c.ids for c in second] == [c.ids for c in engine_of(model).generate(gone_on(prompts, first), SECOND, SEEDS)]
