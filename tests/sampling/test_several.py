"""Several servers of one model answer as one does, each its share."""

import threading

import pytest

from posttrain.sampling.engine import ServerEngineConfig
from posttrain.sampling.scripted import ScriptedEngine
from posttrain.sampling.several import SeveralServers
from posttrain.types import EngineError, Sampling

DRAWN = Sampling(max_tokens=4)


class Counting(ScriptedEngine):
    """Stands for one server: answers with the prompt and its seed, and counts its rows."""

    def __init__(self, max_length: int = 64) -> None:
        super().__init__(lambda prompt, seed: (*prompt, seed, 9), max_length)
        self.rows, self.cached_tokens, self.closed = 0, 3, False

    def generate(self, prompts, sampling, seeds):
        self.rows += len(prompts)
        return super().generate(prompts, sampling, seeds)

    def score(self, prompts, continuations):
        return [tuple(float(sum(prompt) + token) for token in continuation) for prompt, continuation in zip(prompts, continuations)]

    def close(self):
        self.closed = True


@pytest.mark.parametrize("num", [2, 3, 5])
@pytest.mark.parametrize("rows", [0, 1, 4, 11])
def test_rows_come_back_in_order_whoever_answers(num, rows):
    servers = [Counting() for _ in range(num)]
    prompts, seeds = [(i,) for i in range(rows)], list(range(100, 100 + rows))
    several = SeveralServers(servers)
    assert several.generate(prompts, DRAWN, seeds) == Counting().generate(prompts, DRAWN, seeds)
    assert several.score(prompts, [(1, 2)] * rows) == Counting().score(prompts, [(1, 2)] * rows)
    assert max(s.rows for s in servers) - min(s.rows for s in servers) <= 1
    assert several.cached_tokens == 3 * num


def test_all_servers_are_asked_at_the_same_time():
    met = threading.Barrier(3, timeout=30)

    class Meeting(Counting):
        def generate(self, prompts, sampling, seeds):
            met.wait()
            return super().generate(prompts, sampling, seeds)

    SeveralServers([Meeting() for _ in range(3)]).generate([(1,), (2,), (3,)], DRAWN, [1, 2, 3])


def test_the_shortest_context_is_the_limit_and_the_first_failure_ends_the_call():
    class Failing(Counting):
        def generate(self, prompts, sampling, seeds):
            raise EngineError("server b: gone")

    servers = [Counting(64), Failing(32)]
    several = SeveralServers(servers)
    assert several.max_length == 32
    with pytest.raises(EngineError, match="server b: gone"):
        several.generate([(1,), (2,)], DRAWN, [1, 2])
    several.close()
    assert all(server.closed for server in servers)
    with pytest.raises(EngineError, match="cannot be pushed"):
        several.load_weights([])


def test_a_recipe_names_one_address_or_several():
    assert ServerEngineConfig(url="http://a/v1", model="m").url == "http://a/v1"
    assert ServerEngineConfig(url=["http://a/v1", "http://b/v1"], model="m").url == ("http://a/v1", "http://b/v1")
    for nothing in ("", []):
        with pytest.raises(ValueError, match="at least 1"):
            ServerEngineConfig(url=nothing, model="m")
