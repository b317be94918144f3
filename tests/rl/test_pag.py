"""PAG's credit and gradient by hand, on rows of two and of three turns, and its whole path in miniature."""

from dataclasses import replace

import pytest
import torch

from posttrain.config import ConfigError, build, read_yaml
from posttrain.evaluation.run import evaluate_model
from posttrain.evaluation.suite import Suite
from posttrain.rl import pag
from posttrain.rl.advantage import informative_rows, scaled_by_role
from posttrain.rl.batch import collate
from posttrain.rl.loss import reinforce
from posttrain.rl.pag import Config, pag_credit, pag_step, revision_reward
from posttrain.rl.reward import rewards, sampled_attempts
from posttrain.run import read_jsonl
from posttrain.sft import self_training
from posttrain.types import Completion, Episode
from tests.rl.episodes import episode
from tests.rl.learners import PROBLEMS, config_for, even_task, measured, open_learner
from tests.sums_base import TASK

THREE = {"weight": [1, 1, 1], "kl": {"coef": [0, 0, 0]}}


def verified(first: bool, verdict: bool, last: bool | None, sample: int) -> Episode:
    """An attempt of two tokens, a verdict of one, and a revision of three, or None for an attempt that is kept."""
    turns = [((11, 12), first), ((13,), verdict), ((14, 15, 16), bool(last))]
    if last is not None:
        return episode(turns, sample=sample)
    whole = episode(turns[:2], sample=sample)
    one, two = whole.turns
    kept = replace(one, prompt_ids=(*two.prompt_ids, 13), completion=Completion(ids=(), logprobs=(), finish="stop"), given=True)
    return replace(whole, turns=(one, two, kept))


BATCH = [verified(True, True, None, 0), verified(False, True, True, 1), verified(False, False, None, 2), verified(True, False, False, 3)]
RMS = ((4 * (2 / 3) ** 2 + 2 * 3**2) / 6) ** 0.5  # of the role that attempts: four first attempts and two revisions
BY_HAND = torch.tensor(  # leave-one-out of r1 is 2/3 from the mean of three others; of the verdict likewise; the revisions earn 2 and -1
    [
        [2 / 3 / RMS, 1.0, 0.0],
        [-2 / 3 / RMS, 1.0, 3 / RMS],
        [-2 / 3 / RMS, -1.0, 0.0],
        [2 / 3 / RMS, -1.0, -3 / RMS],
    ]
)


def credited() -> torch.Tensor:
    cfg = config_for("m", **THREE, kind="score")
    reward_BK, scored_B = rewards(BATCH)
    counts_BK = scored_B[:, None] & sampled_attempts(BATCH)
    assert counts_BK[:, 2].tolist() == [False, True, False, True]
    return pag_credit(reward_BK, torch.zeros(4, 3), counts_BK, replace(cfg, bonus=1.0))


def test_the_bonus_is_progress_over_the_attempt_and_not_over_the_verdict():
    reward_BK = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert revision_reward(reward_BK, 1.0)[:, 2].tolist() == [1.0, 2.0, -1.0, 0.0]
    assert torch.equal(revision_reward(reward_BK, 1.0)[:, :2], reward_BK[:, :2])


def test_each_turn_is_credited_by_itself_and_scaled_within_its_role():
    torch.testing.assert_close(credited(), BY_HAND, rtol=2e-4, atol=1e-6)  # the scale has 1e-4 on top


def test_a_penalty_lowers_only_the_turn_that_it_is_of():
    cfg = replace(config_for("m", **THREE, kind="score"), bonus=1.0)
    reward_BK, counts_BK = rewards(BATCH)[0], sampled_attempts(BATCH)
    none = torch.zeros(4, 3)
    some = none.clone()
    some[0, 1] = 0.5
    plain, other = (pag_credit(reward_BK, penalty_BK, counts_BK, cfg) for penalty_BK in (none, some))
    assert torch.equal(plain[:, [0, 2]], other[:, [0, 2]])
    assert other[0, 1] < plain[0, 1]


def test_the_gradient_reaches_the_tokens_of_each_turn_by_its_own_advantage_and_none_of_a_kept_one():
    batch = collate(BATCH, pad_id=0)
    assert batch.length.tolist() == [7, 12, 7, 12]  # 2 + 2 + 2 + 1 tokens, and 2 + 3 more where a revision was sampled
    assert batch.per_attempt(torch.ones_like(batch.sampler_logp)).tolist() == [[2, 1, 0], [2, 1, 3], [2, 1, 0], [2, 1, 3]]
    advantage_BK = credited()
    logp_BT = torch.zeros(batch.ids.shape, requires_grad=True)
    reinforce(logp_BT, advantage_BK, batch, informative_rows(advantage_BK, 4)).backward()
    by_hand = torch.zeros_like(logp_BT)
    for row, columns in enumerate(([2, 3, 6], [2, 3, 6, 9, 10, 11], [2, 3, 6], [2, 3, 6, 9, 10, 11])):
        for column in columns:
            attempt = 0 if column < 4 else 1 if column < 7 else 2
            by_hand[row, column] = -BY_HAND[row, attempt] / 4
    torch.testing.assert_close(logp_BT.grad, by_hand, rtol=2e-4, atol=1e-6)


def test_roles_are_scaled_apart_and_what_does_not_count_is_left_out():
    advantage_BK = torch.tensor([[2.0, 0.5, 4.0], [-2.0, -0.5, 100.0]])
    counts_BK = torch.tensor([[True, True, True], [True, True, False]])
    scaled = scaled_by_role(advantage_BK, ((0, 2), (1,)), counts_BK)
    rms = ((4 + 4 + 16) / 3) ** 0.5
    torch.testing.assert_close(scaled[0], torch.tensor([2 / rms, 1.0, 4 / rms]), rtol=3e-4, atol=0)


class Judge:
    """The policy's own engine, but that verdicts are given: "wrong" for every other row, as a random model says neither word."""

    def __init__(self, learner) -> None:
        self.engine, self.chat, self.end = learner.engine, learner.chat, learner.chat.revise((), (), learner.task.verify)[-12:]
        self.load_weights = learner.engine.load_weights

    def generate(self, prompts, sampling, seeds):
        if any(tuple(prompt[-12:]) != tuple(self.end) for prompt in prompts):
            return self.engine.generate(prompts, sampling, seeds)
        said = [(*self.chat.encode("wrong" if i % 2 else "right"), self.chat.eos_ids[0]) for i in range(len(prompts))]
        return [Completion(ids=ids, logprobs=(-1.0,) * len(ids), finish="stop") for ids in said]


def test_a_step_moves_the_policy_and_counts_what_was_sampled(tiny_qwen2):
    cfg = replace(config_for(tiny_qwen2, **THREE, kind="score"), bonus=1.0)
    learner = open_learner(cfg, replace(even_task(), verify="Is the final answer above correct?"))
    learner = replace(learner, engine=Judge(learner))
    before = [parameter.detach().clone() for parameter in learner.policy.trainable]
    episodes, figures = pag_step(learner, PROBLEMS[:4], 1)
    assert [len(e.turns) for e in episodes] == [3] * 16
    assert (figures["train/revised"], figures["train/samples"]) == (0.5, 16 + 16 + 8)
    assert figures["train/verifier_acc"] == sum(e.turns[1].verdict.correct for e in episodes) / 16
    assert figures["train/acc_t2"] == sum(e.turns[2].verdict.correct for e in episodes) / 16
    assert {"train/kl_t1", "train/kl_verdict", "train/kl_t2", "train/gap_verdict"} <= figures.keys()
    assert "train/kl_t3" not in figures
    assert any(not torch.equal(old, new) for old, new in zip(before, learner.policy.trainable))


def test_the_base_learns_to_give_verdicts_and_a_run_and_an_evaluation_go_on_from_there(sums_base, tmp_path):
    warm = {"model": str(sums_base), "task": TASK, "draw": {"problems": 30, "samples": 8}, "fit": {"steps": 60, "batch": 32}}
    layers = [read_yaml("recipes/score_sums/pag_warm_up.yaml"), ("test", warm)]
    assert self_training.main(build(self_training.Config, layers), tmp_path / "warm", resume=False) == 0
    recipe = {
        "model": str(tmp_path / "warm" / "model"),
        "task": TASK,
        "steps": 2,
        "problems_per_step": 4,
        "validation": {"every": 2, "problems": 2},
    }
    cfg = build(Config, [read_yaml("recipes/score_sums/pag.yaml"), ("test", recipe | {"checkpoint": {"every": 1}})])
    assert pag.main(cfg, tmp_path / "run", resume=False) == 0
    rows = list(read_jsonl(tmp_path / "run" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert "val/verifier_acc" in rows[0]
    assert all(0 < row["train/revised"] < 1 for row in rows[1:])  # both words are said
    step = [measured(row) for row in rows]
    assert pag.main(cfg, tmp_path / "again", resume=False) == 0
    assert [measured(row) for row in read_jsonl(tmp_path / "again" / "metrics.jsonl")] == step

    task = TASK | {"test_size": 10}
    suite = build(Suite, [read_yaml("evals/suites/sums_verify.yaml"), ("test", {"task": task, "split": "train"})])
    summary = evaluate_model(suite, "verify", str(tmp_path / "run" / "model"), tmp_path / "eval")
    assert 0 < summary.answer_change.value < 1
    assert '"verifier_acc"' in (tmp_path / "eval" / "summary.json").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight": [1, 1], "kl": {"coef": [0, 0]}}, "pag has three turns, .* weight has 2 numbers"),
        ({"gamma": 0.5}, "no gamma, offline"),
        ({"standardise": True}, "no gamma, offline"),
    ],
)
def test_what_pag_has_not_is_refused(changes, said):
    plain = {"model": "m", "task": {"kind": "sums"}, "steps": 1, "problems_per_step": 1, "kl": {"coef": [0, 0, 0]}}
    with pytest.raises(ConfigError, match=said):
        build(Config, [("test", plain | {"sampling": {"max_tokens": 4}, "optim": {"lr": 1.0}} | changes)])


def test_an_evaluation_by_verdicts_has_two_attempts():
    with pytest.raises(ConfigError, match="method verify has one revision at most: attempts must be 2, got 3"):
        build(Suite, [read_yaml("evals/suites/sums_verify.yaml"), ("test", {"attempts": 3})])
