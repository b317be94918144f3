"""What Genie learns from: clips filmed in a world here, or cut from files, and what is known of them."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from posttrain.agents.environments import EnvConfig, SpritesConfig, make_env
from posttrain.agents.kernel import films
from posttrain.agents.kernel.envs.worlds import Filmed, ceiling_bits
from posttrain.config import ConfigError, config
from posttrain.run import seed_for


@config
class WorldConfig:
    """Clips filmed in an environment while actions are drawn evenly; what they were is kept for measuring alone."""

    kind: Literal["world"] = "world"
    env: EnvConfig = Field(default=SpritesConfig(), discriminator="kind")
    clips: PositiveInt = 3000
    """To train on; a clip begins with an episode and has to fit into it."""


@config
class FolderConfig:
    """Clips cut from videos, GIFs and folders of pictures."""

    kind: Literal["folder"] = "folder"
    path: Path
    """Files and folders in it are one film each."""
    height: PositiveInt = 64
    """Pixels; a picture is scaled until it covers height and width, then its middle is taken."""
    width: PositiveInt = 64
    every: PositiveInt = 1
    """Take each so many-th picture, the paper's 10 a second."""


FilmsConfig: TypeAlias = Annotated[WorldConfig | FolderConfig, Field(discriminator="kind")]


class Films(NamedTuple):
    """Clips, and where they were filmed here, what was done in them."""

    clip: Tensor
    """[N, T, C, H, W] bytes"""
    action: Tensor | None = None
    """[N, T-1]"""
    ceiling: float | None = None
    """What a frame tells of the action before it at most, in bits."""

    def batch(self, index: Tensor) -> Tensor:
        return self.clip[index].float() / 255


def filmed(cfg: WorldConfig, clips: int, frames: int, seed: int, device: str, held_out: bool = False) -> Films:
    """Clips of evenly drawn actions; held-out ones are of layouts that the others do not show."""
    env = make_env(cfg.env, clips, device, layout_seed=seed, held_out=held_out)
    if len(env.obs_shape) != 3:
        raise ConfigError(f"films.env: {cfg.env.kind}: shows {env.obs_shape}, expected pictures such as those of sprites and platformer")
    draws = torch.Generator(device).manual_seed(seed_for(seed, "films", held_out))
    frame, done, outcomes = [env.reset(draws)], [], []
    for _ in range(frames - 1):
        outcomes += [env.outcomes()] if isinstance(env, Filmed) else []
        done.append(torch.randint(env.num_actions, (clips,), generator=draws, device=device))
        obs, _, terminated, truncated = env.step(done[-1])
        if bool((terminated | truncated).any()):
            raise ConfigError(f"films.env: {cfg.env.kind}: an episode ended within a clip of {frames} frames, expected longer ones")
        frame.append(obs)
    action_NT = torch.stack(done, 1)
    ceiling = ceiling_bits(torch.stack(outcomes, 1).flatten(0, 1), action_NT.flatten()) if outcomes else None
    return Films((torch.stack(frame, 1) * 255).round().byte(), action_NT, ceiling)


def both(cfg: FilmsConfig, frames: int, held_out: int, seed: int, device: str) -> tuple[Films, Films]:
    """Clips to train on, and others to measure on; raises `ConfigError` where there are none."""
    if isinstance(cfg, WorldConfig):
        return filmed(cfg, cfg.clips, frames, seed, device), filmed(cfg, held_out, frames, seed, device, held_out=True)
    try:
        clip = films.read_clips(cfg.path, frames, cfg.height, cfg.width, cfg.every).to(device)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"films.path: {error}") from None
    held = min(held_out, len(clip) // 5)
    if not held:
        raise ConfigError(f"films.path: {cfg.path}: found {len(clip)} clips of {frames} frames, expected five at least")
    return Films(clip[:-held]), Films(clip[-held:])  # whole films are held out, but for the one that is cut
