"""Gymnasium environments as a `VectorEnv`: Atari, dm-control, MiniGrid, MinAtar, for configurations at full scale.

They step in Python, one after another or in processes, orders of magnitude slower than the tensor environments beside this file, and their
inner state cannot be saved: a resumed run starts new episodes and does not go on bit for bit.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

EXTRA = "pip install 'posttrain[agents]'"


class GymnasiumEnv:
    """`num_envs` copies of a registered environment with discrete actions; images come as [channels, height, width] from 0 to 1."""

    def __init__(self, name: str, num_envs: int, processes: bool = False, device: torch.device | str = "cpu") -> None:
        """`name` is the id it is registered by, as in "ALE/Breakout-v5", "MinAtar/Breakout-v1", "MiniGrid-FourRooms-v0", "CartPole-v1"."""
        self.num_envs, self.device = num_envs, torch.device(device)
        gymnasium = _imported("gymnasium")
        makers: list[Callable[[], Any]] = [lambda: _made(name) for _ in range(num_envs)]
        mode = gymnasium.vector.AutoresetMode.SAME_STEP
        vector = gymnasium.vector.AsyncVectorEnv if processes else gymnasium.vector.SyncVectorEnv
        try:
            self.envs = vector(makers, autoreset_mode=mode)
        except gymnasium.error.Error as error:
            raise ValueError(f"{name}: {error}") from error
        if not isinstance(self.envs.single_action_space, gymnasium.spaces.Discrete):
            raise ValueError(f"{name}: found actions {self.envs.single_action_space}, expected discrete ones; see `discretised`")
        self.num_actions = int(self.envs.single_action_space.n)
        self.generator = torch.Generator()
        self.obs_shape: tuple[int, ...] = tuple(self.reset(self.generator).shape[1:])

    def reset(self, generator: torch.Generator) -> Tensor:
        self.generator = generator
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        return self._seen(self.envs.reset(seed=seed)[0])

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        obs, reward, terminated, truncated, _ = self.envs.step(action_B.cpu().numpy())
        to = self.device
        ended = torch.as_tensor(terminated, device=to), torch.as_tensor(truncated, device=to)
        return self._seen(obs), torch.as_tensor(reward, dtype=torch.float32, device=to), *ended

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The stream of seeds goes on with new episodes; what the agent saw last belongs to one that is lost."""
        self.generator.set_state(state["generator"])
        self.reset(self.generator)

    def _seen(self, obs: np.ndarray) -> Tensor:
        obs_B = torch.as_tensor(obs, device=self.device)
        if obs_B.dim() < 4:
            return obs_B.float().flatten(1)
        stacked_frames = obs_B.shape[-1] > obs_B.shape[1]  # [B, frames, height, width], else [B, height, width, channels]
        image_B = obs_B if stacked_frames else obs_B.permute(0, 3, 1, 2)
        return image_B.float() / (255.0 if obs_B.dtype == torch.uint8 else 1.0)


def _made(name: str) -> Any:
    """One environment, with the wrappers that its family is always run with."""
    gymnasium = _imported("gymnasium")
    wrappers = gymnasium.wrappers
    if name.startswith("ALE/"):
        gymnasium.register_envs(_imported("ale_py"))
        # Machado et al. (arXiv 1709.06009): sticky actions (in v5 ids), full action set, four stacked frames of 84 x 84.
        env = gymnasium.make(name, frameskip=1, repeat_action_probability=0.25, full_action_space=True)
        env = wrappers.AtariPreprocessing(env, noop_max=0, frame_skip=4, terminal_on_life_loss=False)
        return wrappers.FrameStackObservation(env, 4)
    if name.startswith("dm_control/"):
        _imported("shimmy")
        return discretised(wrappers.FlattenObservation(gymnasium.make(name)))
    if name.startswith("MiniGrid-"):
        seen = _imported("minigrid.wrappers").ImgObsWrapper(gymnasium.make(name))
        space = gymnasium.spaces.Box(0, 1, seen.observation_space.shape, np.float32)
        return wrappers.TransformObservation(seen, lambda obs: np.float32(obs / 10), space)  # kinds, colours and states, numbered to 10
    if name.startswith("MinAtar/") and name not in gymnasium.registry:
        _imported("minatar.gym").register_envs()
    return gymnasium.make(name)


def discretised(env: Any, levels: int = 3) -> Any:
    """A box of actions as `levels` evenly spaced values of each dimension, all their combinations (at most 3^6 for a six-joint body)."""
    gymnasium = _imported("gymnasium")
    low, high = env.action_space.low, env.action_space.high
    axes = [np.linspace(a, b, levels, dtype=env.action_space.dtype) for a, b in zip(low, high, strict=True)]
    table = np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], 1)
    space = gymnasium.spaces.Discrete(len(table))
    return gymnasium.wrappers.TransformAction(env, lambda index: table[index], space)


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed: {EXTRA}") from error
