"""TRL's GRPO beside our loop: the same gradient from the same batch, the same prompts, and a run that learns the same task."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOTrainer

from posttrain.config import ConfigError, build
from posttrain.rl import grpo
from posttrain.rl.advantage import leave_one_out, standardise
from posttrain.rl.batch import collate
from posttrain.rl.grpo import Config, Reward, questions, settings
from posttrain.rl.loss import reinforce
from posttrain.run import read_jsonl
from posttrain.types import Verdict
from tests.rl.episodes import episode
from tests.rl.learners import PROBLEMS, config_for, even_task, open_learner
from tests.sums_base import TASK


def config(model, **changes) -> Config:
    plain = {"model": str(model), "task": TASK, "steps": 3, "problems_per_step": 4, "samples": 4, "max_tokens": 8, "lr": 1e-3}
    return build(Config, [("test", plain | {"micro_batch": 16} | changes)])


@pytest.mark.parametrize("scale", ["group", "none"])
def test_our_step_and_trl_s_have_the_same_gradient_on_the_same_batch(scale, tiny_qwen2, tmp_path):
    group, longest = 4, 6
    generator = torch.Generator().manual_seed(0)
    drawn = [
        torch.randint(5, 200, (int(n),), generator=generator).tolist() for n in torch.randint(2, longest + 1, (8,), generator=generator)
    ]
    episodes = [episode([(ids, bool(i % 3))], problem=f"p{i // group}", sample=i % group) for i, ids in enumerate(drawn)]
    reward_BK = torch.tensor([[float(e.turns[0].verdict.correct)] for e in episodes])
    counts = torch.ones(8, dtype=torch.bool)
    own = leave_one_out(reward_BK, group, counts) * (group - 1) / group  # TRL's baseline has the sample itself in it
    advantage_BK = standardise(own, reward_BK, group, counts) if scale == "group" else own

    learner = open_learner(config_for(tiny_qwen2, weight=[1], kl={"coef": [0]}))
    batch = collate(episodes, pad_id=0)
    logp_BT = learner.policy.logprobs(batch)
    ours = reinforce(logp_BT, advantage_BK, batch, torch.tensor([8.0]))
    ratio = reinforce((logp_BT - logp_BT.detach()).exp(), advantage_BK, batch, torch.tensor([8.0]))  # TRL's form
    ours.backward()

    model = AutoModelForCausalLM.from_pretrained(tiny_qwen2, dtype=torch.float32)
    args = settings(config(tiny_qwen2, loss_type="dr_grpo", beta=0.0, scale_rewards=scale, max_tokens=longest), tmp_path)
    task = even_task()
    trainer = GRPOTrainer(
        model=model,
        args=args,
        reward_funcs=Reward(task, PROBLEMS),
        train_dataset=questions(task, PROBLEMS),
        processing_class=AutoTokenizer.from_pretrained(tiny_qwen2),
    )
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    padded, mask = torch.zeros(8, longest, dtype=torch.long), torch.zeros(8, longest, dtype=torch.long)
    for i, ids in enumerate(drawn):
        padded[i, : len(ids)], mask[i, : len(ids)] = torch.tensor(ids), 1
    inputs = {"prompt_ids": torch.full((8, 2), 7), "prompt_mask": torch.ones(8, 2, dtype=torch.long)}
    inputs |= {"completion_ids": padded, "completion_mask": mask, "advantages": trl_advantages(reward_BK, group, scale)}
    theirs = trainer._compute_loss(model, inputs)
    theirs.backward()

    assert theirs.item() * longest == pytest.approx(ratio.item(), abs=1e-5)
    gradients = {name: p.grad for name, p in learner.policy.model.named_parameters() if p.grad is not None}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad * longest, gradients[name], rtol=1e-5, atol=1e-5)


def trl_advantages(reward_BK: torch.Tensor, group: int, scale: str) -> torch.Tensor:
    """As TRL's trainer makes them of rewards (`_generate_and_score_completions`), one number at a time."""
    found = []
    for start in range(0, len(reward_BK), group):
        rewards = reward_BK[start : start + group, 0].tolist()
        mean = sum(rewards) / group
        std = (sum((r - mean) ** 2 for r in rewards) / (group - 1)) ** 0.5
        found += [(r - mean) / (std + 1e-4) if scale == "group" else r - mean for r in rewards]
    return torch.tensor(found)


def test_trl_is_asked_the_same_and_pays_what_our_grader_says():
    def only_p2_is_scored(problem, text):
        return Verdict(status="unscored") if problem.id != "p2" else Verdict(status="correct" if text == "yes" else "wrong")

    task = even_task(only_p2_is_scored)
    rows = questions(task, PROBLEMS)
    assert rows[3]["prompt"] == [{"role": "user", "content": PROBLEMS[3].question}]
    answers = [[{"role": "assistant", "content": text}] for text in ("yes", "yes", "no")]
    assert Reward(task, PROBLEMS)(completions=answers, number=[0, 2, 2]) == [None, 1.0, 0.0]


def test_a_run_by_trl_writes_a_run_folder_like_ours(sums_base, tmp_path):
    assert grpo.main(config(sums_base), tmp_path / "run", resume=False) == 0
    rows = list(read_jsonl(tmp_path / "run" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(0 <= row["train/acc_t1"] <= 1 and row["train/samples"] == 16 and row["train/tokens"] >= 16 for row in rows)
    before, after = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (sums_base, tmp_path / "run" / "model"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert grpo.main(config(sums_base), tmp_path / "run", resume=True) == 0


def test_a_micro_batch_that_does_not_divide_a_step_is_refused(sums_base):
    with pytest.raises(ConfigError, match="micro_batch 5 does not divide a step's 16 answers"):
        config(sums_base, micro_batch=5)
