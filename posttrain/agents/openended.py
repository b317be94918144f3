"""Open-endedness as a meter: is a stream of texts novel, and learnable, to an observer that reads it in order (arXiv 2406.04268)?

    l(t, T) = -log2 p_O(X_T | X_1 ... X_t)        novel: a later X_T costs more;  learnable: a longer history makes X_T cost less

The observer O is a byte n-gram, a compressor or a language model (`kernel/observers.py`); which questions are asked of l within the
horizon, and how sure an answer is, stands in `kernel/openness.py`. A verdict is about this observer and this horizon, and about nothing
else: a text that drifts at random is open-ended to all of them.

    posttrain openended STREAM.jsonl       judges a file, or several in turn: problems, a run's episodes, trajectories
    posttrain train RECIPE.yaml            judges streams of which the answer is known (`kernel/streams.py`), and walks in environments

Left out: observers with goals of their own, and whether anybody should care for what is novel. Expected: every known stream judged right
in at least 95% of its seeds (recipes/openended).
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from posttrain.agents.environments import FourRoomsConfig, GoalGridConfig, MazeConfig, WallsConfig, make_env
from posttrain.agents.kernel.charts import COLOURS
from posttrain.agents.kernel.observers import Deflate, NGram, Observer, language_model, num_bytes, replayed
from posttrain.agents.kernel.openness import HISTORIES, SHORTEST, Judgement, histories, judge
from posttrain.agents.kernel.streams import KNOWN
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import ConfigError, build, config
from posttrain.jsonl import read_objects
from posttrain.run import RunFolder, seed_for, write_atomic
from posttrain.types import DataError

PLACES = 24  # along the horizon in a picture


@config
class NGramConfig:
    """Byte n-grams, counted as they come."""

    kind: Literal["ngram"] = "ngram"
    order: PositiveInt = 4
    """The longest context, bytes."""


@config
class DeflateConfig:
    """zlib, which remembers the last 32 KiB."""

    kind: Literal["deflate"] = "deflate"


@config
class LanguageModelConfig:
    """A causal language model that reads the history in its context."""

    kind: Literal["language_model"] = "language_model"
    model: str
    """Folder or hub id."""
    context: PositiveInt | None = None
    """Tokens that it reads at most; null for all that its positions hold."""


ObserverConfig: TypeAlias = Annotated[NGramConfig | DeflateConfig | LanguageModelConfig, Field(discriminator="kind")]
WalkConfig: TypeAlias = Annotated[GoalGridConfig | FourRoomsConfig | MazeConfig | WallsConfig, Field(discriminator="kind")]


@config
class RuleConfig:
    """When a stream is called novel or learnable."""

    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """Greatest probability of calling novel what is not, and of calling learnable what is not."""
    least: float = Field(default=0.05, ge=0, lt=1)
    """The share by which a history twice as long must lower the loss."""
    known: float = Field(default=0.15, ge=0, lt=1)
    """What costs at most this share of what it costs without a history is known, and need not become cheaper."""


@config
class Config:
    """Streams with known answers, and walks, judged by several observers."""

    kind: Literal["openended"] = "openended"
    seed: NonNegativeInt = 0
    """The first one."""
    seeds: PositiveInt = 20
    """How many streams of each kind."""
    artifacts: int = Field(default=960, ge=SHORTEST)
    """The horizon."""
    streams: tuple[str, ...] = tuple(KNOWN)
    """Those with known answers."""
    walks: dict[str, WalkConfig] = Field(default_factory=dict)
    """Environments in which a walker steps at random, by name; an artifact is the cells of an episode."""
    observers: dict[str, ObserverConfig] = Field(default={"n-gram": NGramConfig(), "deflate": DeflateConfig()}, min_length=1)
    rule: RuleConfig = RuleConfig()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.streams if name not in KNOWN]:
            raise ValueError(f"streams: found {unknown[0]!r}, expected some of {', '.join(KNOWN)}")


def observer_of(cfg: NGramConfig | DeflateConfig | LanguageModelConfig) -> Observer:
    """An observer that has read nothing; raises `ConfigError` where there is no such model."""
    match cfg:
        case NGramConfig():
            return NGram(cfg.order)
        case DeflateConfig():
            return Deflate()
        case LanguageModelConfig():
            try:
                return language_model(cfg.model, cfg.context)
            except ValueError as error:
                raise ConfigError(f"observer: {error}") from None


def losses(observer: Observer, texts: Sequence[str], per: str = "byte") -> list[list[float]]:
    """Bits per byte, or per artifact, that each text costs after each history, [histories][N - history]."""
    sizes = [num_bytes(text) if per == "byte" else 1 for text in texts]
    rows = replayed(observer, texts, histories(len(texts)))
    return [[bits / size for bits, size in zip(row, sizes[len(sizes) - len(row) :], strict=True)] for row in rows]


def along(rows: Sequence[Sequence[float]], places: int = PLACES) -> list[list[float | None]]:
    """Mean loss at even places along the horizon, [histories][places]; None where the history has not ended yet."""
    edges = np.linspace(0, len(rows[0]), places + 1).round().astype(int)
    found: list[list[float | None]] = []
    for row in rows:
        start = len(rows[0]) - len(row)
        parts = [row[max(0, a - start) : max(0, b - start)] for a, b in pairwise(edges)]
        found.append([float(np.mean(part)) if len(part) else None for part in parts])
    return found


def walked(cfg: WalkConfig, count: int, seed: int) -> list[str]:
    """The cells that a walker stands on in each of `count` episodes, stepping at random: "b3 b4 c4"."""
    draws = torch.Generator().manual_seed(seed)
    env = make_env(cfg, 1, layout_seed=seed)
    cell_of: Callable[[torch.Tensor], int] = lambda obs_BD: int(obs_BD[0, : cfg.n**2].argmax())  # noqa: E731 - the agent's plane is the first
    path, episodes = [cell_of(env.reset(draws))], list[list[int]]()
    while len(episodes) < count:
        obs_BD, _, terminated_B, truncated_B = env.step(torch.randint(env.num_actions, (1,), generator=draws))
        if bool(terminated_B | truncated_B):  # what is seen now belongs to the next episode
            episodes.append(path)
            path = []
        path.append(cell_of(obs_BD))
    return [" ".join(f"{chr(97 + cell // cfg.n)}{cell % cfg.n}" for cell in episode) for episode in episodes]


def streams_of(cfg: Config) -> dict[str, Callable[[int], list[str]]]:
    """Name -> the stream of a seed."""
    made: dict[str, Callable[[int], list[str]]] = {}
    for name in cfg.streams:
        made[name] = lambda seed, name=name: KNOWN[name][0](cfg.artifacts, random.Random(seed_for(seed, name)))  # type: ignore[misc]
    for name, env in cfg.walks.items():
        made[name] = lambda seed, name=name, env=env: walked(env, cfg.artifacts, seed_for(seed, name))  # type: ignore[misc]
    return made


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Judge what is not judged, then write the table, the picture and `result.json`."""
    run = RunFolder(out, cfg, resume=resume)
    done = {(row["stream"], row["seed"]) for row in run.metrics()}
    run.forget_after(len(done))
    for name, stream in streams_of(cfg).items():
        for seed in range(cfg.seed, cfg.seed + cfg.seeds):
            if (name, seed) in done:
                continue
            begun, texts, row = time.process_time(), stream(seed), dict[str, Any]()
            for called, observer in cfg.observers.items():
                loss = losses(observer_of(observer), texts)
                found = judge(loss, cfg.rule.alpha, cfg.rule.least, cfg.rule.known)
                row[called] = {"verdict": found.verdict, "p": [found.p_novel, found.p_learnable], "along": along(loss)}
            done.add((name, seed))
            run.log(len(done), {"stream": name, "seed": seed, "judged": row, "cpu_s": time.process_time() - begun})
    rows = run.metrics()
    write_atomic(out / "result.json", json.dumps(result_of(cfg, rows), indent=1) + "\n")
    write_atomic(out / "table.md", table_of(cfg, rows))
    first = next(iter(cfg.observers))
    panels = {name: _mean([row["judged"][first]["along"] for row in rows if row["stream"] == name]) for name in streams_of(cfg)}
    picture(out / "figure.png", panels, cfg.artifacts, f"bits per byte to {first}")
    print((out / "table.md").read_text())
    return 0


def result_of(cfg: Config, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The share of seeds judged right, by observer and known stream."""
    return {
        called: {
            name: float(np.mean([row["judged"][called]["verdict"] == KNOWN[name][1] for row in rows if row["stream"] == name]))
            for name in cfg.streams
        }
        for called in cfg.observers
    }


def table_of(cfg: Config, rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: how often each verdict was given, and the largest and smallest p of both claims."""
    lines = ["| stream | should be | observer | verdicts | p novel | p learnable |", "|---" * 6 + "|"]
    for name in (*cfg.streams, *cfg.walks):
        for called in cfg.observers:
            mine = [row["judged"][called] for row in rows if row["stream"] == name]
            given = [one["verdict"] for one in mine]
            counts = ", ".join(
                f"{verdict} {given.count(verdict)}/{len(given)}" for verdict in dict.fromkeys(sorted(given, key=given.count)[::-1])
            )
            spans = [f"{min(values):.1g} to {max(values):.1g}" for values in zip(*(one["p"] for one in mine))]
            lines.append(f"| {name} | {KNOWN[name][1] if name in KNOWN else ''} | {called} | {counts} | {' | '.join(spans)} |")
    return "\n".join(lines) + "\n"


def _mean(curves: Sequence[Sequence[Sequence[float | None]]]) -> list[list[float | None]]:
    """The mean of several streams' curves, which have their gaps at the same places."""
    return [[None if values[0] is None else float(np.mean(values)) for values in zip(*lines)] for lines in zip(*curves)]


def picture(path: Path, panels: Mapping[str, Sequence[Sequence[float | None]]], count: int, label: str) -> None:
    """For each stream what an artifact costs along the horizon, a line for each observer by how much it knows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    size = (7, 4.2) if len(panels) == 1 else (3.1 * columns, 2.5 * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for number, (axis, (name, curves)) in enumerate(zip(axes.flat, panels.items())):
        places = (np.arange(len(curves[0])) + 0.5) * count / len(curves[0])
        for i, (eighths, curve) in enumerate(zip(HISTORIES, curves, strict=True)):
            y = np.array([np.nan if value is None else value for value in curve])
            axis.plot(places, y, ".-", color=COLOURS[i % len(COLOURS)], lw=1.2, markersize=3, label=str(count * eighths // 8))
        axis.set_title(name, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
        if number % columns == 0:
            axis.set_ylabel(label, fontsize=8)
        if number >= len(panels) - columns:
            axis.set_xlabel("artifact", fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="artifacts known", loc="outside right upper", fontsize=8, title_fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def read_stream(paths: Sequence[Path], field: str) -> list[str]:
    """The text at `field` of every row, a dotted path with places in lists as numbers; raises `DataError` naming file and line."""
    return [_text_at(where, row, field) for path in paths for where, row in read_objects(path)]


def _text_at(where: str, row: dict[str, Any], field: str) -> str:
    value: Any = row
    for key in field.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise DataError(f"{where}: has no {field!r}; the row has {', '.join(map(repr, row)) or 'no fields'}: name another --field")
    if not isinstance(value, str):
        raise DataError(f"{where}: {field!r} is {type(value).__name__}, expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: {field!r} holds half a character (a lone surrogate), which is no text") from None
    return value


def told(found: Judgement, unit: str) -> str:
    """A judgement as Markdown."""
    lines = [f"| artifacts known | next third, {unit} | middle third | last third | rise [95%] | p |", "|---" * 6 + "|"]
    for rise in found.rises:
        thirds = " | ".join(f"{third:.3f}" for third in rise.thirds)
        lines.append(f"| {rise.history} | {thirds} | {rise.rise[0]:+.3f} [{rise.rise[1]:+.3f}, {rise.rise[2]:+.3f}] | {rise.p:.2g} |")
    lines += ["", "| artifacts asked about | nothing known | half of those before | all before | fall [95%] | p |", "|---" * 6 + "|"]
    for fall in found.falls:
        costs = f"{fall.fresh:.3f} | {fall.half:.3f} | {fall.whole:.3f}"
        share = f"{fall.fall[0]:.1%} [{fall.fall[1]:.1%}, {fall.fall[2]:.1%}]" + (" (known)" if fall.known else "")
        lines.append(f"| {fall.history + 1} to {fall.end} | {costs} | {share} | {fall.p:.2g} |")
    lines += [
        "",
        f"novel: p {found.p_novel:.2g} · learnable: p {found.p_learnable:.2g} · within this horizon, to this observer: {found.verdict}",
    ]
    return "\n".join(lines) + "\n"


def cli(argv: Sequence[str]) -> int:
    """`posttrain openended`; raises `ConfigError`, `DataError`."""
    parser = argparse.ArgumentParser(prog="posttrain openended", description="Judge whether a stream of texts is novel and learnable.")
    parser.add_argument("stream", nargs="+", type=Path, help="JSON Lines, an artifact each, in order; several files are one stream")
    parser.add_argument("--field", default="text", help="where in a row the text is, e.g. question or turns.0.text (default: text)")
    parser.add_argument("--observer", choices=("ngram", "deflate", "language_model"), default="ngram")
    parser.add_argument("--order", type=int, default=4, help="longest context of the n-gram, bytes (default: 4)")
    parser.add_argument("--model", help="folder or hub id of the language model")
    parser.add_argument("--context", type=int, help="tokens that the language model reads at most")
    parser.add_argument("--horizon", type=int, help="judge this many artifacts; default: all")
    parser.add_argument("--thin", type=int, default=1, help="take every n-th artifact only")
    parser.add_argument("--per", choices=("byte", "artifact"), default="byte", help="what the loss is counted by")
    for name in ("alpha", "least", "known"):
        parser.add_argument(f"--{name}", type=float, default=getattr(RuleConfig(), name), help="of the rule (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for judgement.json and figure.png; default: runs/openended/NAME")
    args = parser.parse_args(argv)
    if args.observer == "language_model" and not args.model:
        raise ConfigError("--observer language_model needs --model, a folder or hub id")
    given = {"ngram": {"order": args.order}, "deflate": {}, "language_model": {"model": args.model, "context": args.context}}[args.observer]
    rule = build(RuleConfig, [("flags", {name: getattr(args, name) for name in ("alpha", "least", "known")})])
    kind: Any = {"ngram": NGramConfig, "deflate": DeflateConfig, "language_model": LanguageModelConfig}[args.observer]
    observer = observer_of(build(kind, [("flags", given)]))
    if args.thin < 1 or (args.horizon is not None and args.horizon < SHORTEST):
        raise ConfigError(f"--thin must be 1 or more and --horizon {SHORTEST} or more, as fewer artifacts prove nothing")
    texts = read_stream(args.stream, args.field)[:: args.thin][: args.horizon]
    if len(texts) < SHORTEST:
        raise DataError(f"{args.stream[0]}: holds {len(texts)} artifacts to judge, expected {SHORTEST} or more")
    try:
        loss = losses(observer, texts, args.per)
    except ValueError as error:
        raise DataError(f"{args.stream[0]}: {error}") from None
    found = judge(loss, rule.alpha, rule.least, rule.known)
    out = args.out or Path("runs", "openended", args.stream[0].stem)
    out.mkdir(parents=True, exist_ok=True)
    unit = f"bits per {args.per}"
    write_atomic(out / "judgement.json", json.dumps({"artifacts": len(texts), "unit": unit, **_plain(found)}, indent=1) + "\n")
    picture(out / "figure.png", {args.stream[0].stem: along(loss)}, len(texts), unit)
    print(f"{len(texts)} artifacts\n\n{told(found, unit)}\nThe same in {out / 'judgement.json'}, the picture: {out / 'figure.png'}")
    return 0


def _plain(found: Judgement) -> dict[str, Any]:
    """As JSON takes it: every part by its name."""
    rows = {
        "rises": [each._asdict() for each in found.rises],
        "falls": [{**each._asdict(), "known": bool(each.known)} for each in found.falls],
    }
    return {**found._asdict(), **rows}
