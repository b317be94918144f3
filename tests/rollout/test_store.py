"""Episodes on disk come back as they were, and a damaged line is told by its place."""

import json
from dataclasses import asdict, replace

import pytest

from posttrain.rollout.store import from_row, read_episodes, to_line, write_episodes
from posttrain.types import Completion, DataError, Episode, FinalAnswer, Problem, Turn, UnitTests, Verdict

TEXTS = ["plain", 'quotes " and \\boxed{5}', "lines\nand\ttabs", "é 漢 😀", "separators \u2028 \x85 \r end", ""]


def turn(prompt, ids, text="", **changed) -> Turn:
    completion = Completion(ids=ids, logprobs=tuple(-0.1 / (i + 3) for i in range(len(ids))), finish="stop")
    fields = {"prompt_ids": prompt, "completion": completion, "text": text, "answer": None, "verdict": Verdict(status="wrong", why="x")}
    return Turn(**(fields | changed))


FIVE = FinalAnswer(text="5")


def episode(*turns: Turn, reference: FinalAnswer | UnitTests = FIVE) -> Episode:
    problem = Problem(id="math/1", question="2 + 3?", reference=reference, level="Level 5", subject="Algebra")
    return Episode(problem=problem, turns=turns, sample=3, policy_step=40)


TWO = episode(turn((1, 2, 3), (4, 5)), turn((1, 2, 3, 4, 5, 6, 7), (8,), answer="5", verdict=Verdict(status="correct")))
THREE = episode(turn((1, 2), (3,)), turn((1, 2, 3, 9, 9), (3, 3)), turn((1, 2, 3, 9, 9, 3, 3, 9), (7, 7)))
CUT = episode(replace(TWO.turns[0], completion=Completion(ids=(4, 5), logprobs=(), finish="length")), TWO.turns[1])
CODE = episode(turn((1,), (2,)), reference=UnitTests(entry_point="f", code="assert f(1) == 2\n", prompt="def f(x):\n"))
EMPTY = episode(turn((1,), ()), turn((1, 2), ()))


@pytest.mark.parametrize("written", [TWO, THREE, CUT, CODE, EMPTY, episode()], ids=["two", "three", "cut", "code", "empty", "none"])
def test_an_episode_comes_back_equal(written):
    line = to_line(written)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert from_row(json.loads(line)) == written


@pytest.mark.parametrize("written", [TWO, CUT, CODE], ids=["two", "cut", "code"])
def test_a_line_holds_every_field_of_every_record(written):
    row = asdict(replace(written, turns=written.turns[:1]))
    del row["turns"][0]["completion"]["num_cached"]
    assert to_line(replace(written, turns=written.turns[:1])) == json.dumps(row, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_equal_through_a_file(tmp_path, text):
    problem = replace(TWO.problem, question=text)
    written = [replace(TWO, problem=problem, turns=(replace(TWO.turns[0], text=text), TWO.turns[1])), THREE]
    write_episodes(tmp_path / "e.jsonl", written)
    assert list(read_episodes(tmp_path / "e.jsonl")) == written


def test_log_probabilities_come_back_to_the_last_bit():
    back = from_row(json.loads(to_line(TWO))).turns[0].completion.logprobs
    assert [value.hex() for value in back] == [value.hex() for value in TWO.turns[0].completion.logprobs]


def test_tokens_that_a_later_prompt_repeats_are_kept_once():
    prompts = [kept["prompt_ids"] for kept in json.loads(to_line(THREE))["turns"]]
    assert prompts == [[1, 2], [9, 9], [9]]


def test_a_prompt_that_does_not_go_on_from_the_attempt_before_is_not_written():
    rewritten = episode(turn((1, 2, 3), (4, 5)), turn((1, 2, 9, 4, 5, 6, 7), (8,)))
    with pytest.raises(ValueError, match=r"math/1: the prompt of attempt 2 does not begin with the tokens of attempt 1"):
        to_line(rewritten)


def test_writing_replaces_what_was_there(tmp_path):
    write_episodes(tmp_path / "e.jsonl", [TWO, THREE])
    write_episodes(tmp_path / "e.jsonl", [CUT])
    assert list(read_episodes(tmp_path / "e.jsonl")) == [CUT]
    assert [path.name for path in tmp_path.iterdir()] == ["e.jsonl"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-20],
        lambda line: "[1, 2]",
        lambda line: "null",
        lambda line: "",
        lambda line: line.replace('"turns"', '"truns"'),
        lambda line: line.replace('"text": "5"', '"txet": "5"'),
        lambda line: line.replace('"status"', '"state"'),
        lambda line: line.replace('"ids": [4, 5]', '"ids": 4'),
    ],
)
def test_a_malformed_line_is_told_with_file_and_line(tmp_path, damage):
    path = tmp_path / "e.jsonl"
    good = to_line(TWO)
    assert damage(good.strip()) != good.strip()
    path.write_text(good + damage(good.strip()) + "\n" + good)
    with pytest.raises(DataError) as caught:
        list(read_episodes(path))
    assert str(caught.value).startswith(f"{path}:2: not an episode: ")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_told_with_file_and_line(tmp_path):
    (tmp_path / "e.jsonl").write_bytes(b'{"problem": "\xff"}\n')
    with pytest.raises(DataError, match=r"e\.jsonl:1: not an episode"):
        list(read_episodes(tmp_path / "e.jsonl"))


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file of episodes"):
        list(read_episodes(tmp_path / "nowhere.jsonl"))
