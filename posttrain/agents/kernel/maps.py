"""Pictures of where policies go: occupancies as maps, and paths between walls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from posttrain.agents.kernel.envs.grids import AGENT, WAYPOINTS, Grid
from posttrain.agents.kernel.options import OptionModel

PATHS = ("#222222", "#3b6ea5", "#c8553d", "#6b8f47", "#8a6fa8", "#b8860b", "#2a9d8f", "#d4679c", "#5f6b76", "#8c564b")


class Scene(NamedTuple):
    """One room with what is in it, in x from left to right and y from bottom to top."""

    title: str
    paths: Mapping[int, Sequence[np.ndarray]]
    """Number of a policy -> its paths, [steps, 2] each; one colour a policy."""
    walls: Sequence[tuple[float, float, float, float]]
    """Left, bottom, right, top."""
    goal: tuple[float, float, float]
    """Centre and radius."""
    closed: Sequence[tuple[float, float, float, float]] = ()
    """Walls that were not there in training."""


@torch.no_grad()
def option_scenes(options: OptionModel, env: Grid, n: int, draws: torch.Generator, tries: int = 12) -> list[Scene]:
    """Where each option leads from the middle of an open room of n x n cells whose goal is near a corner, as often as `tries`."""
    start, goal, codes = (n // 2) * n + n // 2, n + n - 2, options.codes
    state_BF = env.draw_states(tries * codes)
    state_BF[:, AGENT], state_BF[:, WAYPOINTS] = start, goal
    code_B = torch.arange(codes, device=state_BF.device).repeat_interleave(tries)
    cells = [state_BF[:, AGENT]]
    for _ in range(options.steps):
        probs = options.act(env.observe(state_BF), code_B).softmax(-1)
        state_BF = env.transition(state_BF, torch.multinomial(probs, 1, generator=draws)[:, 0])[0]
        cells.append(state_BF[:, AGENT])
    cell_TB = torch.stack(cells).cpu()
    aside_B = 0.35 * (torch.arange(tries) / (tries - 1) - 0.5).repeat(codes)  # beside each other, not on top
    place_TB2 = torch.stack([cell_TB % n + 0.5 + aside_B, n - 0.5 - cell_TB // n + aside_B], -1) * 2 / n - 1
    place_KBT2 = place_TB2.unflatten(1, (codes, tries)).permute(1, 2, 0, 3)
    round_goal = ((goal % n + 0.5) * 2 / n - 1, (n - 0.5 - goal // n) * 2 / n - 1, 0.8 / n)
    return [Scene(f"option {k + 1}", {k + 1: list(paths.numpy())}, (), round_goal) for k, paths in enumerate(place_KBT2)]


def draw_maps(path: Path, rows: Mapping[str, np.ndarray], captions: Mapping[str, Sequence[str]]) -> None:
    """A row for each name, a map for each of its policies, [N, H, W], dark where it is often; the root of the occupancy, to see paths."""
    figure, axes = _axes(len(rows), max(len(maps_NHW) for maps_NHW in rows.values()), 1.15)
    for axes_N, (name, maps_NHW) in zip(axes, rows.items(), strict=True):
        for axis, map_HW, caption in zip(axes_N, maps_NHW, captions[name], strict=False):
            axis.imshow(np.sqrt(map_HW.clip(0)), cmap="Blues", vmin=0, vmax=np.sqrt(map_HW.max()))
            axis.set_xlabel(caption, fontsize=8)
        axes_N[0].set_ylabel(name, fontsize=8)
    _save(figure, path)


def draw_paths(path: Path, scenes: Sequence[Scene], columns: int = 4) -> None:
    """A room for each scene, `columns` in a row."""
    figure, axes = _axes(-(-len(scenes) // columns), min(columns, len(scenes)), 2.6)
    for axis, scene in zip(axes.flat, scenes, strict=False):
        _draw_scene(axis, scene)
    for axis in axes.flat[len(scenes) :]:
        axis.set_visible(False)
    _save(figure, path)


def _draw_scene(axis: Any, scene: Scene) -> None:
    from matplotlib.patches import Circle, Rectangle

    for boxes, colour in ((scene.walls, "#9aa0a6"), (scene.closed, "#c8553d")):
        for left, bottom, right, top in boxes:
            axis.add_patch(Rectangle((left, bottom), right - left, top - bottom, color=colour, lw=0))
    axis.add_patch(Circle(scene.goal[:2], scene.goal[2], color="#e8d9a0", lw=0))
    for i, paths in scene.paths.items():
        for steps in paths:
            axis.plot(steps[:, 0], steps[:, 1], color=PATHS[i % len(PATHS)], lw=1.2, alpha=0.75)
    axis.set_xlim(-1, 1)
    axis.set_ylim(-1, 1)
    axis.set_aspect("equal")
    axis.set_title(scene.title, fontsize=9)


def _axes(rows: int, columns: int, size: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(size * columns + 0.3, (size + 0.25) * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, dpi=110)
    pyplot.close(figure)
