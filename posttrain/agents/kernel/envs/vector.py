"""What every environment here is to an agent: many episodes at once, as tensors.

An episode that ends restarts by itself: `step` gives the reward and end of the old episode and the first observation of the next one.
`terminated` says that the episode is over and worth nothing more, `truncated` that a time limit cut it. The last observation of an episode
is not shown, so an agent cannot bootstrap from it; ours count both ends alike. All randomness comes from the generator given to `reset`,
whose state is part of `state_dict`: a restored environment goes on exactly as the saved one would have.
"""

from typing import Any, Protocol

import torch
from torch import Tensor


class VectorEnv(Protocol):
    """B episodes side by side."""

    num_envs: int
    num_actions: int
    obs_shape: tuple[int, ...]
    device: torch.device

    def reset(self, generator: torch.Generator) -> Tensor:
        """Start every episode anew; observations, [B, *obs_shape]."""
        ...

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Observation [B, *obs_shape], reward [B] float, terminated [B] bool, truncated [B] bool."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
