"""Recurrent cores of agents behind one interface: a GRU, an LSTM and a causal transformer, all of which can be reset at any step.

    y_TBH, state = core(x_TBH, reset_TB, state)      a stretch of experience at once, to learn from
    y_BH, state = core.stepper()(x_BH, reset_B, state)       one step, to act: the same numbers

reset_t = 1 says that x_t is the first input of a new sequence: nothing before it is known at t or later. A state is a tuple of tensors
whose first axis is the sequence. `s5.S5` is a core too.
"""

import math
from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

State: TypeAlias = tuple[Tensor, ...]
"""Each [B, ...]."""
Step: TypeAlias = Callable[[Tensor, Tensor, State], tuple[Tensor, State]]


class Core(Protocol):
    """What remembers."""

    def first_state(self, num: int) -> State: ...

    def __call__(self, x_TBH: Tensor, reset_TB: Tensor, state: State) -> tuple[Tensor, State]: ...

    def stepper(self) -> Step: ...


class GRU(nn.Module):
    """Layers of gated recurrent units, a cell's call for every step, as the library's fused loop knows no resets."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.width = width
        self.cells = nn.ModuleList(nn.GRUCell(width, width) for _ in range(layers))

    def first_state(self, num: int) -> State:
        return (torch.zeros(num, len(self.cells), self.width, device=next(self.parameters()).device),)

    def forward(self, x_TBH: Tensor, reset_TB: Tensor, state: State) -> tuple[Tensor, State]:
        keep_TB1 = 1 - reset_TB.to(x_TBH.dtype)[..., None]
        after = []
        for cell, h_BH in zip(self.cells, state[0].unbind(1), strict=True):
            outs = []
            for x_BH, keep_B1 in zip(x_TBH.unbind(0), keep_TB1.unbind(0), strict=True):  # indexing would make backward quadratic in T
                h_BH = cell(x_BH, h_BH * keep_B1)
                outs.append(h_BH)
            x_TBH = torch.stack(outs)
            after.append(h_BH)
        return x_TBH, (torch.stack(after, 1),)

    def stepper(self) -> Step:
        def step(x_BH: Tensor, reset_B: Tensor, state: State) -> tuple[Tensor, State]:
            keep_B11 = (~reset_B)[:, None, None]
            after = []
            for cell, h_BH in zip(self.cells, (state[0] * keep_B11).unbind(1), strict=True):
                x_BH = cell(x_BH, h_BH)
                after.append(x_BH)
            return x_BH, (torch.stack(after, 1),)

        return step


class LSTM(nn.Module):
    """Layers of long short-term memory, a cell's call for every step; the state is h and c."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.width = width
        self.cells = nn.ModuleList(nn.LSTMCell(width, width) for _ in range(layers))

    def first_state(self, num: int) -> State:
        empty = torch.zeros(num, len(self.cells), self.width, device=next(self.parameters()).device)
        return empty, empty.clone()

    def forward(self, x_TBH: Tensor, reset_TB: Tensor, state: State) -> tuple[Tensor, State]:
        keep_TB1 = 1 - reset_TB.to(x_TBH.dtype)[..., None]
        hidden, memory = [], []
        for cell, h_BH, c_BH in zip(self.cells, state[0].unbind(1), state[1].unbind(1), strict=True):
            outs = []
            for x_BH, keep_B1 in zip(x_TBH.unbind(0), keep_TB1.unbind(0), strict=True):
                h_BH, c_BH = cell(x_BH, (h_BH * keep_B1, c_BH * keep_B1))
                outs.append(h_BH)
            x_TBH = torch.stack(outs)
            hidden.append(h_BH)
            memory.append(c_BH)
        return x_TBH, (torch.stack(hidden, 1), torch.stack(memory, 1))

    def stepper(self) -> Step:
        def step(x_BH: Tensor, reset_B: Tensor, state: State) -> tuple[Tensor, State]:
            y_1BH, state = self(x_BH[None], reset_B[None], state)
            return y_1BH[0], state

        return step


class Transformer(nn.Module):
    """Pre-norm blocks of causal attention over at most the last `window` inputs of the same sequence, and an MLP of 4 H.

    Positions are rotations of queries and keys (arXiv 2104.09864), which tell how far apart two inputs are and nothing else. The state
    holds keys and values of the last `window` - 1 inputs, and which of them belong to the sequence that goes on; fewer are taken as well.
    """

    def __init__(self, width: int, layers: int, heads: int, window: int) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"need a width that is a multiple of 2 * heads = {2 * heads}, as positions rotate pairs; got {width}")
        self.width, self.heads, self.window = width, heads, window
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))

    def first_state(self, num: int) -> State:
        device = next(self.parameters()).device
        cache = torch.zeros(num, len(self.blocks), 2, self.heads, self.window - 1, self.width // self.heads, device=device)
        return cache, torch.zeros(num, self.window - 1, dtype=torch.bool, device=device)

    def forward(self, x_TBH: Tensor, reset_TB: Tensor, state: State) -> tuple[Tensor, State]:
        cache, known_BW = state
        steps, past = len(x_TBH), known_BW.shape[1]
        drop = max(past + steps - (self.window - 1), 0)
        episode_BT = reset_TB.T.long().cumsum(1)
        episode_BS = torch.cat([known_BW.long() - 1, episode_BT], 1)  # 0 goes on from before, -1 is over
        place_S = torch.arange(past + steps, device=x_TBH.device)
        apart_TS = place_S[past:, None] - place_S
        near_TS = (apart_TS >= 0) & (apart_TS < self.window)
        known_BTS = near_TS & (episode_BT[..., None] == episode_BS[:, None])
        mask_B1TS = torch.zeros(known_BTS.shape, device=x_TBH.device).masked_fill_(~known_BTS, -math.inf)[:, None]
        turn_SD = rotations(place_S, self.width // self.heads)
        x_BTH, after = x_TBH.transpose(0, 1), []
        for block, cached in zip(self.blocks, cache.unbind(1), strict=True):
            x_BTH, cached = block(x_BTH, cached, mask_B1TS, turn_SD)
            after.append(cached[..., drop:, :])
        known_BW = episode_BS[:, drop:] == episode_BT[:, -1:]
        return x_BTH.transpose(0, 1), (torch.stack(after, 1), known_BW)

    def stepper(self) -> Step:
        def step(x_BH: Tensor, reset_B: Tensor, state: State) -> tuple[Tensor, State]:
            y_1BH, state = self(x_BH[None], reset_B[None], state)
            return y_1BH[0], state

        return step


class TransformerBlock(nn.Module):
    """Attention and MLP, each behind a norm and around it the input itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTH: Tensor, cached: Tensor, mask_B1TS: Tensor, turn_SD: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs, and keys and values of the cache and these inputs, [B, 2, heads, S, D]."""
        q, k, v = self.into(self.before_attention(x_BTH)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        cached = torch.cat([cached, torch.stack([k, v], 1)], -2)
        keys, values = cached.unbind(1)
        steps = x_BTH.shape[1]
        read = scaled_dot_product_attention(rotated(q, turn_SD[-steps:]), rotated(keys, turn_SD), values, attn_mask=mask_B1TS)
        x_BTH = x_BTH + self.out(read.transpose(1, 2).flatten(2))
        return x_BTH + self.down(gelu(self.up(self.before_mlp(x_BTH)))), cached


def rotations(place_S: Tensor, size: int) -> Tensor:
    """Angles of `size` / 2 pairs at every place, from one radian a step to 10,000 times fewer, [S, size / 2]."""
    rate = torch.exp(torch.arange(0, size, 2, device=place_S.device) * (-math.log(10_000.0) / size))
    return place_S[:, None] * rate


def rotated(x: Tensor, angle_SD: Tensor) -> Tensor:
    """The pairs (first half, second half) of x turned by the angles of their places, [..., S, D]."""
    first, second = x.chunk(2, -1)
    cosine, sine = angle_SD.cos(), angle_SD.sin()
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
