"""A model's weights under the names that its checkpoint has, with LoRA merged in: what an engine is pushed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from posttrain.types import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def merged_weights(model: "PreTrainedModel", whole: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Iterator[tuple[str, Tensor]]:
    """(checkpoint name, weight) of a transformers model, or of one under a PEFT LoRA adapter; the model is not changed.

    Under an active adapter a weight is W + scale * B @ A, summed in float32 and only then cast to W's type: merging in bfloat16 rounds
    small updates away, and the engine would sample from an older policy. One merged weight exists at a time. A tied head is skipped.
    `whole` gathers a tensor of which this process holds a part.
    """
    deltas = _lora_layers(model)
    for name, tensor in checkpoint_names(model).items():
        layer = deltas.get(id(tensor))
        yield name, whole(tensor).detach() if layer is None else _merged(layer, tensor, whole)


def checkpoint_names(model: "PreTrainedModel") -> dict[str, Tensor]:
    """The model's own parameters and persistent buffers by checkpoint name: no adapter weights, each shared tensor once."""
    core: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in core.state_dict(keep_vars=True).items():
        plain = _checkpoint_name(name)
        if plain is not None and id(tensor) not in seen:
            seen.add(id(tensor))
            kept[plain] = tensor
    return kept


def checked(weights: Iterable[tuple[str, Tensor]], expected: Mapping[str, Tensor], engine: str) -> Iterator[tuple[str, Tensor]]:
    """`weights` as they come; raises `EngineError` at a name or shape that `expected` has not, and at the end for what never came."""
    left = set(expected)
    for name, tensor in weights:
        if name not in expected:
            raise EngineError(f"{engine}: the model has no weight {name!r}; it has {_some(sorted(expected))}")
        if expected[name].shape != tensor.shape:
            raise EngineError(f"{engine}: weight {name!r} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}")
        left.discard(name)
        yield name, tensor
    if left:
        raise EngineError(f"{engine}: {len(left)} of {len(expected)} weights were not pushed: {_some(sorted(left))}")


def expected_weights(config: Any) -> dict[str, Tensor]:
    """Names and shapes that a whole push has, from the architecture alone (on the meta device: nothing is allocated)."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return checkpoint_names(AutoModelForCausalLM.from_config(config))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _checkpoint_name(name: str) -> str | None:
    """`q_proj.base_layer.weight` -> `q_proj.weight`; None for what only PEFT has."""
    if ".lora_" in name or ".original_module." in name:
        return None
    if ".modules_to_save." in name:
        before, _, after = name.partition(".modules_to_save.")
        return f"{before}.{after.partition('.')[2]}"
    return name.replace(".base_layer.", ".")


def _lora_layers(model: "PreTrainedModel") -> dict[int, Any]:
    """id of a base weight -> the PEFT layer that changes it; raises `ValueError` for an adapter that cannot be merged exactly."""
    if not hasattr(model, "peft_config"):
        return {}
    from peft.tuners.lora import Linear, LoraLayer

    num_uses: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        num_uses[id(parameter)] = num_uses.get(id(parameter), 0) + 1
    layers = {}
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        weight = module.get_base_layer().weight
        if type(module) is not Linear or any(module.use_dora.values()) or any(module.lora_bias.values()):
            raise ValueError(
                f"{name}: only plain LoRA on linear layers can be merged; found {type(module).__name__} with DoRA, a bias or so"
            )
        if num_uses[id(weight)] > 1:
            raise ValueError(
                f"{name}: its weight is tied to another layer's, so an adapter on it cannot be merged; leave it out of the targets"
            )
        layers[id(weight)] = module
    return layers


def _merged(layer: Any, part: Tensor, whole: Callable[[Tensor], Tensor]) -> Tensor:
    """The weight as the layer's forward pass uses it: with its active adapters, unless disabled or merged already."""
    weight = whole(part)
    if layer.disable_adapters or layer.merged:
        return weight.detach()
    with torch.no_grad():
        total = weight.float()
        for adapter in layer.active_adapters:
            if adapter in layer.lora_A:
                a, b = (whole(each[adapter].weight).float() for each in (layer.lora_A, layer.lora_B))
                delta = layer.scaling[adapter] * (b @ a)
                total = total + (delta.T if layer.fan_in_fan_out else delta)
        return total.to(weight.dtype)
