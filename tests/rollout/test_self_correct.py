"""Attempts after attempts: who is asked what, in which order, from which seeds, and that batching changes nothing."""

import threading
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.prompting import revise
from posttrain.prompting.chat import chat_format, eos_ids_of
from posttrain.rollout.self_correct import Rollout, first_attempts, self_correct
from posttrain.sampling.hf import HFEngine
from posttrain.tasks.sums import SumsTask, make, written
from posttrain.types import DataError, Sampling, Verdict
from tests.rollout.recorder import Recorder

TASK = make(SumsTask(train_size=4))
PROBLEMS = TASK.load("train")
HOW = Rollout(sampling=Sampling(max_tokens=40), samples=3, seed=5, step=7)


@pytest.fixture(scope="module")
def chat(tiny_qwen2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    return chat_format(tokenizer, eos_ids_of(tokenizer, tiny_qwen2))


@pytest.fixture(scope="module")
def model(tiny_qwen2):
    return AutoModelForCausalLM.from_pretrained(tiny_qwen2, dtype=torch.float32)


def rolled(chat, answer=lambda prompt, seed: f"seed {seed % 1000}", **changed):
    engine = Recorder(chat, answer)
    return self_correct(PROBLEMS, TASK, engine, chat, replace(HOW, **changed)), engine


def ids(episodes):
    return [[turn.completion.ids for turn in episode.turns] for episode in episodes]


def test_episodes_come_in_problem_order_and_sample_order_within(chat):
    episodes, _ = rolled(chat)
    assert [(episode.problem.id, episode.sample) for episode in episodes] == [(p.id, i) for p in PROBLEMS for i in range(3)]
    assert {episode.policy_step for episode in episodes} == {7}


def test_an_attempt_is_shown_the_question_and_all_that_came_before(chat):
    episodes, engine = rolled(chat, attempts=3)
    for row, episode in enumerate(episodes):
        first, second, third = episode.turns
        assert first.prompt_ids == chat.ask(TASK.ask(episode.problem))
        assert second.prompt_ids == chat.revise(first.prompt_ids, first.completion.ids, TASK.revise)
        assert third.prompt_ids == chat.revise(second.prompt_ids, second.completion.ids, TASK.revise)
        assert [prompts[row] for prompts, _ in engine.calls] == [turn.prompt_ids for turn in episode.turns]
        assert chat.text(third.prompt_ids).count(TASK.revise) == 2


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_there_are_as_many_attempts_as_asked_for_each_one_call(chat, attempts):
    episodes, engine = rolled(chat, attempts=attempts)
    assert {len(episode.turns) for episode in episodes} == {attempts}
    assert [len(prompts) for prompts, _ in engine.calls] == [12] * attempts


def test_a_verdict_and_an_answer_belong_to_the_attempt_s_own_text(chat):
    by_prompt = {chat.ask(TASK.ask(problem)): problem.reference.text for problem in PROBLEMS[::2]}
    episodes, _ = rolled(chat, lambda prompt, seed: by_prompt.get(prompt, "\\boxed{ 1 + 1 + 1 }"))
    for episode in episodes:
        knows = episode.problem in PROBLEMS[::2]
        assert [turn.verdict.correct for turn in episode.turns] == [knows, False]
        assert [turn.answer for turn in episode.turns] == [TASK.answer(turn.text) for turn in episode.turns]
        assert episode.turns[1].answer == "1+1+1"
        assert episode.turns[0].text == by_prompt.get(episode.turns[0].prompt_ids, "\\boxed{ 1 + 1 + 1 }")


def test_the_second_prompt_is_the_same_whether_the_first_attempt_was_right_or_wrong(chat):
    """Right and wrong differ in the grader's eyes only: two problems' references, given to one problem."""
    right, wrong = PROBLEMS[0].reference.text, PROBLEMS[1].reference.text
    added = []
    for text in (right, wrong):
        episodes, _ = rolled(chat, lambda prompt, seed, text=text: text)
        first, second = episodes[0].turns
        assert first.verdict.correct == (text == right)
        added.append(second.prompt_ids[len(first.prompt_ids) + len(first.completion.ids) :])
    assert added[0] == added[1]


def test_problem_sample_attempt_step_and_run_seed_all_enter_every_draw(chat):
    _, engine = rolled(chat)
    drawn = [seed for _, seeds in engine.calls for seed in seeds]
    assert len(set(drawn)) == 4 * 3 * 2
    for changed in ({"seed": 6}, {"step": 8}):
        _, other = rolled(chat, **changed)
        assert not set(drawn) & {seed for _, seeds in other.calls for seed in seeds}


def test_a_problem_s_draws_do_not_depend_on_the_other_problems_or_the_number_of_samples(chat):
    _, engine = rolled(chat)
    alone = Recorder(chat, lambda prompt, seed: "x")
    self_correct(PROBLEMS[2:3], TASK, alone, chat, replace(HOW, samples=2))
    for (_, seeds), (_, seeds_alone) in zip(engine.calls, alone.calls):
        assert seeds[6:8] == seeds_alone


def test_a_shared_first_attempt_is_drawn_once_and_second_ones_for_each_sample(chat):
    episodes, engine = rolled(chat, shared_first=True)
    assert [len(prompts) for prompts, _ in engine.calls] == [4, 12]
    for start in range(0, 12, 3):
        firsts = {episode.turns[0] for episode in episodes[start : start + 3]}
        seconds = {episode.turns[1].completion.ids for episode in episodes[start : start + 3]}
        assert (len(firsts), len(seconds)) == (1, 3)
    assert len(ids(episodes)) == 12


def test_a_first_attempt_cut_by_its_limit_still_gets_its_second_with_the_instruction_uncut(chat):
    episodes, _ = rolled(chat, lambda prompt, seed: "no end " * 50, sampling=Sampling(max_tokens=4))
    for episode in episodes:
        first, second = episode.turns
        assert (first.completion.finish, len(first.completion.ids)) == ("length", 4)
        assert second.prompt_ids[: len(first.prompt_ids) + 4] == (*first.prompt_ids, *first.completion.ids)
        assert second.prompt_ids[len(first.prompt_ids) + 4] == chat.eos_ids[0]
        assert TASK.revise in chat.text(second.prompt_ids)


def test_no_problems_give_no_episodes(chat):
    assert self_correct([], TASK, Recorder(chat, lambda prompt, seed: "x"), chat, HOW) == []


@pytest.mark.parametrize("shared_first", [False, True])
def test_a_real_model_gives_the_same_episodes_however_rows_are_batched(chat, model, shared_first):
    how = replace(HOW, sampling=Sampling(max_tokens=6), shared_first=shared_first)
    once, again = (self_correct(PROBLEMS, TASK, HFEngine(model, chat.eos_ids, max_rows=rows), chat, how) for rows in (256, 5))
    assert ids(once) == ids(again)
    for one, other in zip(once, again):
        for turn, same in zip(one.turns, other.turns):
            assert turn.prompt_ids == same.prompt_ids
            assert turn.completion.logprobs == pytest.approx(same.completion.logprobs, abs=1e-4)


def test_a_real_model_draws_other_tokens_for_other_samples_steps_and_seeds(chat, model):
    engine = HFEngine(model, chat.eos_ids)
    how = replace(HOW, sampling=Sampling(max_tokens=6))
    episodes = self_correct(PROBLEMS, TASK, engine, chat, how)
    assert ids(episodes) == ids(self_correct(PROBLEMS, TASK, engine, chat, how))
    assert all(len({turns[0] for turns in ids(episodes)[start : start + 3]}) == 3 for start in range(0, 12, 3))
    for changed in ({"seed": 6}, {"step": 8}):
        assert ids(episodes) != ids(self_correct(PROBLEMS, TASK, engine, chat, replace(how, **changed)))


def test_greedy_attempts_do_not_depend_on_seeds(chat, model):
    how = replace(HOW, sampling=Sampling(max_tokens=6, temperature=0), samples=2)
    first, second = (self_correct(PROBLEMS[:2], TASK, HFEngine(model, chat.eos_ids), chat, replace(how, seed=seed)) for seed in (1, 2))
    assert ids(first) == ids(second)
    assert ids(first)[0] == ids(first)[1]


GIVEN = {problem.id: [f"given {problem.id}", "\\boxed{ 1 + 2 + 3 }"] for problem in PROBLEMS}


def test_given_first_attempts_are_not_sampled_but_graded_marked_and_shown_to_the_second(chat):
    episodes, engine = rolled(chat, given=GIVEN, given_share=1.0)
    assert [len(prompts) for prompts, _ in engine.calls] == [12]  # second attempts only
    for episode in episodes:
        first, second = episode.turns
        assert first.text in GIVEN[episode.problem.id]
        assert (first.given, second.given) == (True, False)
        assert second.prompt_ids[: len(first.prompt_ids) + len(first.completion.ids)] == (*first.prompt_ids, *first.completion.ids)
        assert first.verdict == TASK.grade([(episode.problem, first.text)])[0]


def test_a_share_of_given_first_attempts_leaves_the_other_episodes_as_they_were(chat):
    plain, _ = rolled(chat)
    mixed, engine = rolled(chat, given=GIVEN, given_share=0.5)
    own = [i for i, episode in enumerate(mixed) if not episode.turns[0].given]
    assert 0 < len(own) < 12
    assert [mixed[i] for i in own] == [plain[i] for i in own]
    assert sorted(len(prompts) for prompts, _ in engine.calls) == sorted([12 - len(own), len(own), len(own)])


def test_where_every_episode_needs_a_given_attempt_a_problem_without_one_is_named(chat):
    with pytest.raises(DataError, match=f"{PROBLEMS[3].id}: no first attempt is given"):
        rolled(chat, given={key: GIVEN[key] for key in list(GIVEN)[:3]}, given_share=1.0)


def test_first_attempts_of_stored_episodes_are_taken_once_each(chat):
    episodes, _ = rolled(chat, lambda prompt, seed: "always this")
    assert first_attempts(episodes) == {problem.id: ["always this"] for problem in PROBLEMS}


def test_self_refine_asks_for_feedback_first_and_shows_it_to_the_next_attempt(chat):
    episodes, engine = rolled(chat, self_refine=True)
    assert [len(prompts) for prompts, _ in engine.calls] == [12, 12, 12]  # attempt, feedback, attempt
    _, (feedback_prompts, feedback_seeds), (second_prompts, _) = engine.calls
    for i, episode in enumerate(episodes):
        first, second = episode.turns
        feedback = chat.encode(f"seed {feedback_seeds[i] % 1000}")
        assert feedback_prompts[i] == chat.revise(first.prompt_ids, first.completion.ids, revise.FEEDBACK)
        assert second.prompt_ids == second_prompts[i] == chat.revise(feedback_prompts[i], (*feedback, chat.eos_ids[0]), revise.REFINE)


def test_an_attempt_is_graded_while_the_next_one_is_sampled(chat):
    sampled_again = threading.Event()

    class Slow(Recorder):
        def generate(self, prompts, sampling, seeds):
            if self.calls:
                sampled_again.set()
            return super().generate(prompts, sampling, seeds)

    def grade(pairs):
        assert sampled_again.wait(timeout=60), "the second attempts wait for the first ones' grades"
        return TASK.grade(pairs)

    engine = Slow(chat, lambda prompt, seed: "x")
    assert len(self_correct(PROBLEMS, replace(TASK, grade=grade), engine, chat, HOW)) == 12


def test_a_text_is_graded_once_for_a_problem_whatever_the_attempt(chat):
    asked = []

    def grade(pairs):
        asked.extend((problem.id, text) for problem, text in pairs)
        return TASK.grade(pairs)

    engine = Recorder(chat, lambda prompt, seed: written((seed % 2, 1, 2)))
    episodes = self_correct(PROBLEMS, replace(TASK, grade=grade), engine, chat, HOW)
    assert sorted(asked) == sorted({(episode.problem.id, turn.text) for episode in episodes for turn in episode.turns})
    assert len(asked) < sum(len(episode.turns) for episode in episodes)
    turns = [(episode.problem, turn) for episode in episodes for turn in episode.turns]
    assert [turn.verdict for _, turn in turns] == TASK.grade([(problem, turn.text) for problem, turn in turns])


def test_what_the_grader_failed_on_is_asked_again(chat):
    calls: list[int] = []
    graded = threading.Event()

    class Waiting(Recorder):
        def generate(self, prompts, sampling, seeds):
            assert not self.calls or graded.wait(timeout=60)
            return super().generate(prompts, sampling, seeds)

    def grade(pairs):
        calls.append(len(pairs))
        graded.set()
        return [Verdict(status="unscored") if len(calls) == 1 else Verdict(status="wrong") for _ in pairs]

    episodes = self_correct(PROBLEMS[:1], replace(TASK, grade=grade), Waiting(chat, lambda *_: "x"), chat, HOW)
    assert calls == [1, 1]
    assert {tuple(turn.verdict.status for turn in e.turns) for e in episodes} == {("unscored", "wrong")}


def test_what_gathers_while_the_grader_is_busy_is_graded_together(chat):
    calls: list[int] = []
    busy, sampled = threading.Event(), threading.Event()

    class Telling(Recorder):
        def generate(self, prompts, sampling, seeds):
            assert not self.calls or busy.wait(timeout=60)
            if len(self.calls) == 3:
                sampled.set()
            return super().generate(prompts, sampling, seeds)

    def grade(pairs):
        calls.append(len(pairs))
        busy.set()
        assert sampled.wait(timeout=60)
        return TASK.grade(pairs)

    engine = Telling(chat, lambda prompt, seed: f"{seed} {len(prompt)}")
    self_correct(PROBLEMS, replace(TASK, grade=grade), engine, chat, replace(HOW, attempts=4))
    assert calls[0] == 12
    assert calls[1] >= 24
    assert sum(calls) == 48


def test_an_error_in_the_grader_is_raised(chat):
    def grade(pairs):
        raise DataError("the reference cannot be read")

    with pytest.raises(DataError, match="the reference cannot be read"):
        self_correct(PROBLEMS, replace(TASK, grade=grade), Recorder(chat, lambda *_: "x"), chat, HOW)
