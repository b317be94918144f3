"""Diverse near-optimal policies, in tables (arXiv 2205.13521): a set of which each must be nearly the best and none like another.

    max Diversity(psi_1 ... psi_N)    such that    v_i >= alpha v*    for every policy i

v_i is the average of the task's reward, psi_i that of the features, here the discounted occupancy of every cell, which is exact as the
dynamics are known. Each iteration takes, for all policies of all sets at once,

    d_i = (1 - gamma) (1 - gamma P_i^T)^-1 d_0                     occupancy; v_i = d_i . r, and running averages of both
    u_i = f(l_i) (psi_i - psi_j*) / l_i                            reward of diversity, f from `kernel.diversity`
    r_i = sigmoid(mu_i) r + (1 - sigmoid(mu_i)) u_i                the mixture; policy 1 has r alone, and its value stands for v*
    logits_i <- (1 - rate) logits_i + rate Q_i / temperature       soft policy iteration on the mixture's exact Q
    mu_i <- mu_i - rate' d/dmu_i sigmoid(mu_i) (v_i - alpha v_1)

with both rates falling to 0 as a straight line. The length of psi_i - psi_j* is divided out before the force is multiplied in: a distance
of rest must be able to make the reward vanish. The world is an open room whose right wall pays 1 for every step spent on it; the set
starts in the middle of the left one. Beside it: sets with a fixed share of the task, with no task at all, and with the reward of a
discriminator that tells policies by their cells, which is exact here too.

Left out: everything that is learnt from samples, which is `domino`.
"""

import json
import time
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from posttrain.agents.kernel.charts import Panel, draw, shown
from posttrain.agents.kernel.diversity import discrimination_reward, force, nearest, running, stepped_multipliers, task_share
from posttrain.agents.kernel.envs.grids import neighbours
from posttrain.agents.kernel.envs.layouts import open_room
from posttrain.agents.kernel.maps import draw_maps
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import config
from posttrain.run import RunFolder, seed_for, write_atomic


@config
class Setting:
    """What one kind of set is asked for: a bound on its price, or a fixed share of the task."""

    alpha: float | None = Field(default=None, gt=0, le=1)
    """Each policy must keep this share of the first one's value; the share of the task follows from it."""
    share: float | None = Field(default=None, ge=0, le=1)
    """Share of the task in what all but the first maximise, 1 for no diversity, in place of a bound."""
    rest: float | None = Field(default=None, gt=0)
    """l_0 of the van der Waals force; without it neighbours only repel each other."""
    reward: Literal["features", "discrimination"] = "features"
    """Of diversity: from distances of features, or from a discriminator."""

    def __post_init__(self) -> None:
        if (self.alpha is None) == (self.share is None):
            raise ValueError(f"found alpha {self.alpha} and share {self.share}, expected one of the two")
        if self.rest is not None and self.reward == "discrimination":
            raise ValueError(f"rest: found {self.rest} with reward discrimination, expected it with features, which have distances")


@config
class Config:
    """Sets of policies in a room whose right wall pays."""

    kind: Literal["domino_tables"] = "domino_tables"
    seed: NonNegativeInt = 0
    sets: PositiveInt = 5
    """How many sets from other first policies are made side by side: the seeds that intervals count."""
    policies: int = Field(default=8, ge=2)
    n: int = Field(default=9, ge=3)
    """Side of the room, cells."""
    gamma: float = Field(default=0.97, gt=0, lt=1)
    settings: dict[str, Setting] = Field(default_factory=lambda: {"no diversity": Setting(share=1.0), "alpha .9": Setting(alpha=0.9)})
    """By name."""
    pictured: tuple[str, ...] = ("alpha .9",)
    """Settings whose policies are drawn as maps, those of the first set."""
    iterations: PositiveInt = 1500
    temperature: PositiveFloat = 0.001
    """Of the soft policies, on a scale on which the wall pays 1 for ever."""
    rate: float = Field(default=0.1, gt=0, le=1)
    """How far the logits move, at first."""
    multiplier_rate: PositiveFloat = 10.0
    largest: PositiveFloat = 6.0
    """Bound of the multipliers."""
    value_decay: float = Field(default=0.9, ge=0, lt=1)
    """Of the running average of v."""
    features_decay: float = Field(default=0.9, ge=0, lt=1)
    """Of the running average of psi."""

    def __post_init__(self) -> None:
        if wrong := [name for name in self.pictured if name not in self.settings]:
            raise ValueError(f"pictured: found {wrong[0]!r}, expected one of {', '.join(self.settings)}")


def room(n: int) -> tuple[Tensor, Tensor, int]:
    """Where each action leads [S, A], the reward of each cell [S], and the cell in which episodes start."""
    return neighbours(open_room(n)[None])[0], (torch.arange(n * n) % n == n - 1).double(), n // 2 * n


def best_value(n: int, gamma: float) -> float:
    """v* of the room: n - 1 steps straight to the right, then 1 for ever, times 1 - gamma."""
    return gamma ** (n - 1)


def occupancies(policy: Tensor, next_SA: Tensor, start: int, gamma: float) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Discounted occupancy of each policy [..., S, A] -> [..., S], sums to 1; and 1 - gamma P factorised, to solve for values by."""
    cells = len(next_SA)
    step_SS = (policy[..., None] * torch.nn.functional.one_hot(next_SA, cells).to(policy)).sum(-2)
    factors = torch.linalg.lu_factor(torch.eye(cells, dtype=policy.dtype) - gamma * step_SS)
    first_S1 = torch.zeros(*policy.shape[:-1], 1, dtype=policy.dtype)
    first_S1[..., start, 0] = 1 - gamma
    return torch.linalg.lu_solve(*factors, first_S1, adjoint=True)[..., 0], factors


def action_values(reward: Tensor, factors: tuple[Tensor, Tensor], next_SA: Tensor, gamma: float) -> Tensor:
    """Q of each policy for its own reward of a cell, times 1 - gamma, [..., S] -> [..., S, A]."""
    value = torch.linalg.lu_solve(*factors, reward[..., None])[..., 0]
    return (1 - gamma) * (reward[..., None] + gamma * value[..., next_SA])


def diversity_of_cells(psi_BNS: Tensor, setting: Setting) -> Tensor:
    """u_i of every cell, [B, N, S]."""
    if setting.reward == "discrimination":
        prob_BNS = psi_BNS.clamp(min=1e-12)
        logits_BNSN = prob_BNS.log().movedim(1, -1)[:, None].expand(-1, psi_BNS.shape[1], -1, -1)
        return discrimination_reward(logits_BNSN, torch.arange(psi_BNS.shape[1])[:, None].expand(psi_BNS.shape))
    near = nearest(psi_BNS)
    unit_BNS = near.difference / near.distance[..., None].clamp(min=1e-12)
    return force(near.distance, setting.rest)[..., None] * unit_BNS


def make_sets(cfg: Config, setting: Setting, draws: torch.Generator) -> dict[str, Any]:
    """The sets after all iterations: value over v* of every policy [B][N], distance to its neighbour [B][N], occupancies [B][N][S]."""
    next_SA, reward_S, start = room(cfg.n)
    shape = (cfg.sets, cfg.policies)
    logits = torch.randn(*shape, cfg.n**2, 4, generator=draws, dtype=torch.float64)
    multiplier_BN = torch.zeros(shape, dtype=torch.float64)
    fixed_BN = torch.full(shape, setting.share or 0.0, dtype=torch.float64)
    fixed_BN[:, 0] = 1
    value_BN = torch.full(shape, torch.nan, dtype=torch.float64)
    psi_BNS = torch.full((*shape, cfg.n**2), torch.nan, dtype=torch.float64)
    for iteration in range(cfg.iterations):
        left = 1 - iteration / cfg.iterations
        occupancy_BNS, factors = occupancies(logits.softmax(-1), next_SA, start, cfg.gamma)
        value_BN = running(value_BN, occupancy_BNS @ reward_S, cfg.value_decay)
        psi_BNS = running(psi_BNS, occupancy_BNS, cfg.features_decay)
        share_BN = fixed_BN if setting.alpha is None else task_share(multiplier_BN)
        mixed_BNS = share_BN[..., None] * reward_S + (1 - share_BN[..., None]) * diversity_of_cells(psi_BNS, setting)
        q = action_values(mixed_BNS, factors, next_SA, cfg.gamma)
        logits += left * cfg.rate * (q / cfg.temperature - logits)
        if setting.alpha is not None:
            multiplier_BN = stepped_multipliers(multiplier_BN, value_BN, setting.alpha, left * cfg.multiplier_rate, cfg.largest)
    occupancy_BNS, _ = occupancies(logits.softmax(-1), next_SA, start, cfg.gamma)
    return {
        "value": (occupancy_BNS @ reward_S / best_value(cfg.n, cfg.gamma)).clamp(min=0).tolist(),  # no less than 0 by rounding
        "distance": nearest(occupancy_BNS).distance.tolist(),
        "occupancy": occupancy_BNS.float().tolist(),
    }


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Make the sets that are not made, then the table, the figures and `result.json`."""
    run = RunFolder(out, cfg, resume=resume)
    made = {row["setting"]: row for row in run.metrics()}
    run.forget_after(len(made))
    for number, (name, setting) in enumerate(cfg.settings.items(), 1):
        if name not in made:
            begun = time.process_time()
            draws = torch.Generator().manual_seed(seed_for(cfg.seed, "policies"))  # the same first policies in every setting
            made[name] = {"setting": name, **make_sets(cfg, setting, draws), "cpu_s": time.process_time() - begun}
            run.log(number, made[name])
    figures = {name: figures_of(made[name]) for name in cfg.settings}
    means = {name: {key: sum(x) / len(x) for key, x in found.items()} for name, found in figures.items()}
    write_atomic(out / "result.json", json.dumps(means, indent=1) + "\n")
    write_atomic(out / "table.md", table_of(figures))
    draw(out / "figure.png", panels_of(cfg, figures))
    maps = {name: torch.tensor(made[name]["occupancy"][0]).unflatten(-1, (cfg.n, cfg.n)).numpy() for name in cfg.pictured}
    draw_maps(out / "sets.png", maps, {name: [f"{v:.2f}" for v in made[name]["value"][0]] for name in cfg.pictured})
    print((out / "table.md").read_text())
    return 0


def figures_of(made: dict[str, Any]) -> dict[str, list[float]]:
    """One number for every set: its worst and mean value over v*, and the mean, least and greatest distance to a neighbour."""
    value_BN, distance_BN = torch.tensor(made["value"]), torch.tensor(made["distance"])
    return {
        "worst": value_BN.amin(1).tolist(),
        "mean": value_BN.mean(1).tolist(),
        "distance": distance_BN.mean(1).tolist(),
        "nearest": distance_BN.amin(1).tolist(),
        "farthest": distance_BN.amax(1).tolist(),
    }


def table_of(figures: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: means over the sets with Student-t intervals of 95%, and every set."""
    head = ["setting", "worst value / v*", "mean value / v*", "distance to the nearest", "least", "greatest"]
    lines = ["| " + " | ".join([*head, "every set: worst, distance"]) + " |", "|---" * (len(head) + 1) + "|"]
    for name, found in figures.items():
        every = ", ".join(f"{worst:.3f} {far:.3f}" for worst, far in zip(found["worst"], found["distance"], strict=True))
        cells = [shown(found["worst"]), shown(found["mean"]), shown(found["distance"], 4)]
        cells += [f"{min(found['nearest']):.2g}", f"{max(found['farthest']):.2g}", every]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def panels_of(cfg: Config, figures: dict[str, dict[str, list[float]]]) -> list[Panel]:
    """What alpha, the distance of rest and a fixed share do; a panel for each of them that the settings vary."""
    panels = []
    for title, key, of in (
        ("bound alpha", "alpha", lambda s: s.alpha is not None and s.rest is None),
        ("distance of rest", "rest", lambda s: s.rest is not None),
        ("fixed share of the task", "share", lambda s: s.share is not None),
    ):
        names = [name for name, setting in cfg.settings.items() if of(setting) and setting.reward == "features"]
        names.sort(key=lambda name: getattr(cfg.settings[name], key))
        if len(names) > 1:
            lines = {line: [figures[name][line] for name in names] for line in ("worst", "mean", "distance")}
            panels.append(Panel(title, [f"{getattr(cfg.settings[name], key):g}" for name in names], lines, "value over v*, distance"))
    return panels or [Panel("sets", list(figures), {line: [x[line] for x in figures.values()] for line in ("worst", "distance")}, "")]
