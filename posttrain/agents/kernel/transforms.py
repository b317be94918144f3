"""Values on a squashed scale, as a distribution over atoms: what MuZero, Muesli and their heirs predict instead of one number.

T(x) = sign(x) (sqrt(|x| + 1) - 1) + eps x squashes large returns (arXiv 1805.11593); a number between two atoms is spread over both,
"two-hot".
"""

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-3  # keeps T's slope, and so its inverse, well defined far out (arXiv 1805.11593, prop. A.2)


def squash(x: Tensor) -> Tensor:
    """T(x) = sign(x) (sqrt(|x| + 1) - 1) + eps x, element by element."""
    return x.sign() * ((x.abs() + 1).sqrt() - 1) + EPSILON * x


def unsquash(y: Tensor) -> Tensor:
    """The inverse of `squash`: sign(y) (((sqrt(1 + 4 eps (|y| + 1 + eps)) - 1) / (2 eps))^2 - 1).

    In float64, as the formula takes the difference of near-equal numbers; comes back in the type of `y`.
    """
    wide = y.double()
    root = ((1 + 4 * EPSILON * (wide.abs() + 1 + EPSILON)).sqrt() - 1) / (2 * EPSILON)
    return (wide.sign() * (root**2 - 1)).to(y.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class Support:
    """Evenly spaced atoms from `low` to `high` on the squashed scale; numbers beyond are clipped to the ends."""

    low: float
    high: float
    num_atoms: int

    def __post_init__(self) -> None:
        if self.low >= self.high or self.num_atoms < 2:
            found = (self.low, self.high, self.num_atoms)
            raise ValueError(f"support: found {found}, expected a lower and a higher atom, and at least two of them")

    def atoms(self, like: Tensor) -> Tensor:
        return torch.linspace(self.low, self.high, self.num_atoms, device=like.device, dtype=like.dtype)

    def two_hot(self, x: Tensor) -> Tensor:
        """Probabilities over the atoms with mean squash(x), at most two of them not 0, [...] -> [..., num_atoms]."""
        place = (squash(x).clamp(self.low, self.high) - self.low) / (self.high - self.low) * (self.num_atoms - 1)
        below = place.floor().clamp(max=self.num_atoms - 2)
        upper = (place - below)[..., None]
        index = below.long()[..., None]
        probs = torch.zeros(*x.shape, self.num_atoms, device=x.device, dtype=x.dtype)
        return probs.scatter_(-1, index, 1 - upper).scatter_(-1, index + 1, upper)

    def mean(self, logits: Tensor) -> Tensor:
        """The number that a distribution stands for, unsquash(E[atom]), [..., num_atoms] -> [...]."""
        return unsquash((logits.softmax(-1) * self.atoms(logits)).sum(-1))

    def cross_entropy(self, logits: Tensor, x: Tensor) -> Tensor:
        """-sum two_hot(x) log softmax(logits), [..., num_atoms], [...] -> [...]."""
        return -(self.two_hot(x) * logits.log_softmax(-1)).sum(-1)
