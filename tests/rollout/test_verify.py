"""Verify-then-revise: who is asked for a verdict, who revises, and what an attempt that is kept looks like."""

import json
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from posttrain.config import ConfigError
from posttrain.prompting import revise
from posttrain.prompting.chat import chat_format, eos_ids_of
from posttrain.rollout.self_correct import Rollout, self_correct
from posttrain.rollout.store import from_row, to_line
from posttrain.rollout.verify import attempts_of, judgement, verify_then_revise
from posttrain.run import seed_for
from posttrain.tasks.sums import SumsTask, make
from posttrain.types import Sampling
from tests.rollout.recorder import Recorder

TASK = make(SumsTask(train_size=4))
PROBLEMS = TASK.load("train")
HOW = Rollout(sampling=Sampling(max_tokens=40), samples=3, seed=5, step=7)


@pytest.fixture(scope="module")
def chat(tiny_qwen2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    return chat_format(tokenizer, eos_ids_of(tokenizer, tiny_qwen2))


def answers(chat):
    """Right attempts at the first two problems, verdicts that are "wrong" for odd seeds, and revisions that say so."""
    right = {chat.ask(TASK.ask(problem)): problem.reference.text for problem in PROBLEMS[:2]}

    def answer(prompt, seed):
        text = chat.text(prompt)
        if text.rstrip("\n").removesuffix("assistant").rstrip("\n").endswith(revise.VERIFY_SUMS):
            return "I say: 0." if seed % 2 else " 1"
        return "a revision" if revise.SUMS in text else right.get(tuple(prompt), "\\boxed{ 1 + 2 + 3 }")

    return answer


@pytest.fixture
def rolled(chat):
    engine = Recorder(chat, answers(chat))
    return verify_then_revise(PROBLEMS, TASK, engine, chat, HOW), engine


def test_only_what_is_judged_wrong_is_revised_and_the_rest_is_kept_without_a_token(rolled, chat):
    episodes, engine = rolled
    assert [len(prompts) for prompts, _ in engine.calls][:2] == [12, 12]
    doubted = [episode for episode in episodes if seed_for(5, 7, episode.problem.id, episode.sample, "verify") % 2]
    assert 0 < len(doubted) < 12
    assert engine.calls[2] == (
        [episode.turns[2].prompt_ids for episode in doubted],
        [seed_for(5, 7, episode.problem.id, episode.sample, 1) for episode in doubted],
    )
    for episode in episodes:
        first, verdict, last = episode.turns
        assert verdict.prompt_ids == chat.revise(first.prompt_ids, first.completion.ids, TASK.verify)
        if episode in doubted:
            assert (verdict.answer, last.text, last.given) == ("wrong", "a revision", False)
            assert last.prompt_ids == chat.revise(verdict.prompt_ids, verdict.completion.ids, TASK.revise)
        else:
            assert (verdict.answer, last.completion.ids, last.given) == ("right", (), True)
            assert last.prompt_ids == (*verdict.prompt_ids, *verdict.completion.ids)
            assert (last.text, last.answer, last.verdict) == (first.text, first.answer, first.verdict)


def test_a_verdict_is_correct_where_it_tells_right_from_wrong(rolled):
    for episode in rolled[0]:
        first, verdict, _ = episode.turns
        assert first.verdict.correct == (episode.problem in PROBLEMS[:2])
        assert verdict.verdict.correct == (first.verdict.correct == (verdict.answer == "right"))


def test_first_attempts_are_those_that_self_correction_samples(rolled, chat):
    alone = self_correct(PROBLEMS, TASK, Recorder(chat, answers(chat)), chat, replace(HOW, attempts=1))
    assert [episode.turns[0] for episode in rolled[0]] == [episode.turns[0] for episode in alone]


def test_two_attempts_are_left_without_the_verdict_and_are_stored_like_any(rolled):
    for episode in map(attempts_of, rolled[0]):
        assert len(episode.turns) == 2
        assert from_row(json.loads(to_line(episode))) == episode


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wrong", "wrong"),
        ("On the right side 2 + 3 = 5.\nRight.", "right"),
        ("0", None),
        ("It is right to doubt: **Wrong**", "wrong"),
        ("right, as 2 + 3 = 5", None),
        ("forthright", None),
        ("", None),
    ],
)
def test_a_judgement_is_the_last_word(text, said):
    assert judgement(text, ("right", "wrong")) == said


@pytest.mark.parametrize(("text", "said"), [(" 1", "right"), (" 0", "wrong"), (" 2 + 3 1", "right"), (" 10", None), (" 1 2", None)])
def test_a_task_may_have_other_words_for_it(text, said):
    assert judgement(text, (" 1", " 0")) == said


def test_what_is_no_judgement_is_kept_and_is_no_right_verdict(chat):
    (episode, *_) = verify_then_revise(PROBLEMS, TASK, Recorder(chat, lambda prompt, seed: "who knows"), chat, HOW)
    assert (episode.turns[1].verdict.status, episode.turns[2].given) == ("no_answer", True)


def test_a_task_without_an_instruction_to_verify_is_refused(chat):
    with pytest.raises(ConfigError, match="sums: the task has no instruction to verify an attempt"):
        verify_then_revise(PROBLEMS, replace(TASK, verify=""), Recorder(chat, lambda *_: ""), chat, HOW)
