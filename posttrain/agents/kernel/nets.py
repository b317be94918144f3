"""Networks: torsos, and MuZero's triple of representation h, dynamics g and prediction f (arXiv 1911.08265).

    s_0 = h(o)      r_{k+1}, s_{k+1} = g(s_k, a_k)      policy, v = f(s_k)

Rewards and values are distributions over the atoms of a `Support`; `rewards` and `values` of it are its means.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, relu

from posttrain.agents.kernel.transforms import Support


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [nn.ReLU()] if i else []
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


def torso(obs_shape: Sequence[int], width: int) -> nn.Sequential:
    """An encoder to `width` features for what an environment shows: an MLP for vectors, a residual convolution for images.

    Images are [channels, height, width]; the network is that of IMPALA (arXiv 1802.01561), of 16, 32 and 32 channels.
    """
    if len(obs_shape) == 1:
        return mlp([obs_shape[0], width, width])
    if len(obs_shape) != 3:
        raise ValueError(f"need observations of one or three axes, got shape {tuple(obs_shape)}")
    channels, height, breadth = obs_shape
    layers: list[nn.Module] = []
    for features in (16, 32, 32):
        layers += [nn.Conv2d(channels, features, 3, padding=1), nn.MaxPool2d(3, 2, padding=1), Residual(features), Residual(features)]
        channels, height, breadth = features, (height + 1) // 2, (breadth + 1) // 2
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(channels * height * breadth, width))


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(relu(self.first(relu(x))))


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """x itself, whose gradient is multiplied by `scale`."""
    return x * scale + x.detach() * (1 - scale)


class Prediction(NamedTuple):
    """f of a state."""

    policy_logits: Tensor
    """[..., A]"""
    value_logits: Tensor
    """[..., num_atoms]"""


class WorldModel(nn.Module):
    """The triple h, g, f on states of D numbers, each normalised to mean 0 and variance 1.

    `step` and `step_all` halve the gradient that flows into the state before, as MuZero does: a long unroll must not outweigh its start.
    """

    def __init__(self, obs_shape: Sequence[int], num_actions: int, support: Support, width: int, hidden: int) -> None:
        super().__init__()
        self.shape = {"obs_shape": tuple(obs_shape), "num_actions": num_actions, "width": width, "hidden": hidden}
        self.num_actions, self.support = num_actions, support
        self.encode = torso(obs_shape, width)
        self.from_state = nn.Linear(width, hidden)
        self.from_action = nn.Embedding(num_actions, hidden)
        self.to_state = nn.Linear(hidden, width)
        self.reward_head = nn.Linear(hidden, support.num_atoms)
        self.policy_head = mlp([width, hidden, num_actions])
        self.value_head = mlp([width, hidden, support.num_atoms])
        for last in (self.reward_head, self.policy_head[-1], self.value_head[-1]):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def represent(self, obs: Tensor) -> Tensor:
        """h: the state of an observation, [N, *obs_shape] -> [N, D]."""
        return self._normalised(self.encode(obs))

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """g: next state and reward logits, [..., D], [...] -> [..., D], [..., num_atoms]."""
        return self._moved(state, self.from_action(action))

    def step_all(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """g for every action at once, [..., D] -> [..., A, D], [..., A, num_atoms]."""
        return self._moved(state[..., None, :], self.from_action.weight)

    def predict(self, state: Tensor) -> Prediction:
        """f: [..., D] -> policy and value logits."""
        return Prediction(self.policy_head(state), self.value_head(state))

    def values(self, state: Tensor) -> Tensor:
        """The value of a state as a number, [..., D] -> [...]."""
        return self.support.mean(self.value_head(state))

    def rewards(self, reward_logits: Tensor) -> Tensor:
        return self.support.mean(reward_logits)

    def _moved(self, state: Tensor, action_features: Tensor) -> tuple[Tensor, Tensor]:
        state = scale_gradient(state, 0.5)
        features = relu(self.from_state(state) + action_features)
        return self._normalised(state + self.to_state(features)), self.reward_head(features)

    @staticmethod
    def _normalised(state: Tensor) -> Tensor:
        return layer_norm(state, state.shape[-1:])


def lookahead(model: WorldModel, state: Tensor, gamma: float | Tensor) -> Tensor:
    """q(s, a) = r(s, a) + gamma v(g(s, a)) of every action by one model step, [..., D] -> [..., A]; actions may differ in gamma, [A]."""
    next_state, reward_logits = model.step_all(state)
    return model.rewards(reward_logits) + gamma * model.values(next_state)


def unroll(model: WorldModel, state: Tensor, action_K: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """States s_0 ... s_K and reward logits r_1 ... r_K along given actions, [..., D] -> [K+1, ..., D], [K, ..., num_atoms]."""
    states, rewards = [state], []
    for action in action_K:
        state, reward_logits = model.step(state, action)
        states.append(state)
        rewards.append(reward_logits)
    return torch.stack(states), torch.stack(rewards)


def save_model(path: Path, model: WorldModel) -> None:
    """Weights and the sizes that `load_model` needs to make the model again."""
    torch.save({"weights": model.state_dict(), "support": asdict(model.support), **model.shape}, path)


def load_model(path: Path, device: torch.device | str = "cpu") -> WorldModel:
    """A model saved by `save_model`, not to be trained."""
    saved = torch.load(path, map_location=device, weights_only=True)
    weights, support = saved.pop("weights"), Support(**saved.pop("support"))
    model = WorldModel(support=support, **saved).to(device)
    model.load_state_dict(weights)
    return model.requires_grad_(False)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, max_norm: float, rate: float | None = None) -> None:
    """One step down `loss`, whose gradient is cut to the norm `max_norm`; a learning rate in place of the optimiser's if one is given."""
    if rate is not None:
        set_rate(optimiser, rate)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], max_norm)
    optimiser.step()


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


@torch.no_grad()
def track(average: nn.Module, online: nn.Module, rate: float) -> None:
    """Move every parameter of the moving average by `rate` of the way to the online network's."""
    for slow, fast in zip(average.parameters(), online.parameters(), strict=True):
        slow.lerp_(fast, rate)
