"""Questions of evaluation sets in a training set: found in whole and in part, and dropped by every recipe that trains."""

import json
from pathlib import Path

import pytest

from posttrain.config import ConfigError, build
from posttrain.evaluation.data import cli
from posttrain.rl import grpo
from posttrain.rl.recipe import Config
from posttrain.rl.score import open_run
from posttrain.sft import self_training
from posttrain.tasks import decontaminate
from posttrain.tasks.decontaminate import training_set
from posttrain.tasks.math import MathTask, read
from posttrain.tasks.overlap import by_ngrams, duplicates, exact, ngrams
from posttrain.tasks.sums import SumsTask
from posttrain.types import DataError, FinalAnswer, Problem
from tests.tasks.test_data_check import FIXTURES, SHARED, recipe, write

LONG = "Ann has nine red marbles and Bob has four. How many more does Ann have than Bob has today"  # 19 words


def asked(**questions: str) -> list[Problem]:
    return [Problem(id=name, question=text, reference=FinalAnswer(text="1")) for name, text in questions.items()]


def test_a_whole_question_is_found_through_its_spelling_and_tells_whether_its_signs_agree():
    train = asked(a="What is $x^{2}+3x - 5$?", b="What is $x^2 - 3x - 5$?", c="What is $x^2 + 4x - 5$?")
    found = exact(train, asked(t="what is $ x^2 + 3x - 5 $?"), "test")
    assert [(o.train, o.other, o.where, o.share, o.signs_agree) for o in found] == [
        ("a", "t", "test", 1.0, True),
        ("b", "t", "test", 1.0, False),
    ]


def test_every_repeat_within_training_names_the_first():
    found = duplicates(asked(a="Two?", b="One?", c="two", d="Two ?"), "train")
    assert [(o.train, o.other, o.signs_agree) for o in found] == [("c", "a", False), ("d", "a", True)]


def test_the_share_is_of_the_evaluation_question_s_different_n_grams():
    words = ("a", "b", "a", "b", "a")
    assert list(ngrams(words, 2)) == [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")]
    (found,) = by_ngrams(asked(x="z a b z", y="z z"), asked(t="a b a b a"), "test", 2)  # "a b" of "a b" and "b a"
    assert (found.kind, found.train, found.other, found.share) == ("ngram", "x", "t", 0.5)


def test_thirteen_words_in_a_row_are_needed_of_a_long_question_and_all_of_a_short_one():
    train = asked(
        part=" ".join(LONG.split()[:13]) + " ?", less=" ".join(LONG.split()[:12]), around="Now then: how many more does Ann have? Say."
    )
    assert [(o.train, o.share) for o in by_ngrams(train, asked(t=LONG), "test", 13)] == [("part", pytest.approx(1 / 7))]  # 19 - 12 n-grams
    short = asked(t="How many more does Ann have")
    assert [(o.train, o.share) for o in by_ngrams(train, short, "test", 13)] == [("around", 1.0)]
    assert by_ngrams(train, asked(t="How many less does Ann have"), "test", 13) == []
    assert by_ngrams(train, asked(t="+ - ?"), "test", 13) == []


def test_a_question_that_is_found_whole_is_not_told_in_part_again():
    assert by_ngrams(asked(a=LONG), asked(t=LONG + "!"), "test", 13) == []


def math(tmp_path: Path, train: list[str], test: list[str]) -> dict:
    files = {"train": train, "test": test}
    return {
        "kind": "math",
        "sources": {
            split: write(tmp_path / f"{split}.jsonl", *({"problem": q, "answer": str(i)} for i, q in enumerate(questions)))
            for split, questions in files.items()
        },
    }


def config_of(task: dict, **more) -> Config:
    plain = {"model": "m", "task": task, "steps": 1, "problems_per_step": 1, "kl": {"coef": [0, 0]}}
    return build(Config, [("test", plain | {"sampling": {"max_tokens": 4}, "optim": {"lr": 1e-3}} | more)])


def test_training_leaves_out_what_its_own_test_split_asks_and_an_empty_list_switches_that_off(tmp_path):
    task = config_of(math(tmp_path, ["One?", "Two?", "two", "Three?"], ["TWO ?", "Four?"])).task
    found = training_set(task, "train", None)
    assert [p.question for p in found.problems] == ["One?", "Three?"]
    assert str(found) == "2 of 4 training problems dropped, as these evaluation sets ask them: test (2)"
    assert len(training_set(task, "train", ()).problems) == 4


def test_suites_and_other_splits_can_be_named_and_a_wrong_name_is_told(tmp_path):
    task = config_of(math(tmp_path, ["One?", "Two?"], ["Four?"])).task
    (tmp_path / "other").mkdir()
    suite = tmp_path / "suite.yaml"
    suite.write_text(json.dumps({"kind": "eval", "split": "train", "task": math(tmp_path / "other", ["one"], ["x"])}))
    found = training_set(task, "train", ("test", str(suite)))
    assert ([o.where for o in found.dropped], found.against) == ([str(suite)], {"test": 1, str(suite): 1})
    with pytest.raises(ConfigError, match=r"found 'tset', expected a suite's .yaml file or one of train, test; did you mean 'te"):
        training_set(task, "train", ("tset",))
    with pytest.raises(DataError, match="all 2 problems of train are asked by train: nothing is left"):
        training_set(task, "train", ("train",))


def test_a_task_that_names_no_test_split_is_told_that_nothing_was_compared(tmp_path):
    task = math(tmp_path, ["One?"], ["one"])
    del task["sources"]["test"]
    found = training_set(config_of(task).task, "train", None)
    assert (len(found.problems), found.unnamed) == (1, True)
    assert str(found).startswith("1 training problems, compared with no evaluation set: name one")
    assert not training_set(config_of(task).task, "train", ()).unnamed


def test_generated_problems_are_not_compared_as_their_splits_are_disjoint(monkeypatch):
    task = SumsTask(pick=2, numbers=4, largest=6, train_size=30)  # so small that there is no test split of the default size
    monkeypatch.setattr(decontaminate, "exact", lambda *_: pytest.fail("was compared"))
    found = training_set(task, "train", None)
    assert (len(found.problems), found.against, found.unnamed) == (30, {}, False)


def test_a_run_prints_and_records_what_it_dropped_and_draws_nothing_of_it(tiny_qwen2, tmp_path, capsys):
    task = math(tmp_path, ["One?", "Two?", "Three?"], ["TWO ?"])
    with open_run(config_of(task, model=str(tiny_qwen2)), tmp_path / "stage1", False) as run:
        assert [p.question for p in run.problems] == ["One?", "Three?"]
    assert "stage1: 1 of 3 training problems dropped, as these evaluation sets ask them: test (1)" in capsys.readouterr().out
    (row,) = map(json.loads, (tmp_path / "stage1" / "dropped.jsonl").read_text().splitlines())
    told = {"kind": "exact", "train": "train/2", "other": "test/1", "where": "test", "share": 1.0, "signs_agree": True}
    assert row == told


@pytest.mark.parametrize("kind", [grpo, self_training])
def test_trainers_that_have_loops_of_their_own_drop_it_too(kind, tiny_qwen2, tmp_path, monkeypatch):
    seen: list[list[str]] = []

    class Stop(Exception):
        pass

    def look(*args):
        seen.extend([p.question for p in arg] for arg in args if isinstance(arg, list))
        raise Stop

    monkeypatch.setattr(kind, "questions" if kind is grpo else "draw_problems", look)
    plain = {"model": str(tiny_qwen2), "task": math(tmp_path, ["One?", "Two?"], ["TWO ?"])}
    own = (
        {"steps": 1, "problems_per_step": 1, "max_tokens": 4, "lr": 1e-3, "micro_batch": 8}
        if kind is grpo
        else {"traces": "star", "draw": {"problems": 1, "max_tokens": 4}, "fit": {"steps": 1, "lr": 1e-3}}
    )
    with pytest.raises(Stop):
        kind.main(build(kind.Config, [("test", plain | own)]), tmp_path / "run", False)
    assert seen == [["One?"]]
    assert (tmp_path / "run" / "dropped.jsonl").read_text().count("\n") == 1


def test_the_report_says_what_is_asked_in_whole_in_part_and_twice(tmp_path, capsys):
    almost = LONG.replace("today", "now")
    what = recipe(tmp_path, math(tmp_path, ["x - 1?", LONG, "Once", "once"], ["x + 1?", almost]))
    out = tmp_path / "pairs.jsonl"
    assert cli(["overlap", what, "--out", str(out)]) == 1
    told = capsys.readouterr().out
    assert "train: 4 problems\n  1 problems of train that an earlier one asks already\n    train/4 = train/3\n" in told
    assert "test: 2 problems, of which 1 are trained on and 1 more share a 13-gram\n" in told
    assert "  1 training problems that test asks\n    train/1 = test/1, signs differ\n" in told
    assert "  1 pairs that share 50% or more of the 13-grams\n    86%  train/2 ~ test/2\n" in told  # 6 of 7
    assert [json.loads(line)["kind"] for line in out.read_text().splitlines()] == ["duplicate", "exact", "ngram"]
    other = write(tmp_path / "other.jsonl", {"problem": "y", "answer": "1"})
    assert cli(["overlap", what, "--task.sources.test", other]) == 0
    assert "pairs that share" not in capsys.readouterr().out


def test_a_wrong_call_of_the_report_is_told(tmp_path):
    what = recipe(tmp_path, math(tmp_path, ["a"], ["b"]))
    with pytest.raises(ConfigError, match=r"expected --ngram of at least 1 and --share from 0 to 1, found 0 and 0.5"):
        cli(["overlap", what, "--ngram", "0"])
    with pytest.raises(ConfigError, match=r"absent.yaml: no such recipe file"):
        cli(["overlap", what, "--against", "absent.yaml"])
    with pytest.raises(ConfigError, match="data: found 'overlpa', expected one of check, overlap, repair; did you mean 'overlap'"):
        cli(["overlpa", what])


def test_our_own_problems_do_not_stand_in_both_splits(capsys):
    for kind in ("math", "gsm8k"):
        files = [part for split in ("train", "test") for part in (f"--{split}", str(FIXTURES / f"{kind}_{split}.jsonl"))]
        assert cli(["overlap", kind, *files]) == 0
    assert cli(["overlap", "sums", "--task.train_size", "300", "--task.test_size", "300"]) == 0


SIGNS_DIFFER = {  # of the eleven that letters and digits find, those that are another question: another sign, point or figure
    ("train/7164", "test/precalculus/285.json"),
    ("train/3153", "rest/1919"),
    ("train/3649", "rest/1951"),
    ("train/3847", "rest/2104"),
    ("train/3947", "rest/2186"),
    ("train/3649", "rest/2374"),
    ("train/2866", "rest/4311"),
}
ELEVEN = SIGNS_DIFFER | {("train/1599", "rest/281"), ("train/1415", "rest/937"), ("train/751", "rest/2727"), ("train/2949", "rest/4194")}


def test_the_known_overlaps_of_math_are_found_and_the_real_ones_among_them_told_apart():
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    files = {"train": "math_train.jsonl.gz", "rest": "math_test_rest.jsonl.gz", "test": "math500.jsonl"}
    task = MathTask(sources={split: str(SHARED / name) for split, name in files.items()})
    train = read(task, "train").problems
    others = [problem for split in ("rest", "test") for problem in read(task, split).problems]
    pairs = {(overlap.other, overlap.train): overlap for overlap in exact(others, train, "train")}
    assert pairs.keys() == ELEVEN
    assert {pair for pair, overlap in pairs.items() if not overlap.signs_agree} == SIGNS_DIFFER
    assert len(duplicates(train, "train")) == 9

    both = MathTask(sources={"train": (task.sources["train"], task.sources["rest"]), "test": task.sources["test"]})
    dropped = training_set(both, "train", None)
    assert ([(o.train, o.other) for o in dropped.dropped], len(dropped.problems)) == ([("train/7164", "test/precalculus/285.json")], 11997)
