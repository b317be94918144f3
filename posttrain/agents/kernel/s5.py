"""S5: a diagonal linear state space as a recurrent layer, over whole sequences at once or step by step (arXiv 2208.04933, 2303.03982).

    x' = Lambda x + B u,  y = 2 Re(C x) + D u            P complex numbers of state, one of each conjugate pair of 2 P
    x_t = (1 - d_t) A x_{t-1} + B_d u_t                  discretised with a step Delta of its own for every number of state

d_t = 1 says that u_t is the first input of a new sequence: the state is cleared before it is read. The reset operator of arXiv
2303.03982, which carries a flag through an associative scan of triples, gives the same states; here the flag gates an ordinary recurrence.
`scan` works that recurrence out in chunks side by side; read it, then `S5Layer`, then `S5`.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu

from posttrain.agents.kernel.cores import State, Step

SLOWEST = -1e-4  # the real part of an eigenvalue stays below it: at 0 a state would never fade, above it explode
WIDE = 4096  # numbers in one step from which a CPU is busy with it alone, and chunks would only cost a second walk


def hippo_n(num: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues with positive imaginary part and their eigenvectors of HiPPO-N, [P] and [2P, P] complex128, P = num / 2.

    HiPPO-LegS is -sqrt(2n + 1) sqrt(2k + 1) below the diagonal and -(n + 1) on it; with the rank-one term P P^T, P_n = sqrt(n + 1/2), it
    is -1/2 I plus a skew-symmetric S, so normal (arXiv 2206.11893): the eigenvalues are -1/2 + i w of the Hermitian -i S.
    """
    root = (2 * torch.arange(num, dtype=torch.float64) + 1).sqrt()
    below = torch.tril(root[:, None] * root[None], -1)
    skew = 0.5 * (below.T - below)
    w, vectors = torch.linalg.eigh(-1j * skew)
    return torch.complex(torch.full_like(w, -0.5), w)[num // 2 :], vectors[:, num // 2 :]


def zero_order_hold(eigenvalue_P: Tensor, delta_P: Tensor) -> tuple[Tensor, Tensor]:
    """A and the factor of B where the input is constant over a step: exp(Lambda Delta), (A - 1) / Lambda."""
    a_P = (eigenvalue_P * delta_P).exp()
    return a_P, (a_P - 1) / eigenvalue_P


def bilinear(eigenvalue_P: Tensor, delta_P: Tensor) -> tuple[Tensor, Tensor]:
    """A and the factor of B by the trapezoid rule: (1 + Lambda Delta / 2) / (1 - Lambda Delta / 2), Delta / (1 - Lambda Delta / 2)."""
    half_P = eigenvalue_P * delta_P / 2
    return (1 + half_P) / (1 - half_P), delta_P / (1 - half_P)


DISCRETISATIONS = {"zoh": zero_order_hold, "bilinear": bilinear}


def scan(a_P: Tensor, b_TBP: Tensor, reset_TB: Tensor, state_BP: Tensor) -> Tensor:
    """x_t = (1 - d_t) a x_{t-1} + b_t from x_{-1} = `state_BP`, [T, B, P]; differentiable once in a, b and the state."""
    return _Scan.apply(a_P, b_TBP, reset_TB, state_BP)


class _Scan(torch.autograd.Function):
    """With g_t the gradient that reaches x_t in all: g_t = dL/dx_t + conj(gate_{t+1}) g_{t+1}, the same recurrence from the end."""

    @staticmethod
    def forward(ctx: Any, a_P: Tensor, b_TBP: Tensor, reset_TB: Tensor, state_BP: Tensor) -> Tensor:
        keep_TB1 = (1 - reset_TB.to(a_P.real.dtype))[..., None]
        x_TBP = _recurrence(a_P * keep_TB1, b_TBP, state_BP)
        ctx.save_for_backward(a_P, keep_TB1, state_BP, x_TBP)
        return x_TBP

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above_TBP: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
        a_P, keep_TB1, state_BP, x_TBP = ctx.saved_tensors
        gate_TBP = a_P.conj() * torch.cat([keep_TB1[1:], torch.zeros_like(keep_TB1[:1])])
        g_TBP = _recurrence(gate_TBP, above_TBP.contiguous(), torch.zeros_like(state_BP), reverse=True)
        first_BP = keep_TB1[0] * g_TBP[0]
        grad_a = (state_BP.conj() * first_BP).sum(0) + (x_TBP[:-1].conj() * (keep_TB1[1:] * g_TBP[1:])).sum((0, 1))
        return grad_a, g_TBP, None, a_P.conj() * first_BP


def _recurrence(gate_TBP: Tensor, b_TBP: Tensor, state_BP: Tensor, reverse: bool = False) -> Tensor:
    """x_t = gate_t x_{t-1} + b_t, or from the end x_t = gate_t x_{t+1} + b_t.

    The sequence is cut into C chunks of L steps, about sqrt(2 T) of them, and all are walked side by side twice: first from 0, which tells
    what each chunk adds and by how much it shrinks what came in; then, when one walk over the C chunks has told what comes into each, from
    there. So 2 L + C dependent steps take the place of T, at twice the arithmetic.
    """
    steps, width = len(b_TBP), state_BP.numel()
    chunks = 1 if b_TBP.device.type == "cpu" and width >= WIDE else round(math.sqrt(2 * steps))
    length = -(-steps // max(chunks, 1))
    chunks = -(-steps // length)
    gates, inputs = _chunked(gate_TBP, chunks, length), _chunked(b_TBP, chunks, length)
    out_TBP = torch.empty(chunks * length, *state_BP.shape, dtype=b_TBP.dtype, device=b_TBP.device)
    order = range(length - 1, -1, -1) if reverse else range(length)
    entry_CBP = state_BP[None] if chunks == 1 else _entries(gates, inputs, state_BP, order)
    at_CBP = entry_CBP
    outs = out_TBP.unflatten(0, (chunks, length)).unbind(1)
    for t in order:
        at_CBP = torch.addcmul(inputs[t], at_CBP, gates[t], out=outs[t])
    return out_TBP[:steps]


def _entries(gates: tuple[Tensor, ...], inputs: tuple[Tensor, ...], state_BP: Tensor, order: range) -> Tensor:
    """The state that comes into each chunk, [C, B, P]."""
    added_CBP, shrunk_CBP = torch.zeros_like(inputs[0]), torch.ones_like(gates[0])
    for t in order:
        torch.addcmul(inputs[t], added_CBP, gates[t], out=added_CBP)
        shrunk_CBP.mul_(gates[t])
    entries: list[Tensor] = []
    pairs = list(zip(added_CBP.unbind(0), shrunk_CBP.unbind(0), strict=True))
    for added_BP, shrunk_BP in pairs if order.step > 0 else pairs[::-1]:
        entries.append(state_BP)
        state_BP = torch.addcmul(added_BP, shrunk_BP, state_BP)
    return torch.stack(entries if order.step > 0 else entries[::-1])


def _chunked(x_TBP: Tensor, chunks: int, length: int) -> tuple[Tensor, ...]:
    """Step 0, 1, ... of every chunk, L tensors [C, B, P]; the last chunk is filled up with zeros, which change nothing before them."""
    missing = chunks * length - len(x_TBP)
    if missing:
        x_TBP = torch.cat([x_TBP, x_TBP.new_zeros(missing, *x_TBP.shape[1:])])
    return x_TBP.unflatten(0, (chunks, length)).unbind(1)


class S5Layer(nn.Module):
    """The state space itself: H real inputs to H real outputs through `num_states` / 2 complex numbers of state.

    Starts from HiPPO-N, B = V^-1 B0 and C = C0 V of random real B0 and C0, steps Delta spread evenly on a log scale over `timescales`.
    """

    def __init__(self, width: int, num_states: int, discretisation: Literal["zoh", "bilinear"], timescales: tuple[float, float]) -> None:
        super().__init__()
        if num_states % 2:
            raise ValueError(f"need an even number of states, as they come in conjugate pairs; got {num_states}")
        self.discretisation = discretisation
        eigenvalue_P, vectors_NP = hippo_n(num_states)
        b_NH = torch.randn(num_states, width, dtype=torch.float64) / math.sqrt(width)
        c_HN = torch.randn(width, num_states, dtype=torch.float64) / math.sqrt(num_states)
        b_PH = vectors_NP.mH @ b_NH.to(vectors_NP.dtype)  # V is unitary
        c_HP = c_HN.to(vectors_NP.dtype) @ vectors_NP
        low, high = map(math.log, timescales)
        self.eigenvalue_P2 = nn.Parameter(torch.view_as_real(eigenvalue_P).float())
        self.b_PH2 = nn.Parameter(torch.view_as_real(b_PH).float())
        self.c_HP2 = nn.Parameter(torch.view_as_real(c_HP).float())
        self.d_H = nn.Parameter(torch.randn(width))
        self.log_delta_P = nn.Parameter(torch.rand(num_states // 2) * (high - low) + low)

    def discretised(self) -> tuple[Tensor, Tensor, Tensor]:
        """A [P] complex; B_d as a real map from inputs to the real and imaginary parts of what they add, [H, 2P]; 2 C likewise, [2P, H]."""
        real_P, imaginary_P = self.eigenvalue_P2.unbind(1)
        eigenvalue_P = torch.complex(real_P.clamp(max=SLOWEST), imaginary_P)
        a_P, factor_P = DISCRETISATIONS[self.discretisation](eigenvalue_P, self.log_delta_P.exp())
        b_PH = factor_P[:, None] * torch.view_as_complex(self.b_PH2)
        b_into = torch.view_as_real(b_PH.T.contiguous()).flatten(1)
        c_real, c_imaginary = self.c_HP2.unbind(2)
        c_out = 2 * torch.stack([c_real.T, -c_imaginary.T], 1).flatten(0, 1)  # Re(c x) = Re c Re x - Im c Im x
        return a_P, b_into, c_out

    def forward(self, u_TBH: Tensor, reset_TB: Tensor, state_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [T, B, H] and the state after the last, [B, P] complex."""
        a_P, b_into, c_out = self.discretised()
        added_TBP = torch.view_as_complex((u_TBH @ b_into).unflatten(-1, (-1, 2)))
        x_TBP = scan(a_P, added_TBP, reset_TB, state_BP)
        return torch.addcmul(torch.view_as_real(x_TBP).flatten(-2) @ c_out, u_TBH, self.d_H), x_TBP[-1]

    def first_state(self, num: int) -> Tensor:
        return torch.zeros(num, len(self.log_delta_P), dtype=self.log_delta_P.dtype.to_complex(), device=self.d_H.device)


class S5Block(nn.Module):
    """u + (W1 v) sigmoid(W2 v), v = GELU(S5(norm(u))): a layer with its gate, around which the input passes."""

    def __init__(
        self, width: int, num_states: int, discretisation: Literal["zoh", "bilinear"], timescales: tuple[float, float], norm: bool
    ):
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.layer = S5Layer(width, num_states, discretisation, timescales)
        self.gate = nn.Linear(width, 2 * width)

    def forward(self, u_TBH: Tensor, reset_TB: Tensor, state_BP: Tensor) -> tuple[Tensor, Tensor]:
        y_TBH, state_BP = self.layer(self.norm(u_TBH), reset_TB, state_BP)
        return self.gated(u_TBH, y_TBH), state_BP

    def gated(self, u: Tensor, y: Tensor) -> Tensor:
        value, gate = self.gate(gelu(y)).chunk(2, -1)
        return torch.addcmul(u, value, gate.sigmoid())


class S5(nn.Module):
    """Blocks one after another; the state of each of B sequences is [B, blocks, P] complex."""

    def __init__(
        self,
        width: int,
        layers: int,
        num_states: int,
        discretisation: Literal["zoh", "bilinear"] = "zoh",
        timescales: tuple[float, float] = (1e-3, 1e-1),
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(S5Block(width, num_states, discretisation, timescales, norm) for _ in range(layers))

    def first_state(self, num: int) -> State:
        return (torch.stack([block.layer.first_state(num) for block in self._blocks()], 1),)

    def forward(self, x_TBH: Tensor, reset_TB: Tensor, state: State) -> tuple[Tensor, State]:
        states = []
        for block, state_BP in zip(self._blocks(), state[0].unbind(1), strict=True):
            x_TBH, state_BP = block(x_TBH, reset_TB, state_BP)
            states.append(state_BP)
        return x_TBH, (torch.stack(states, 1),)

    def stepper(self) -> Step:
        """One step at a time, at a cost that does not grow with the sequence; what depends on no input is worked out here, once."""
        blocks = [(block, *block.layer.discretised()) for block in self._blocks()]

        def step(x_BH: Tensor, reset_B: Tensor, state: State) -> tuple[Tensor, State]:
            states_BLP, keep_B1 = state[0], (~reset_B)[:, None]
            after = []
            for (block, a_P, b_into, c_out), state_BP in zip(blocks, states_BLP.unbind(1), strict=True):
                u_BH = block.norm(x_BH)
                added_BP = torch.view_as_complex((u_BH @ b_into).unflatten(-1, (-1, 2)))
                state_BP = torch.addcmul(added_BP, state_BP * keep_B1, a_P)
                y_BH = torch.addcmul(torch.view_as_real(state_BP).flatten(-2) @ c_out, u_BH, block.layer.d_H)
                x_BH = block.gated(x_BH, y_BH)
                after.append(state_BP)
            return x_BH, (torch.stack(after, 1),)

        return step

    def _blocks(self) -> Iterator[S5Block]:
        return (block for block in self.blocks if isinstance(block, S5Block))
