"""A world model over choices, which may remember: a core reads every single step, and the model's state comes from what it gives.

A stretch of experience has, for every step, the observation, the action before (`last`), whether the episode begins (`fresh`) and the
memory before it, as the acting network had it; learning starts from that memory and reads on with its own weights. A memory is the core's
state as real numbers in a row, so that replay can keep it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, relu

from posttrain.agents.kernel.cores import Core, State
from posttrain.agents.kernel.nets import WorldModel, torso
from posttrain.agents.kernel.transforms import Support


class RememberingModel(nn.Module):
    """`world`, a `WorldModel` whose actions are the choices, behind `core` of `width` features, or on its own."""

    def __init__(
        self,
        obs_shape: Sequence[int],
        num_actions: int,
        choices: int,
        support: Support,
        width: int,
        hidden: int,
        core: nn.Module | None,
    ) -> None:
        super().__init__()
        self.num_actions, self.core = num_actions, core
        self.world = WorldModel((width,) if core else obs_shape, choices, support, width, hidden)
        if core:
            self.see, self.did = torso(obs_shape, width), nn.Linear(num_actions + 1, width)

    @property
    def remember(self) -> Core:
        return self.core  # type: ignore[return-value]

    def first_memory(self, num: int) -> Tensor:
        """[num, M], of no numbers without a core."""
        return packed(self.remember.first_state(num)) if self.core else torch.zeros(num, 0, device=next(self.parameters()).device)

    def states(self, fields: Mapping[str, Tensor], step_TN: Tensor) -> Tensor:
        """The world's states at some steps of a stretch, [P, N, ...], [T, N] -> [T, N, D]."""
        obs = fields["obs"]
        if self.core:
            x = self._read(obs.flatten(0, 1), fields["last"].flatten(), fields["fresh"].flatten()).unflatten(0, obs.shape[:2])
            obs, _ = self.remember(x, fields["fresh"], self._unpacked(fields["memory"][0]))
        picked = obs[step_TN, torch.arange(step_TN.shape[1], device=step_TN.device)]
        return self.world.represent(picked.flatten(0, 1)).unflatten(0, step_TN.shape)

    def state(self, obs: Tensor, last: Tensor, fresh: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The world's state now, [B, D], and the memory after it."""
        if not self.core:
            return self.world.represent(obs), memory
        y, state = self.remember.stepper()(self._read(obs, last, fresh), fresh, self._unpacked(memory))
        return self.world.represent(y), packed(state)

    def _read(self, obs: Tensor, last: Tensor, fresh: Tensor) -> Tensor:
        done = torch.cat([one_hot(last, self.num_actions) * ~fresh[:, None], fresh[:, None]], 1)
        return relu(self.see(obs) + self.did(done.to(obs.dtype)))

    def _unpacked(self, memory_BM: Tensor) -> State:
        return unpacked(memory_BM, self.remember.first_state(1))


def packed(state: State) -> Tensor:
    """A state as real numbers in a row, [B, M]; a complex number is two of them."""
    return torch.cat([(torch.view_as_real(x) if x.is_complex() else x).flatten(1) for x in state], 1)


def unpacked(memory_BM: Tensor, like: State) -> State:
    """What was packed, in the shapes and kinds of a state of one sequence."""
    sizes = [x[0].numel() * (2 if x.is_complex() else 1) for x in like]
    parts = zip(memory_BM.split(sizes, 1), like, strict=True)
    return tuple(
        torch.view_as_complex(part.unflatten(1, (*x.shape[1:], 2))) if x.is_complex() else part.unflatten(1, x.shape[1:])
        for part, x in parts
    )
