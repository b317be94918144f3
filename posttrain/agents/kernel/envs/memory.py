"""Tasks that nothing but memory solves: a cue that is asked for later, symbols to repeat with a delay, a turn to take after a corridor."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot


class Remembering:
    """Episodes whose state is a row of whole numbers. A task says how they begin, go on and look: `first`, `advance`, `observe`."""

    num_actions: int
    obs_shape: tuple[int, ...]

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        self.num_envs, self.device, self.generator = num_envs, torch.device(device), torch.Generator(device)
        self.state_BF = torch.zeros(0, dtype=torch.long, device=self.device)

    def first(self) -> Tensor:
        """States that begin an episode, [B, F]."""
        raise NotImplementedError

    def advance(self, state_BF: Tensor, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The states after an action, its reward, and whether the episode is over or cut."""
        raise NotImplementedError

    def observe(self, state_BF: Tensor) -> Tensor:
        """[B, *obs_shape]"""
        raise NotImplementedError

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        self.state_BF = self.first()
        return self.observe(self.state_BF)

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        state_BF, reward_B, terminated_B, truncated_B = self.advance(self.state_BF, action_B)
        self.state_BF = torch.where((terminated_B | truncated_B)[:, None], self.first(), state_BF)
        return self.observe(self.state_BF), reward_B, terminated_B, truncated_B

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state_BF.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state_BF = state["state"].to(self.device).clone()
        self.generator.set_state(state["generator"])

    def _draw(self, below: int, columns: int = 1) -> Tensor:
        return torch.randint(below, (self.num_envs, columns), generator=self.generator, device=self.device)


class MemoryChain(Remembering):
    """Say, `length` steps later, which of two cues the first observation was: 1 if right, -1 if wrong, as bsuite's memory length.

    Observed are the share of the time that is left, whether now is the question, and the cue, -1 or 1, in the first step alone. What is
    done before the question counts for nothing.
    """

    num_actions = 2
    obs_shape: tuple[int, ...] = (3,)

    def __init__(self, num_envs: int, length: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device)
        self.length = length

    def first(self) -> Tensor:
        cue_B1 = self._draw(2)
        return torch.cat([torch.zeros_like(cue_B1), cue_B1], 1)  # steps since the cue, cue

    def advance(self, state_BF: Tensor, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        elapsed_B, cue_B = state_BF.unbind(1)
        asked_B = elapsed_B == self.length
        reward_B = torch.where(action_B == cue_B, 1.0, -1.0) * asked_B
        return torch.stack([elapsed_B + 1, cue_B], 1), reward_B, asked_B, torch.zeros_like(asked_B)

    def observe(self, state_BF: Tensor) -> Tensor:
        elapsed_B, cue_B = state_BF.unbind(1)
        return torch.stack([1 - elapsed_B / self.length, (elapsed_B == self.length).float(), (2.0 * cue_B - 1) * (elapsed_B == 0)], 1)


class RepeatPrevious(Remembering):
    """Name the symbol shown `delay` steps before, at every step of `length`; all right is worth 1, all wrong -1, as POPGym's.

    Observed is the symbol of this step, one of four. The first `delay` steps, when there is nothing to repeat, count for nothing.
    """

    num_actions = 4
    obs_shape: tuple[int, ...] = (4,)

    def __init__(self, num_envs: int, delay: int, length: int, device: torch.device | str = "cpu") -> None:
        if delay >= length:
            raise ValueError(f"need a delay shorter than the episode of {length} steps, got {delay}")
        super().__init__(num_envs, device)
        self.delay, self.length = delay, length

    def first(self) -> Tensor:
        shown = self._draw(4, self.delay + 1)  # the newest first; the older ones are never seen
        return torch.cat([torch.zeros_like(shown[:, :1]), shown], 1)

    def advance(self, state_BF: Tensor, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        elapsed_B, shown_BK = state_BF[:, 0], state_BF[:, 1:]
        right_B = torch.where(action_B == shown_BK[:, -1], 1.0, -1.0)
        reward_B = right_B * (elapsed_B >= self.delay) / (self.length - self.delay)
        over_B = elapsed_B == self.length - 1
        after_BF = torch.cat([elapsed_B[:, None] + 1, self._draw(4), shown_BK[:, :-1]], 1)
        return after_BF, reward_B, over_B, torch.zeros_like(over_B)

    def observe(self, state_BF: Tensor) -> Tensor:
        return one_hot(state_BF[:, 1], 4).float()


class TMaze(Remembering):
    """Walk a corridor of `length` steps, then turn to the side that the first observation named: 1 for the right turn, -1 otherwise.

    Actions: on, left, right; a turn within the corridor and a step on at its end lead nowhere. Observed are whether this is the end, and
    the side, -1 or 1, in the first step alone. Cut after twice the shortest way (Bakker 2002).
    """

    num_actions = 3
    obs_shape: tuple[int, ...] = (2,)

    def __init__(self, num_envs: int, length: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device)
        self.length, self.limit = length, 2 * (length + 1)

    def first(self) -> Tensor:
        side_B1 = self._draw(2)
        return torch.cat([torch.zeros_like(side_B1), torch.zeros_like(side_B1), side_B1], 1)  # steps taken, place, side

    def advance(self, state_BF: Tensor, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        elapsed_B, place_B, side_B = state_BF.unbind(1)
        turned_B = (place_B == self.length) & (action_B > 0)
        reward_B = torch.where(action_B - 1 == side_B, 1.0, -1.0) * turned_B
        place_B = torch.where(action_B == 0, (place_B + 1).clamp(max=self.length), place_B)
        cut_B = ~turned_B & (elapsed_B + 1 >= self.limit)
        return torch.stack([elapsed_B + 1, place_B, side_B], 1), reward_B, turned_B, cut_B

    def observe(self, state_BF: Tensor) -> Tensor:
        elapsed_B, place_B, side_B = state_BF.unbind(1)
        return torch.stack([(place_B == self.length).float(), (2.0 * side_B - 1) * (elapsed_B == 0)], 1)
