"""A whole run on a tiny random model: it knows nothing, so what is tested is that every item is asked once, rightly, and reported."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from posttrain.config import ConfigError, build
from posttrain.evaluation.icl.log import NAME, Row, read
from posttrain.evaluation.icl.run import Suite, run
from posttrain.types import EngineError

TASK = {"kind": "linear", "dimensions": 2, "largest": 99, "per_class": 16, "test_per_class": 6}
SUITE = {"kind": "icl", "task": TASK, "shots": [4, 0, 16], "seeds": [0, 1], "chunk": 3, "max_tokens": 2}


def suite(**more) -> Suite:
    return build(Suite, [("suite", SUITE | more)])


def told(row: Row) -> tuple:
    """What a row says, without what depends on how rows were batched."""
    return (*row.cell, row.item, row.score, row.text, row.prompt_tokens, row.nll_tokens, row.too_long, row.baseline)


@pytest.fixture(scope="module")
def finished(tiny_qwen2: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("icl") / "run"
    assert run(suite(), "lines", str(tiny_qwen2), out) == 0
    return out


def test_every_item_of_every_cell_is_asked_once_from_few_shots_to_many(finished):
    rows, costs = read(finished / NAME)
    own = [row for row in rows if not row.baseline]
    assert set(Counter((row.cell, row.item) for row in rows).values()) == {1}
    assert Counter((row.shots, row.seed) for row in own) == {(shots, seed): 12 for shots in (0, 4, 16) for seed in (0, 1)}
    assert [shots for shots, seed in dict.fromkeys((row.shots, row.seed) for row in own) if seed == 0] == [0, 4, 16]
    assert sum(cost.items for cost in costs) == len(own)


def test_the_same_items_are_asked_at_any_number_of_shots_and_new_data_comes_with_each_seed(finished):
    rows = [row for row in read(finished / NAME)[0] if not row.baseline]
    items = {(row.seed, row.shots): {r.item for r in rows if (r.seed, r.shots) == (row.seed, row.shots)} for row in rows}
    assert items[0, 0] == items[0, 4] == items[0, 16]
    assert not items[0, 0] & items[1, 0]


def test_other_learners_see_the_same_shots_and_items(finished):
    rows = [row for row in read(finished / NAME)[0] if row.baseline]
    assert {(row.arm, row.shots) for row in rows} == {
        (name, shots) for name in ("k-nearest neighbours (k=5)", "logistic regression") for shots in (4, 16)
    }
    assert sum(row.score for row in rows if row.shots == 16) / sum(row.shots == 16 for row in rows) > 0.6  # they do learn


def test_the_likelihood_of_the_reference_is_the_models(finished, tiny_qwen2):
    from transformers import AutoTokenizer

    from tests.sampling.reference import forward_logprobs, load

    tokenizer, model = AutoTokenizer.from_pretrained(tiny_qwen2), load(tiny_qwen2)
    encode = lambda text: tuple(tokenizer(text)["input_ids"])  # noqa: E731
    row = next(row for row in read(finished / NAME)[0] if row.shots == 0)
    question = row.item.partition("-")[2]
    answers = {label: -sum(forward_logprobs(model, encode(f"Input: {question}\nOutput:"), encode(f" {label}"))) for label in ("Foo", "Bar")}
    assert row.nll in [pytest.approx(nll, abs=1e-3) for nll in answers.values()]


def test_a_second_call_asks_nothing_and_says_the_same(finished, tiny_qwen2):
    before = (finished / NAME).read_bytes(), (finished / "summary.json").read_bytes()
    assert run(suite(), "lines", str(tiny_qwen2), finished) == 0
    assert ((finished / NAME).read_bytes(), (finished / "summary.json").read_bytes()) == before


def test_another_suite_or_model_does_not_go_on_with_it(finished, tiny_qwen2):
    with pytest.raises(ConfigError, match="holds an evaluation with another shots"):
        run(suite(shots=[4]), "lines", str(tiny_qwen2), finished)


def test_a_run_that_was_killed_goes_on_without_a_repeated_or_missing_row(finished, tiny_qwen2, tmp_path):
    out, recipe = tmp_path / "run", tmp_path / "lines.yaml"
    recipe.write_text(json.dumps(SUITE))
    command = [sys.executable, "-m", "posttrain.cli", "eval", str(recipe), "--model", str(tiny_qwen2), "--out", str(out)]
    for kills in (3, 12, 30):  # killed while it writes its rows, three times over
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": "."})
        while process.poll() is None and (not (out / NAME).exists() or (out / NAME).read_bytes().count(b"\n") < kills):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with open(out / NAME, "ab") as log:  # and in the middle of a line
        log.write(b'{"arm": "many-shot", "shots": 4, "se')
    assert subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": "."}).returncode == 0
    again, whole = (sorted(read(folder / NAME)[0], key=told) for folder in (out, finished))
    assert list(map(told, again)) == list(map(told, whole))
    assert all(a.nll == (None if b.nll is None else pytest.approx(b.nll, abs=1e-3)) for a, b in zip(again, whole))


def test_an_item_that_does_not_fit_is_not_sent_and_is_counted(tiny_qwen2, tmp_path, capsys, monkeypatch):
    from posttrain.sampling.hf import HFEngine

    sent: list[int] = []
    generate = HFEngine.generate
    monkeypatch.setattr(HFEngine, "generate", lambda self, prompts, *rest: sent.extend(map(len, prompts)) or generate(self, prompts, *rest))
    folder = tmp_path / "short"
    folder.mkdir()
    for file in tiny_qwen2.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 150}
    (folder / "config.json").write_text(json.dumps(config))
    assert run(suite(seeds=[0]), "lines", str(folder), tmp_path / "run") == 0
    rows = [row for row in read(tmp_path / "run" / NAME)[0] if not row.baseline]
    assert {(row.shots, row.too_long) for row in rows} == {(0, False), (4, False), (16, True)}
    assert all(row.score is None and row.nll is None for row in rows if row.too_long)
    assert max(sent) <= 148
    assert "12 too long" in capsys.readouterr().out


def test_choosing_takes_the_likeliest_choice_and_keeps_all_probabilities(tiny_qwen2, tmp_path):
    assert run(suite(seeds=[0], shots=[2], answers="choose"), "lines", str(tiny_qwen2), tmp_path) == 0
    for row in read(tmp_path / NAME)[0]:
        if not row.baseline:
            assert sum(row.choices.values()) == pytest.approx(1)
            assert row.text == max(row.choices, key=row.choices.__getitem__)
            assert row.score == float(row.text == _label(row, tmp_path))


def _label(row: Row, folder: Path) -> str:
    from posttrain.tasks.icl import make_icl_task

    task = make_icl_task(suite().task)
    return next(problem.solution for problem in task.load("test") if problem.id == row.item)


def test_orders_of_the_same_shots_are_told_apart(tiny_qwen2, tmp_path):
    assert run(suite(seeds=[0], shots=[1, 8], orders=3, nll=False), "lines", str(tiny_qwen2), tmp_path) == 0
    rows = [row for row in read(tmp_path / NAME)[0] if not row.baseline]
    assert {(row.shots, row.order) for row in rows} == {(1, 0), (8, 0), (8, 1), (8, 2)}
    assert len({row.prompt_tokens for row in rows if row.shots == 8 and row.item == rows[0].item}) == 1
    (spread,) = json.loads((tmp_path / "summary.json").read_text())["spreads"]
    assert spread["shots"] == 8


def test_more_shots_than_the_pool_has_are_refused_before_a_model_is_loaded(tiny_qwen2, tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for file in tiny_qwen2.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match=r"arms\.many-shot: 33 shots were asked for, but the pool has 32"):
        run(suite(shots=[33]), "lines", str(folder), tmp_path / "run")


def test_wrong_suites_say_what_is_wrong(tiny_qwen2, tmp_path):
    with pytest.raises(ConfigError, match=r"shots: expected different numbers from 0, got \[4, 4\]"):
        suite(shots=[4, 4])
    with pytest.raises(ConfigError, match=r"sums has no set of choices; set answers to generate"):
        run(suite(task={"kind": "sums"}, answers="choose"), "lines", str(tiny_qwen2), tmp_path)
    with pytest.raises(ConfigError, match="arms: expected at least one"):
        suite(arms={})


def test_an_engine_that_dies_leaves_the_whole_chunks(tiny_qwen2, tmp_path, monkeypatch):
    from posttrain.sampling.hf import HFEngine

    generate, calls = HFEngine.generate, []

    def dies(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise EngineError("hf: gone")
        return generate(self, *args)

    monkeypatch.setattr(HFEngine, "generate", dies)
    with pytest.raises(EngineError, match="gone"):
        run(suite(), "lines", str(tiny_qwen2), tmp_path)
    assert len(read(tmp_path / NAME)[0]) == 9
    assert run(suite(), "lines", str(tiny_qwen2), tmp_path) == 0
