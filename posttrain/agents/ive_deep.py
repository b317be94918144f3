"""Self-inconsistency as uncertainty, in networks (arXiv 2112.04153): the implicit value ensemble of agents that Muesli trained.

    v^k(s) = E_pi,m[sum_{i<k} gamma^i r_{i+1} + gamma^k v(s_k)]      sigma = std_k v^k,   mu = mean_k v^k,   k = 0 ... n
    q^k(s, a)   the same with a as the first action, k = 1 ... n; the agent acts by argmax_a mu + beta sigma

An agent knows some layouts of walls and goals. Three questions, over several seeds, which differ in layouts, draws and first weights: does
sigma on layouts that it does not know fall with the number that it does, and tell shifted observations from known ones, beside an explicit
ensemble of agents that costs as many trainings; does an agent that avoids sigma lose less return under a shift; does the mean over k plan
better than any one k when the model's states are disturbed.

Nothing is trained here. `agents` is a folder with seedN/layouts_10/model.pt and so on, as recipes/ive_rooms/README.md says; members of
the explicit ensemble are seedN/layouts_50_member_1 ... Left out: the paper's Procgen levels, and ensembles trained as one network.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from posttrain.agents.environments import WallsConfig, make_env
from posttrain.agents.kernel.charts import Panel, draw, shown
from posttrain.agents.kernel.consistency import ValueModel, disagreement, expected_values, optimism, rolled_out_action_values
from posttrain.agents.kernel.envs.grids import Grid
from posttrain.agents.kernel.envs.layouts import mazes
from posttrain.agents.kernel.nets import Prediction, WorldModel, load_model
from posttrain.agents.kernel.rollout import returns_of
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import ConfigError, config
from posttrain.run import RunFolder, seed_for, write_atomic

LAYOUTS = ("known", "held out", "dense", "maze")
SHIFTS = (*LAYOUTS[1:], "noise", "shuffled")
WORLDS = ("known", "slippery", *LAYOUTS[1:])


@config
class Config:
    """What is asked of trained agents."""

    kind: Literal["ive_deep"] = "ive_deep"
    agents: Path
    """The folder of the trained agents, relative to where the command runs."""
    seeds: tuple[NonNegativeInt, ...] = (0, 1, 2, 3, 4)
    env: WallsConfig = WallsConfig(n=5, limit=20)
    """What they were trained on, but for the number of layouts."""
    sizes: tuple[PositiveInt, ...] = (10, 50, 200)
    """How many layouts the agents know."""
    size: PositiveInt = 50
    """Of the agents that are asked the second and third question, and that have an explicit ensemble."""
    members: PositiveInt = 3
    """Further agents of that ensemble."""
    gamma: float = Field(default=0.9, gt=0, lt=1)
    """As in training."""
    depth: PositiveInt = 5
    """n of IVE(n)."""
    rollouts: PositiveInt = 4
    """Walks of the model that q^k averages."""
    states: PositiveInt = 500
    """First states of episodes on which sigma is looked at, in each world."""
    flips: float = Field(default=0.1, ge=0, le=1)
    """Share of an observation's numbers that noise replaces by one minus themselves."""
    density: float = Field(default=0.4, ge=0, lt=0.5)
    """Of walls in the dense world."""
    episodes: PositiveInt = 400
    """Of an agent in a world."""
    slip: float = Field(default=0.3, ge=0, le=1)
    """Of actions in the slippery world, whose layouts are the known ones."""
    betas: tuple[float, ...] = (-3.0, -1.0, 0.0, 1.0)
    disturbances: tuple[float, ...] = (0.0, 0.3, 1.0)
    """Standard deviations of noise added to each number of a state after a model step; those of a state have standard deviation 1."""


class Disturbed:
    """A model whose states are disturbed after every step."""

    def __init__(self, model: WorldModel, size: float, draws: torch.Generator) -> None:
        self.model, self.size, self.draws = model, size, draws

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        next_state, reward_logits = self.model.step(state, action)
        return self._disturbed(next_state), reward_logits

    def step_all(self, state: Tensor) -> tuple[Tensor, Tensor]:
        next_state, reward_logits = self.model.step_all(state)
        return self._disturbed(next_state), reward_logits

    def predict(self, state: Tensor) -> Prediction:
        return self.model.predict(state)

    def values(self, state: Tensor) -> Tensor:
        return self.model.values(state)

    def rewards(self, reward_logits: Tensor) -> Tensor:
        return self.model.rewards(reward_logits)

    def _disturbed(self, state: Tensor) -> Tensor:
        return state + self.size * torch.randn(state.shape, generator=self.draws)


def world_of(cfg: Config, name: str, seed: int, size: int, num_envs: int) -> Grid:
    """Episodes of a world; those held out, dense or mazes have layouts that no agent of the seed was trained on."""
    other = replace(cfg.env, layouts=200)
    match name:
        case "known" | "slippery":
            env = make_env(replace(cfg.env, layouts=size), num_envs, layout_seed=seed)
        case "held out":
            env = make_env(other, num_envs, layout_seed=seed, held_out=True)
        case "dense":
            env = make_env(replace(other, density=cfg.density), num_envs, layout_seed=seed, held_out=True)
        case _:
            env = Grid(mazes(200, cfg.env.n, torch.Generator().manual_seed(seed)), cfg.env.limit, num_envs)
    assert isinstance(env, Grid)
    env.slip = cfg.slip if name == "slippery" else 0.0
    return env


def observations(cfg: Config, seed: int, size: int, draws: torch.Generator) -> dict[str, Tensor]:
    """First observations of every world, and known ones with numbers flipped or shuffled, [states, D] each."""
    seen = {name: world_of(cfg, name, seed, size, cfg.states).reset(draws) for name in LAYOUTS}
    known = seen["known"]
    flipped = torch.rand(known.shape, generator=draws) < cfg.flips
    order = torch.randperm(known.shape[1], generator=draws)
    return seen | {"noise": torch.where(flipped, 1 - known, known), "shuffled": known[:, order]}


def told_apart(score: dict[str, Tensor]) -> dict[str, float]:
    """AUROC of a score for each shift against known observations."""
    truth = torch.cat([torch.zeros(len(score["known"])), torch.ones(len(score["known"]))])
    return {shift: float(roc_auc_score(truth, torch.cat([score["known"], score[shift]]))) for shift in SHIFTS}


def signal(cfg: Config, seed: int) -> dict[str, Any]:
    """sigma of the agents of every size, on every kind of observation; and of the explicit ensemble of `cfg.size`."""
    found: dict[str, Any] = {}
    for size in cfg.sizes:
        draws = torch.Generator().manual_seed(seed_for(seed, "signal"))
        seen, model = observations(cfg, seed, size, draws), load_model(agent_file(cfg, seed, size))
        begun = time.process_time()
        sigma = {name: disagreement(expected_values(model, model.represent(obs), cfg.gamma, cfg.depth)) for name, obs in seen.items()}
        cost = time.process_time() - begun
        found[str(size)] = {"sigma": {name: x.mean().item() for name, x in sigma.items()}, "auroc": told_apart(sigma), "ask_s": cost}
        if size == cfg.size:
            models = [model, *(load_model(agent_file(cfg, seed, size, member)) for member in range(1, cfg.members + 1))]
            begun = time.process_time()
            values = {name: torch.stack([one.values(one.represent(obs)) for one in models]) for name, obs in seen.items()}
            cost = time.process_time() - begun
            spread = {name: disagreement(x) for name, x in values.items()}
            found["explicit"] = {"sigma": {name: x.mean().item() for name, x in spread.items()}, "auroc": told_apart(spread), "ask_s": cost}
    return found


def caution(cfg: Config, seed: int) -> dict[str, Any]:
    """Return in every world of the bare policy and of acting by mu + beta sigma."""
    model = load_model(agent_file(cfg, seed, cfg.size))
    found: dict[str, dict[str, float]] = {}
    for name in WORLDS:
        found[name] = {"policy": played(cfg, seed, name, lambda obs: model.predict(model.represent(obs)).policy_logits.argmax(-1))}
        for beta in cfg.betas:
            found[name][f"beta {beta:g}"] = played(
                cfg, seed, name, partial(looking_ahead, cfg, model, model, partial(optimism, beta=beta), walks(seed))
            )
    return found


def planning(cfg: Config, seed: int) -> dict[str, Any]:
    """Return on known layouts of acting by each q^k alone and by their mean, with states disturbed by each size."""
    model = load_model(agent_file(cfg, seed, cfg.size))
    found: dict[str, dict[str, float]] = {}
    choices: dict[str, Callable[[Tensor], Tensor]] = {f"k = {k + 1}": partial(_kth, k) for k in range(cfg.depth)}
    choices["mean"] = partial(torch.mean, dim=0)
    for size in cfg.disturbances:
        found[f"{size:g}"] = {}
        for name, choose in choices.items():
            draws = walks(seed)
            act = partial(looking_ahead, cfg, model, Disturbed(model, size, draws), choose, draws)
            found[f"{size:g}"][name] = played(cfg, seed, "known", act)
    return found


def looking_ahead(
    cfg: Config, encoder: WorldModel, model: ValueModel, choose: Callable[[Tensor], Tensor], draws: torch.Generator, obs: Tensor
) -> Tensor:
    """The action that is best by `choose` of q^1 ... q^n, [K, B, A] -> [B, A]."""
    return choose(rolled_out_action_values(model, encoder.represent(obs), cfg.gamma, cfg.depth, cfg.rollouts, draws)).argmax(-1)


def played(cfg: Config, seed: int, world: str, policy: Callable[[Tensor], Tensor]) -> float:
    """Mean return; every policy meets the same layouts and starts."""
    starts = torch.Generator().manual_seed(seed_for(seed, "episodes", world))
    return returns_of(world_of(cfg, world, seed, cfg.size, cfg.episodes), policy, starts).mean().item()


def walks(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, "walks"))


def agent_file(cfg: Config, seed: int, size: int, member: int = 0) -> Path:
    """Where an agent's networks are; raises `ConfigError` where it is not trained."""
    path = cfg.agents / f"seed{seed}" / (f"layouts_{size}" + (f"_member_{member}" if member else "")) / "model.pt"
    if not path.is_file():
        raise ConfigError(f"agents: found no {path}; train it as recipes/ive_rooms/README.md says")
    return path


def _kth(k: int, values: Tensor) -> Tensor:
    return values[k]


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Answer each question for each seed, where it is not answered, then write the tables, the figure and `result.json`."""
    for seed in cfg.seeds:  # before the folder is this study's
        for size in cfg.sizes:
            agent_file(cfg, seed, size)
        for member in range(cfg.members + 1):
            agent_file(cfg, seed, cfg.size, member)
    run = RunFolder(out, cfg, resume=resume)
    made = {(row["part"], row["seed"]): row["found"] for row in run.metrics()}
    run.forget_after(len(made))
    number = 0
    for part in (signal, caution, planning):
        for seed in cfg.seeds:
            number += 1
            if (part.__name__, seed) not in made:
                begun = time.process_time()
                made[part.__name__, seed] = part(cfg, seed)
                spent = {"cpu_s": time.process_time() - begun}
                run.log(number, {"part": part.__name__, "seed": seed, "found": made[part.__name__, seed], **spent})
    answers = {part: [made[part, seed] for seed in cfg.seeds] for part in ("signal", "caution", "planning")}
    write_atomic(out / "result.json", json.dumps(result_of(cfg, answers), indent=1) + "\n")
    write_atomic(out / "table.md", table_of(cfg, answers))
    draw(out / "figure.png", panels_of(cfg, answers))
    print((out / "table.md").read_text())
    return 0


def held_out_rank(cfg: Config, answers: dict[str, list[Any]]) -> float:
    """Spearman's correlation of the number of known layouts with sigma on those held out, over all seeds."""
    pairs = [(size, seed[str(size)]["sigma"]["held out"]) for seed in answers["signal"] for size in cfg.sizes]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def result_of(cfg: Config, answers: dict[str, list[Any]]) -> dict[str, float]:
    """The figures that the study is for, means over the seeds."""
    mean = {"held_out_rank": held_out_rank(cfg, answers)}
    for name in [*map(str, cfg.sizes), "explicit"]:
        for shift in SHIFTS:
            mean[f"auroc {name} {shift}"] = sum(seed[name]["auroc"][shift] for seed in answers["signal"]) / len(cfg.seeds)
    for part in ("caution", "planning"):
        for where, scores in answers[part][0].items():
            for how in scores:
                mean[f"{part} {where} {how}"] = sum(seed[where][how] for seed in answers[part]) / len(cfg.seeds)
    return mean


def table_of(cfg: Config, answers: dict[str, list[Any]]) -> str:
    """Markdown: means over seeds with Student-t intervals of 95%, and every seed."""
    lines: list[str] = []

    def table(title: str, head: str, columns: list[str], rows: dict[str, list[list[float]]]) -> None:
        lines.extend([f"\n{title}\n", f"| {head} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"])
        for name, cells in rows.items():
            lines.append(f"| {name} | " + " | ".join(f"{shown(x)} ({' '.join(f'{y:.2f}' for y in x)})" for x in cells) + " |")

    names, kinds = [*map(str, cfg.sizes), "explicit"], ["known", *SHIFTS]
    asked = answers["signal"]
    table("mean sigma", "layouts", kinds, {n: [[seed[n]["sigma"][kind] for seed in asked] for kind in kinds] for n in names})
    table(
        "AUROC against known", "layouts", list(SHIFTS), {n: [[seed[n]["auroc"][kind] for seed in asked] for kind in SHIFTS] for n in names}
    )
    lines.append(f"\nSpearman of the number of known layouts with sigma on those held out: {held_out_rank(cfg, answers):.3f}")
    for part, head in (("caution", "world"), ("planning", "disturbance")):
        found = answers[part]
        columns = list(next(iter(found[0].values())))
        table(f"return: {part}", head, columns, {where: [[seed[where][how] for seed in found] for how in columns] for where in found[0]})
    return "\n".join(lines).strip() + "\n"


def panels_of(cfg: Config, answers: dict[str, list[Any]]) -> list[Panel]:
    sizes, asked = [str(size) for size in cfg.sizes], answers["signal"]
    sigma = {kind: [[seed[n]["sigma"][kind] for seed in asked] for n in sizes] for kind in ("known", "held out")}
    both = {"implicit": str(cfg.size), f"explicit, {cfg.members + 1} trainings": "explicit"}
    auroc = {label: [[seed[n]["auroc"][shift] for seed in asked] for shift in SHIFTS] for label, n in both.items()}
    hows = [f"beta {beta:g}" for beta in cfg.betas]
    careful = {how: [[seed[world][how] for seed in answers["caution"]] for world in WORLDS] for how in hows}
    ways = [*(f"k = {k + 1}" for k in range(cfg.depth)), "mean"]
    planned = {
        f"disturbed by {size:g}": [[seed[f"{size:g}"][way] for seed in answers["planning"]] for way in ways] for size in cfg.disturbances
    }
    return [
        Panel("sigma by layouts known", sizes, sigma, "mean sigma"),
        Panel(f"shifts told apart, {cfg.size} layouts", SHIFTS, auroc, "AUROC", ordered=False),
        Panel("acting by mu + beta sigma", WORLDS, careful, "return", ordered=False),
        Panel("planning by q^k", ways, planned, "return"),
    ]
