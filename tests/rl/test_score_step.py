import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from posttrain.config import ConfigError
from posttrain.rl import checkpoint, score
from posttrain.rl.loop import Learner, TrainingError
from posttrain.rl.score import sample, score_step, validate
from posttrain.rollout.store import write_episodes
from posttrain.run import RunFolder
from posttrain.sampling.scripted import ScriptedEngine
from posttrain.types import EngineError, Problem, Verdict
from tests.rl.episodes import episode
from tests.rl.learners import PROBLEMS, config_for, even_length, even_task, measured, open_learner, train

STAGES = {
    "stage one": {"weight": [0, 1], "kl": {"coef": [0.5, 0.01]}},
    "stage two": {"weight": [1, 1], "bonus": 10, "kl": {"coef": [0.1, 0.1]}},
    "baseline by outcome": {"weight": [1, 1], "bonus": 10, "baseline": "problem_and_outcome"},
    "kl in the loss": {"weight": [1, 1], "kl": {"coef": [0.1, 0.1], "estimator": "k2_in_loss"}, "importance_cap": 2.0},
}


def flat(learner: Learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.policy.trainable]).clone()


def moved(learner: Learner, steps: int = 1) -> tuple[torch.Tensor, list[dict]]:
    """How far each weight went in that many steps, and their figures."""
    before = flat(learner)
    figures = [measured(score_step(learner, PROBLEMS[:4], step)[1]) for step in range(1, steps + 1)]
    return flat(learner) - before, figures


def broken_at(learner: Learner) -> None:
    with torch.no_grad():
        next(iter(learner.policy.trainable)).view(-1)[0] = math.nan


@pytest.mark.parametrize("stage", STAGES)
def test_the_update_does_not_depend_on_how_the_batch_is_split(stage, tiny_qwen2):
    whole, figures = moved(open_learner(config_for(tiny_qwen2, micro_tokens=4096, **STAGES[stage])))
    assert whole.norm() > 1e-3
    for micro_tokens in (1, 150):
        split, same = moved(open_learner(config_for(tiny_qwen2, micro_tokens=micro_tokens, **STAGES[stage])))
        assert (split - whole).norm() < 2e-6 * whole.norm()
        assert same[0] == pytest.approx(figures[0], rel=1e-4, abs=1e-5)


def test_with_an_adapter_too_the_update_does_not_depend_on_how_the_batch_is_split(tiny_qwen2):
    adapted = {"policy": {"lora": {"rank": 4, "alpha": 8}}}
    whole, _ = moved(open_learner(config_for(tiny_qwen2, micro_tokens=4096, **adapted)), steps=2)
    split, _ = moved(open_learner(config_for(tiny_qwen2, micro_tokens=150, **adapted)), steps=2)
    assert whole.norm() > 1e-3
    assert (split - whole).norm() < 2e-6 * whole.norm()


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma"])
@pytest.mark.parametrize("policy", [{}, {"lora": {"rank": 4, "alpha": 8}}], ids=["full", "lora"])
def test_an_engine_that_shares_the_module_agrees_with_the_trainer_before_and_after_updates(family, policy, tiny_folder):
    cfg = config_for(tiny_folder(family), policy=policy, sampling={"max_tokens": 6, "temperature": 0.8})
    distance, figures = moved(open_learner(cfg), steps=3)
    assert distance.norm() > 1e-3
    assert all(row[f"train/gap_t{k}"] < 1e-4 for row in figures for k in (1, 2))
    assert all(row["train/kl_t1"] == pytest.approx(0, abs=1e-4) for row in figures[:1])


def test_at_a_learning_rate_of_0_nothing_moves_and_the_policy_stays_the_reference(tiny_qwen2):
    still = {"optim": {"lr": 0.0, "warmup_steps": 0, "weight_decay": 0.1}}
    for policy in ({}, {"lora": {"rank": 4, "alpha": 8}}):
        distance, figures = moved(open_learner(config_for(tiny_qwen2, policy=policy, **still)), steps=3)
        assert (distance == 0).all()
        assert all(row[f"train/{what}_t{k}"] == pytest.approx(0, abs=1e-4) for row in figures for what in ("kl", "gap") for k in (1, 2))
        assert all(row["train/grad_norm"] > 1e-3 for row in figures)


def test_a_second_attempt_reads_only_the_instruction_and_the_token_drawn_last(tiny_qwen2):
    episodes, figures = score_step(open_learner(config_for(tiny_qwen2)), PROBLEMS[:4], 1)
    assert figures["train/cached_t1"] == pytest.approx(0.75, abs=0.01)  # four samples read a prompt once
    read_before = sum(len(e.turns[0].prompt_ids) + len(e.turns[0].completion.ids) - 1 for e in episodes)
    assert figures["train/cached_t2"] == pytest.approx(read_before / sum(len(e.turns[1].prompt_ids) for e in episodes))


def test_the_gap_shows_an_engine_that_samples_from_other_weights(tiny_qwen2):
    learner = open_learner(config_for(tiny_qwen2), engine=ScriptedEngine(lambda prompt, seed: (seed % 200, 40 + seed % 7)))
    _, figures = moved(learner)
    assert figures[0]["train/gap_t1"] > 1  # it claims log-probability 0


def test_the_same_step_gives_the_same_episodes_and_another_step_or_seed_gives_others(tiny_qwen2):
    learner = open_learner(config_for(tiny_qwen2))
    episodes = sample(learner, PROBLEMS[:4], samples=4, seed=0, step=7)
    assert sample(learner, PROBLEMS[:4], samples=4, seed=0, step=7) == episodes
    alone = sample(learner, PROBLEMS[2:3], samples=4, seed=0, step=7)  # whatever else is in the batch
    assert [e.turns[1].completion.ids for e in alone] == [e.turns[1].completion.ids for e in episodes[8:12]]
    for other in (sample(learner, PROBLEMS[:4], samples=4, seed=0, step=8), sample(learner, PROBLEMS[:4], samples=4, seed=1, step=7)):
        assert not {e.turns[0].completion.ids for e in other} & {e.turns[0].completion.ids for e in episodes}
    assert len({e.turns[0].completion.ids for e in episodes}) > 12  # the samples of a problem differ


def test_two_looks_at_held_out_problems_draw_the_same_numbers(tiny_qwen2):
    learner = open_learner(config_for(tiny_qwen2, validation={"every": 1}))
    assert validate(learner, PROBLEMS[4:]) == validate(learner, PROBLEMS[4:])


def test_episodes_that_the_grader_failed_on_are_counted_and_move_nothing(tiny_qwen2):
    def fails_on_p1(problem: Problem, text: str) -> Verdict:
        return Verdict(status="unscored", why="no grader") if problem.id == "p1" else even_length(problem, text)

    def approves_of_p1(problem: Problem, text: str) -> Verdict:
        return Verdict(status="correct") if problem.id == "p1" else even_length(problem, text)

    cfg = config_for(tiny_qwen2, kl={"coef": [0, 0]})
    some, told = moved(open_learner(cfg, even_task(fails_on_p1)))
    none, all_right = moved(open_learner(cfg, even_task(approves_of_p1)))  # equal rewards carry no signal either
    assert torch.equal(some, none)
    assert some.norm() > 1e-3
    assert told[0]["train/unscored"] == 0.25
    assert told[0]["train/zero_variance_t2"] == all_right[0]["train/zero_variance_t2"]
    assert told[0]["train/acc_t2"] == pytest.approx((all_right[0]["train/acc_t2"] - 0.25) / 0.75)
    assert told[0]["train/reward"] == pytest.approx(told[0]["train/acc_t1"] + told[0]["train/acc_t2"])


def test_an_unscored_second_attempt_takes_its_whole_episode_out(tiny_qwen2):
    def fails_at_times(problem: Problem, text: str) -> Verdict:
        return Verdict(status="unscored", why="no grader") if len(text) % 3 == 0 else even_length(problem, text)

    cfg = config_for(tiny_qwen2, guards={"most_unscored": 0.95})
    distance, figures = moved(open_learner(cfg, even_task(fails_at_times)))
    assert 0.2 < figures[0]["train/unscored"] < 0.9
    assert torch.isfinite(distance).all()


def test_a_grader_that_fails_on_every_episode_stops_the_run_and_is_quoted(tiny_qwen2, tmp_path):
    def fails(problem: Problem, text: str) -> Verdict:
        return Verdict(status="unscored", why="the worker is gone")

    learner = open_learner(config_for(tiny_qwen2), even_task(fails))
    with pytest.raises(TrainingError, match=r"step 1, problems p\d.* failed on 100% of 16 episodes.*the worker is gone.*no checkpoint yet"):
        train(learner, PROBLEMS, [], RunFolder(tmp_path / "run", learner.cfg), start=0)


def test_a_grader_that_fails_too_often_stops_the_run(tiny_qwen2):
    def fails_on_half(problem: Problem, text: str) -> Verdict:
        return Verdict(status="unscored", why="no grader") if problem.id in ("p0", "p1") else even_length(problem, text)

    for most, stops in ((0.4, True), (0.5, False)):
        learner = open_learner(config_for(tiny_qwen2, guards={"most_unscored": most}), even_task(fails_on_half))
        with (
            pytest.raises(TrainingError, match=r"failed on 50% of 16 episodes, more than guards\.most_unscored = 40%")
            if stops
            else nullcontext()
        ):
            score_step(learner, PROBLEMS[:4], 1)


def test_a_grader_that_fails_on_all_held_out_problems_stops_the_run_with_a_line(tiny_qwen2, tmp_path):
    def fails_when_held_out(problem: Problem, text: str) -> Verdict:
        return Verdict(status="unscored", why="the worker is gone") if problem.id == "p7" else even_length(problem, text)

    learner = open_learner(config_for(tiny_qwen2, validation={"every": 2}), even_task(fails_when_held_out))
    with pytest.raises(TrainingError, match=r"step 0, problems p7: .*the worker is gone"):
        train(learner, PROBLEMS[:4], PROBLEMS[7:], RunFolder(tmp_path / "run", learner.cfg), start=0)


@pytest.mark.parametrize("sampler", ["hf", "scripted"])
def test_a_weight_that_is_not_a_number_stops_the_run_with_the_last_checkpoint_whole(sampler, tiny_qwen2, tmp_path):
    cfg = config_for(tiny_qwen2, steps=2)
    engine = ScriptedEngine(lambda prompt, seed: (seed % 200,) * (1 + seed % 3)) if sampler == "scripted" else None
    learner = open_learner(cfg, engine=engine)
    folder = RunFolder(tmp_path / "run", cfg)
    assert train(learner, PROBLEMS, [], folder, start=0) == 0
    good = flat(learner)

    again = open_learner(config_for(tiny_qwen2), engine=engine)
    checkpoint.restore(checkpoint.latest(folder.path), again.policy)
    broken_at(again)
    cause = "logits are not finite" if sampler == "hf" else "the loss is nan"
    with pytest.raises(TrainingError, match=rf"step 3, problems p\d, .*{cause}.*checkpoint is {folder.path}/checkpoints/step_000002"):
        train(again, PROBLEMS, [], folder, start=2)
    assert checkpoint.latest(folder.path).step == 2
    checkpoint.restore(checkpoint.latest(folder.path), again.policy)
    assert torch.equal(flat(again), good)
    assert len(folder.metrics()) == 2


def test_an_engine_that_dies_is_told_with_the_step_and_its_own_words(tiny_qwen2, tmp_path):
    def dies(prompt: tuple[int, ...], seed: int) -> tuple[int, ...]:
        raise EngineError("vllm: no answer for 1800 s; it said: CUDA out of memory")

    learner = open_learner(config_for(tiny_qwen2), engine=ScriptedEngine(dies))
    with pytest.raises(TrainingError, match=r"step 1, problems .*no answer for 1800 s; it said: CUDA out of memory"):
        train(learner, PROBLEMS, [], RunFolder(tmp_path / "run", learner.cfg), start=0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 0}, "steps: "),
        ({"problems_per_step": 0}, "problems_per_step: "),
        ({"micro_tokens": 0}, "micro_tokens: "),
        ({"samples": 1}, "samples must be at least 2"),
        ({"kl": {"coef": [0.1]}}, "weight has 2 attempts but kl.coef has 1"),
        ({"shared_first": True}, "shared_first: all samples of a problem share attempt 1"),
        ({"checkpoint": {"every": 0}}, "checkpoint.every: "),
        ({"guards": {"window": 0}}, "guards.window: "),
    ],
)
def test_numbers_that_cannot_work_are_refused_before_anything_is_loaded(changes, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        config_for(tmp_path, **changes)


def stored(tmp_path, problems) -> str:
    """A file of episodes that begin with a text of even length, as an evaluation would have written it."""
    file = tmp_path / "episodes.jsonl"
    write_episodes(file, [episode([([65, 66], True), ([65], False)], problem=problem.id) for problem in problems])
    return str(file)


def test_no_gradient_and_no_kl_is_taken_on_given_first_attempts(tiny_qwen2, tmp_path):
    given = {problem.id: ["xx"] for problem in PROBLEMS}
    offline = {"episodes": stored(tmp_path, PROBLEMS), "share": 1.0}
    paid, unpaid = (config_for(tiny_qwen2, weight=weight, offline=offline) for weight in ([1, 1], [0, 1]))
    first, figures = moved(replace(open_learner(paid), given=given, given_share=1.0))
    second, _ = moved(replace(open_learner(unpaid), given=given, given_share=1.0))
    assert torch.equal(first, second)  # what attempt 1 is worth is nobody's business
    assert first.norm() > 1e-3
    assert (figures[0]["train/kl_t1"], figures[0]["train/gap_t1"]) == (0, 0)
    assert figures[0]["train/acc_t1"] == 1.0  # all are given
    assert figures[0]["train/samples"] == 16


def test_offline_first_attempts_that_are_of_other_problems_are_refused(tiny_qwen2, tmp_path):
    cfg = config_for(tiny_qwen2, offline={"episodes": stored(tmp_path, PROBLEMS), "share": 0.5})
    with pytest.raises(ConfigError, match=r"has no first attempt for 20000 of the 20000 training problems"):
        score.main(cfg, tmp_path / "run", resume=False)


def test_one_attempt_alone_can_be_trained(tiny_qwen2, tmp_path):
    cfg = config_for(tiny_qwen2, weight=[1], kl={"coef": [0.1]}, validation={"every": 4}, steps=4)
    folder = RunFolder(tmp_path / "run", cfg)
    assert train(open_learner(cfg), PROBLEMS[:4], PROBLEMS[4:], folder, start=0) == 0
    rows = list(folder.metrics())
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert {"val/acc_t1", "train/kl_t1"} <= rows[-1].keys()
    assert rows[-1]["train/samples"] == 16


def test_an_adaptive_coefficient_follows_the_kl_and_enters_the_loss(tiny_qwen2, tmp_path):
    cfg = config_for(tiny_qwen2, kl={"coef": [0.1, 0.1], "target": [1e-9, None]}, steps=4)
    folder = RunFolder(tmp_path / "run", cfg)
    train(open_learner(cfg), PROBLEMS, [], folder, start=0)
    told = [row["train/kl_coef_t1"] for row in folder.metrics()]
    assert told[0] == pytest.approx(0.1)
    assert told[1] != told[0]
    assert len({row["train/kl_coef_t2"] for row in folder.metrics()}) == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weight": [1], "kl": {"coef": [0.1]}, "bonus": 10}, "bonus and gamma to 0 and offline to null"),
        ({"kl": {"coef": [0.1, 0.1], "target": [1.0]}}, "kl.target has 1 entries for 2 attempts"),
        ({"gamma": 1.5}, "gamma"),
        ({"offline": {"episodes": "x", "share": 0}}, "share"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, complaint, tiny_qwen2):
    with pytest.raises(ConfigError, match=complaint):
        config_for(tiny_qwen2, **changes)
