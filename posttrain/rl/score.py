"""SCoRe: two attempts, online RL, and a bonus for progress (arXiv 2409.12917). Read `types.py` first, then this.

One loop serves several methods; they differ in numbers only, each given per attempt:

                           weight    bonus   kl.coef
    single-turn RL         [1]       0       [0.01]           one attempt, never revised in training
    plain two-attempt RL   [1, 1]    0       [0.01, 0.01]     Eq. 2: learns to copy
    Stage I                [0, 1]    0       [0.11, 0.01]     Eq. 3: only attempt 2 is paid, attempt 1 is pinned to the base (beta1 + beta2)
    Stage II               [1, 1]    10      [0.01, 0.01]     Eq. 4: starts from Stage I; attempt 2 earns alpha (r2 - r1) on top

With more than two attempts, Stage I is run once for each later attempt, all earlier ones pinned (App. A.1).

No credit flows between attempts (gamma = 0): each attempt's tokens are moved by its own reward, baseline and KL only. Otherwise the bonus
would pay attempt 1 for being wrong. The advantage is leave-one-out over the samples of a problem; there is no critic, no clipping, no
reuse of episodes: one update, then new samples from the new policy.
"""

import contextlib
import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from posttrain.config import ConfigError
from posttrain.evaluation import metrics
from posttrain.evaluation.model import open_chat
from posttrain.rl import checkpoint
from posttrain.rl.adaptive_kl import kl_coefficients
from posttrain.rl.advantage import informative_rows, leave_one_out, leave_one_out_by_outcome, standardise, zero_variance_share
from posttrain.rl.batch import collate
from posttrain.rl.loop import Figures, History, Learner, Run, TrainingError, run_steps
from posttrain.rl.loss import kl_estimate, kl_loss, reinforce
from posttrain.rl.policy import load_policy
from posttrain.rl.ranks import OtherRankError, join, leave
from posttrain.rl.recipe import COSTS, Config
from posttrain.rl.reward import returns_to_go, rewards, sampled_attempts, shaped_reward
from posttrain.rl.tracking import check_tracker
from posttrain.rollout.self_correct import FirstAttempts, Rollout, RolloutFunction, first_attempts, self_correct
from posttrain.rollout.store import read_episodes
from posttrain.run import RunFolder, keep_source
from posttrain.sampling.engine import open_engine
from posttrain.tasks import make_task
from posttrain.tasks.decontaminate import note, training_set
from posttrain.types import EngineError, Episode, Problem, Sampling

Credit: TypeAlias = Callable[[Tensor, Tensor, Tensor, Config], Tensor]
"""(rewards, KL penalties, which entries count, recipe) -> advantages, all [B, K]: `credit`, or another method's own."""


def score_step(learner: Learner, problems: Sequence[Problem], step: int, history: History = ()) -> tuple[list[Episode], Figures]:
    """One update: sample, grade, credit each attempt, move. Returns the episodes and the step's figures."""
    clock, cfg = Clock(), learner.cfg
    push(learner)
    clock.lap("push_s")
    episodes = sample(learner, problems, samples=cfg.samples, seed=cfg.seed, step=step)
    clock.lap("rollout_s")
    figures = improve(learner, episodes, credit, history)
    return episodes, {**accuracies(episodes), **figures, **clock.laps}


def accuracies(episodes: Sequence[Episode]) -> Figures:
    """What is told of a step's attempts: of the policy's own first ones and what followed, if there are any."""
    return metrics.training_row([e for e in episodes if not e.turns[0].given] or episodes, "train/")


def improve(learner: Learner, episodes: Sequence[Episode], credit: Credit, history: History = ()) -> Figures:
    """The policy, moved by one update on graded episodes; returns what is to be told of it, per attempt where that makes sense."""
    clock, policy, cfg, ranks = Clock(), learner.policy, learner.cfg, learner.ranks
    reward_BK, scored_B = rewards(episodes)
    failed, most = 1 - float(scored_B.float().mean()), cfg.guards.most_unscored
    if failed > most:
        said = f"the grader failed on {failed:.0%} of {len(episodes)} episodes, more than guards.most_unscored = {most:.0%}"
        raise TrainingError(f"{said}; the first says {_first_failure(episodes)!r}")
    batch = collate(episodes, policy.tokenizer.pad_token_id or 0)
    micros, idle = ranks.deal(policy.split(batch, cfg.micro_tokens))
    found = [(index, policy.reference_logprobs(micro)) for index, micro in micros]
    policy.keep_step(idle, learns=False)
    reference_BT = ranks.sum(_scatter(found, like=batch.sampler_logp))
    clock.lap("reference_s")

    coef_K = torch.tensor(kl_coefficients(cfg.kl.coef, cfg.kl.target, history))
    kl_BK = kl_estimate(batch.sampler_logp, reference_BT, batch, "k1_in_reward")
    counts_BK = scored_B[:, None] & sampled_attempts(episodes)
    advantage_BK = credit(reward_BK, coef_K * kl_BK, counts_BK, cfg)
    rows_K = informative_rows(advantage_BK, cfg.samples)

    total_loss, found = 0.0, []
    for index, micro in micros:
        logp_BT = policy.logprobs(micro)
        loss = reinforce(logp_BT, advantage_BK[index], micro, rows_K, cfg.importance_cap)
        loss = loss + kl_loss(logp_BT, reference_BT[index, : micro.ids.shape[1]], micro, coef_K, len(episodes), cfg.kl.estimator)
        policy.backward(loss)
        total_loss += loss.item()
        found.append((index, logp_BT.detach()))
    policy.keep_step(idle, learns=True)
    total_loss = float(ranks.sum(torch.tensor(total_loss, dtype=torch.float64)))
    if not math.isfinite(total_loss):
        raise TrainingError(f"the loss is {total_loss}")
    update = policy.update()
    clock.lap("update_s")
    gap_BT = (ranks.sum(_scatter(found, like=batch.sampler_logp)) - batch.sampler_logp).abs()
    tokens_K = batch.per_attempt(torch.ones_like(gap_BT)).sum(0)
    return {
        **_by_attempt("train/kl", kl_BK.sum(0) / counts_BK.sum(0).clamp(min=1)),
        **_by_attempt("train/kl_coef", coef_K),
        **_by_attempt("train/cached", metrics.cached_share(episodes)),
        **_by_attempt("train/gap", batch.per_attempt(gap_BT).sum(0) / tokens_K.clamp(min=1)),
        **_by_attempt("train/zero_variance", zero_variance_share(leave_one_out(reward_BK, cfg.samples, scored_B), cfg.samples)),
        "train/reward": float((reward_BK[scored_B] * torch.tensor(cfg.weight)).sum(1).mean()),
        "train/loss": total_loss,
        "train/samples": float(sum(not turn.given for episode in episodes for turn in episode.turns)),
        "train/tokens": float(tokens_K.sum()),
        **{f"train/{name}": value for name, value in update.items()},
        **clock.laps,
    }


def credit(reward_BK: Tensor, penalty_BK: Tensor, counts_BK: Tensor, cfg: Config) -> Tensor:
    """The advantage of each attempt, [B, K]: its own shaped reward less its KL penalty, compared with its own kind, and nothing else."""
    shaped_BK = shaped_reward(reward_BK, cfg.weight, cfg.bonus, cfg.bonus_to)
    if cfg.kl.estimator == "k1_in_reward":
        shaped_BK = shaped_BK - penalty_BK
    shaped_BK = returns_to_go(shaped_BK, cfg.gamma)
    if cfg.baseline == "problem":
        advantage_BK = leave_one_out(shaped_BK, cfg.samples, counts_BK)
    else:
        advantage_BK = leave_one_out_by_outcome(shaped_BK, reward_BK, cfg.samples, counts_BK)
    return standardise(advantage_BK, shaped_BK, cfg.samples, counts_BK) if cfg.standardise else advantage_BK


def sample(
    learner: Learner, problems: Sequence[Problem], *, samples: int, seed: int, step: int, by: RolloutFunction = self_correct
) -> list[Episode]:
    """Episodes from the engine's current weights, each rank's share of them sampled there, and all on every rank, in problem order."""
    with learner.ranks.together():
        episodes = sample_own(learner, problems, samples=samples, seed=seed, step=step, by=by)
    return learner.ranks.gather(episodes)


def sample_own(
    learner: Learner, problems: Sequence[Problem], *, samples: int, seed: int, step: int, by: RolloutFunction = self_correct
) -> list[Episode]:
    """This rank's share; every draw is seeded by (seed, step, problem, sample, attempt).

    Only training steps (from 1) take given first attempts: what is held out is always the policy's own.
    """
    cfg, own = learner.cfg, learner.ranks.share(problems)
    how = Rollout(
        sampling=Sampling(max_tokens=cfg.sampling.max_tokens, temperature=cfg.sampling.temperature),
        attempts=len(cfg.weight),
        samples=samples,
        shared_first=cfg.shared_first,
        given=learner.given,
        given_share=learner.given_share if step else 0.0,
        seed=seed,
        step=step,
    )
    return by(own, learner.task, learner.engine, learner.chat, how) if own else []


def push(learner: Learner) -> None:
    """Give the engines the policy's weights: from here on they sample from it."""
    weights = learner.policy.weights()
    with learner.ranks.together():
        try:
            learner.engine.load_weights(weights)
        finally:
            for _ in weights:  # what is left of them where the engine failed: other ranks may wait to gather it
                pass


def validate(learner: Learner, held_out: Sequence[Problem]) -> dict[str, float]:
    """The figures of the current policy on held-out problems; the seeds of the draws are the same at every look."""
    push(learner)
    episodes = sample(learner, held_out, samples=learner.cfg.validation.samples, seed=learner.cfg.seed + 1, step=0)
    return metrics.training_row(episodes, "val/")


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train into the run folder `out`; returns the exit code. Raises `TrainingError`, `CheckpointError` or `EngineError`."""
    from posttrain.rl.ahead import Ahead  # which is made of this file's parts

    with open_run(cfg, out, resume) as run:
        if cfg.sample_ahead:
            with Ahead(run) as ahead:
                return run_steps(run, ahead.step, ahead.look, ahead.saving)
        return run_steps(run, partial(score_step, run.learner), partial(validate, run.learner))


@contextlib.contextmanager
def open_run(cfg: Config, out: Path, resume: bool) -> Iterator[Run]:
    """Everything that a run needs, restored from its last checkpoint under `resume`; the engine is closed at the end."""
    ranks = join(cfg.policy.device)
    check_tracker(cfg.tracker)
    task = make_task(cfg.task)
    clean = training_set(cfg.task, cfg.split, cfg.decontaminate)
    held_out = task.load(cfg.validation.split)[: cfg.validation.problems] if cfg.validation.every else []
    given = _offline(cfg, clean.problems)
    chat, pad_id = open_chat(cfg.model)
    policy = load_policy(cfg.model, cfg.reference, cfg.policy, cfg.optim, cfg.sampling.temperature, cfg.seed, ranks)
    with ranks.together():
        folder = RunFolder(out, cfg, resume=resume, free=COSTS, writes=ranks.first)
        if ranks.first:
            keep_source(out, task.source)
            note(folder, clean)
    last = checkpoint.latest(out)
    if last is not None:
        checkpoint.restore(last, policy)
    with ranks.together():
        if ranks.first:
            _tidy_up(folder, last, cfg)
    sampled_in = "bfloat16" if cfg.policy.precision == "bf16_autocast" else "float32"  # as the trainer computes, whatever the folder is in
    run = ranks.gather([uuid.uuid4().hex[:12]])[0]
    try:
        with ranks.together():
            own = cfg.engine.kind == "hf" and (cfg.sample_ahead or not policy.whole)  # it samples from a copy
            model = None if own else policy.model
            opened: dict[str, Any] = {"eos_ids": chat.eos_ids, "pad_id": pad_id, "dtype": sampled_in, "model": model}
            engine = open_engine(cfg.engine, cfg.model, **opened, run=run, sends=ranks.first)
    except (EngineError, OtherRankError, ConfigError):
        if ranks.first:
            folder.abandon()
        raise
    try:
        share = cfg.offline.share if cfg.offline else 0.0
        learner = Learner(policy=policy, engine=engine, task=task, chat=chat, cfg=cfg, given=given, given_share=share, ranks=ranks)
        yield Run(learner=learner, folder=folder, problems=clean.problems, held_out=held_out, start=last.step if last else 0)
    finally:
        engine.close()
    leave(ranks)


def _tidy_up(folder: RunFolder, last: checkpoint.Checkpoint | None, cfg: Config) -> None:
    """Leave in the folder what the last checkpoint stands for."""
    if last is not None:
        checkpoint.tidy(folder.path, cfg.checkpoint)
    folder.forget_after(last.step if last else -1)


def _offline(cfg: Config, problems: Sequence[Problem]) -> FirstAttempts:
    """The stored first attempts; raises `ConfigError` where some problem that needs one has none."""
    if cfg.offline is None:
        return {}
    given = first_attempts(read_episodes(cfg.offline.episodes))
    lacking = [problem.id for problem in problems if problem.id not in given]
    if len(lacking) == len(problems) or (lacking and cfg.offline.share == 1):
        raise ConfigError(
            f"offline.episodes: {cfg.offline.episodes} has no first attempt for {len(lacking)} of the {len(problems)} training problems, "
            f"e.g. {lacking[0]}; make it with posttrain eval --split {cfg.split} on the same task"
        )
    return given


def _first_failure(episodes: Sequence[Episode]) -> str:
    return next(turn.verdict.why for episode in episodes for turn in episode.turns if not turn.verdict.scored)


def _scatter(parts: Sequence[tuple[Tensor, Tensor]], like: Tensor) -> Tensor:
    """Per-token values of micro-batches, each cut to its own longest row, as one [B, T] tensor; 0 in the padding."""
    whole = torch.zeros_like(like)
    for index, value_BT in parts:
        whole[index, : value_BT.shape[1]] = value_BT
    return whole


def _by_attempt(name: str, value_K: Sequence[float] | Tensor) -> dict[str, float]:
    return {f"{name}_t{k}": float(value) for k, value in enumerate(value_K, start=1)}


class Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now
