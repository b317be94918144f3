"""`posttrain eval` in its other ways: one attempt, several samples, plain text, several workers, a cache, checkpoints, several suites."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from posttrain import cli
from posttrain.config import ConfigError, build, load, read_yaml
from posttrain.evaluation import battery
from posttrain.evaluation.model import identity
from posttrain.evaluation.run import claim, evaluate_model
from posttrain.evaluation.samples import Sampled
from posttrain.evaluation.suite import Suite, open_format
from posttrain.evaluation.sweep import checkpoints
from posttrain.prompting.raw import RawFormat
from posttrain.rollout.store import read_episodes
from posttrain.schema import plain
from posttrain.tasks import make_task
from tests.sums_base import TASK

ROOT = Path(__file__).parents[2]
SUITES = ROOT / "evals" / "suites"
SHARED = ROOT.parent / "shared" / "data"


def suite_of(**changed) -> Suite:
    fields = {"task": TASK | {"test_size": 11}, "sampling": {"max_tokens": 8, "temperature": 1.0}, "chunk": 5, "samples": 2}
    return build(Suite, [("test", fields | changed)])


@pytest.fixture(scope="module")
def single(tiny_qwen2, tmp_path_factory):
    """An evaluation of one worker that nothing interrupted."""
    out = tmp_path_factory.mktemp("single")
    evaluate_model(suite_of(), "test", str(tiny_qwen2), out)
    return out


def test_one_attempt_is_summed_up_over_its_samples(tiny_qwen2, tmp_path, capsys):
    found = evaluate_model(suite_of(attempts=1, samples=4), "test", str(tiny_qwen2), tmp_path)
    assert isinstance(found, Sampled)
    right = {}
    for e in read_episodes(tmp_path / "episodes.jsonl"):
        assert len(e.turns) == 1
        right.setdefault(e.problem.id, []).append(e.turns[0].verdict.correct)
    assert found.attempts[0].avg.value == pytest.approx(sum(map(sum, right.values())) / 44)
    assert found.attempts[0].pass_at[4].value == pytest.approx(sum(map(any, right.values())) / 11)
    assert set(json.loads((tmp_path / "summary.json").read_text())["by_subject"]) <= {"words", "symbols"}


def test_the_command_prints_avg_pass_and_maj_of_both_attempts(tiny_qwen2, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(plain(suite_of(samples=1))))
    words = ["eval", str(tmp_path / "s.yaml"), str(SUITES / "overlays" / "sampled.yaml"), "--model", str(tiny_qwen2)]
    assert cli.main([*words, "--samples", "2", "--out", str(tmp_path / "o")]) == 0
    said = capsys.readouterr().out
    assert "s_sampled: " in said
    for figure in ("Delta(t1,t2)", "t1 avg@2", "t1 pass@2", "t2 maj@2"):
        assert figure in said
    assert yaml.safe_load((tmp_path / "o" / "config.yaml").read_text())["sampling"]["temperature"] == 0.7


def test_every_prompt_is_kept_once_as_the_model_reads_it(single, tiny_qwen2):
    rows = [json.loads(line) for line in (single / "prompts.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    shown = {row["problem"]: row["prompt"] for row in rows[:-1]}
    assert len(rows) == 12
    assert rows[-1]["revise"] == make_task(suite_of().task).revise
    for episode in read_episodes(single / "episodes.jsonl"):
        assert tokenizer.decode(list(episode.turns[0].prompt_ids)) == shown[episode.problem.id]


def test_processes_with_an_engine_each_end_with_the_same_bytes(single, tiny_qwen2, tmp_path):
    evaluate_model(suite_of(shards=2), "test", str(tiny_qwen2), tmp_path)
    for name in ("episodes.jsonl", "summary.json", "prompts.jsonl"):
        assert (tmp_path / name).read_bytes() == (single / name).read_bytes()


def test_an_evaluation_goes_on_with_other_workers_servers_and_cache_and_with_nothing_else_changed(tmp_path):
    server = {"kind": "server", "url": "http://a/v1", "model": "m"}
    first = suite_of(engine=server)
    claim(tmp_path, {"model": "m", **plain(first)}, first)
    moved = suite_of(engine=server | {"url": ["http://b/v1", "http://c/v1"], "concurrency": 64}, shards=7, cache="kept.sqlite")
    claim(tmp_path, {"model": "m", **plain(moved)}, moved)
    for other in ({"engine": server | {"model": "n"}}, {"chunk": 6, "engine": server}, {"prompt": {"kind": "raw"}, "engine": server}):
        changed = suite_of(**other)
        with pytest.raises(ConfigError, match=f"another {next(iter(other))}"):
            claim(tmp_path, {"model": "m", **plain(changed)}, changed)


def test_a_folder_from_before_a_key_existed_counts_as_at_its_default(tmp_path):
    record = {"model": "m", **plain(suite_of())}
    old = {key: value for key, value in record.items() if key not in ("prompt", "shards", "cache")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    claim(tmp_path, record, suite_of())
    raw = suite_of(prompt={"kind": "raw"})
    with pytest.raises(ConfigError, match="another prompt"):
        claim(tmp_path, {"model": "m", **plain(raw)}, raw)


def test_a_cache_samples_nothing_twice(single, tiny_qwen2, tmp_path, monkeypatch):
    cached = suite_of(cache=tmp_path / "cache.sqlite")
    evaluate_model(cached, "test", str(tiny_qwen2), tmp_path / "first")
    monkeypatch.setattr("posttrain.sampling.hf.HFEngine.generate", lambda *_: pytest.fail("sampled again"))
    evaluate_model(cached, "test", str(tiny_qwen2), tmp_path / "second")
    for out in ("first", "second"):
        assert (tmp_path / out / "episodes.jsonl").read_bytes() == (single / "episodes.jsonl").read_bytes()


def test_plain_text_needs_no_template_and_ends_at_its_stops(tiny_qwen2, tmp_path):
    model = shutil.copytree(tiny_qwen2, tmp_path / "model")
    (model / "chat_template.jinja").unlink(missing_ok=True)
    suite = suite_of(prompt={"kind": "raw", "gap": "\n", "stop": ["}"]}, samples=1)
    evaluate_model(suite, "test", str(model), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(model)
    for episode in read_episodes(tmp_path / "out" / "episodes.jsonl"):
        first, second = episode.turns
        assert tokenizer.decode(list(first.prompt_ids)).endswith(episode.problem.question + "\n")
        assert second.prompt_ids[: len(first.prompt_ids) + len(first.completion.ids)] == first.prompt_ids + first.completion.ids
        assert "}" not in first.text


def test_a_raw_prompt_begins_with_the_tokenizers_own_beginning(tiny_llama, tiny_qwen2):
    for model in (tiny_llama, tiny_qwen2):
        tokenizer = AutoTokenizer.from_pretrained(model)
        ids = RawFormat(tokenizer, (0,)).ask(make_task(suite_of().task).ask(make_task(suite_of().task).load("test")[0]))
        begins = tokenizer("")["input_ids"]
        assert list(ids[: len(begins)]) == begins


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_suite_can_be_read(path):
    kind = read_yaml(path)[1].get("kind")
    if kind == "battery":
        battery.resolved(load(battery.Battery, [path]), SUITES)
    elif kind == "eval":
        for overlays in ([], ["sampled"], ["raw"]):
            suite = load(Suite, [path, *(SUITES / "overlays" / f"{name}.yaml" for name in overlays)])
            assert suite.samples == (16 if overlays == ["sampled"] else suite.samples)


@pytest.mark.parametrize(("name", "data"), [("math500", "math500.jsonl"), ("humaneval_raw", "HumanEval.jsonl.gz")])
def test_the_one_attempt_suites_run_over_the_real_problems(name, data, tiny_qwen2, tmp_path):
    if not (SHARED / data).is_file():
        pytest.skip(f"needs {data} in shared/data beside the checkout")
    words = ["eval", f"{SUITES}/{name}.yaml", "--model", str(tiny_qwen2), "--task.sources.test", str(SHARED / data), "--engine.kind", "hf"]
    assert cli.main([*words, "--limit", "4", "--sampling.max_tokens", "16", "--out", str(tmp_path / "out")]) == 0
    episodes = list(read_episodes(tmp_path / "out" / "episodes.jsonl"))
    assert [len(e.turns) for e in episodes] == [1] * 4
    if name == "humaneval_raw":
        prompt = AutoTokenizer.from_pretrained(tiny_qwen2).decode(list(episodes[0].turns[0].prompt_ids))
        assert prompt == episodes[0].problem.question.rstrip(" ")


def put_checkpoints(run: Path, model: Path, *steps: int) -> Path:
    for step in steps:
        folder = shutil.copytree(model, run / "checkpoints" / f"step_{step:06d}")
        (folder / "state.json").write_text(json.dumps({"step": step, "reward": None}))
    return run


def test_every_checkpoint_of_a_run_makes_a_curve(tiny_qwen2, tmp_path, capsys):
    run = put_checkpoints(tmp_path / "run", tiny_qwen2, 10, 20)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(plain(suite_of())))
    words = ["eval", str(tmp_path / "s.yaml"), "--model", str(run), "--checkpoints", "all", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "less the first" in said
    first, second = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert (first["step"], second["step"], first["against_first"]) == (10, 20, None)
    assert second["against_first"]["difference"]["value"] == 0.0  # the same weights
    assert second["against_first"]["p_value"] == 1.0
    assert (tmp_path / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "Over training" in (tmp_path / "out" / "report.html").read_text()


def test_checkpoints_are_chosen_by_step_and_a_cut_one_is_no_checkpoint(tmp_path, tiny_qwen2):
    run = put_checkpoints(tmp_path / "run", tiny_qwen2, 10, 20, 30)
    (run / "checkpoints" / "step_000030" / "state.json").unlink()
    (run / "checkpoints" / "step_000030" / "training.pt").write_text("")
    assert list(checkpoints(run, "all")) == [10, 20]
    assert list(checkpoints(run, "20")) == [20]
    with pytest.raises(ConfigError, match=r"no step '25' in .*; it has 10, 20"):
        checkpoints(run, "10,25")
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        checkpoints(tmp_path, "all")


def test_several_suites_are_one_command_with_a_test_against_the_model_before(tiny_qwen2, tiny_llama, tmp_path, capsys):
    for name, pick in (("near", 2), ("far", 3)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(plain(suite_of()) | {"task": TASK | {"test_size": 6, "pick": pick}}))
    (tmp_path / "b.yaml").write_text("kind: battery\nsuites: [near.yaml, far.yaml]\nchanges: {limit: 3, samples: 1}\n")
    words = [
        "eval",
        str(tmp_path / "b.yaml"),
        "--model",
        str(tiny_qwen2),
        "--against",
        str(tiny_qwen2),
        "--out",
        str(tmp_path / "out" / "m"),
    ]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "near: 3 problems" in said
    assert "far: 3 problems" in said
    assert [each["suite"] for each in json.loads((tmp_path / "out" / "m" / "compare.json").read_text())] == ["near", "far"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--checkpoints", "all", "--model", "nowhere"], "holds no checkpoint"),
        (["--against", "m", "--model", "m"], "is for a suite of kind battery"),
        (["--shards", "0", "--model", "m"], "greater than or equal to 1"),
        (["--attempts", "1", "--first_attempts", "e.jsonl", "--model", "m"], "never does"),
        (["--prompt.kind", "rwa", "--model", "m"], "prompt"),
    ],
)
def test_a_wrong_call_is_one_clear_line(tmp_path, capsys, words, said):
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(plain(suite_of())))
    assert cli.main(["eval", str(tmp_path / "s.yaml"), *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_format_that_the_model_cannot_have_is_told(tiny_qwen2):
    assert identity(str(tiny_qwen2)) != str(tiny_qwen2)
    assert isinstance(open_format(suite_of(prompt={"kind": "raw"}), str(tiny_qwen2))[0], RawFormat)
