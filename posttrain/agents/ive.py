"""Self-inconsistency as uncertainty, in tables (arXiv 2112.04153): one model and one value function are an ensemble of values.

    v^k = (T^pi_m)^k v       sigma(s) = std_k v^k(s)       mu(s) = mean_k v^k(s)         k = 0 ... n

A model m and value v start at random and are learnt from a uniform walk by temporal differences,

    m(. | s, a) += rate (onehot(s') - m),   r(s, a) += rate (reward - r),   v(s) += rate (reward + gamma v(s') - v(s)),

in four rooms of which the walk sees the two on the left. As the dynamics are known, sigma is laid beside the true error of v: which states
it tells apart, whether it falls as they are visited, how it answers errors of known size. Then it explores: the walker goes where
mu + beta sigma of the next cell is highest, with beta > 0 for the unknown and beta < 0 away from it.

Left out: everything with networks, which is `ive_deep`. Expected: AUROC of sigma for unseen rooms at least .95; coverage at beta 3 at least
1.5 times and at beta -1 at most .8 times that of the same walker at beta 0 (recipes/ive_rooms).
"""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from posttrain.agents.kernel.charts import Panel, draw, ratio_interval, shown
from posttrain.agents.kernel.consistency import backed_up_values, disagreement, optimism, under_policy
from posttrain.agents.kernel.envs.grids import NUM_ACTIONS, neighbours, transition_table
from posttrain.agents.kernel.envs.layouts import four_rooms
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import config
from posttrain.run import RunFolder, seed_for, write_atomic


@config
class RoomsConfig:
    """Four rooms of which two are seen."""

    n: PositiveInt = 11
    """Side of the square, cells, odd."""
    slips: tuple[float, ...] = (0.0, 0.2)
    """Probabilities of a random action, each a world of its own; 0 is deterministic."""
    gamma: float = Field(default=0.9, gt=0, lt=1)
    depth: PositiveInt = 5
    """n of IVE(n): the most model steps before the value is asked."""
    updates: tuple[PositiveInt, ...] = (300, 1_000, 3_000, 10_000, 30_000, 60_000)
    """After how many updates the tables are looked at; the last ends the walk."""
    rate: float = Field(default=0.1, gt=0, le=1)
    scale: PositiveFloat = 0.3
    """Standard deviation of first values and rewards; the goal pays 1. Model rows start evenly distributed over all distributions."""
    errors: tuple[float, ...] = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
    """Sizes of errors put into the exact model and into the exact value."""

    def __post_init__(self) -> None:
        four_rooms(self.n)  # raises where there are none of that size


@config
class Explorer:
    """How a walker chooses."""

    beta: float
    """Weight of sigma beside mu."""
    moves: Literal["known", "learned"] = "known"
    """Whether it knows where a step leads, or asks the model that it is learning, whose rows start at random."""


@config
class ExploreConfig:
    """Four rooms that pay only in the far corner, walked without end."""

    n: PositiveInt = 15
    gamma: float = Field(default=0.9, gt=0, lt=1)
    steps: PositiveInt = 3_000
    slip: float = Field(default=0.05, ge=0, le=1)
    """Probability of a random action."""
    value_rate: float = Field(default=0.5, gt=0, le=1)
    """The model learns a step at once, as the world is deterministic."""
    scale: PositiveFloat = 0.3
    walkers: dict[str, Explorer] = Field(default_factory=lambda: {"beta 0": Explorer(beta=0.0), "beta 3": Explorer(beta=3.0)})
    """By name; one that steps at random is always walked beside them."""
    base: str = "beta 0"
    """The walker that the others are compared with."""

    def __post_init__(self) -> None:
        four_rooms(self.n)
        if self.base not in self.walkers:
            raise ValueError(f"explore.base: found {self.base!r}, expected one of {', '.join(self.walkers)}")


@config
class Config:
    """The study in tables."""

    kind: Literal["ive"] = "ive"
    seed: NonNegativeInt = 0
    tables: PositiveInt = 20
    """How many independent models and values are learnt side by side: the seeds that intervals count."""
    rooms: RoomsConfig = RoomsConfig()
    explore: ExploreConfig = ExploreConfig()


class World(NamedTuple):
    """One layout and its exact dynamics under the uniform policy."""

    free_S: Tensor
    next_SA: Tensor
    table_SAS: Tensor
    reward_S: Tensor
    """1 for entering the goal"""

    @property
    def step_SS(self) -> Tensor:
        return self.table_SAS.mean(1)

    def true_value(self, gamma: float) -> Tensor:
        """v = (1 - gamma P)^-1 r of the uniform policy, [S]."""
        step_SS = self.step_SS
        return torch.linalg.solve(torch.eye(len(step_SS), dtype=step_SS.dtype) - gamma * step_SS, step_SS @ self.reward_S)


class Tables(NamedTuple):
    """B learners side by side."""

    model_BSAS: Tensor
    reward_BSA: Tensor
    value_BES: Tensor
    """The first is the value function; the others, learnt from the same walk, make an explicit ensemble to compare with."""
    visits_BS: Tensor


def rooms_world(n: int, slip: float, goal: int) -> World:
    walls_HW = four_rooms(n)
    reward_S = torch.zeros(n * n, dtype=torch.float64)
    reward_S[goal] = 1.0
    return World(~walls_HW.flatten(), neighbours(walls_HW[None])[0], transition_table(walls_HW, slip), reward_S)


def first_tables(tables: int, members: int, free_S: Tensor, scale: float, draws: torch.Generator) -> Tables:
    """Random ones: model rows from a flat Dirichlet distribution over the free cells, rewards and values normal."""
    cells = len(free_S)
    model_BSAS = torch.empty(tables, cells, NUM_ACTIONS, cells).exponential_(generator=draws) * free_S
    model_BSAS /= model_BSAS.sum(-1, keepdim=True)
    reward_BSA = scale * torch.randn(tables, cells, NUM_ACTIONS, generator=draws)
    return Tables(model_BSAS, reward_BSA, scale * torch.randn(tables, members, cells, generator=draws), torch.zeros(tables, cells))


def learn(world: World, seen_S: Tensor, slip: float, cfg: RoomsConfig, tables: Tables, draws: torch.Generator) -> Iterator[Tables]:
    """Walk uniformly among the seen cells and learn, yielding the tables after each of `cfg.updates`; a step out of them starts anew."""
    model, reward, value, visits = tables
    row_B, starts = torch.arange(len(visits)), seen_S.nonzero()[:, 0]
    place_B = starts[torch.randint(len(starts), row_B.shape, generator=draws)]
    for update in range(1, cfg.updates[-1] + 1):
        action_B = torch.randint(NUM_ACTIONS, row_B.shape, generator=draws)
        slips_B = torch.rand(row_B.shape, generator=draws) < slip
        moved_B = torch.where(slips_B, torch.randint(NUM_ACTIONS, row_B.shape, generator=draws), action_B)
        next_B = world.next_SA[place_B, moved_B]
        earned_B = world.reward_S[next_B].float()
        model[row_B, place_B, action_B] *= 1 - cfg.rate
        model[row_B, place_B, action_B, next_B] += cfg.rate
        reward[row_B, place_B, action_B] += cfg.rate * (earned_B - reward[row_B, place_B, action_B])
        error_BE = earned_B[:, None] + cfg.gamma * value[row_B, :, next_B] - value[row_B, :, place_B]
        value[row_B, :, place_B] += cfg.rate * error_BE
        visits[row_B, place_B] += 1
        anew_B = starts[torch.randint(len(starts), row_B.shape, generator=draws)]
        place_B = torch.where(seen_S[next_B], next_B, anew_B)
        if update in cfg.updates:
            yield tables


def told_apart(tables: Tables, world: World, seen_S: Tensor, cfg: RoomsConfig) -> dict[str, list[float]]:
    """What sigma says of every state, beside the truth; one number for each table."""
    uniform_SA = torch.full((len(seen_S), NUM_ACTIONS), 1 / NUM_ACTIONS)
    value_BS = tables.value_BES[:, 0]
    ensemble_KBS = backed_up_values(*under_policy(tables.model_BSAS, tables.reward_BSA, uniform_SA), value_BS, cfg.gamma, cfg.depth)
    sigma_BS, explicit_BS = disagreement(ensemble_KBS).numpy(), disagreement(tables.value_BES.transpose(0, 1)).numpy()
    error_BS = (value_BS - world.true_value(cfg.gamma).float()).abs().numpy()
    free, seen, visits_BS = world.free_S.numpy(), seen_S.numpy(), tables.visits_BS.numpy()
    unseen = free & ~seen
    return {
        "auroc": [float(roc_auc_score(unseen[free], sigma[free])) for sigma in sigma_BS],
        "auroc_explicit": [float(roc_auc_score(unseen[free], sigma[free])) for sigma in explicit_BS],
        "sigma_seen": sigma_BS[:, seen].mean(1).tolist(),
        "sigma_unseen": sigma_BS[:, unseen].mean(1).tolist(),
        "error_rank": [_rank(s[free], e[free]) for s, e in zip(sigma_BS, error_BS, strict=True)],
        "error_rank_seen": [_rank(s[seen], e[seen]) for s, e in zip(sigma_BS, error_BS, strict=True)],
        "error_rank_explicit": [_rank(s[free], e[free]) for s, e in zip(explicit_BS, error_BS, strict=True)],
        "visits_rank_seen": [_rank(s[seen], n[seen]) for s, n in zip(sigma_BS, visits_BS, strict=True)],
    }


def known_errors(world: World, cfg: RoomsConfig, tables: int, draws: torch.Generator) -> dict[str, list[list[float]]]:
    """Mean sigma over the free states when one of the exact model and value is wrong by a known amount, [sizes][tables] for each.

    A model wrong by e is (1 - e) P + e Q with random rows Q; a value wrong by e is v + e times its own spread times noise.
    """
    value_S, free, found = world.true_value(cfg.gamma), world.free_S, {"model": [], "value": []}  # type: ignore[var-annotated]
    random = first_tables(tables, 1, free, 1.0, draws)
    noise_BS = torch.randn(tables, len(free), generator=draws, dtype=torch.float64)
    reward_S = world.step_SS @ world.reward_S
    for size in cfg.errors:
        wrong_BSS = (1 - size) * world.step_SS + size * random.model_BSAS.double().mean(2)
        sigma_BS = disagreement(backed_up_values(wrong_BSS, reward_S, value_S.expand(tables, -1), cfg.gamma, cfg.depth))
        found["model"].append(sigma_BS[:, free].mean(1).tolist())
        wrong_BS = value_S + size * value_S[free].std() * noise_BS
        sigma_BS = disagreement(backed_up_values(world.step_SS, reward_S, wrong_BS, cfg.gamma, cfg.depth))
        found["value"].append(sigma_BS[:, free].mean(1).tolist())
    return found


def explore(cfg: ExploreConfig, depth: int, walker: Explorer | None, tables: int, draws: torch.Generator) -> list[float]:
    """The share of free cells that each of `tables` walkers has stood on after `cfg.steps`; without a `walker` they step at random."""
    world = rooms_world(cfg.n, 0.0, goal=cfg.n**2 - 1)
    model, reward, value_BES, visits = first_tables(tables, 1, world.free_S, cfg.scale, draws)
    value, row_B, place_B = value_BES[:, 0], torch.arange(tables), torch.zeros(tables, dtype=torch.long)
    step_BSS, reward_BS = under_policy(model, reward, torch.full((cfg.n**2, NUM_ACTIONS), 1 / NUM_ACTIONS))
    visits[row_B, place_B] = 1
    for _ in range(cfg.steps):
        action_B = torch.randint(NUM_ACTIONS, (tables,), generator=draws)
        random_B = torch.rand(tables, generator=draws) < cfg.slip
        if walker is not None:
            hoped_BS = optimism(backed_up_values(step_BSS, reward_BS, value, cfg.gamma, depth), walker.beta)
            if walker.moves == "known":
                score_BA = hoped_BS.gather(1, world.next_SA[place_B])
            else:
                score_BA = reward[row_B, place_B] + cfg.gamma * (model[row_B, place_B] @ hoped_BS[..., None])[..., 0]
            action_B = torch.where(random_B, action_B, score_BA.argmax(1))
        next_B = world.next_SA[place_B, action_B]
        earned_B = world.reward_S[next_B].float()
        model[row_B, place_B, action_B] = torch.nn.functional.one_hot(next_B, cfg.n**2).float()
        reward[row_B, place_B, action_B] = earned_B
        step_BSS[row_B, place_B] = model[row_B, place_B].mean(1)
        reward_BS[row_B, place_B] = reward[row_B, place_B].mean(1)
        value[row_B, place_B] += cfg.value_rate * (earned_B + cfg.gamma * value[row_B, next_B] - value[row_B, place_B])
        visits[row_B, next_B] += 1
        place_B = next_B
    return ((visits > 0).float().sum(1) / world.free_S.sum()).tolist()


def _rank(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(a, b).statistic)


def seen_rooms(cfg: RoomsConfig, free_S: Tensor) -> Tensor:
    """The free cells left of the middle wall."""
    return free_S & (torch.arange(cfg.n**2) % cfg.n < cfg.n // 2)


def parts_of(cfg: Config) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every part of the study by name; each has draws of its own, so that one can be made without the others."""
    rooms = cfg.rooms

    def draws(part: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed_for(cfg.seed, part))

    def told(slip: float) -> dict[str, Any]:
        world = rooms_world(rooms.n, slip, goal=rooms.n + 1)
        seen_S, walk = seen_rooms(rooms, world.free_S), draws("rooms")
        first = first_tables(cfg.tables, rooms.depth + 1, world.free_S, rooms.scale, walk)
        looks = learn(world, seen_S, slip, rooms, first, walk)
        return {str(n): told_apart(look, world, seen_S, rooms) for n, look in zip(rooms.updates, looks, strict=True)}

    def errors() -> dict[str, Any]:
        return known_errors(rooms_world(rooms.n, 0.0, goal=rooms.n + 1), rooms, cfg.tables, draws("errors"))

    def walked(walker: Explorer | None) -> dict[str, Any]:  # the same first tables for every walker
        return {"coverage": explore(cfg.explore, rooms.depth, walker, cfg.tables, draws("explore"))}

    walkers = {f"explore, {name}": partial(walked, walker) for name, walker in cfg.explore.walkers.items()}
    return (
        {f"rooms, slip {slip:g}": partial(told, slip) for slip in rooms.slips}
        | {"errors": errors}
        | walkers
        | {"explore, random": partial(walked, None)}
    )


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Make the parts that are not made, then the table, the figure and `result.json`."""
    run = RunFolder(out, cfg, resume=resume)
    made = {row["part"]: row for row in run.metrics()}
    run.forget_after(len(made))
    for number, (name, part) in enumerate(parts_of(cfg).items(), 1):
        if name not in made:
            begun = time.process_time()
            made[name] = {"part": name, **part(), "cpu_s": time.process_time() - begun}
            run.log(number, made[name])
    write_atomic(out / "result.json", json.dumps(result_of(cfg, made), indent=1) + "\n")
    write_atomic(out / "table.md", table_of(cfg, made))
    draw(out / "figure.png", panels_of(cfg, made))
    print((out / "table.md").read_text())
    return 0


def result_of(cfg: Config, made: dict[str, Any]) -> dict[str, float]:
    """The figures that the study is for, each the mean over the tables."""
    found: dict[str, float] = {}
    for slip in cfg.rooms.slips:
        last = made[f"rooms, slip {slip:g}"][str(cfg.rooms.updates[-1])]
        found |= {f"slip {slip:g}: {name}": float(np.mean(last[name])) for name in last}
    for name, part in made.items():
        if name.startswith("explore"):
            found[f"coverage: {name.removeprefix('explore, ')}"] = float(np.mean(part["coverage"]))
    return found


def table_of(cfg: Config, made: dict[str, Any]) -> str:
    """Markdown: means over the tables with Student-t intervals of 95%, and every table's coverage."""
    lines = []
    for slip in cfg.rooms.slips:
        part = made[f"rooms, slip {slip:g}"]
        names = list(part[str(cfg.rooms.updates[0])])
        lines += [f"\nslip {slip:g}, {cfg.tables} tables\n", "| updates | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        lines += [f"| {n} | " + " | ".join(shown(part[str(n)][name]) for name in names) + " |" for n in cfg.rooms.updates]
    lines += ["\nmean sigma under errors of known size\n", "| size | in the model | in the value |", "|---|---|---|"]
    for i, size in enumerate(cfg.rooms.errors):
        lines.append(f"| {size:g} | {shown(made['errors']['model'][i], 4)} | {shown(made['errors']['value'][i], 4)} |")
    names = [*cfg.explore.walkers, "random"]
    base = made[f"explore, {cfg.explore.base}"]["coverage"]
    lines += [f"\n| walker | coverage | over that of {cfg.explore.base}, paired | every table |", "|---|---|---|---|"]
    for name in names:
        coverage = made[f"explore, {name}"]["coverage"]
        ratio, low, high = ratio_interval(coverage, base)
        every = " ".join(f"{x:.2f}" for x in coverage)
        lines.append(f"| {name} | {shown(coverage)} | {ratio:.2f} [{low:.2f}, {high:.2f}] | {every} |")
    return "\n".join(lines).strip() + "\n"


def panels_of(cfg: Config, made: dict[str, Any]) -> list[Panel]:
    rooms, updates = made[f"rooms, slip {cfg.rooms.slips[0]:g}"], [str(n) for n in cfg.rooms.updates]
    sigmas = {name: [rooms[n][f"sigma_{name}"] for n in updates] for name in ("seen", "unseen")}
    aurocs = {name: [rooms[n][key] for n in updates] for name, key in (("implicit", "auroc"), ("explicit", "auroc_explicit"))}
    sizes = [f"{size:g}" for size in cfg.rooms.errors]
    names = [*cfg.explore.walkers, "random"]
    coverage = [made[f"explore, {name}"]["coverage"] for name in names]
    thousands = [f"{n / 1000:g}k" for n in cfg.rooms.updates]
    return [
        Panel("sigma falls where the walk goes", thousands, sigmas, "mean sigma", log=True),
        Panel("unseen rooms told apart", thousands, aurocs, "AUROC"),
        Panel("errors of known size", sizes, {name: made["errors"][name] for name in ("model", "value")}, "mean sigma"),
        Panel("mu + beta sigma explores", names, {"coverage": coverage}, "share of cells visited", ordered=False),
    ]
