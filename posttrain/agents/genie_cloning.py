"""Behavioural cloning from videos of an expert whose actions nobody wrote down (arXiv 2402.15391, sec. 4.3).

A finished run of kind genie names what happens between the frames; a policy learns to choose the same latent action; a few steps whose
true action is known say which one each latent action means. Beside it stand the same network on labelled steps alone, few and many, and
the expert itself.

    a_t = latent action of x_{t+1} given x_1..x_t      pi(a | x)      true action = argmax_b #{labelled steps with a and b}

Everybody is judged by the reward of an episode between walls that neither videos nor labels showed. The policy reads a frame at half its
size, as feature maps and as the point where each of them is strongest on average, a spatial softmax (arXiv 1504.00702). Expected:
recipes/genie.
"""

import json
import time
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from posttrain.agents.environments import SpritesConfig, make_env
from posttrain.agents.genie import load_run
from posttrain.agents.genie_films import WorldConfig
from posttrain.agents.genie_models import Genie
from posttrain.agents.kernel.envs.worlds import Sprites
from posttrain.agents.kernel.nets import mlp, set_rate
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import ConfigError, config
from posttrain.run import RunFolder, seed_for, write_atomic


@config
class Config:
    """Cloning in the world of a run of Genie."""

    kind: Literal["genie_cloning"] = "genie_cloning"
    seed: NonNegativeInt = 0
    run: Path = Path("runs/genie/sprites")
    """A finished run of kind genie, in the world `sprites`."""
    videos: PositiveInt = 1600
    """Episodes of the expert."""
    labels: tuple[PositiveInt, ...] = (20, 50, 200)
    """Steps whose true actions are known, with latent actions for all others."""
    plain_labels: tuple[PositiveInt, ...] = (200, 2000, 49600)
    """The same without anything else."""
    width: PositiveInt = 24
    """Feature maps."""
    hidden: PositiveInt = 128
    steps: PositiveInt = 3000
    batch: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-3
    test_episodes: PositiveInt = 512


def expert_videos(env: Sprites, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Frames and actions of an episode in each environment but for its last step, [N, T, C, H, W] bytes and [N, T-1]."""
    frame, done = [env.reset(draws)], []
    for _ in range(env.limit - 1):
        done.append(env.expert())
        frame.append(env.step(done[-1])[0])
    return (torch.stack(frame, 1) * 255).round().byte(), torch.stack(done, 1)


@torch.no_grad()
def latent_actions(genie: Genie, video_NTCHW: Tensor) -> Tensor:
    """Of every step, each from the window of as many frames as the model knows that ends with it, [N, T-1]."""
    found = []
    for end in range(2, video_NTCHW.shape[1] + 1):
        window = video_NTCHW[:, max(0, end - genie.frames) : end].float() / 255
        found.append(genie.actions.quantised(window).chosen[:, -1])
    return torch.stack(found, 1)


class Policy(nn.Module):
    """Logits of what to choose, from maps of two by two places and their points, [N, C, H, W] -> [N, num]."""

    def __init__(self, shape: tuple[int, int, int], width: int, hidden: int, num: int) -> None:
        super().__init__()
        channels, height, breadth = shape[0], shape[1] // 2 - 1, shape[2] // 2 - 1
        self.see = nn.Sequential(nn.Conv2d(channels, width, 2), nn.ReLU(), nn.Conv2d(width, width, 1))
        self.head = mlp([width * (2 + height * breadth), hidden, hidden, num])
        rows, columns = torch.linspace(-4, 4, height), torch.linspace(-4, 4, breadth)
        self.place_P2 = torch.cartesian_prod(rows, columns)

    def forward(self, half_NCHW: Tensor) -> Tensor:
        """`half_NCHW` are frames at half their size."""
        maps_NWP = self.see(half_NCHW).flatten(2)
        points_NW2 = maps_NWP.softmax(-1) @ self.place_P2
        return self.head(torch.cat([points_NW2.flatten(1), maps_NWP.relu().flatten(1)], 1))


def cloned(half_NCHW: Tensor, label_N: Tensor, num: int, cfg: Config, draws: torch.Generator) -> Policy:
    """A policy that says what was chosen, of `num` things."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=draws)))
    channels, height, width = half_NCHW.shape[1:]
    net = Policy((channels, 2 * height, 2 * width), cfg.width, cfg.hidden, num)
    optimiser = torch.optim.AdamW(net.parameters(), lr=cfg.learning_rate, weight_decay=1e-2)
    for step in range(cfg.steps):
        set_rate(optimiser, cfg.learning_rate * (1 - step / cfg.steps))
        index_B = torch.randint(len(half_NCHW), (cfg.batch,), generator=draws)
        optimiser.zero_grad()
        cross_entropy(net(half_NCHW[index_B]), label_N[index_B]).backward()
        optimiser.step()
    return net


def meanings(latent_N: Tensor, action_N: Tensor, codes: int, num_actions: int) -> Tensor:
    """The action that each latent one meant most often, [codes]; the commonest of all where it was never seen."""
    count_KA = torch.bincount(latent_N * num_actions + action_N, minlength=codes * num_actions).view(codes, num_actions)
    return torch.where(count_KA.sum(1) > 0, count_KA.argmax(1), count_KA.sum(0).argmax())


@torch.no_grad()
def reward_of(env: Sprites, net: nn.Module | None, meaning_K: Tensor | None, draws: torch.Generator) -> float:
    """Mean reward of an episode; without a network the expert's."""
    obs, total = env.reset(draws), 0.0
    for _ in range(env.limit):
        action_B = env.expert() if net is None else net(avg_pool2d(obs, 2)).argmax(1)
        obs, reward_B, *_ = env.step(action_B if meaning_K is None else meaning_K[action_B])
        total += reward_B.mean().item()
    return total


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Film the expert, clone, act, write `result.json`; returns the exit code. A run that was killed begins anew."""
    genie_cfg, genie = load_run(cfg.run)
    if not isinstance(genie_cfg.films, WorldConfig) or not isinstance(genie_cfg.films.env, SpritesConfig):
        raise ConfigError(f"run: {cfg.run}: learnt from other films, expected those of the world sprites, which has an expert")
    num_steps = cfg.videos * (genie_cfg.films.env.limit - 1)
    if (most := max(*cfg.labels, *cfg.plain_labels)) > num_steps:
        raise ConfigError(f"plain_labels: found {most}, expected at most the {num_steps} steps of all videos")
    run, env_cfg, before_s = RunFolder(out, cfg, resume=resume), genie_cfg.films.env, time.process_time()
    run.forget_after(0)
    draws = torch.Generator().manual_seed(seed_for(cfg.seed, "cloning"))
    video_NTCHW, action_NT = expert_videos(made(env_cfg, cfg.videos, genie_cfg.seed, held_out=False), draws)
    latent_N, action_N = latent_actions(genie, video_NTCHW).flatten(), action_NT.flatten()
    half_NCHW = avg_pool2d(video_NTCHW[:, :-1].flatten(0, 1).float() / 255, 2)
    known_N = torch.randperm(len(half_NCHW), generator=draws)
    codes, num_actions = genie.actions.cfg.codes, Sprites.num_actions

    def judged(net: nn.Module | None, meaning_K: Tensor | None = None) -> float:
        env = made(env_cfg, cfg.test_episodes, genie_cfg.seed, held_out=True)
        return reward_of(env, net, meaning_K, torch.Generator().manual_seed(seed_for(cfg.seed, "test")))

    imitator = cloned(half_NCHW, latent_N, codes, cfg, draws)
    result: dict[str, Any] = {"expert": judged(None), "latent": {}, "plain": {}, "agreement": {}}
    for num in cfg.labels:
        meaning_K = meanings(latent_N[known_N[:num]], action_N[known_N[:num]], codes, num_actions)
        result["latent"][str(num)] = judged(imitator, meaning_K)
        result["agreement"][str(num)] = (meaning_K[latent_N] == action_N).float().mean().item()
    for num in cfg.plain_labels:
        result["plain"][str(num)] = judged(cloned(half_NCHW[known_N[:num]], action_N[known_N[:num]], num_actions, cfg, draws))
    for kind in ("latent", "plain"):
        result[f"{kind}_share"] = {num: reward / result["expert"] for num, reward in result[kind].items()}
    run.log(1, {"cpu_s": time.process_time() - before_s})
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0


def made(cfg: SpritesConfig, num: int, seed: int, held_out: bool) -> Sprites:
    env = make_env(cfg, num, layout_seed=seed, held_out=held_out)
    assert isinstance(env, Sprites)
    return env
