"""Which attempts become training data, on episodes written by hand."""

import pytest
from transformers import AutoTokenizer

from posttrain.evaluation.metrics import outcome
from posttrain.prompting.chat import chat_format, eos_ids_of
from posttrain.sft.fit import IGNORED, rows_of
from posttrain.sft.traces import balance, select
from posttrain.tasks.sums import SumsTask, make
from posttrain.types import Completion, Episode, Turn, Verdict

TASK = make(SumsTask(train_size=2))
FIRST, SECOND = TASK.load("train")


@pytest.fixture(scope="module")
def chat(tiny_qwen2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    return chat_format(tokenizer, eos_ids_of(tokenizer, tiny_qwen2))


def told(chat, problem, *attempts: tuple[str, bool], finish: str = "stop", sample: int = 0) -> Episode:
    turns: list[Turn] = []
    for text, correct in attempts:
        prompt = chat.revise(turns[-1].prompt_ids, turns[-1].completion.ids, TASK.revise) if turns else chat.ask(TASK.ask(problem))
        ids = (*chat.encode(text), chat.eos_ids[0])
        verdict = Verdict(status="correct" if correct else "wrong")
        completion = Completion(ids=ids, logprobs=(-1.0,) * len(ids), finish=finish)
        turns.append(Turn(prompt_ids=prompt, completion=completion, text=text, answer=text, verdict=verdict))
    return Episode(problem=problem, turns=tuple(turns), sample=sample)


def chosen(chat, episodes, kind, per_problem=9) -> set[tuple[str, str]]:
    traces = select(episodes, kind, chat, TASK, per_problem=per_problem, seed=0)
    return {tuple(turn.text for turn in trace.turns) for trace in traces}


def episodes_of(chat):
    return [
        told(chat, FIRST, ("no", False), ("yes", True)),
        told(chat, FIRST, ("no", False), ("yes", True), sample=1),  # the same texts again
        told(chat, FIRST, ("right", True), ("also right", True), sample=2),
        told(chat, FIRST, ("right", True), ("spoilt", False), sample=3),
        told(chat, FIRST, ("cut", False), ("yes", True), sample=4, finish="length"),
        told(chat, SECOND, ("bad", False), ("worse", False)),
    ]


def test_star_takes_successful_revisions_once_each(chat):
    assert chosen(chat, episodes_of(chat), "star") == {("no", "yes")}


def test_star_plus_adds_right_answers_that_stay_right(chat):
    assert chosen(chat, episodes_of(chat), "star_plus") == {("no", "yes"), ("right", "also right")}


def test_pairs_put_a_right_first_attempt_of_the_same_problem_after_a_wrong_one(chat):
    assert chosen(chat, episodes_of(chat), "pairs") == {("no", "right")}


def test_pairs_plus_adds_two_different_right_ones(chat):
    episodes = [*episodes_of(chat), told(chat, FIRST, ("right too", True), ("x", False), sample=5)]
    found = chosen(chat, episodes, "pairs_plus")
    assert {pair for pair in found if pair[0] != "no"} == {("right", "right too"), ("right too", "right")}


def test_a_pair_is_prompted_as_a_rollout_would_prompt_it(chat):
    (pair,) = select(episodes_of(chat), "pairs", chat, TASK, per_problem=1, seed=0)
    first, second = pair.turns
    assert second.prompt_ids == chat.revise(first.prompt_ids, first.completion.ids, TASK.revise)
    assert outcome(pair) == "fixed"


def test_a_verdict_says_what_the_grader_said_and_behind_a_wrong_attempt_stands_the_second_attempt_whatever_it_is(chat):
    found = select(episodes_of(chat), "verdicts", chat, TASK, per_problem=9, seed=0)
    texts = {tuple(turn.text for turn in trace.turns) for trace in found}
    assert texts == {("no", " 0", "yes"), ("bad", " 0", "worse"), ("right", " 1")}
    for trace in found:
        first, verdict, *last = trace.turns
        assert verdict.prompt_ids == chat.revise(first.prompt_ids, first.completion.ids, TASK.verify)
        assert verdict.completion.ids == (*chat.encode(verdict.text), chat.eos_ids[0])
        for turn in last:
            assert turn.prompt_ids == chat.revise(verdict.prompt_ids, verdict.completion.ids, TASK.revise)
    assert balance(found) == {"fixed": 2, "kept": 1}  # wrong attempts found out, right ones let stand


def test_a_problem_gives_at_most_so_many_traces_of_each_kind(chat):
    many = [told(chat, FIRST, (f"no {i}", False), (f"yes {i}", True), sample=i) for i in range(9)]
    many += [told(chat, FIRST, (f"ok {i}", True), (f"fine {i}", True), sample=9 + i) for i in range(9)]
    assert balance(select(many, "star_plus", chat, TASK, per_problem=3, seed=0)) == {"fixed": 3, "kept": 3}


def test_only_the_attempts_to_be_learnt_carry_loss_and_the_labels_are_the_sampled_ids(chat):
    episode = told(chat, FIRST, ("no", False), ("yes", True))
    (row,) = rows_of([episode], learn=(2,))
    first, second = episode.turns
    assert row["input_ids"] == [*second.prompt_ids, *second.completion.ids]
    assert row["labels"] == [*[IGNORED] * len(second.prompt_ids), *second.completion.ids]
    (both,) = rows_of([episode], learn=(1, 2))
    begin = len(first.prompt_ids)
    assert both["labels"][begin : begin + len(first.completion.ids)] == list(first.completion.ids)
    assert sum(label != IGNORED for label in both["labels"]) == len(first.completion.ids) + len(second.completion.ids)
