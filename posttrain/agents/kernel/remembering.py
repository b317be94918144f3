"""A world model over choices, which may remember: a GRU reads every single step, and the model's state comes from what it gives.

A stretch of experience has, for every step, the observation, the action before (`last`), whether the episode begins (`fresh`) and the
memory before it, as the acting network had it; learning starts from that memory and reads on with its own weights.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, relu

from posttrain.agents.kernel.cores import GRU, State
from posttrain.agents.kernel.nets import WorldModel, torso
from posttrain.agents.kernel.transforms import Support


class RememberingModel(nn.Module):
    """`world`, a `WorldModel` whose actions are the choices, behind a memory if `memory`."""

    def __init__(
        self, obs_shape: Sequence[int], num_actions: int, choices: int, support: Support, width: int, hidden: int, memory: bool
    ) -> None:
        super().__init__()
        self.num_actions, self.core = num_actions, None
        self.world = WorldModel((width,) if memory else obs_shape, choices, support, width, hidden)
        if memory:
            self.see, self.did = torso(obs_shape, width), nn.Linear(num_actions + 1, width)
            self.core = GRU(width, 1)

    def first_memory(self, num: int) -> Tensor:
        """[num, ...]"""
        return self.core.first_state(num)[0] if self.core else torch.zeros(num, 0, device=next(self.parameters()).device)

    def states(self, fields: Mapping[str, Tensor], step_TN: Tensor) -> Tensor:
        """The world's states at some steps of a stretch, [P, N, ...], [T, N] -> [T, N, D]."""
        obs = fields["obs"]
        if self.core:
            x = self._read(obs.flatten(0, 1), fields["last"].flatten(), fields["fresh"].flatten()).unflatten(0, obs.shape[:2])
            obs, _ = self.core(x, fields["fresh"], (fields["memory"][0],))
        picked = obs[step_TN, torch.arange(step_TN.shape[1], device=step_TN.device)]
        return self.world.represent(picked.flatten(0, 1)).unflatten(0, step_TN.shape)

    def state(self, obs: Tensor, last: Tensor, fresh: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The world's state now, [B, D], and the memory after it."""
        if not self.core:
            return self.world.represent(obs), memory
        before: State = (memory,)
        y, (memory,) = self.core.stepper()(self._read(obs, last, fresh), fresh, before)
        return self.world.represent(y), memory

    def _read(self, obs: Tensor, last: Tensor, fresh: Tensor) -> Tensor:
        done = torch.cat([one_hot(last, self.num_actions) * ~fresh[:, None], fresh[:, None]], 1)
        return relu(self.see(obs) + self.did(done.to(obs.dtype)))
