"""Which rank holds what of weights, gradients and Adam's state. Outside of this file and `zero.py` there are only whole tensors.

    replicated    every rank all of it; gradients are summed once a step
    fsdp2         each rank its part of every tensor (torch's `fully_shard`); a layer is gathered while it computes
    zero2, zero3  DeepSpeed's parts of gradients and Adam's state, and with zero3 of the weights (`zero.py`)

Adam's state leaves and enters in the form of `torch.optim.AdamW.state_dict`, whole, so that a checkpoint does not know how it was made
and a run is resumed with any other kind, on any number of ranks.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from posttrain.rl.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind: TypeAlias = Literal["replicated", "fsdp2", "zero2", "zero3"]
AdamArguments: TypeAlias = dict[str, Any]


class Sharding(Protocol):
    """A model and its optimizer, held in some way. Calls that gather are every rank's: all make them, in the same order."""

    name: Kind
    trainable: list[nn.Parameter]

    def inside(self, work: Callable[[], Tensor]) -> Tensor:
        """What `work` computes with the model, which is whole wherever `work` reads it."""
        ...

    def backward(self, loss: Tensor) -> None: ...

    def step(self, lr: float, max_norm: float) -> float:
        """An optimizer step from the sum of all ranks' gradients, scaled down to `max_norm`; returns their norm before that."""
        ...

    def whole(self, tensor: Tensor) -> Tensor: ...

    def fill(self, parameter: nn.Parameter, value: Tensor) -> None: ...

    def optimizer_state(self, keep: bool = True) -> dict[str, Any]:
        """Whole, in host memory where ranks hold parts; without `keep` only the gathering is done, for a rank that keeps it."""
        ...

    def load_optimizer_state(self, state: dict[str, Any]) -> None: ...


class Replicated:
    """One sum of gradients over ranks for the whole step, whose micro-batches are added up by then: every rank does the same update."""

    name: Kind = "replicated"

    def __init__(self, model: nn.Module, adam: AdamArguments, ranks: Ranks) -> None:
        self.ranks = ranks
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, **adam)

    def inside(self, work: Callable[[], Tensor]) -> Tensor:
        return work()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float, max_norm: float) -> float:
        self._sum_gradients()
        return clipped_step(self.optimizer, self.trainable, lr, max_norm)

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor

    def fill(self, parameter: nn.Parameter, value: Tensor) -> None:
        parameter.copy_(value)

    def optimizer_state(self, keep: bool = True) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)

    def _sum_gradients(self) -> None:
        if self.ranks.num == 1:
            return
        for parameter in self.trainable:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for work in [dist.all_reduce(parameter.grad, async_op=True) for parameter in self.trainable]:
            work.wait()


class FullySharded:
    """torch's FSDP2: each rank holds its rows of every tensor and their gradients and Adam state."""

    name: Kind = "fsdp2"

    def __init__(self, model: "PreTrainedModel", adam: AdamArguments, ranks: Ranks) -> None:
        self.module = fully_sharded(model, ranks)
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, **adam)

    def inside(self, work: Callable[[], Tensor]) -> Tensor:
        return self.module(work)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float, max_norm: float) -> float:
        return clipped_step(self.optimizer, self.trainable, lr, max_norm)

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

    def fill(self, parameter: nn.Parameter, value: Tensor) -> None:
        parameter.copy_(_like(value, parameter))

    def optimizer_state(self, keep: bool = True) -> dict[str, Any]:
        state, whole = self.optimizer.state_dict(), {}
        for i, parts in state["state"].items():
            gathered = ((key, self.whole(value)) for key, value in parts.items())
            whole[i] = {key: value.cpu() for key, value in gathered if keep}
        return state | {"state": whole}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        parts = {
            i: {key: value if key == "step" else _like(value, self.trainable[i]) for key, value in kept.items()}
            for i, kept in state["state"].items()
        }
        self.optimizer.load_state_dict(state | {"state": parts})


class Inside(nn.Module):
    """Runs a function within its own forward pass, so that what the function reads of the model has been gathered for it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Tensor]) -> Tensor:
        return work()


def fully_sharded(model: "PreTrainedModel", ranks: Ranks) -> Inside:
    """The model with its tensors spread over ranks in place, layer by layer; call what comes back. Gradients are summed, not averaged."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(torch.device(ranks.device).type, (ranks.num,))
    module, layers = Inside(model), set(model._no_split_modules or ())
    for each in list(model.modules()):
        if type(each).__name__ in layers:
            fully_shard(each, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for each in module.modules():
        if isinstance(each, FSDPModule):
            each.set_gradient_divide_factor(1.0)
            each.set_force_sum_reduction_for_comms(True)
    return module


def clipped_step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], lr: float, max_norm: float) -> float:
    """The step; raises `FloatingPointError`, and does none, where the gradient is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if not torch.isfinite(norm):
        raise FloatingPointError(f"the gradient norm is {norm.item()}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm.item()


def _like(value: Tensor, parameter: Any) -> Tensor:
    """`value` in the parts in which `parameter` is."""
    from torch.distributed.tensor import distribute_tensor

    if not hasattr(parameter, "device_mesh"):
        return value
    return distribute_tensor(value.to(parameter.device, parameter.dtype), parameter.device_mesh, parameter.placements)
