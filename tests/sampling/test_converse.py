"""Rows that go on when they end: the same tokens with and without a barrier, and what is gained without one."""

from dataclasses import replace

import pytest
import torch

from posttrain.sampling.converse import Request, converse, in_rounds
from posttrain.sampling.hf import HFEngine
from posttrain.sampling.scripted import ScriptedEngine
from posttrain.types import Completion, EngineError, Sampling
from tests.sampling.reference import load, some_prompts, worst_gap

SAMPLING = Sampling(max_tokens=10, continued=True)
LAST = replace(SAMPLING, continued=False)


def opened(lengths):
    """A first request per row, of as many tokens at most."""
    prompts = some_prompts(300)[: len(lengths)]
    return [
        Request(prompt=prompt, sampling=replace(SAMPLING, max_tokens=length), seed=row)
        for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]


def again(requests, times=1):
    """Each row is asked `times` more, behind all that was said in it."""

    def follow(ended):
        return [after(requests[i], said) for i, said in ended]

    def after(request, said):
        if len(said) > times:
            return None
        prompt = request.prompt + sum(((*completion.ids, 7, 8, 9) for completion in said), ())
        return Request(prompt=prompt, sampling=LAST, seed=request.seed + 100 * len(said))

    return follow


def tokens(rows):
    return [[completion.ids for completion in said] for said in rows]


def test_rounds_ask_every_row_until_it_has_nothing_more_to_say():
    engine = ScriptedEngine(lambda prompt, seed: (seed % 50, len(prompt) % 50))
    requests = opened([10, 10, 10])
    said = in_rounds(engine, requests, lambda ended: [again(requests, i)([(i, row)])[0] for i, row in ended])
    assert [len(row) for row in said] == [1, 2, 3]
    for i, row in enumerate(said):
        assert [completion.ids[0] for completion in row] == [(i + 100 * n) % 50 for n in range(i + 1)]


def test_no_rows_are_no_conversation(vllm_for):
    for engine in (ScriptedEngine(lambda *_: ()), vllm_for("qwen2")):
        assert converse(engine, [], lambda ended: []) == []


def test_rows_that_the_next_call_goes_on_from_are_sampled_last_in_a_round():
    calls = []

    class Recorder(ScriptedEngine):
        def generate(self, prompts, sampling, seeds):
            calls.append((sampling.continued, len(prompts)))
            return super().generate(prompts, sampling, seeds)

    requests = [Request(prompt=(1,), sampling=LAST if i % 2 else SAMPLING, seed=i) for i in range(5)]
    in_rounds(Recorder(lambda *_: (1, 2)), requests, lambda ended: [None] * len(ended))
    assert calls == [(False, 2), (True, 3)]


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_vllm_says_the_same_without_a_barrier_as_in_rounds_and_as_the_hf_engine(family, vllm_for, tiny_folder):
    requests = opened([3, 30, 5, 20, 1])
    greedy = [replace(request, sampling=replace(request.sampling, temperature=0.0)) for request in requests]
    engine = vllm_for(family)
    for asked in (requests, greedy):
        assert tokens(engine.converse(asked, again(asked, 2))) == tokens(in_rounds(engine, asked, again(asked, 2)))
    model = load(tiny_folder(family))
    hf = HFEngine(model, engine.eos_ids)
    follow = lambda ended: [r and replace(r, sampling=replace(r.sampling, temperature=0.0)) for r in again(greedy)(ended)]  # noqa: E731
    assert tokens(engine.converse(greedy, follow)) == tokens(converse(hf, greedy, follow))


def test_vllm_takes_fewer_steps_without_a_barrier(vllm_for, monkeypatch):
    """One row has a long first attempt, the others long second ones: together they take about half as many steps as one after the other."""
    engine, steps = vllm_for("qwen2"), []
    step = engine._llm.llm_engine.step
    monkeypatch.setattr(engine._llm.llm_engine, "step", lambda: steps.append(1) or step())
    requests = opened([60, 2, 2, 2])

    def follow(ended):
        long = lambda i: Sampling(max_tokens=2 if i == 0 else 60)  # noqa: E731
        return [None if len(said) == 2 else Request(prompt=requests[i].prompt, sampling=long(i), seed=i) for i, said in ended]

    monkeypatch.setattr(engine, "eos_ids", (383,))  # rows end at their limits, but for one draw in 384
    said = engine.converse(requests, follow)
    assert [len(row) for row in said] == [2] * 4
    without, none = len(steps), lambda ended: [None] * len(ended)
    steps.clear()
    engine.converse(requests, none)
    engine.converse([request for request in follow([(i, said[i][:1]) for i in range(4)]) if request], none)
    assert without < 0.7 * len(steps)


def test_a_later_request_that_vllm_cannot_take_is_named_and_leaves_nothing_behind(vllm_for):
    engine, requests = vllm_for("qwen2"), opened([2, 50])
    with pytest.raises(EngineError, match="prompt 0 holds id 999, the model has 384"):
        engine.converse(requests, lambda ended: [Request(prompt=(999,), sampling=LAST, seed=0) for _ in ended])
    assert not engine._llm.llm_engine.has_unfinished_requests()
    assert [len(said) for said in engine.converse(requests, again(requests))] == [2, 2]


def test_completions_have_the_log_probabilities_of_a_plain_forward_pass(vllm_for, tiny_qwen2):
    requests = opened([4, 9, 2])
    said = vllm_for("qwen2").converse(requests, again(requests))
    prompts = [(*request.prompt, *row[0].ids, 7, 8, 9) for request, row in zip(requests, said)]
    with torch.no_grad():
        assert worst_gap(load(tiny_qwen2), prompts, [row[1] for row in said]) < 1e-4
    assert all(isinstance(completion, Completion) for row in said for completion in row)
