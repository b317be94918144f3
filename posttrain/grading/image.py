"""Does an image show what was asked for? An encoder of images and texts says so (arXiv 2312.09187): p(goal | image) >= threshold.

An answer is the path of an image file. What is no image that the encoder could see is no answer, and the verdict says what it is instead;
nothing here raises on it. `asked` is the core; `image_grader` makes the `grade` of a `Task` of it. How good such a verdict is depends on
the encoder and the wording: measure it on images whose truth you know (`posttrain grade image --help`, recipes/clip_reward).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.types import Problem, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.agents.kernel.clip import DualEncoder

MODES = ("RGB", "L")  # what becomes RGB without a choice; a transparent image needs a ground, a palette is for its writer to resolve
MOST_PIXELS = 50_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """How a goal is put to the encoder, and from which probability on it counts as met."""

    templates: tuple[str, ...] = ("{}",)
    """Texts with one {} where the goal goes; several are averaged."""
    temperature: float | None = None
    """None takes the one that the checkpoint was trained to."""
    threshold: float = 0.5

    def __post_init__(self) -> None:
        bad = [template for template in self.templates if template.count("{}") != 1]
        if bad or not self.templates:
            raise ValueError(f"templates: found {bad[0] if bad else 'none'!r}, expected texts with one {{}}")
        if not 0 < self.threshold <= 1 or (self.temperature is not None and self.temperature <= 0):
            raise ValueError(
                f"found threshold {self.threshold} and temperature {self.temperature}, expected 0 < threshold <= 1 and above 0"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """An image, what it should show, and what it might show instead."""

    image: Path
    goal: str
    negatives: tuple[str, ...] = ()
    """Whole texts."""
    others: tuple[str, ...] = ()
    """Other goals, worded as this one; the goal itself among them counts once."""

    def __post_init__(self) -> None:
        if not self.negatives and not [other for other in self.others if other != self.goal]:
            raise ValueError(f"goal {self.goal!r} stands against nothing, and would have probability 1 everywhere: name a negative")


def asked(encoder: "DualEncoder", rows: Sequence[Asked], wording: Wording = Wording()) -> list[Verdict]:
    """A verdict on each row; texts are embedded once, images of one size together. Raises `ValueError` on a text too long to be read."""
    import torch

    from posttrain.agents.kernel.clip import goal_probability, worded

    temperature = wording.temperature or encoder.temperature
    seen = {row.image: _opened(row.image, encoder.smallest) for row in rows}
    embedded = _embedded(encoder, {path: image for path, image in seen.items() if not isinstance(image, Verdict)})

    @cache
    def texts(goals: tuple[str, ...], negatives: tuple[str, ...]) -> "Tensor":
        return worded(encoder, goals, wording.templates, negatives).cpu()

    verdicts = []
    for row in rows:
        failed = seen[row.image]
        if isinstance(failed, Verdict):
            verdicts.append(failed)
            continue
        goals = tuple(dict.fromkeys((*row.others, row.goal)))
        text_KD, goal_1 = texts(goals, row.negatives), torch.tensor([goals.index(row.goal)])
        rivals_GK = torch.ones(len(goals), len(text_KD), dtype=torch.bool)
        prob = goal_probability(embedded[row.image][None].cpu(), text_KD, goal_1, rivals_GK, temperature).item()
        met = prob >= wording.threshold
        why = f"p = {prob:.3f} {'>=' if met else '<'} {wording.threshold:g}, against {len(text_KD) - 1} other texts"
        verdicts.append(Verdict(status="correct" if met else "wrong", why=why, rule="clip", gold_form=row.goal, pred_form=f"{prob:.6f}"))
    return verdicts


def image_grader(
    encoder: "DualEncoder",
    negatives: Sequence[str],
    wording: Wording = Wording(),
) -> Callable[[Sequence[tuple[Problem, str]]], list[Verdict]]:
    """The `grade` of a task whose reference is a goal in words, and whose answers are paths of image files."""

    def grade(pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        rows = [Asked(image=Path(text.strip()), goal=problem.final_answer, negatives=tuple(negatives)) for problem, text in pairs]
        return asked(encoder, rows, wording)

    return grade


def _embedded(encoder: "DualEncoder", image_of: "dict[Path, Tensor]") -> "dict[Path, Tensor]":
    import torch

    by_shape: dict[tuple[int, ...], list[Path]] = {}
    for path, image in image_of.items():
        by_shape.setdefault(tuple(image.shape), []).append(path)
    found: dict[Path, Tensor] = {}
    for paths in by_shape.values():
        found |= dict(zip(paths, encoder.images(torch.stack([image_of[path] for path in paths])), strict=True))
    return found


def _opened(path: Path, smallest: int) -> "Tensor | Verdict":
    """The file as [3, H, W] uint8, or why it cannot be judged."""
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError

    def refused(why: str, status: str = "no_answer") -> Verdict:
        return Verdict(status=status, why=f"{str(path)[-200:]}: {why}", rule="image")  # type: ignore[arg-type]

    try:
        if not path.is_file():
            return refused("no such image file")
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                return refused(f"{width} x {height} pixels, expected at most {MOST_PIXELS:,} in all", "limit")
            if min(width, height) < smallest:
                return refused(f"{width} x {height} pixels, expected {smallest} x {smallest} at least, one patch of the encoder")
            if image.mode not in MODES:
                return refused(f"mode {image.mode}, expected RGB or L: convert it, transparent parts onto a ground of your choice")
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except Image.DecompressionBombError:
        return refused(f"claims more than {MOST_PIXELS:,} pixels", "limit")
    except UnidentifiedImageError:
        return refused("not an image of a known format")
    except (OSError, ValueError, SyntaxError) as error:  # cut short, damaged, not to be read, or a path that cannot be
        return refused(f"cannot be read: {str(error)[:200]}")
