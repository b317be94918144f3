"""What `posttrain eval` evaluates a model on, and how: the keys of a suite file."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from posttrain.config import ConfigError, config
from posttrain.evaluation.model import open_chat, open_tokenizer
from posttrain.prompting.raw import PromptFormat, RawFormat
from posttrain.sampling.engine import EngineConfig, HFEngineConfig
from posttrain.tasks import TaskConfig

FREE = ("shards", "cache")  # keys that change what an evaluation costs and not what it finds
FREE_OF_ENGINE = ("url", "api_key_env", "concurrency", "timeout_s", "retries")


@config
class EvalSampling:
    """How attempts are drawn."""

    max_tokens: int = Field(ge=1)
    """Per attempt."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy, as in arXiv 2409.12917 but for its inference scaling (0.7)."""


@config
class ChatPrompt:
    """The model's own chat template."""

    kind: Literal["chat"] = "chat"


@config
class RawPrompt:
    """Plain text, for models without a chat template."""

    kind: Literal["raw"] = "raw"
    gap: str = "\n\n"
    """Between messages and before each answer; empty where the model is to go on in the middle of a program."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer, besides the model's own end of text; they are not part of it."""


@config
class Suite:
    """What to evaluate a model on, and how."""

    kind: Literal["eval"] = "eval"
    task: TaskConfig
    split: str = "test"
    """Which of the task's splits."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many problems, for a quick look: they are no random choice. null for all."""
    prompt: Annotated[ChatPrompt | RawPrompt, Field(discriminator="kind")] = ChatPrompt()
    """How a task's messages become tokens."""
    attempts: int = Field(default=2, ge=1)
    """Attempts per episode; the second and later ones are asked for by the task's instruction. 1 asks once, and tells no Delta."""
    samples: int = Field(default=1, ge=1)
    """Episodes per problem, for avg@n, pass@k and maj@k; intervals and tests still count problems."""
    method: Literal["revise", "self_refine", "verify"] = "revise"
    """How a later attempt is asked for: by the task's instruction; after feedback that the model writes itself (arXiv 2303.17651); or only
    where the model first judges its attempt wrong (arXiv 2506.10406): else that attempt counts as the second one too."""
    first_attempts: Path | None = None
    """Episodes whose first attempts stand in place of the model's own, so that models revise the same ones; null for the model's own. A
    problem that they lack is an error; but of a set to repair (`posttrain data repair`) only the problems in it are asked."""
    sampling: EvalSampling
    engine: EngineConfig = HFEngineConfig()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights in the engine; auto is the checkpoint's own."""
    chunk: int = Field(default=64, ge=1)
    """Problems sampled together, and the most that an interruption loses of each worker."""
    shards: int = Field(default=1, ge=1)
    """Workers at a time: processes with an engine each, one GPU each in turn; with a server, chunks under way. Results do not change."""
    cache: Path | None = None
    """File that keeps completions for later evaluations: the same weights, prompt, draw and engine are not sampled twice. null: none."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method == "verify" and self.attempts != 2:
            raise ValueError(f"method verify has one revision at most: attempts must be 2, got {self.attempts}")
        if self.first_attempts and self.attempts == 1:
            raise ValueError("first_attempts: they are to be revised, which attempts: 1 never does; set attempts to 2")


def fixed_keys(record: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's record without what may change when it is gone on with: workers, addresses of servers, cache."""
    kept = {key: value for key, value in record.items() if key not in FREE}
    if isinstance(kept.get("engine"), dict):
        kept["engine"] = {key: value for key, value in kept["engine"].items() if key not in FREE_OF_ENGINE}
    return kept


def open_format(suite: Suite, model: str) -> tuple[PromptFormat, int | None]:
    """The suite's prompt format for a model, and the model's pad id; raises `ConfigError`."""
    if isinstance(suite.prompt, ChatPrompt):
        return open_chat(model)
    tokenizer, eos_ids = open_tokenizer(model)
    if not eos_ids:
        raise ConfigError(f"{model}: no end-of-sequence id in the tokenizer or the generation config")
    return RawFormat(tokenizer, eos_ids, suite.prompt.stop, suite.prompt.gap), tokenizer.pad_token_id
