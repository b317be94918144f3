"""The model being trained: its weights or a LoRA adapter, its optimizer, and a frozen reference named by the recipe."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from posttrain.config import ConfigError, config
from posttrain.rl.batch import Batch
from posttrain.rl.head import chosen_logprobs, plain_head, without_adapter
from posttrain.rl.packing import cheapest_width
from posttrain.rl.ranks import ALONE, Ranks
from posttrain.rl.sharding import AdamArguments, FullySharded, Kind, Replicated, Sharding, fully_sharded
from posttrain.run import seed_for
from posttrain.sampling.reader import attention_mask, can_share
from posttrain.sampling.weights import merged_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Gathered: TypeAlias = tuple[dict[str, Tensor], dict[str, Any]]
"""Weights by checkpoint name, and what else a resumed run needs."""


@config
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685) on the named linear layers."""

    rank: int = 32
    alpha: int = 64
    """Scale numerator: the update is alpha / rank * B A."""
    targets: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get an adapter, or all-linear."""


@config
class PolicyConfig:
    """How the policy is held."""

    lora: LoraConfig | None = None
    """Adapters instead of all weights; null trains every weight."""
    precision: Literal["float32", "bf16_autocast"] = "float32"
    """bf16_autocast computes in bfloat16 on float32 weights: with a learning rate of 1e-6 bfloat16 weights would round updates away."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    attention: Literal["sdpa", "flash_attention_2"] = "sdpa"
    """flash_attention_2 needs the flash-attn package, a GPU and bf16_autocast; rows of many lengths are then read without padding."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    shard: Kind = "replicated"
    """What several ranks share out among them (`rl/sharding.py`): less memory for more traffic. Results do not depend on it."""

    def __post_init__(self) -> None:
        if self.attention != "sdpa" and self.precision != "bf16_autocast":
            raise ValueError(f"attention {self.attention} computes in 16 bits only: set precision to bf16_autocast, or attention to sdpa")


@config
class OptimConfig:
    """Adam (arXiv 1412.6980); the paper gives the learning rate only, the rest are our defaults."""

    lr: float
    """Learning rate after warm-up; 5e-6 for MATH and 1e-5 for code in arXiv 2409.12917, Table 8."""
    warmup_steps: int = 30
    """Steps of linear warm-up from 0. Adam's first steps are of size lr whatever the gradient, and can destroy a model."""
    decay_until: int = 0
    """The step at which the learning rate, after the warm-up, has come down to 0 along a cosine; 0 keeps it constant."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients longer than this (L2 norm over all parameters) are scaled down to it."""

    def __post_init__(self) -> None:
        if self.decay_until and self.decay_until <= self.warmup_steps:
            raise ValueError(f"decay_until is {self.decay_until}, expected a step after the {self.warmup_steps} of the warm-up, or 0")


def learning_rate(optim: OptimConfig, step: int) -> float:
    """Of update `step` (from 1): up along a line, then level or down along a cosine."""
    if step <= optim.warmup_steps:
        return optim.lr * step / optim.warmup_steps
    if not optim.decay_until:
        return optim.lr
    gone = (step - optim.warmup_steps) / (optim.decay_until - optim.warmup_steps)
    return optim.lr * (1 + math.cos(math.pi * min(1.0, gone))) / 2


class Policy:
    """Owns the model, the reference and the optimizer. Log-probabilities are those of softmax(logits / temperature)."""

    def __init__(
        self,
        model: "PreTrainedModel",
        reference: "PreTrainedModel | None",
        tokenizer: "PreTrainedTokenizerBase",
        optim: OptimConfig,
        *,
        temperature: float,
        autocast: bool = False,
        ranks: Ranks = ALONE,
        shard: Kind = "replicated",
    ) -> None:
        """`reference` None means the adapter switched off, and is only right if the model without it *is* the reference."""
        self.model, self.reference, self.tokenizer = model, reference, tokenizer
        self.optim, self.temperature, self.autocast = optim, temperature, autocast
        self._plain = {id(each): plain_head(each) is not None for each in (model, reference) if each is not None}
        core = without_adapter(model)
        self._read_weights = sum(layer.numel() for layer in core.base_model.parameters()) - core.get_input_embeddings().weight.numel()
        adam = {"lr": optim.lr, "betas": optim.betas, "eps": optim.eps, "weight_decay": optim.weight_decay, "fused": True}
        self.sharding = _sharding(shard, model, adam, ranks, optim.max_grad_norm, autocast)
        self._reference_inside = fully_sharded(reference, ranks) if reference is not None and shard in ("fsdp2", "zero3") else None
        self.step = 0

    @property
    def trainable(self) -> list[torch.nn.Parameter]:
        return self.sharding.trainable

    @property
    def whole(self) -> bool:
        """Whether this process holds every weight, so that an engine may sample from the very module."""
        return self.sharding.name in ("replicated", "zero2")

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def split(self, batch: Batch, micro_tokens: int) -> list[tuple[Tensor, Batch]]:
        """The batch in micro-batches, (row indices, rows), as they are read fastest: packed where rows begin alike, else by length.

        Flash attention reads rows that stand one after the other without padding and without a mask.
        """
        core = without_adapter(self.model)
        if str(core.config._attn_implementation).startswith("flash"):
            return list(batch.split_packed(micro_tokens, width=micro_tokens, shares=False))
        if can_share(core) and (self.reference is None or can_share(self.reference)):
            config = core.config.get_text_config()
            width = cheapest_width(batch.tokens(), self._read_weights, 2 * config.num_hidden_layers * config.hidden_size, micro_tokens)
            if width is not None:
                return list(batch.split_packed(micro_tokens, width))
        return list(batch.split(micro_tokens))

    def logprobs(self, batch: Batch) -> Tensor:
        """Log-probability of each sampled token given those before it, [B, T]; 0 where `turn` is."""
        return self.sharding.inside(lambda: self._logprobs(self.model, batch))

    @torch.no_grad()
    def reference_logprobs(self, batch: Batch) -> Tensor:
        """The same under the reference."""
        if self._reference_inside is not None:
            return self._reference_inside(lambda: self._logprobs(self.reference, batch))
        if self.reference is not None:
            return self._logprobs(self.reference, batch)
        with self.model.disable_adapter():
            return self.logprobs(batch)

    def keep_step(self, idle: Sequence[tuple[Tensor, Batch]], *, learns: bool) -> None:
        """Read these without effect, as ranks that gather weights or gradients from each other wait for those that have no more to do."""
        for _, micro in idle if self.sharding.name != "replicated" else ():
            if learns:
                self.backward(0 * self.logprobs(micro).sum())
            else:
                self.reference_logprobs(micro)

    def _logprobs(self, model: "PreTrainedModel", batch: Batch) -> Tensor:
        """Only tokens that were sampled need logits; one that several rows share needs them once."""
        core, device = without_adapter(model), self.device
        sampled_BT = batch.turn > 0
        if batch.packed is None:  # padded on the right, where a causal model cannot look, so no mask is needed
            ids, node_BT = batch.ids.to(device), torch.arange(batch.ids.numel()).view_as(batch.ids)
            read: dict[str, Any] = {"input_ids": ids}
        else:
            packed = batch.packed.to(device)
            ids, node_BT = packed.ids, batch.packed.node
            mask = attention_mask(core, packed.seen(), packed.position, packed.position) if packed.shares else None
            read = {"input_ids": ids, "position_ids": packed.position, "attention_mask": mask}
        node_N, back_S = node_BT[sampled_BT].unique(return_inverse=True)
        before_N = torch.empty_like(node_N)
        before_N[back_S] = node_BT[:, :-1][sampled_BT[:, 1:]]
        token_N = ids.flatten()[node_N.to(device)]
        bf16 = torch.autocast(device.type, torch.bfloat16) if self.autocast else contextlib.nullcontext()
        with bf16:
            if self._plain[id(model)]:
                hidden_ND = core.base_model(**read, use_cache=False).last_hidden_state.flatten(0, 1)[before_N.to(device)]
                logp_N = chosen_logprobs(hidden_ND, core.get_output_embeddings().weight, token_N, self.temperature)
            else:
                logits_NV = core(**read, use_cache=False).logits.flatten(0, 1)[before_N.to(device)].float() / self.temperature
                logp_N = logits_NV.log_softmax(1).gather(1, token_N[:, None])[:, 0]
        return torch.zeros(batch.ids.shape).masked_scatter(sampled_BT, logp_N.cpu()[back_S])

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight, whole, under its checkpoint name, adapters merged in float32. All ranks read them, or none."""
        return merged_weights(self.model, self.sharding.whole)

    def backward(self, loss: Tensor) -> None:
        self.sharding.backward(loss)

    def update(self) -> dict[str, float]:
        """One optimizer step from the gradients of all ranks; returns their norm before clipping and the learning rate."""
        self.step += 1
        lr = learning_rate(self.optim, self.step)
        return {"grad_norm": self.sharding.step(lr, self.optim.max_grad_norm), "lr": lr}

    def gather(self, keep: bool = True) -> Gathered:
        """What a checkpoint holds, in host memory, nothing where another rank is to `keep` it. All ranks gather, or none."""
        state = self.training_state(keep)
        weights = {name: tensor.cpu() for name, tensor in self.weights() if keep}
        return weights, state if keep else {}

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """The merged model and its tokenizer, loadable by plain `from_pretrained`."""
        plain = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        plain.save_pretrained(folder, state_dict=dict(self.weights()) if weights is None else weights)
        self.tokenizer.save_pretrained(folder)

    def training_state(self, keep: bool = True) -> dict[str, Any]:
        """What `save` leaves out and a resumed run needs."""
        learnt = [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad and self._adapted]
        adapter = {name: self.sharding.whole(parameter).detach() for name, parameter in learnt}
        return {"step": self.step, "optimizer": self.sharding.optimizer_state(keep), "adapter": adapter}

    def restore(self, folder: Path, state: dict[str, Any]) -> None:
        """Take up a checkpoint: weights from `folder` or, with an adapter, the adapter from `state`."""
        from transformers import AutoModelForCausalLM

        self.step = state["step"]
        if self._adapted:
            stored = state["adapter"]
        else:
            stored = dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    self.sharding.fill(parameter, stored[name])
        self.sharding.load_optimizer_state(state["optimizer"])

    @property
    def _adapted(self) -> bool:
        return hasattr(self.model, "disable_adapter")


def load_policy(
    model: str,
    reference: str | None,
    cfg: PolicyConfig,
    optim: OptimConfig,
    temperature: float,
    seed: int = 0,
    ranks: Ranks = ALONE,
) -> Policy:
    """The policy from a folder or hub id; `reference` null means the model as it is now; an adapter's first weights come from `seed`.

    Raises `ConfigError` where loading fails.
    """
    from transformers import AutoTokenizer

    if cfg.shard != "replicated" and ranks.num == 1:
        raise ConfigError(f"policy.shard: {cfg.shard} shares out among several ranks, and this is one process: start it with torchrun")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
    if cfg.shard == "fsdp2":  # which moves each rank's part by itself: the whole may be larger than a GPU
        device = "cpu"
    policy = _load(model, "model", cfg.attention).to(device)
    tokenizer = AutoTokenizer.from_pretrained(model)
    if len(tokenizer) > policy.get_input_embeddings().num_embeddings:
        found, expected = len(tokenizer), policy.get_input_embeddings().num_embeddings
        raise ConfigError(f"{model}: the tokenizer has {found} tokens, the model embeds only {expected}; use the model's own tokenizer")
    own_reference = cfg.lora is None or reference is not None
    frozen = _load(reference or model, "reference", cfg.attention).to(device).requires_grad_(False).eval() if own_reference else None
    if frozen is not None and (known := frozen.get_input_embeddings().num_embeddings) < len(tokenizer):
        raise ConfigError(
            f"reference: {reference!r} has {known} tokens, the model's tokenizer {len(tokenizer)}; expected a model of the same tokenizer"
        )
    if frozen is not None and cfg.precision == "bf16_autocast":
        frozen = frozen.to(torch.bfloat16)
    if cfg.gradient_checkpointing:
        policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if cfg.lora is not None:
        policy = _with_adapter(policy, cfg.lora, seed)
    _set_modes(policy)
    autocast = cfg.precision == "bf16_autocast"
    return Policy(policy, frozen, tokenizer, optim, temperature=temperature, autocast=autocast, ranks=ranks, shard=cfg.shard)


def _sharding(shard: Kind, model: "PreTrainedModel", adam: AdamArguments, ranks: Ranks, max_norm: float, autocast: bool) -> Sharding:
    if shard == "replicated":
        return Replicated(model, adam, ranks)
    if shard == "fsdp2":
        return FullySharded(model, adam, ranks)
    from posttrain.rl.zero import ZeRO

    return ZeRO(model, adam, ranks, stage=2 if shard == "zero2" else 3, max_norm=max_norm, autocast=autocast)


def _load(name: str, role: str, attention: str) -> "PreTrainedModel":
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation=attention)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{role}: cannot load {name!r}: {reason}; expected a model folder or a hub id") from None


def _with_adapter(model: "PreTrainedModel", cfg: LoraConfig, seed: int) -> "PreTrainedModel":
    import peft

    targets = cfg.targets if isinstance(cfg.targets, str) else list(cfg.targets)
    settings = peft.LoraConfig(r=cfg.rank, lora_alpha=cfg.alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM")
    torch.manual_seed(seed_for(seed, "adapter"))
    return peft.get_peft_model(model, settings)


def _set_modes(model: "PreTrainedModel") -> None:
    """No dropout anywhere, as the trainer's log-probabilities must be the sampler's, and gradient checkpointing where it was enabled.

    transformers checkpoints only a layer in training mode; so the flag of that layer is set, not those of the modules in it.
    """
    model.eval()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
            for name, value in list(vars(module).items()):  # some layers drop out by themselves, with a rate kept as a number
                if "drop" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
