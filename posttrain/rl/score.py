"""SCoRe: two attempts, online RL, and a bonus for progress (arXiv 2409.12917). Read `types.py` first, then this.

One loop serves three methods; they differ in numbers only, each given per attempt:

                           weight    bonus   kl.coef
    plain two-attempt RL   [1, 1]    0       [0.01, 0.01]     Eq. 2: learns to copy
    Stage I                [0, 1]    0       [0.11, 0.01]     Eq. 3: only attempt 2 is paid, attempt 1 is pinned to the base (beta1 + beta2)
    Stage II               [1, 1]    10      [0.01, 0.01]     Eq. 4: starts from Stage I; attempt 2 earns alpha (r2 - r1) on top

No credit flows between attempts (gamma = 0): each attempt's tokens are moved by its own reward, baseline and KL only. Otherwise the bonus
would pay attempt 1 for being wrong. The advantage is leave-one-out over the samples of a problem; there is no critic, no clipping, no
reuse of episodes: one update, then new samples from the new policy.
"""

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from tqdm import tqdm

from posttrain.config import ConfigError, config
from posttrain.evaluation import metrics
from posttrain.evaluation.metrics import NothingScored
from posttrain.evaluation.run import open_chat
from posttrain.prompting.chat import ChatFormat
from posttrain.rl import checkpoint
from posttrain.rl.advantage import informative_rows, leave_one_out, leave_one_out_by_outcome, zero_variance_share
from posttrain.rl.batch import collate
from posttrain.rl.checkpoint import CheckpointConfig
from posttrain.rl.guards import GuardConfig, alarms
from posttrain.rl.loss import KLEstimator, kl_estimate, kl_loss, reinforce
from posttrain.rl.policy import OptimConfig, Policy, PolicyConfig, load_policy
from posttrain.rl.problems import draw_problems
from posttrain.rl.reward import rewards, shaped_reward
from posttrain.rollout.self_correct import Rollout, self_correct
from posttrain.rollout.store import write_episodes
from posttrain.run import RunFolder
from posttrain.sampling.engine import EngineConfig, HFEngineConfig, open_engine
from posttrain.tasks import TaskConfig, make_task
from posttrain.types import Engine, EngineError, Episode, Problem, Sampling, Task

COSTS = (  # keys of speed and memory that change results by rounding at most: a resumed run may have others
    *(f"engine.{key}" for key in ("timeout_s", "gpu_memory_utilization", "kv_cache_gib", "enforce_eager", "max_rows")),
    *("micro_batch", "policy.gradient_checkpointing", "checkpoint.keep"),
)
INTERRUPTED = 143  # the exit code of a run that SIGTERM stopped after a checkpoint


class TrainingError(RuntimeError):
    """Training cannot go on; the message names step and cause, and the last checkpoint is intact."""

    exit_code: ClassVar[int] = 1


@config
class KLConfig:
    """Penalty on leaving the reference."""

    coef: tuple[float, ...]
    """One per attempt. The paper has beta1 on every attempt, plus beta2 on attempt 1 in Stage I: there, [beta1 + beta2, beta1]."""
    estimator: KLEstimator = "k1_in_reward"
    """k1_in_reward is RLOO's form and unbiased; k2_in_loss has the same gradient in expectation; k3_in_loss is biased (`rl/loss.py`)."""


@config
class SamplingConfig:
    """How attempts are drawn in training: from the full softmax, as the gradient assumes."""

    max_tokens: int
    """Per attempt."""
    temperature: float = 1.0
    """1.0 in arXiv 2409.12917, Table 8."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature <= 0:
            raise ValueError(f"need max_tokens >= 1 and temperature > 0, got {self.max_tokens} and {self.temperature}")


@config
class ValidationConfig:
    """A look at held-out problems while training, sampled at the training temperature."""

    every: int = 0
    """Steps between looks; 0 for none. The first look is before any update."""
    split: str = "validation"
    problems: PositiveInt = 500
    samples: PositiveInt = 1


@config
class Config:
    """Two-attempt RL: SCoRe's stages and plain multi-turn RL."""

    kind: Literal["score"] = "score"
    model: str
    """Folder or hub id of the model to train."""
    reference: str | None = None
    """Folder or hub id of the KL reference; null is the model as it is at the start. Stage II names the base here, as the paper reads."""
    task: TaskConfig
    split: str = "train"
    """Which of the task's splits to train on."""
    steps: PositiveInt
    """Updates. The paper gives 3000 (MATH) over both stages and not how they are divided."""
    problems_per_step: PositiveInt
    """Problems drawn for one update; times `samples` is the paper's batch of 512."""
    samples: int = 8
    """Episodes per problem, for the leave-one-out baseline; not given by the paper."""
    shared_first: bool = False
    """One first attempt for all samples of a problem. Then attempt 1 has no baseline and Stage II's bonus cancels: refused with a bonus."""
    weight: tuple[float, ...] = (1.0, 1.0)
    """What each attempt's reward counts; its length is the number of attempts."""
    bonus: float = 0.0
    """alpha of sec. 5.2: how much progress over the attempt before is worth; 10 in Stage II."""
    baseline: Literal["problem", "problem_and_outcome"] = "problem"
    """Whom an attempt is compared with: all other samples of its problem, or those whose earlier attempts were graded like its own."""
    kl: KLConfig
    sampling: SamplingConfig
    importance_cap: float | None = None
    """Truncate token weights pi_trainer / pi_sampler at this; null trusts the engine's probabilities, as one may when it is the trainer."""
    engine: EngineConfig = HFEngineConfig()
    policy: PolicyConfig = PolicyConfig()
    optim: OptimConfig
    micro_batch: PositiveInt = 64
    """Episodes per forward and backward pass: memory only, the update does not depend on it."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    guards: GuardConfig = GuardConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.kl.coef) != len(self.weight):
            raise ValueError(f"weight has {len(self.weight)} attempts but kl.coef has {len(self.kl.coef)}; give one number per attempt")
        if self.samples < 2:
            raise ValueError(f"samples must be at least 2 for a leave-one-out baseline, got {self.samples}")
        if self.shared_first and (self.bonus or self.weight[0]):
            raise ValueError(
                "shared_first: all samples of a problem share attempt 1, so its advantage and the bonus are exactly 0; "
                "set weight[0] and bonus to 0, or shared_first to false"
            )
        if self.shared_first and self.kl.coef[0] and self.kl.estimator == "k1_in_reward":
            raise ValueError("shared_first: a KL in the reward cancels for a shared attempt 1; set kl.estimator to k2_in_loss")
        if self.engine.kind == "server":
            raise ValueError("engine: a server's weights cannot be pushed to; train with hf or vllm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """Everything that a step needs besides its problems."""

    policy: Policy
    engine: Engine
    task: Task
    chat: ChatFormat
    cfg: Config


def score_step(learner: Learner, problems: Sequence[Problem], step: int) -> tuple[list[Episode], dict[str, float]]:
    """One update: sample, grade, credit each attempt, move. Returns the episodes and the step's figures."""
    policy, cfg = learner.policy, learner.cfg
    clock = _Clock()
    learner.engine.load_weights(policy.weights())
    clock.lap("push_s")
    episodes = sample(learner, problems, samples=cfg.samples, seed=cfg.seed, step=step)
    reward_BK, scored_B = rewards(episodes)
    if not scored_B.any():
        raise TrainingError(f"the grader failed on every episode; the first says {_first_failure(episodes)!r}")
    batch = collate(episodes, policy.tokenizer.pad_token_id or 0)
    clock.lap("rollout_s")
    with torch.no_grad():
        micros = [(index, policy.reference_logprobs(micro)) for index, micro in batch.split(cfg.micro_batch)]
    reference_BT = _scatter(micros, like=batch.sampler_logp)
    clock.lap("reference_s")

    coef_K = torch.tensor(cfg.kl.coef)
    kl_BK = kl_estimate(batch.sampler_logp, reference_BT, batch, "k1_in_reward")
    shaped_BK = shaped_reward(reward_BK, cfg.weight, cfg.bonus)
    if cfg.kl.estimator == "k1_in_reward":
        shaped_BK = shaped_BK - coef_K * kl_BK
    if cfg.baseline == "problem":
        advantage_BK = leave_one_out(shaped_BK, cfg.samples, scored_B)
    else:
        advantage_BK = leave_one_out_by_outcome(shaped_BK, reward_BK, cfg.samples, scored_B)
    rows_K = informative_rows(advantage_BK, cfg.samples)

    total_loss, micros = 0.0, []
    for index, micro in batch.split(cfg.micro_batch):
        logp_BT = policy.logprobs(micro)
        loss = reinforce(logp_BT, advantage_BK[index], micro, rows_K, cfg.importance_cap)
        loss = loss + kl_loss(logp_BT, reference_BT[index, : micro.ids.shape[1]], micro, coef_K, len(episodes), cfg.kl.estimator)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss is {loss.item()}")
        policy.backward(loss)
        total_loss += loss.item()
        micros.append((index, logp_BT.detach()))
    update = policy.update()
    clock.lap("update_s")
    gap_BT = (_scatter(micros, like=batch.sampler_logp) - batch.sampler_logp).abs()
    tokens_K = batch.per_attempt(torch.ones_like(gap_BT)).sum(0)
    figures = {
        **metrics.flat(metrics.summarise(episodes), "train/"),
        **_by_attempt("train/kl", kl_BK.mean(0)),
        **_by_attempt("train/gap", batch.per_attempt(gap_BT).sum(0) / tokens_K),
        **_by_attempt("train/zero_variance", zero_variance_share(leave_one_out(reward_BK, cfg.samples, scored_B), cfg.samples)),
        "train/reward": float((reward_BK[scored_B] * torch.tensor(cfg.weight)).sum(1).mean()),
        "train/loss": total_loss,
        **{f"train/{name}": value for name, value in update.items()},
        **clock.laps,
    }
    return episodes, figures


def sample(learner: Learner, problems: Sequence[Problem], *, samples: int, seed: int, step: int) -> list[Episode]:
    """Episodes from the engine's current weights; every draw is seeded by (seed, step, problem, sample, attempt)."""
    cfg = learner.cfg
    how = Rollout(
        sampling=Sampling(max_tokens=cfg.sampling.max_tokens, temperature=cfg.sampling.temperature),
        attempts=len(cfg.weight),
        samples=samples,
        shared_first=cfg.shared_first,
        seed=seed,
        step=step,
    )
    return self_correct(problems, learner.task, learner.engine, learner.chat, how)


def validate(learner: Learner, held_out: Sequence[Problem]) -> dict[str, float]:
    """The figures of the current policy on held-out problems; the seeds of the draws are the same at every look."""
    learner.engine.load_weights(learner.policy.weights())
    episodes = sample(learner, held_out, samples=learner.cfg.validation.samples, seed=learner.cfg.seed + 1, step=0)
    return metrics.flat(metrics.summarise(episodes), "val/")


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train into the run folder `out`; returns the exit code. Raises `TrainingError`, `CheckpointError` or `EngineError`."""
    task = make_task(cfg.task)
    problems = task.load(cfg.split)
    held_out = task.load(cfg.validation.split)[: cfg.validation.problems] if cfg.validation.every else []
    chat, pad_id = open_chat(cfg.model)
    policy = load_policy(cfg.model, cfg.reference, cfg.policy, cfg.optim, cfg.sampling.temperature, cfg.seed)
    folder = RunFolder(out, cfg, resume=resume, free=COSTS)
    last = checkpoint.latest(out)
    if last is not None:
        checkpoint.restore(last, policy)
        checkpoint.tidy(out, cfg.checkpoint)
    folder.forget_after(last.step if last else -1)
    sampled_in = "bfloat16" if cfg.policy.precision == "bf16_autocast" else "float32"  # as the trainer computes, whatever the folder is in
    try:
        engine = open_engine(cfg.engine, cfg.model, eos_ids=chat.eos_ids, pad_id=pad_id, dtype=sampled_in, model=policy.model)
    except (EngineError, ConfigError):
        folder.abandon()
        raise
    try:
        learner = Learner(policy=policy, engine=engine, task=task, chat=chat, cfg=cfg)
        return train(learner, problems, held_out, folder, last.step if last else 0)
    finally:
        engine.close()


def train(learner: Learner, problems: Sequence[Problem], held_out: Sequence[Problem], folder: RunFolder, start: int) -> int:
    """Steps `start + 1` to the last, with checkpoints, validation and alarms. The same start gives the same bits."""
    cfg, name = learner.cfg, folder.path.name
    history = [row for row in folder.metrics() if row["step"] > 0]
    told: set[str] = set()
    if start == 0 and held_out:
        with _faults_told(folder, 0, held_out):
            folder.log(0, validate(learner, held_out))
    with _Sigterm() as sigterm, tqdm(total=cfg.steps, initial=start, desc=name, unit="step", dynamic_ncols=True) as bar:
        for step in range(start + 1, cfg.steps + 1):
            last, drawn = step == cfg.steps, draw_problems(problems, cfg.problems_per_step, step, cfg.seed)
            with _faults_told(folder, step, drawn):
                episodes, figures = score_step(learner, drawn, step)
                if held_out and (last or step % cfg.validation.every == 0):
                    figures |= validate(learner, held_out)
                history.append(figures)
                folder.log(step, figures)
                if last or sigterm.came or step % cfg.checkpoint.every == 0:
                    write_episodes(folder.path / "episodes" / f"step_{step:06d}.jsonl", episodes)
                    checkpoint.save(folder.path, learner.policy, step, _reward_since_checkpoint(history, step, cfg), cfg.checkpoint)
            for what, text in alarms(history, cfg.guards).items():
                if what not in told:
                    tqdm.write(f"{name}: step {step}: WARNING: {text}")
                told.add(what)
            bar.update()
            bar.set_postfix_str("t1 {train/acc_t1:.1%} t2 {train/acc_t2:.1%} change {train/answer_change:.0%}".format(**figures))
            if sigterm.came and not last:
                tqdm.write(f"{name}: stopped by SIGTERM after step {step}; its checkpoint is written, --resume goes on from there")
                return INTERRUPTED
    return 0


def _reward_since_checkpoint(history: Sequence[dict[str, Any]], step: int, cfg: Config) -> float | None:
    """None at a step that has a checkpoint only because of a signal: which one is best must not hang on that."""
    if step % cfg.checkpoint.every and step != cfg.steps:
        return None
    since = history[(step - 1) // cfg.checkpoint.every * cfg.checkpoint.every :]
    return sum(row["train/reward"] for row in since) / len(since)


@contextlib.contextmanager
def _faults_told(folder: RunFolder, step: int, problems: Sequence[Problem]) -> Iterator[None]:
    """What goes wrong inside is told with the step, its problems, and where the run can go on from."""
    try:
        yield
    except (TrainingError, FloatingPointError, EngineError, NothingScored, OSError, torch.OutOfMemoryError) as error:
        names = ", ".join(problem.id for problem in problems[:4]) + (", ..." if len(problems) > 4 else "")
        good = checkpoint.latest(folder.path)
        stands = f"the last checkpoint is {good.path}, --resume goes on from it" if good else "there is no checkpoint yet"
        raise TrainingError(f"{folder.path}: step {step}, problems {names}: {error}; {stands}") from error


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


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


class _Sigterm:
    """While entered, SIGTERM only sets `came`, so that the step in progress can end and be saved."""

    came = False

    def __enter__(self) -> "_Sigterm":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
