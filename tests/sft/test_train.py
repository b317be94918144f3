import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.config import ConfigError, build
from posttrain.prompting.chat import ChatFormat, chat_format, eos_ids_of
from posttrain.prompting.revise import SUMS
from posttrain.rl.batch import collate
from posttrain.rollout.self_correct import Rollout, self_correct
from posttrain.run import RunFolder
from posttrain.sampling.scripted import ScriptedEngine
from posttrain.sft.fit import FitConfig, fit, load_model
from posttrain.sft.tokenizer import sums_tokenizer, words_of
from posttrain.sft.train import IGNORED, Config, main, sequences
from posttrain.tasks import sums
from posttrain.tasks.generated import Demonstration, Slips
from posttrain.tasks.sums import SumsTask
from posttrain.types import Sampling

TASK = SumsTask(numbers=5, largest=9)
RECIPE = {
    "model": {"kind": "new", "hidden_size": 16, "layers": 1, "heads": 2, "mlp_size": 16},
    "task": {"kind": "sums", "numbers": 5, "largest": 9},
    "demonstrations": 40,
    "steps": 6,
    "batch": 8,
}


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    tokenizer = sums_tokenizer(TASK)
    return chat_format(tokenizer, eos_ids_of(tokenizer))


@pytest.fixture(scope="module")
def demos() -> list[Demonstration]:
    stream = sums.demonstrations(TASK, Slips(), random.Random(0))
    return [next(stream) for _ in range(20)]


def config_with(**changes) -> Config:
    return build(Config, [("test", RECIPE | changes)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("sft") / "run"
    assert main(config_with(), run, resume=False) == 0
    return run


def test_passes_of_a_few_rows_make_the_same_update_as_one_of_all(finished, tmp_path):
    rows = [{"input_ids": [5, *range(9, 12 + i)], "labels": [IGNORED, *range(9, 12 + i)]} for i in range(8)]  # of different lengths
    after = []
    for name, passes in (("whole", None), ("passes", 2)):
        model, tokenizer = load_model(str(finished / "model"))
        how = FitConfig(steps=2, batch=8, lr=1e-2, micro_batch=passes, gradient_checkpointing=passes is not None)
        fit(model, tokenizer, rows, how, seed=0, folder=RunFolder(tmp_path / name, Slips()))
        after.append(model.state_dict())
    assert any(not torch.equal(after[0][name], before) for name, before in load_model(str(finished / "model"))[0].state_dict().items())
    for name, value in after[0].items():
        torch.testing.assert_close(after[1][name], value, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="micro_batch 3 does not divide a batch of 8 rows"):
        FitConfig(steps=1, batch=8, lr=1.0, micro_batch=3)


def runs_of(ids: list[int], labels: list[int]) -> list[tuple[bool, list[int]]]:
    """Stretches of ids with and without loss, in order."""
    stretches: list[tuple[bool, list[int]]] = []
    for token, label in zip(ids, labels, strict=True):
        carries = label != IGNORED
        assert label in (token, IGNORED)
        if not stretches or stretches[-1][0] != carries:
            stretches.append((carries, []))
        stretches[-1][1].append(token)
    return stretches


def test_only_the_attempts_and_their_end_tokens_carry_loss(chat, demos):
    for demo, row in zip(demos, sequences(demos, chat, sums.make(TASK)), strict=True):
        found = [(carries, chat.tokenizer.decode(ids)) for carries, ids in runs_of(row["input_ids"], row["labels"])]
        assert found == [
            (False, f"<|user|>{demo.problem.question}<|end|><|assistant|>"),
            (True, f"{demo.attempts[0]}<|end|>"),
            (False, f"<|user|>{SUMS}<|end|><|assistant|>"),
            (True, f"{demo.attempts[1]}<|end|>"),
        ]


def test_training_reads_the_very_ids_that_a_rollout_makes(chat, demos):
    task = sums.make(TASK)
    for demo, row in zip(demos, sequences(demos, chat, sums.make(TASK)), strict=True):
        written = iter([(*chat.encode(text), chat.eos_ids[0]) for text in demo.attempts])
        engine = ScriptedEngine(lambda prompt, seed, written=written: next(written))
        episodes = self_correct([demo.problem], task, engine, chat, Rollout(sampling=Sampling(max_tokens=20)))
        batch = collate(episodes, pad_id=0)
        assert batch.ids[0].tolist() == row["input_ids"]
        assert (batch.turn[0] > 0).tolist() == [label != IGNORED for label in row["labels"]]


def test_a_number_is_one_token_and_so_is_what_stands_between_numbers(chat, demos):
    for number in (1, 9, 10, 17):
        assert len(chat.encode(f" {number}")) == 1
    for demo in demos:
        count = len(chat.encode(demo.problem.question))
        assert count <= 2 * (TASK.numbers + 1) + 4
        assert chat.text(chat.encode(demo.problem.question)) == demo.problem.question


def test_a_number_is_not_cut_out_of_a_longer_one(chat):
    assert chat.text(chat.encode(" 1 17 171")) == " 1 17 171"
    assert chat.encode(" 17")[0] not in chat.encode(" 1 7")


def test_the_saved_tokenizer_loads_by_plain_from_pretrained_to_the_same_ids(finished, demos):
    made, loaded = sums_tokenizer(TASK), AutoTokenizer.from_pretrained(finished / "model")
    for text in [*(demo.problem.question for demo in demos), *(text for demo in demos for text in demo.attempts), SUMS, "café 12,5%\n"]:
        assert loaded(text)["input_ids"] == made(text)["input_ids"]
    messages = [{"role": "user", "content": "x"}]
    assert loaded.apply_chat_template(messages, tokenize=False) == made.apply_chat_template(messages, tokenize=False)
    assert (loaded.eos_token_id, loaded.pad_token_id, len(loaded)) == (made.eos_token_id, made.pad_token_id, len(made))


def test_the_saved_model_loads_by_plain_from_pretrained_and_fits_its_tokenizer(finished):
    model = AutoModelForCausalLM.from_pretrained(finished / "model")
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.generation_config.eos_token_id in (tokenizer.eos_token_id, [tokenizer.eos_token_id])


def test_a_finished_run_is_left_alone_under_resume(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert main(config_with(), finished, resume=True) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_a_finished_run_is_not_taken_for_that_of_another_recipe(finished):
    with pytest.raises(ConfigError, match="the recipe differs from the recorded one in: steps"):
        main(config_with(steps=7), finished, resume=True)
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        main(config_with(), finished, resume=False)


def test_a_killed_run_is_redone_to_the_same_bits(finished, tmp_path):
    run = tmp_path / "run"
    folder = RunFolder(run, config_with())
    folder.log(50, {"train/loss": 9.0})  # what a kill may leave: a log, half a model, the trainer's own folder
    shutil.copytree(finished / "model", run / ".model.tmp")
    (run / ".model.tmp" / "model.safetensors").write_bytes(b"half")
    (run / "trainer" / "checkpoint-3").mkdir(parents=True)
    (run / "trainer" / "checkpoint-3" / "trainer_state.json").write_text("{}")
    assert main(config_with(), run, resume=True) == 0
    again, expected = load_file(run / "model" / "model.safetensors"), load_file(finished / "model" / "model.safetensors")
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert not any(row["step"] == 50 for row in folder.metrics())
    assert not (run / ".model.tmp").exists()


def test_a_loaded_model_is_trained_further(finished, tmp_path):
    run = tmp_path / "run"
    main(config_with(model={"kind": "loaded", "name": str(finished / "model")}, steps=2), run, resume=False)
    before, after = load_file(finished / "model" / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path):
    cfg = config_with(model={"kind": "loaded", "name": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match=r"model: cannot load") as caught:
        main(cfg, tmp_path / "run", resume=False)
    assert "\n" not in str(caught.value)


def test_words_of_texts_keep_the_space_before_them_and_the_most_frequent_come_first():
    assert words_of(["Sort 12 7 12.", "Sort 7 12"]) == [" 12", " 7", "Sort", "."]


def test_slips_are_refused_with_a_task_file_which_has_its_own():
    tree = {"kind": "sft", "model": {"kind": "new"}, "task": {"kind": "file", "path": "task.py"}, "slips": {"first": 0.1}, "steps": 1}
    with pytest.raises(ConfigError, match="slips: are for kind sums"):
        build(Config, [("r.yaml", tree)])
