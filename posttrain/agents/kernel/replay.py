"""A ring of experience, from which stretches of consecutive steps are drawn, evenly or by priority.

Time-major: slot t of column b holds step t of environment b. A stretch never spans the place where new steps overwrite old ones; it may
span the end of an episode, which the fields themselves must tell (a discount of 0).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Stretches(NamedTuple):
    """N stretches of T steps."""

    fields: dict[str, Tensor]
    """Each [T, N, ...]."""
    slot_N: Tensor
    """Where they begin, for `Replay.prioritise`."""
    column_N: Tensor
    prob_N: Tensor
    """The probability with which each was drawn."""


class Replay:
    """The last `capacity` steps of `num_envs` environments."""

    def __init__(self, capacity: int, num_envs: int, device: torch.device | str = "cpu") -> None:
        self.capacity, self.num_envs, self.device = capacity, num_envs, torch.device(device)
        self.fields: dict[str, Tensor] = {}
        self.priority_TB = torch.zeros(capacity, num_envs, dtype=torch.float64, device=self.device)
        self.highest = torch.ones((), dtype=torch.float64, device=self.device)
        """The highest priority so far, at least 1: that of a step nobody has judged."""
        self.written = 0
        """Steps appended since the beginning; the next goes to slot `written % capacity`."""

    def __len__(self) -> int:
        """Steps held of each environment."""
        return min(self.written, self.capacity)

    def append(self, **step: Tensor) -> None:
        """Add one step, each field [B, ...]; the first call says which fields there are. A new step gets the highest priority so far."""
        if not self.fields:
            self.fields = {name: torch.zeros(self.capacity, *x.shape, dtype=x.dtype, device=self.device) for name, x in step.items()}
        if step.keys() != self.fields.keys():
            raise ValueError(f"need the fields {sorted(self.fields)}, got {sorted(step)}")
        slot = self.written % self.capacity
        for name, x in step.items():
            self.fields[name][slot] = x
        self.priority_TB[slot] = self.highest
        self.written += 1

    def sample(self, num: int, length: int, generator: torch.Generator, newest: int | None = None) -> Stretches:
        """`num` stretches of `length` steps, evenly and with replacement, from the `newest` steps if a number is given."""
        skipped = 0 if newest is None else max(len(self) - newest, 0)
        starts = self._num_starts(length + skipped)
        age_N = skipped + torch.randint(starts, (num,), generator=generator, device=self.device)
        column_N = torch.randint(self.num_envs, (num,), generator=generator, device=self.device)
        prob_N = torch.full((num,), 1 / (starts * self.num_envs), device=self.device)
        return self._read((self._oldest + age_N) % self.capacity, column_N, prob_N, length)

    def sample_mixed(
        self, num: int, length: int, online: float, generator: torch.Generator, newest: int | None = None
    ) -> dict[str, Tensor]:
        """Fields of `num` stretches, each [T, N, ...]: a share `online` ends now, the others are `sample`'s."""
        now = round(online * num)
        old = self.sample(num - now, length, generator, newest).fields
        column_N = torch.randint(self.num_envs, (now,), generator=generator, device=self.device)
        return {name: torch.cat([old[name], x[:, column_N]], 1) for name, x in self.latest(length).items()}

    def sample_prioritised(self, num: int, length: int, alpha: float, generator: torch.Generator) -> Stretches:
        """`num` stretches of `length` steps, each drawn in proportion to (the priority of its first step) ** alpha (arXiv 1511.05952)."""
        starts = self._num_starts(length)
        slot_T = (self._oldest + torch.arange(starts, device=self.device)) % self.capacity
        weight_C = self.priority_TB[slot_T].pow(alpha).flatten()
        total_C = weight_C.cumsum(0)
        pick_N = torch.rand(num, generator=generator, device=self.device, dtype=torch.float64) * total_C[-1]
        place_N = torch.searchsorted(total_C, pick_N, right=True).clamp(max=len(total_C) - 1)
        prob_N = (weight_C[place_N] / total_C[-1]).float()
        return self._read(slot_T[place_N // self.num_envs], place_N % self.num_envs, prob_N, length)

    def latest(self, length: int) -> dict[str, Tensor]:
        """The newest `length` steps of every environment, oldest first, each [T, B, ...]."""
        self._num_starts(length)
        slot_T = (self.written - length + torch.arange(length, device=self.device)) % self.capacity
        return {name: x[slot_T] for name, x in self.fields.items()}

    def prioritise(self, slot_N: Tensor, column_N: Tensor, priority_N: Tensor) -> None:
        """Set the priorities of the stretches that begin there."""
        self.priority_TB[slot_N, column_N] = priority_N.double()
        self.highest = torch.maximum(self.highest, priority_N.double().max())

    def state_dict(self) -> dict[str, Any]:
        return {"fields": self.fields, "priority": self.priority_TB, "highest": self.highest, "written": self.written}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fields = {name: x.to(self.device).clone() for name, x in state["fields"].items()}
        self.priority_TB = state["priority"].to(self.device).clone()
        self.highest = state["highest"].to(self.device)
        self.written = state["written"]

    @property
    def _oldest(self) -> int:
        return self.written % self.capacity if self.written > self.capacity else 0

    def _num_starts(self, length: int) -> int:
        if not 1 <= length <= len(self):
            raise ValueError(f"need a length from 1 to the {len(self)} steps held, got {length}")
        return len(self) - length + 1

    def _read(self, slot_N: Tensor, column_N: Tensor, prob_N: Tensor, length: int) -> Stretches:
        slot_TN = (slot_N + torch.arange(length, device=self.device)[:, None]) % self.capacity
        return Stretches({name: x[slot_TN, column_N] for name, x in self.fields.items()}, slot_N, column_N, prob_N)
