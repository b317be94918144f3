"""What can be said of a run of two-attempt RL: every key of a `kind: score` recipe, its unit and its source. `rl/score.py` reads it."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from posttrain.config import config
from posttrain.rl.checkpoint import CheckpointConfig
from posttrain.rl.guards import GuardConfig
from posttrain.rl.loss import KLEstimator
from posttrain.rl.policy import OptimConfig, PolicyConfig
from posttrain.rl.reward import BonusTo
from posttrain.rl.tracking import TrackerName
from posttrain.sampling.engine import EngineConfig, HFEngineConfig
from posttrain.tasks import TaskConfig

COSTS = (  # keys of speed and memory that change results by rounding at most: a resumed run may have others
    *(f"engine.{key}" for key in ("timeout_s", "gpu_memory_utilization", "kv_cache_gib", "enforce_eager", "max_rows", "max_cache_tokens")),
    *(f"engine.{key}" for key in ("url", "push", "push_folder", "push_port", "concurrency", "retries")),
    *("micro_tokens", "policy.gradient_checkpointing", "policy.shard", "checkpoint.keep", "tracker"),
)


@config
class KLConfig:
    """Penalty on leaving the reference."""

    coef: tuple[float, ...]
    """One per attempt. The paper has beta1 on every attempt, plus beta2 on attempt 1 in Stage I: there, [beta1 + beta2, beta1]."""
    estimator: KLEstimator = "k1_in_reward"
    """k1_in_reward is RLOO's form and unbiased; k2_in_loss has the same gradient in expectation; k3_in_loss is biased (`rl/loss.py`)."""
    target: tuple[PositiveFloat | None, ...] | None = None
    """KL in nats to which each attempt's coefficient is steered, null for a fixed one: the paper's "adaptive beta2"."""


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
class OfflineConfig:
    """Stored first attempts as starting points for the second, so that it meets more states (sec. 5.3); no gradient is taken on them."""

    episodes: Path
    """Episodes of the base model on the training problems, as `posttrain eval --split train` writes them."""
    share: float = Field(gt=0, le=1)
    """The chance that an episode starts from a stored first attempt; 1 leaves the policy none of its own. Not given by the paper."""


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
    decontaminate: tuple[str, ...] | None = None
    """Evaluation sets whose questions are not trained on: splits of the task, or suites' files. null: its own test split, [] none."""
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
    bonus_to: BonusTo = "later"
    """Which attempt the bonus is paid to; the earlier one is then paid to fail (an ablation)."""
    gamma: float = Field(default=0.0, ge=0, le=1)
    """How much of the next attempt's shaped reward an attempt is credited with; 0 in the paper, as more invites sabotage (an ablation)."""
    standardise: bool = False
    """Divide advantages by the group's standard deviation, per attempt, as GRPO does; undoes alpha where first attempts are shared."""
    offline: OfflineConfig | None = None
    """First attempts from a file in some episodes; null for none."""
    baseline: Literal["problem", "problem_and_outcome"] = "problem"
    """Whom an attempt is compared with: all other samples of its problem, or those whose earlier attempts were graded like its own."""
    kl: KLConfig
    sampling: SamplingConfig
    importance_cap: float | None = None
    """Truncate token weights pi_trainer / pi_sampler at this; null trusts the engine's probabilities, as one may when it is the trainer."""
    sample_ahead: bool = False
    """Sample the next step's episodes while this one's are learnt from, by the policy before the update: one step off-policy, which needs
    importance_cap. Pays where the engine computes elsewhere (server); `train/gap` then holds what an update moves, see guards.gap."""
    engine: EngineConfig = HFEngineConfig()
    policy: PolicyConfig = PolicyConfig()
    optim: OptimConfig
    micro_tokens: PositiveInt = 4096
    """Tokens per forward and backward pass, padding included, and at least one episode: memory only, the update does not depend on it."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    guards: GuardConfig = GuardConfig()
    tracker: TrackerName = "none"
    """Where figures also go, besides metrics.jsonl; each is a package to install."""
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.kl.coef) != len(self.weight):
            raise ValueError(f"weight has {len(self.weight)} attempts but kl.coef has {len(self.kl.coef)}; give one number per attempt")
        if self.kl.target is not None and len(self.kl.target) != len(self.weight):
            raise ValueError(f"kl.target has {len(self.kl.target)} entries for {len(self.weight)} attempts; give one per attempt, or null")
        if not self.weight:
            raise ValueError("weight is empty: give one number per attempt, at least one")
        if len(self.weight) == 1 and (self.bonus or self.gamma or self.offline):
            raise ValueError(
                "one attempt has no other to be better than: set bonus and gamma to 0 and offline to null, or weight to [1, 1]"
            )
        if self.offline and self.shared_first:
            raise ValueError("offline and shared_first: both say where first attempts come from; choose one")
        if self.samples < 2:
            raise ValueError(f"samples must be at least 2 for a leave-one-out baseline, got {self.samples}")
        if self.shared_first and (self.bonus or self.weight[0]):
            raise ValueError(
                "shared_first: all samples of a problem share attempt 1, so its advantage and the bonus are exactly 0; "
                "set weight[0] and bonus to 0, or shared_first to false"
            )
        if self.shared_first and self.kl.coef[0] and self.kl.estimator == "k1_in_reward":
            raise ValueError("shared_first: a KL in the reward cancels for a shared attempt 1; set kl.estimator to k2_in_loss")
        if self.sample_ahead and self.importance_cap is None:
            raise ValueError("sample_ahead: episodes come from the policy before the last update, so importance_cap must be set, e.g. to 2")
        if self.sample_ahead and self.kind != "score":
            raise ValueError(f"sample_ahead: {self.kind} samples what it has just learnt from; set it to false")
        if self.engine.kind == "server":
            if not self.engine.token_ids:
                raise ValueError("engine.token_ids: training needs the ids that were sampled; found false, expected true and vLLM's server")
            if self.sampling.temperature != 1:
                raise ValueError(
                    f"sampling.temperature: found {self.sampling.temperature}, expected 1, at which a server tells log-probabilities"
                )
