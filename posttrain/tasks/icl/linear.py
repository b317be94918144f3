"""Linear classification of random points (arXiv 2404.11018, section 4.3): which side of a hidden plane does a point lie on?

    Input: 523 88 941 307 ...            (N numbers)
    Output: Foo

A data set is one random plane: a coefficient vector `a` and a pivot `p`, and a point `x` is Foo where a.x > a.p. Points are drawn until
each class has as many as asked for. Nothing in a question tells the plane, so all that a model knows of it comes from the shots. The
baselines see the same shots and the same items: k nearest neighbours (the paper's) and logistic regression.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.types import DataError, FinalAnswer, Problem

if TYPE_CHECKING:
    import numpy as np

LABELS = ("Foo", "Bar")
AXES = "abcdefghijklmnopqrstuvwxyz"
PAPER = Layout(question_label="Input: ", answer_label="\nOutput: ", divider="\n\n")
COMPACT = Layout(question_label="", answer_label=" ", divider="\n")
CHUNK = 256  # points drawn at a time
FEWEST = 1 / 32  # of the points lie on either side


@config
class LinearInContext:
    """Points on either side of a hidden plane."""

    kind: Literal["linear"] = "linear"
    dimensions: int = 16
    """The paper's N: 16, 32 or 64."""
    largest: int = 999
    """Coordinates, pivot and coefficients are integers from 1 to this."""
    signed: bool = False
    """Give each coefficient a random sign. The paper's are all positive, so that a larger point is always likelier to be a Foo."""
    named: bool = False
    """Write each coordinate with its axis and leave out "Input" and "Output", as in "a523 b88 Foo": for models with a token a word."""
    per_class: int = 2048
    """Points of each class in the pool."""
    test_per_class: int = 25
    data_seed: int = 0
    """Seed of the plane and its points. The paper averages over five data sets."""

    def __post_init__(self) -> None:
        if self.dimensions < 1 or self.largest < 2 or min(self.per_class, self.test_per_class) < 1:
            raise ValueError(
                f"expected dimensions, per_class and test_per_class >= 1 and largest >= 2, got {self.dimensions}, "
                f"{self.per_class}, {self.test_per_class} and {self.largest}"
            )
        if self.named and self.dimensions > len(AXES):
            raise ValueError(f"named: there are letters for {len(AXES)} axes, got dimensions {self.dimensions}")
        asked, there_are = 2 * (self.per_class + self.test_per_class), self.largest**self.dimensions
        if asked > there_are:
            raise ValueError(f"{asked} different points asked for, but {self.dimensions} numbers up to {self.largest} make {there_are}")


def make_icl(cfg: LinearInContext) -> InContextTask:
    return InContextTask(
        name=f"linear{cfg.dimensions}",
        load=lambda split: load(cfg, split),
        layout=COMPACT if cfg.named else PAPER,
        score=lambda pairs: [float(first_word(text) == problem.final_answer) for problem, text in pairs],
        choices=LABELS,
        max_tokens=1 if cfg.named else 4,
        stop=("\n",),
        baselines={"k-nearest neighbours (k=5)": nearest_neighbours, "logistic regression": logistic_regression},
    )


def load(cfg: LinearInContext, split: str) -> list[Problem]:
    """The split's points, classes taking turns, so that an even number of them from the front is balanced."""
    import numpy as np

    if split not in ("pool", "test"):
        raise DataError(f"linear: no split {split!r}; expected pool or test")
    rng = np.random.default_rng([cfg.data_seed, cfg.dimensions, cfg.largest, cfg.signed])
    points, foo = draw(cfg, rng, per_class=cfg.test_per_class + cfg.per_class)  # test first: it is the same for every size of pool
    cut = 2 * cfg.test_per_class
    chosen = range(cut) if split == "test" else range(cut, len(points))
    return [problem(cfg, points[i], bool(foo[i])) for i in chosen]


def draw(cfg: LinearInContext, rng: "np.random.Generator", per_class: int, repeats: bool = False) -> "tuple[np.ndarray, np.ndarray]":
    """`per_class` points on each side of one random plane, [2 * per_class, N], sides in turn, with whether each is a Foo.

    All are different, unless `repeats` allows for a point to come twice. A plane with less than `FEWEST` of the points on one side, as
    happens in few dimensions, is drawn again. More points from the same `rng` state begin with the same ones. Raises `DataError` where
    there are not as many.
    """
    import numpy as np

    a, pivot = _plane(cfg, rng)
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    seen: set[bytes] = set()
    for _ in range(1000 + per_class):
        points = _uniform(cfg, rng)
        for point, is_foo in zip(points, (points @ a > pivot @ a).tolist()):
            if repeats or point.tobytes() not in seen:
                seen.add(point.tobytes())
                sides[is_foo].append(point)
        if min(map(len, sides)) >= per_class:
            bars, foos = (side[:per_class] for side in sides)
            return np.stack([foos, bars], axis=1).reshape(2 * per_class, -1), np.tile([True, False], per_class)
    found = min(map(len, sides))
    raise DataError(f"linear: {per_class} different points of each class asked for, {found} found; raise largest or dimensions")


def _plane(cfg: LinearInContext, rng: "np.random.Generator") -> "tuple[np.ndarray, np.ndarray]":
    while True:
        a, pivot = rng.integers(1, cfg.largest + 1, (2, cfg.dimensions))
        if cfg.signed:
            a = a * rng.choice([-1, 1], cfg.dimensions)
        if FEWEST <= (_uniform(cfg, rng) @ a > pivot @ a).mean() <= 1 - FEWEST:
            return a, pivot


def _uniform(cfg: LinearInContext, rng: "np.random.Generator") -> "np.ndarray":
    return rng.integers(1, cfg.largest + 1, (CHUNK, cfg.dimensions))


def problem(cfg: LinearInContext, point: "np.ndarray", foo: bool) -> Problem:
    names = AXES[: cfg.dimensions] if cfg.named else [""] * cfg.dimensions
    label = LABELS[0] if foo else LABELS[1]
    written = " ".join(f"{name}{number}" for name, number in zip(names, point))
    return Problem(id=f"linear{cfg.data_seed}-{written}", question=written, reference=FinalAnswer(text=label), solution=label)


def first_word(text: str) -> str:
    return (text.split() or [""])[0]


def nearest_neighbours(shots: Sequence[Problem], items: Sequence[Problem], k: int = 5) -> list[float]:
    """1 for each item that scikit-learn's k-NN, Euclidean, labels right from the shots; with fewer shots than k, all of them vote."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(n_neighbors=min(k, len(shots))).fit(_points(shots), _labels(shots))
    return [float(right) for right in model.predict(_points(items)) == _labels(items)]


def logistic_regression(shots: Sequence[Problem], items: Sequence[Problem]) -> list[float]:
    """1 for each item that scikit-learn's logistic regression on standardised coordinates labels right; one class says itself."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    both = len(set(_labels(shots))) == 2
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)) if both else DummyClassifier()
    model.fit(_points(shots), _labels(shots))
    return [float(right) for right in model.predict(_points(items)) == _labels(items)]


def _points(problems: Sequence[Problem]) -> "np.ndarray":
    import numpy as np

    return np.array([[int(number) for number in re.findall(r"\d+", problem.question)] for problem in problems], dtype=float)


def _labels(problems: Sequence[Problem]) -> "np.ndarray":
    import numpy as np

    return np.array([problem.final_answer for problem in problems])
