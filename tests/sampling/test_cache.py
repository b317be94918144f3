"""A cache gives the very completions of the engine behind it, and only for the very same row."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from posttrain.config import ConfigError
from posttrain.sampling.cache import CachedEngine
from posttrain.sampling.scripted import ScriptedEngine
from posttrain.types import Completion, EngineError, Sampling

DRAWN = Sampling(max_tokens=4, temperature=0.7)
GREEDY = Sampling(max_tokens=4, temperature=0.0)
PROMPTS, SEEDS = [(1, 2), (3,), (1, 2)], [5, 6, 5]


class Counting(ScriptedEngine):
    """Answers with the prompt and its seed, and counts its rows."""

    def __init__(self, max_length: int = 64) -> None:
        super().__init__(lambda prompt, seed: (*prompt, seed % 50, 9, 9), max_length)
        self.rows = 0

    def generate(self, prompts, sampling, seeds):
        self.rows += len(prompts)
        return [
            Completion(ids=c.ids, logprobs=tuple(-0.1 / 3 * i for i in range(len(c.ids))), finish=c.finish)
            for c in super().generate(prompts, sampling, seeds)
        ]


def cached(folder, identity="m", engine=None) -> CachedEngine:
    return CachedEngine(engine or Counting(), folder / "cache.sqlite", identity)


def test_what_was_asked_once_is_not_asked_again_and_comes_back_to_the_last_bit(tmp_path):
    first = cached(tmp_path)
    made = first.generate(PROMPTS, DRAWN, SEEDS)
    assert made == Counting().generate(PROMPTS, DRAWN, SEEDS)
    first.close()
    again = cached(tmp_path)
    assert again.generate(PROMPTS, DRAWN, SEEDS) == made
    assert (again.engine.rows, again.hits, again.misses) == (0, 3, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"identity": "other weights"},
        {"engine": Counting(max_length=32)},
        {"prompts": [(1, 2, 3), (3, 3), (2, 1)]},
        {"sampling": Sampling(max_tokens=5, temperature=0.7)},
        {"sampling": Sampling(max_tokens=4, temperature=0.8)},
        {"sampling": Sampling(max_tokens=4, temperature=0.7, stop=("\n",))},
        {"seeds": [7, 8, 9]},
    ],
    ids=["weights", "context", "prompt", "max_tokens", "temperature", "stop", "seed"],
)
def test_whatever_decides_a_row_is_part_of_its_key(tmp_path, other):
    cached(tmp_path).generate(PROMPTS, DRAWN, SEEDS)
    given = {"identity": "m", "engine": Counting(), "prompts": PROMPTS, "sampling": DRAWN, "seeds": SEEDS} | other
    again = cached(tmp_path, given["identity"], given["engine"])
    again.generate(given["prompts"], given["sampling"], given["seeds"])
    assert again.hits == 0


def test_a_greedy_row_has_no_use_for_its_seed(tmp_path):
    cached(tmp_path).generate([(1, 2)], GREEDY, [1])
    again = cached(tmp_path)
    again.generate([(1, 2)], GREEDY, [2])
    assert again.hits == 1


def test_only_the_rows_that_lack_are_asked_for_and_stand_in_their_places(tmp_path):
    cached(tmp_path).generate([(1,), (3,)], DRAWN, [1, 3])
    engine = cached(tmp_path)
    found = engine.generate([(0,), (1,), (2,), (3,)], DRAWN, [0, 1, 2, 3])
    assert engine.engine.rows == 2
    assert found == Counting().generate([(0,), (1,), (2,), (3,)], DRAWN, [0, 1, 2, 3])


def test_threads_and_engines_share_one_file(tmp_path):
    engines = [cached(tmp_path) for _ in range(2)]

    def ask(i):
        return engines[i % 2].generate([(i % 7,)], DRAWN, [i % 7])[0]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(200)))
    assert found == [Counting().generate([(i % 7,)], DRAWN, [i % 7])[0] for i in range(200)]
    with sqlite3.connect(tmp_path / "cache.sqlite") as base:
        assert base.execute("SELECT count(*) FROM completions").fetchone() == (7,)


def test_a_file_that_is_no_cache_is_refused_and_weights_cannot_be_pushed(tmp_path):
    (tmp_path / "cache.sqlite").write_text("a text, and long enough to be no database " * 50)
    with pytest.raises(ConfigError, match=r"cache: .*cache\.sqlite: cannot be used"):
        cached(tmp_path)
    (tmp_path / "cache.sqlite").unlink()
    with pytest.raises(EngineError, match="weights cannot be pushed"):
        cached(tmp_path).load_weights([])
