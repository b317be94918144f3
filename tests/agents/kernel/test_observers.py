"""The n-gram against a slow twin and by hand, a compressor that forgets, a language model that reads its context."""

import copy
import random
from math import log2

import pytest
import torch

from posttrain.agents.kernel.observers import Deflate, InContext, NGram, language_model, num_bytes, replayed
from posttrain.agents.kernel.streams import noise
from tests.tiny_models import make_tiny_model


def slow_bits(history, text, order):
    """Witten and Bell's interpolation, with every count taken anew from all that was read."""
    read, bits = ["\n" + each + "\n" for each in history], 0.0
    data = "\n" + text + "\n"
    for at in range(1, len(data)):
        prob = 1 / 256
        for k in range(min(order, at) + 1):
            context = data[at - k : at]
            follow = [t[i] for t in (*read, data[:at]) for i in range(max(1, k), len(t)) if t[i - k : i] == context]
            kinds = len(set(follow))
            if kinds:
                prob = (follow.count(data[at]) + kinds * prob) / (len(follow) + kinds)
        bits -= log2(prob)
    return bits


def test_an_n_gram_codes_as_its_slow_twin():
    draws = random.Random(0)
    texts = ["".join(draws.choices("abc ", k=12)) for _ in range(6)]
    observer = NGram(3)
    for text in texts[:5]:
        observer.learn(text)
    assert observer.bits(texts[5]) == pytest.approx(slow_bits(texts[:5], texts[5], 3), rel=1e-12)
    assert observer.bits(texts[0]) == pytest.approx(slow_bits(texts[:5], texts[0], 3), rel=1e-12)


def test_a_fresh_n_gram_pays_eight_bits_and_then_half_of_what_is_left():
    # "a": no context was seen, 1/256. The end: one byte of one kind was read, so (0 + 1 * 1/256) / (1 + 1) = 1/512.
    assert NGram(2).bits("a") == pytest.approx(8 + 9)


def test_being_asked_teaches_an_n_gram_nothing():
    observer = NGram(3)
    observer.learn("to be or not to be")
    before = copy.deepcopy((observer.counts, observer.totals))
    assert observer.bits("to be") == observer.bits("to be")
    assert (observer.counts, observer.totals) == before


def test_what_was_read_costs_less():
    for observer in (NGram(), Deflate()):
        text, other = noise(2, random.Random(1))
        fresh = observer.bits(text)
        observer.learn(text)
        assert observer.bits(text) < 0.3 * fresh
        assert observer.bits(other) > 0.7 * fresh


def test_deflate_forgets_what_lies_more_than_32_kib_back():
    observer, draws = Deflate(), random.Random(2)
    first, *others = noise(1000, draws)
    observer.learn(first)
    for text in others[:100]:
        observer.learn(text)
    assert observer.bits(first) <= 8 * 8
    for text in others:
        observer.learn(text)
    assert observer.bits(first) > 8 * 25


def test_a_replay_asks_each_history_about_all_that_follows():
    texts = noise(5, random.Random(3))
    rows = replayed(NGram(2), texts, [0, 2, 4])
    assert [len(row) for row in rows] == [5, 3, 1]
    observer = NGram(2)
    for text in texts[:2]:
        observer.learn(text)
    assert rows[1] == [observer.bits(text) for text in texts[2:]]


def test_bytes_and_the_end_are_what_is_paid_for():
    assert num_bytes("é") == 3


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("observer"), "llama")


def test_a_language_model_reads_the_history_before_the_text(model_folder):
    observer = language_model(str(model_folder))
    observer.learn("first")
    observer.learn("second")
    tokenizer, ids = observer.tokenizer, [observer.tokenizer.bos_token_id]
    for text in ("first\n", "second\n", "third\n"):
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += own
    with torch.no_grad():
        logp_TV = observer.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    expected = -sum(float(logp_TV[at - 1, ids[at]]) for at in range(len(ids) - len(own), len(ids))) / 0.6931471805599453
    assert observer.bits("third") == pytest.approx(expected, rel=1e-4)


def test_a_language_model_forgets_the_oldest_texts_that_do_not_fit(model_folder):
    whole = language_model(str(model_folder))
    short = InContext(whole.model, whole.tokenizer, 24)
    for text in ("one two three four five six", "seven", "eight"):
        short.learn(text)
    for text in ("seven", "eight"):
        whole.learn(text)
    assert short.bits("nine") == pytest.approx(whole.bits("nine"), rel=1e-5)
    with pytest.raises(ValueError, match="does not fit into a context of 24"):
        short.bits("a text of very many tokens, more than there are places for in so short a context as this one is")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"cannot load '{tmp_path}'"):
        language_model(str(tmp_path))
