"""Sampling a step ahead: whose episodes a step learns from, and that nothing of it is lost by a kill."""

import random
import shutil

import pytest

from posttrain.config import ConfigError, build
from posttrain.rl.ahead import Ahead
from posttrain.rl.checkpoint import CheckpointError
from posttrain.rl.loop import Run, run_steps
from posttrain.rl.recipe import Config
from posttrain.rl.score import credit as own_credit
from posttrain.rl.score import improve, sample, score_step
from posttrain.rollout.problems import draw_problems
from posttrain.rollout.store import to_line
from posttrain.run import RunFolder
from posttrain.sampling.engine import open_engine
from tests.rl.learners import PROBLEMS, config_for, measured, open_learner
from tests.rl.test_resume import LORA, RECIPE, assert_same_run, kill_at, to_the_end, write_recipe

AHEAD = {"sample_ahead": True, "importance_cap": 2.0}


def open_ahead(cfg: Config, folder, held_out=()):
    """A run whose engine samples from a copy of the policy."""
    shared = open_learner(cfg)
    chat = {"eos_ids": shared.chat.eos_ids, "pad_id": None, "dtype": "float32", "model": None}
    learner = open_learner(cfg, engine=open_engine(cfg.engine, cfg.model, **chat))
    return Run(learner=learner, folder=RunFolder(folder, cfg), problems=PROBLEMS, held_out=held_out)


def lines(episodes):
    return [to_line(episode) for episode in episodes]


def test_a_step_learns_from_the_policy_before_the_last_update(tiny_qwen2, tmp_path):
    cfg = config_for(tiny_qwen2, steps=3, **AHEAD)
    with Ahead(run := open_ahead(cfg, tmp_path / "run")) as ahead:
        found = [ahead.step(draw_problems(PROBLEMS, 4, step, cfg.seed), step)[0] for step in (1, 2, 3)]
    behind = open_learner(cfg)  # shares its weights with its engine: it samples from whatever it is
    drawn = {step: draw_problems(PROBLEMS, 4, step, cfg.seed) for step in (1, 2, 3)}
    by_first = {step: sample(behind, drawn[step], samples=cfg.samples, seed=cfg.seed, step=step) for step in (1, 2)}
    assert lines(found[0]) == lines(by_first[1])
    assert lines(found[1]) == lines(by_first[2])  # of the policy that no update has moved
    improve(behind, by_first[1], own_credit)
    assert lines(found[2]) == lines(sample(behind, drawn[3], samples=cfg.samples, seed=cfg.seed, step=3))  # moved once
    assert {episode.policy_step for episode in found[2]} == {3}
    assert run.learner.engine is not None


def test_a_policy_that_does_not_move_is_trained_alike_ahead_or_not(tiny_qwen2, tmp_path):
    cfg = config_for(tiny_qwen2, optim={"lr": 0.0, "warmup_steps": 0}, **AHEAD)
    with Ahead(open_ahead(cfg, tmp_path / "run")) as ahead:
        found = [ahead.step(draw_problems(PROBLEMS, 4, step, cfg.seed), step) for step in (1, 2, 3, 4)]
    behind = open_learner(cfg)
    expected = [score_step(behind, draw_problems(PROBLEMS, 4, step, cfg.seed), step) for step in (1, 2, 3, 4)]
    assert [lines(episodes) for episodes, _ in found] == [lines(episodes) for episodes, _ in expected]
    for (_, figures), (_, others) in zip(found, expected, strict=True):
        others = {key: value for key, value in measured(others).items() if not key.startswith("train/cached")}
        assert measured(figures) == pytest.approx(others, abs=1e-5)


def test_looking_at_what_is_held_out_waits_for_the_engine_and_leaves_the_steps_alone(tiny_qwen2, tmp_path):
    cfg = config_for(tiny_qwen2, **AHEAD, validation={"every": 1, "problems": 2})
    other = config_for(tiny_qwen2, **AHEAD)
    with Ahead(run := open_ahead(cfg, tmp_path / "looks", PROBLEMS[:2])) as ahead:
        assert run_steps(run, ahead.step, ahead.look, ahead.saving) == 0
    with Ahead(plain := open_ahead(other, tmp_path / "plain")) as ahead:
        assert run_steps(plain, ahead.step, ahead.look, ahead.saving) == 0
    seen = [
        {key: value for key, value in measured(row).items() if not key.startswith("val/")} for row in run.folder.metrics() if row["step"]
    ]
    assert seen == [measured(row) for row in plain.folder.metrics() if row["step"]]
    assert sum("val/acc_t2" in row for row in run.folder.metrics()) == 5


@pytest.mark.parametrize("changes", [{}, LORA])
def test_a_run_killed_at_random_moments_ends_with_the_bits_of_one_left_alone(sums_base, tmp_path, changes):
    recipe = write_recipe(tmp_path, sums_base, {**AHEAD, "steps": 6, **changes})
    expected, run, draw = tmp_path / "left_alone", tmp_path / "killed", random.Random(2)
    whole_s = to_the_end(recipe, expected)
    assert not list(expected.glob("episodes/ahead_*"))  # the last step has none to come
    for row in (1, 2, 3, 4):
        kill_at(recipe, run, row, draw.uniform(0, whole_s / 10), last_row=4)
    to_the_end(recipe, run)
    assert_same_run(run, expected)


def test_episodes_that_are_gone_are_missed_by_name(tiny_qwen2, tmp_path):
    cfg = config_for(tiny_qwen2, steps=2, **AHEAD)
    run = open_ahead(cfg, tmp_path / "run")
    with Ahead(run) as ahead, ahead.saving(1):
        ahead.step(PROBLEMS[:4], 1)
    kept = tmp_path / "run" / "episodes" / "ahead_000002.jsonl"
    shutil.rmtree(kept.parent)
    with pytest.raises(CheckpointError, match=r"ahead_000002\.jsonl: the episodes sampled ahead of the last checkpoint are gone"):
        Ahead(Run(learner=run.learner, folder=run.folder, problems=PROBLEMS, held_out=[], start=1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"importance_cap": None}, "importance_cap must be set"),
        ({"kind": "think_twice"}, "think_twice samples what it has just learnt from"),
    ],
)
def test_what_cannot_be_sampled_ahead_is_refused(changes, says):
    from posttrain.rl import think_twice

    tree = {**RECIPE, "bonus": 0, "model": "any", **AHEAD, **changes}
    with pytest.raises(ConfigError, match=says):
        build(think_twice.Config if changes.get("kind") else Config, [("recipe.yaml", tree)])
