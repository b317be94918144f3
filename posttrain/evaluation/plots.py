"""The plots of a training run's log, and of how much of the text second attempts rewrite."""

import math
from collections.abc import Sequence

from posttrain.evaluation.entries import Entry, Stage
from posttrain.evaluation.metrics import edit_distance_ratio
from posttrain.evaluation.numerals import percent
from posttrain.evaluation.section import Plot, Series

Points = list[tuple[float, float]]
MOST = 300  # points of a curve
ATTEMPT = ("t1", "t2", "a2", "a3", "a4", "a5")
WATCHED = (  # title, metrics and their names, unit, the guard whose limit is drawn
    ("Accuracy, %", (("acc_t1", "first attempt"), ("acc_t2", "second attempt")), "percent", ""),
    ("Answers changed, %", (("answer_change", "answers changed"),), "percent", "answer_change"),
    ("KL to the reference, nats per attempt", (("kl_t1", "first attempt"), ("kl_t2", "second attempt")), "number", ""),
    ("Reward, mean", (("reward", "reward"),), "number", ""),
    ("Cut by the length limit, %", (("clip_t1", "first attempt"), ("clip_t2", "second attempt")), "percent", "clipped"),
    ("Engine against trainer, nats per token", (("gap_t1", "first attempt"), ("gap_t2", "second attempt")), "number", "gap"),
    ("Not graded, %", (("unscored", "episodes"),), "percent", "unscored"),
)


def training(entries: Sequence[Entry]) -> list[Plot]:
    """One group of plots per trained model; every kind of plot has the same y axis in all groups."""
    trained = [entry for entry in entries if entry.stages]
    found = []
    for entry in trained:
        for title, keys, unit, guard in WATCHED:
            names = [(key, name) for key, name in keys if any(logged(entry.stages, f"train/{key}"))]
            if names and _tells(guard, entry, names):
                bounds = span([entry.stages for entry in trained], [key for key, _ in names])
                found.append(_plot(entry, title, names, unit, _limit(entry, guard, bounds), bounds))
    return found


def histograms(entries: Sequence[Entry], bins: int = 25) -> list[Plot]:
    """Shares of the edit-distance ratio over equal bins, all on one axis."""
    values = [[edit_distance_ratio(e.turns[0].text, e.turns[1].text) for e in entry.episodes] for entry in entries]
    shares = [shares_of(each, bins) for each in values]
    top = 1.05 * max(share for each in shares for share in each)
    found = []
    for entry, each, share in zip(entries, values, shares):
        copies = f"{percent(sum(value == 0 for value in each) / len(each))} % exact copies, mean {sum(each) / len(each):.2f}"
        series = Series(name="episodes", colour="t2", y=tuple(share), mark="bars")
        x = tuple((i + 0.5) / bins for i in range(bins))
        found.append(Plot(title=f"{entry.name}: {copies}", x=x, x_name="ratio", series=(series,), bounds=(0.0, top)))
    return found


def shares_of(values: Sequence[float], bins: int = 25) -> list[float]:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(value * bins))] += 1
    return [count / len(values) for count in counts]


def last_step(stage: Stage) -> float:
    return max((row["step"] for row in stage.metrics), default=0)


def logged(stages: Sequence[Stage], key: str) -> Points:
    """(step over all stages, value) of a metric; what is no finite number is left out."""
    found, start = [], 0.0
    for stage in stages:
        rows = [row for row in stage.metrics if isinstance(row.get(key), (int, float)) and math.isfinite(row[key])]
        found += [(start + row["step"], float(row[key])) for row in rows]
        start += last_step(stage)
    return found


def span(runs: Sequence[Sequence[Stage]], keys: Sequence[str]) -> tuple[float, float]:
    """The smallest and largest value of `train/<key>` and `val/<key>`, thinned as drawn, with a little room; (0, 1) if there is none."""
    names = [f"{part}/{key}" for key in keys for part in ("train", "val")]
    values = [value for stages in runs for name in names for _, value in thin(logged(stages, name))]
    if not values:
        return 0.0, 1.0
    room = 0.05 * (max(values) - min(values)) or 0.05 * (abs(max(values)) or 1)
    return min(values) - room, max(values) + room


def thin(points: Points, most: int = MOST) -> Points:
    """At most `most` points: means of equal runs of points."""
    run = math.ceil(len(points) / most) or 1
    groups = [points[i : i + run] for i in range(0, len(points), run)]
    return [(sum(x for x, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def moving_mean(points: Points) -> Points:
    """Each point's mean over about a tenth of the points, centred, shorter at the ends."""
    half = max(1, len(points) // 20)
    windows = ((x, points[max(0, i - half) : i + half + 1]) for i, (x, _) in enumerate(points))
    return [(x, sum(v for _, v in window) / len(window)) for x, window in windows]


def _plot(
    entry: Entry, title: str, names: Sequence[tuple[str, str]], unit: str, level: tuple[float, str] | None, bounds: tuple[float, float]
) -> Plot:
    lines: list[tuple[str, str, str, Points]] = []
    for i, (key, name) in enumerate(names):
        colour = ATTEMPT[i] if len(names) > 1 else "t2"
        raw = thin(logged(entry.stages, f"train/{key}"))
        lines += [("thin", "", colour, raw), ("line", name, colour, moving_mean(raw))]
        if held_out := logged(entry.stages, f"val/{key}"):
            lines.append(("dots", "held out", colour, held_out))
    at = sorted({x for *_, points in lines for x, _ in points})
    series = tuple(
        Series(name=name, colour=colour, mark=mark, y=tuple(map(dict(points).get, at)))  # type: ignore[arg-type]
        for mark, name, colour, points in lines
    )
    starts, begin = [], 0.0
    for stage in entry.stages:
        starts.append((begin, stage.name))
        begin += last_step(stage)
    marks = tuple(starts) if len(starts) > 1 else ()
    return Plot(title=title, x=tuple(at), series=series, unit=unit, bounds=bounds, marks=marks, level=level, group=entry.name)  # type: ignore[arg-type]


def _tells(guard: str, entry: Entry, names: Sequence[tuple[str, str]]) -> bool:
    """A guard on what never moved from 0 is not worth a plot; everything else is."""
    return guard in ("", "answer_change") or any(value > 1e-4 for key, _ in names for _, value in logged(entry.stages, f"train/{key}"))


def _limit(entry: Entry, guard: str, bounds: tuple[float, float]) -> tuple[float, str] | None:
    """The guard's limit where the run recorded one and it lies on the plot."""
    limits = entry.stages[-1].guards
    if guard not in limits or not bounds[0] <= limits[guard] <= bounds[1]:
        return None
    return float(limits[guard]), "warns below" if guard == "answer_change" else "warns above"
