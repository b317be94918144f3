import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from transformers import AutoTokenizer

from posttrain.prompting.chat import eos_ids_of
from posttrain.sampling.converse import Request
from posttrain.sampling.hf import HFEngine
from posttrain.sampling.server import ServerEngine
from posttrain.types import EngineError, Sampling
from tests.sampling.openai_server import free_port
from tests.sampling.reference import forward_logprobs, load, some_prompts, worst_gap

GREEDY = Sampling(max_tokens=16, temperature=0)
SAMPLED = Sampling(max_tokens=16, temperature=1.0)


@pytest.fixture(scope="module")
def tokenizer(tiny_qwen2):
    return AutoTokenizer.from_pretrained(tiny_qwen2)


@pytest.fixture(scope="module")
def eos_ids(tiny_qwen2, tokenizer):
    return eos_ids_of(tokenizer, tiny_qwen2)


@contextmanager
def running_fake() -> Iterator["FakeServer"]:
    server = FakeServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def fake_server() -> Iterator["FakeServer"]:
    with running_fake() as server:
        yield server


@pytest.fixture
def another_server() -> Iterator["FakeServer"]:
    with running_fake() as server:
        yield server


class FakeServer(ThreadingHTTPServer):
    """A loopback endpoint that has model "m" and answers completions with `replies`, (status, body), in order, the last one for ever.

    A body of None never comes.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, dict | None]] = []
        self.num_asked = 0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "test"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.server.replies[min(self.server.num_asked, len(self.server.replies) - 1)]
        self.server.num_asked += 1
        if body is None:
            self.server.released.wait(30)
        else:
            self._reply(status, body)

    def _reply(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def answer(text: str, finish: str = "stop", **more) -> dict:
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None} | more
    return {"id": "x", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]}


def test_a_real_servers_tokens_and_log_probabilities_are_the_models(real_server, tiny_qwen2, tokenizer, eos_ids):
    engine = ServerEngine([real_server], "tiny", tokenizer, eos_ids)
    model = load(tiny_qwen2)
    prompts = some_prompts(model.config.vocab_size)
    greedy = engine.generate(prompts, GREEDY, range(7))
    assert [(c.ids, c.finish) for c in greedy] == [(c.ids, c.finish) for c in HFEngine(model, eos_ids).generate(prompts, GREEDY, range(7))]
    sampled = engine.generate(prompts, SAMPLED, range(7))
    assert worst_gap(model, prompts, greedy, 0) < 1e-4
    assert worst_gap(model, prompts, sampled) < 1e-4
    assert [c.ids for c in engine.generate(prompts, SAMPLED, range(7))] == [c.ids for c in sampled]
    assert all(c.logprobs == () for c in engine.generate(prompts, Sampling(max_tokens=4, temperature=0.7), range(7)))
    engine.close()


def test_a_real_server_ends_rows_at_our_eos_ids_and_returns_them(real_server, tokenizer):
    prompts = some_prompts(384)
    free = ServerEngine([real_server], "tiny", tokenizer, [0]).generate(prompts, GREEDY, range(7))
    eos = (free[0].ids[5], free[1].ids[9])
    for whole, cut in zip(free, ServerEngine([real_server], "tiny", tokenizer, eos).generate(prompts, GREEDY, range(7))):
        end = next((t + 1 for t, i in enumerate(whole.ids) if i in eos), None)
        assert (cut.ids, cut.finish) == (whole.ids[:end], "length" if end is None else "stop")


def test_a_real_servers_own_words_are_shown(real_server, tokenizer, eos_ids):
    with pytest.raises(EngineError, match="no model 'tinny'; it serves tiny"):
        ServerEngine([real_server], "tinny", tokenizer, eos_ids)
    with pytest.raises(EngineError, match=r"400: .*512"):
        ServerEngine([real_server], "tiny", tokenizer, eos_ids, max_length=1000).generate([(1,) * 600], GREEDY, [0])


def test_a_prompt_longer_than_the_servers_context_is_not_sent(real_server, fake_server, tokenizer, eos_ids):
    engine = ServerEngine([real_server], "tiny", tokenizer, eos_ids)
    assert engine.max_length == 512
    with pytest.raises(EngineError, match="prompt 1 has 600 tokens; their context takes 1 to 511: not sent"):
        engine.generate([(1, 2), (1,) * 600], GREEDY, [0, 1])
    unsaid = ServerEngine([fake_server.url], "m", tokenizer, eos_ids, max_length=100)
    with pytest.raises(EngineError, match="prompt 0 has 101 tokens"):
        unsaid.score([(1,) * 100], [(2,)])
    assert fake_server.num_asked == 0


def test_a_real_servers_scores_are_the_models_and_short_ones_come_from_its_cache(real_server, tiny_qwen2, tokenizer, eos_ids):
    engine, model = ServerEngine([real_server], "tiny", tokenizer, eos_ids), load(tiny_qwen2)
    (prefix,), items = some_prompts(384, (320,)), some_prompts(384, (5, 32, 31, 1, 64))
    prompts, continuations = [(*prefix, *item) for item in items], [*some_prompts(384, (1, 2, 3, 40)), ()]
    engine.generate(prompts[:1], GREEDY, [0])
    scores = engine.score(prompts, continuations)
    for prompt, continuation, found in zip(prompts, continuations, scores):
        assert found == pytest.approx(forward_logprobs(model, prompt, continuation), abs=1e-4) if continuation else found == ()
    assert engine.cached_tokens >= 6 * 320  # one request per token of the three short ones


def test_a_real_server_tells_what_it_had_cached_and_stops_at_texts(real_server, tiny_qwen2, tokenizer):
    engine = ServerEngine([real_server], "tiny", tokenizer, [0], concurrency=1)
    prefix, *items = some_prompts(370, (256, 5, 12))
    prompts = [(*prefix[::-1], *item) for item in items]
    free = engine.generate(prompts, GREEDY, [0, 0])
    assert [c.num_cached for c in free] == [0, 256]
    assert engine.cached_tokens == 256
    stop = tokenizer.decode(free[0].ids, skip_special_tokens=True)[5:8]
    stopping = Sampling(max_tokens=16, temperature=0, stop=(stop,))
    expected = HFEngine(load(tiny_qwen2), [0], tokenizer=tokenizer).generate(prompts, stopping, [0, 0])
    assert [(c.ids, c.finish) for c in engine.generate(prompts, stopping, [0, 0])] == [(c.ids, c.finish) for c in expected]


@pytest.mark.parametrize("length", [1, 200])
def test_a_server_that_cannot_score_says_what_can(length, fake_server, tokenizer, eos_ids):
    fake_server.replies = [(200, answer("5", token_ids=[3]))]
    with pytest.raises(EngineError, match=r"scoring needs vLLM's server"):
        ServerEngine([fake_server.url], "m", tokenizer, eos_ids).score([(1, 2) * 50], [(3,) * length])
    with pytest.raises(EngineError, match=r"scoring needs a server of token ids"):
        ServerEngine([fake_server.url], "m", tokenizer, eos_ids, token_ids=False).score([(1, 2)], [(3,)])


def test_text_from_a_server_without_token_ids_is_encoded_again(fake_server, tokenizer, eos_ids):
    fake_server.replies = [(200, answer("The answer is \\boxed{5}.")), (200, answer("The answer is", "length"))]
    engine = ServerEngine([fake_server.url], "m", tokenizer, eos_ids, token_ids=False, concurrency=1)
    ended, cut = engine.generate([(1, 2), (1, 2)], Sampling(max_tokens=100), [0, 1])
    assert (tokenizer.decode(ended.ids[:-1]), ended.ids[-1]) == ("The answer is \\boxed{5}.", eos_ids[0])
    assert (tokenizer.decode(cut.ids), cut.finish, cut.logprobs) == ("The answer is", "length", ())


def test_a_server_that_gives_no_ids_when_asked_for_them_is_refused_with_the_way_out(fake_server, tokenizer, eos_ids):
    fake_server.replies = [(200, answer("5"))]
    with pytest.raises(EngineError, match=r"no token ids; set engine\.token_ids to false"):
        ServerEngine([fake_server.url], "m", tokenizer, eos_ids).generate([(1, 2)], GREEDY, [0])


def test_passing_troubles_are_tried_again(fake_server, tokenizer, eos_ids):
    busy = {"error": {"message": "busy"}}
    fake_server.replies = [(429, busy), (503, busy), (200, answer("5", token_ids=[3, 4]))]
    (completion,) = ServerEngine([fake_server.url], "m", tokenizer, eos_ids, retries=2).generate([(1, 2)], GREEDY, [0])
    assert completion.ids == (3, 4)
    assert fake_server.num_asked == 3


def test_a_server_that_keeps_failing_is_quoted_and_ends_the_call_early(fake_server, tokenizer, eos_ids):
    fake_server.replies = [(500, {"error": {"message": "the cache is on fire"}})]
    engine = ServerEngine([fake_server.url], "m", tokenizer, eos_ids, retries=1, concurrency=2)
    with pytest.raises(EngineError, match=r"500: .*the cache is on fire"):
        engine.generate([(1, 2)] * 200, GREEDY, range(200))
    assert fake_server.num_asked < 20


def test_a_hanging_server_is_an_error_and_not_a_hang(fake_server, tokenizer, eos_ids):
    fake_server.replies = [(200, None)]
    engine = ServerEngine([fake_server.url], "m", tokenizer, eos_ids, timeout_s=0.5, retries=1)
    start = time.monotonic()
    with pytest.raises(EngineError, match=r"no answer within 0\.5 s, tried 2 times"):
        engine.generate([(1, 2)] * 3, GREEDY, range(3))
    assert time.monotonic() - start < 10


def test_a_dead_server_is_named(tokenizer, eos_ids):
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(EngineError, match=rf"{url}: cannot reach it .*refused.*tried 2 times"):
        ServerEngine([url], "m", tokenizer, eos_ids, retries=1)


LOGPROBS = {"text_offset": [0], "tokens": ["a"], "top_logprobs": None}
FAILURES = {
    "hangs": ((200, None), r"no answer within 1 s, tried 1 time;"),
    "breaks": ((500, {"error": {"message": "the cache is on fire"}}), r"500: .*the cache is on fire.*tried 2 times;"),
    "gives no ids": ((200, answer("5")), r"no token ids"),
    "gives no choice": ((200, {"id": "x", "object": "text_completion", "created": 0, "model": "m", "choices": []}), r"holds no choice"),
    "gives strange ids": ((200, answer("5", token_ids=[-3])), r"token ids \[-3\]; expected 1 to 16 ids"),
    "gives no numbers": (
        (200, answer("5", token_ids=[3], logprobs=LOGPROBS | {"token_logprobs": [None]})),
        r"\[None\] of 1 tokens",
    ),
    "gives too few": ((200, answer("5", token_ids=[3, 4], logprobs=LOGPROBS | {"token_logprobs": [-1.0]})), r"\[-1.0\] of 2 tokens"),
    "aborts": ((200, answer("5", "abort", token_ids=[3])), r"a row ended with 'abort'"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_rows_of_a_server_that_fails_go_to_another_and_what_it_said_is_told(
    failure, fake_server, another_server, tokenizer, eos_ids, capfd
):
    reply, said = FAILURES[failure]
    good = answer("5", token_ids=[3], logprobs=LOGPROBS | {"token_logprobs": [-1.5]})
    fake_server.replies, another_server.replies = [(200, good), reply], [(200, good)]
    engine = ServerEngine([fake_server.url, another_server.url], "m", tokenizer, eos_ids, timeout_s=1, retries=1, concurrency=2)
    completions = engine.generate([(1, 2)] * 20, GREEDY, range(20))
    assert [(c.ids, c.logprobs) for c in completions] == [((3,), (-1.5,))] * 20
    assert another_server.num_asked >= 16
    told = capfd.readouterr().err
    assert re.search(f"{fake_server.url}: .*{said}", told)
    assert told.count("out of use") == 1


def test_a_call_fails_when_no_server_is_left_with_the_words_of_each(fake_server, another_server, tokenizer, eos_ids):
    fake_server.replies = [(500, {"error": {"message": "the cache is on fire"}})]
    another_server.replies = [(503, {"error": {"message": "out of pages"}})]
    engine = ServerEngine([fake_server.url, another_server.url], "m", tokenizer, eos_ids, retries=0)
    with pytest.raises(EngineError, match=rf"{fake_server.url}: 500: .*on fire.*; server {another_server.url}: 503: .*out of pages"):
        engine.generate([(1, 2)] * 4, GREEDY, range(4))


def test_rows_are_spread_evenly(fake_server, another_server, tokenizer, eos_ids):
    fake_server.replies = another_server.replies = [(200, answer("5", token_ids=[3]))]
    engine = ServerEngine([fake_server.url, another_server.url], "m", tokenizer, eos_ids, concurrency=4)
    engine.generate([(1, 2)] * 64, GREEDY, range(64))
    assert fake_server.num_asked + another_server.num_asked == 64
    assert fake_server.num_asked >= 8
    assert another_server.num_asked >= 8


def asked_again(requests):
    def follow(ended):
        return [None if len(said) == 2 else replace(requests[i], prompt=(*requests[i].prompt, *said[0].ids)) for i, said in ended]

    return follow


def test_a_row_goes_on_while_another_has_not_begun_its_second_attempt(fake_server, tokenizer, eos_ids):
    fake_server.replies = [(200, answer("5", token_ids=[3]))]
    engine = ServerEngine([fake_server.url], "m", tokenizer, eos_ids, concurrency=2)
    requests = [Request(prompt=(1, 2), sampling=GREEDY, seed=i) for i in range(2)]
    done = threading.Event()

    def follow(ended):
        ((i, said),) = ended
        if i == 1 and len(said) == 2:
            done.set()
        assert i or done.wait(30), "row 0 waits for row 1 to end, and row 1 waits for row 0"
        return asked_again(requests)(ended)

    assert [len(said) for said in engine.converse(requests, follow)] == [2, 2]


def test_a_row_goes_on_where_it_began_and_begins_again_where_its_server_fails(fake_server, another_server, tokenizer, eos_ids):
    fake_server.replies = [(200, answer("5", token_ids=[3]))] * 8 + [(500, {"error": {"message": "the cache is on fire"}})]
    another_server.replies = [(200, answer("6", token_ids=[4]))]
    engine = ServerEngine([fake_server.url, another_server.url], "m", tokenizer, eos_ids, concurrency=2, retries=0)
    requests = [Request(prompt=(1, 2), sampling=GREEDY, seed=i) for i in range(20)]
    rows = engine.converse(requests, asked_again(requests))
    assert [len({completion.ids for completion in said}) for said in rows] == [1] * 20
    assert {said[0].ids for said in rows} == {(3,), (4,)}


def test_weights_cannot_be_pushed_to_a_server(fake_server, tokenizer, eos_ids):
    with pytest.raises(EngineError, match="opened for evaluation"):
        ServerEngine([fake_server.url], "m", tokenizer, eos_ids).load_weights(iter(()))
