"""`posttrain eval SUITE.yaml --model M` for suites of `kind: icl`: what more shots buy (arXiv 2404.11018).

    OUT/config.yaml · provenance.json · answers.jsonl (grows chunk by chunk) · summary.json · report.html · curves.png

Shots x seeds x orders x arms. All items behind one prefix are asked together, and prefixes grow, so that the engine reads each shot about
once: the cost of an item is that of its own tokens. For each item the answer is graded, and the likelihood of the reference answer is
taken from the same prefix. The same command goes on where an interrupted one stopped.
"""

import dataclasses
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from posttrain.config import ConfigError, config
from posttrain.evaluation.icl import page
from posttrain.evaluation.icl.ask import Asking, Shown, ask
from posttrain.evaluation.icl.curves import curves_of
from posttrain.evaluation.icl.log import Cell, Cost, Log, Row
from posttrain.evaluation.model import identity, load_engine, open_tokenizer
from posttrain.evaluation.run import claim
from posttrain.progress import progress_bar
from posttrain.prompting.manyshot import Shape
from posttrain.prompting.order import Order
from posttrain.prompting.selection import Rules
from posttrain.prompting.shots import InContextTask, PromptError
from posttrain.run import seed_for, write_atomic
from posttrain.sampling.engine import EngineConfig, HFEngineConfig
from posttrain.schema import plain
from posttrain.tasks import manyshot
from posttrain.tasks.icl import InContextTaskConfig
from posttrain.tasks.manyshot import Method, SeedPrompts
from posttrain.types import Engine, Problem, TokenIds


@config
class Arm:
    """One curve: a task, and what its prompts hold (`tasks/manyshot.py`)."""

    task: InContextTaskConfig | None = None
    """Another task than the suite's: other labels, other data. null takes the suite's."""
    method: Method = "human"
    """few_shot: the benchmark's own prompt; human: the pool's solutions; reinforced: the model's right ones; unsupervised: no answers."""
    rationales: tuple[str, ...] = ()
    """For reinforced: files of shots made by `posttrain prompt reinforce`."""
    layout: dict[str, str] = Field(default_factory=dict)
    """Texts of the task's layout to replace."""
    order: Order = "random"
    """Of the shots that a seed drew."""
    subset: str | None = None
    """A file of shot ids, one a line: these shots, in this order, instead of a draw."""
    tail: int = Field(default=0, ge=0)
    """So many shots most like the item go between the shared block and the item."""
    solved: int = Field(default=0, ge=0, le=4)
    """For unsupervised: so many solved shots of the benchmark's own prompt show how to answer."""


@config
class Suite:
    """Accuracy and likelihood over the number of shots."""

    kind: Literal["icl"] = "icl"
    title: str = "What do more shots buy?"
    task: InContextTaskConfig
    arms: dict[str, Arm] = Field(default_factory=lambda: {"many-shot": Arm()})
    """Name -> curve."""
    shots: tuple[int, ...] = Field(min_length=1)
    """How many shots to show, each once, in any order; 0 is the bare item."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Each draws its own shots, nested over their number, and new data where the task generates them (`data_seed`)."""
    shape: Shape = "raw"
    """Plain text; that text as one message of a user; or each shot as a user's and an assistant's turn."""
    rules: Rules = Rules()
    """What keeps a shot out of the pool."""
    orders: int = Field(default=1, ge=1)
    """Random orders of the very same shots; the first is the one that nests."""
    items: int | None = Field(default=None, ge=1)
    """Only so many test items, drawn once, the same everywhere; null for all."""
    answers: Literal["generate", "choose"] = "generate"
    """Sampled, or the likeliest of the task's choices."""
    nll: bool = True
    """Also take the likelihood of the reference answer; needs an engine that scores."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy, as in the paper."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Per answer; null takes the task's."""
    engine: EngineConfig = HFEngineConfig()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights in the engine; auto is the checkpoint's own."""
    chunk: int = Field(default=256, ge=1)
    """Items asked together, and the most that an interruption loses."""
    baselines: bool = True
    """Also what other learners make of the same shots and items, where the task has any."""

    def __post_init__(self) -> None:
        for name, values in (("shots", self.shots), ("seeds", self.seeds)):
            if len(set(values)) < len(values) or min(values) < 0:
                raise ValueError(f"{name}: expected different numbers from 0, got {list(values)}")
        if not self.arms:
            raise ValueError("arms: expected at least one")


@dataclass(frozen=True, kw_only=True)
class Data:
    """What one arm has under one seed: its prompts, and the items to ask."""

    cfg: manyshot.Config
    task: InContextTask
    made: SeedPrompts
    items: list[Problem]
    pool: dict[str, Problem]
    """Where shots are solved problems: those, by id."""

    def shown(self, cell: Cell) -> Shown:
        """The prompts of the cell: in the order that nests, or the very same shots in another one."""
        prompt = self.made.prompt
        if cell.order:
            places = list(range(cell.shots))
            random.Random(seed_for("order", cell.seed, cell.shots, cell.order)).shuffle(places)
            prompt = prompt.permuted(places)
        return Shown(task=self.task, prompt=prompt, tail=lambda problem: self.made.tail(problem, self.cfg.tail))


def run(suite: Suite, name: str, model: str, out: Path) -> int:
    """Ask what `out` lacks, then write the table, the pictures and the page. Raises `ConfigError`, `DataError`, `EngineError`."""
    began = time.monotonic()
    tokenizer, eos_ids = open_tokenizer(model)
    tokens = manyshot.tokens_of(tokenizer, suite.shape, model)
    data = {  # all prompts are made before a model is loaded
        (arm, seed): each for arm in suite.arms for seed, each in zip(suite.seeds, _data(suite, arm, tokens))
    }
    stops = any(each.task.stop for each in data.values())
    engine = load_engine(suite.engine, model, eos_ids, tokenizer.pad_token_id, suite.dtype, text_stops=stops)
    try:
        _check_engine(suite, data, engine)
        claim(out, {"model": identity(model), **plain(suite)})
        log = Log(out)
        _fill(suite, data, engine, tokenizer, log, name)
    finally:
        engine.close()
    curves = curves_of(log.rows, log.costs)
    summary = {"model": model, "suite": name, "metric": next(iter(data.values())).task.metric, "figures": _figures(data, log.rows)}
    write_atomic(out / "summary.json", json.dumps(summary | curves.as_record(), indent=1) + "\n")
    page.write(out / "report.html", [(name, out)], title=suite.title)
    page.write_figure(out / "curves.png", [(name, out)])
    print(f"{name}: {model}\n{page.table(curves)}\n{time.monotonic() - began:.0f} s; the page to read: {out / 'report.html'}")
    return 0


def cells(suite: Suite, data: dict[tuple[str, int], Data]) -> Iterator[Cell]:
    """Every cell, so that what is read for one serves the next: prefixes of an arm and seed grow, then come the other orders."""
    for seed in suite.seeds:
        for arm in suite.arms:
            for order in range(suite.orders):
                for num in sorted(data[arm, seed].made.sizes):
                    if order == 0 or num > 1:  # fewer shots have one order only
                        yield Cell(arm, num, seed, order)


def _fill(suite: Suite, data: dict[tuple[str, int], Data], engine: Engine, tokenizer: Any, log: Log, name: str) -> None:
    """Ask every item of every cell that the log lacks, cell by cell."""
    todo = list(cells(suite, data))

    def decode(ids: TokenIds) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=True)

    with progress_bar(sum(len(data[c.arm, c.seed].items) for c in todo), name, "item") as bar:
        for cell in todo:
            at = data[cell.arm, cell.seed]
            items = [item for item in at.items if item.id not in log.done.get(cell, ())]
            bar.update(len(at.items) - len(items))
            how = Asking(
                engine=engine,
                decode=decode,
                answers=suite.answers,
                nll=suite.nll,
                temperature=suite.temperature,
                max_tokens=suite.max_tokens or at.task.max_tokens,
            )
            for start in range(0, len(items), suite.chunk):
                rows, cost = ask(how, at.shown(cell), cell, items[start : start + suite.chunk])
                log.append(rows, cost)
                bar.update(len(rows))
            if suite.baselines and cell.order == 0 and cell.shots and at.pool:
                _baselines(at, cell, log, suffix=f", {cell.arm}" if len(suite.arms) > 1 else "")


def _baselines(at: Data, cell: Cell, log: Log, suffix: str) -> None:
    """What other learners make of the same shots and items."""
    shots = [at.pool[shot.problem or shot.id] for shot in at.made.prompt.shots[: cell.shots]]
    for name, learner in at.task.baselines.items():
        where = cell._replace(arm=name + suffix)
        items = [item for item in at.items if item.id not in log.done.get(where, ())]
        if items:
            values = learner(shots, items)
            rows = [
                Row(**where._asdict(), item=item.id, subject=item.subject, score=value, baseline=True)
                for item, value in zip(items, values, strict=True)
            ]
            log.append(rows, Cost(**where._asdict(), items=0))


def _data(suite: Suite, arm: str, tokens: manyshot.Tokens) -> Iterator[Data]:
    """The data of an arm under each seed; raises `ConfigError` where its prompts cannot be made, and `DataError`."""
    fields = {field.name: getattr(suite.arms[arm], field.name) for field in dataclasses.fields(Arm)}
    fields |= {"task": suite.arms[arm].task or suite.task, "shape": suite.shape, "rules": suite.rules}
    fields["shots"] = None if fields["method"] in ("zero_shot", "few_shot") else suite.shots
    own = fields["task"]
    drawn_anew = hasattr(own, "data_seed")
    for i, seed in enumerate(suite.seeds):
        try:
            if drawn_anew:
                fields["task"] = dataclasses.replace(own, data_seed=own.data_seed + seed)
            cfg = manyshot.Config(**fields, seeds=(seed,))
            if drawn_anew or i == 0:
                task = manyshot.task_of(cfg)
                test = task.load("test")
                selection = manyshot.pool(cfg, task, test, tokens.encode)
                pool = {problem.id: problem for problem in task.load("pool")} if cfg.method == "human" else {}
                items = _chosen(test, suite.items)
            (made,) = manyshot.prompts(cfg, task, selection, items, tokens)
        except (PromptError, ValidationError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise ConfigError(f"arms.{arm}: {said}") from None
        yield Data(cfg=cfg, task=task, made=made, items=items, pool=pool)


def _chosen(test: list[Problem], num: int | None) -> list[Problem]:
    """So many test items, the same ones for every arm, seed and model."""
    if num is None or num >= len(test):
        return test
    chosen = set(random.Random(0).sample(range(len(test)), num))
    return [item for i, item in enumerate(test) if i in chosen]


def _check_engine(suite: Suite, data: dict[tuple[str, int], Data], engine: Engine) -> None:
    scores = suite.nll or suite.answers == "choose" or any(each.task.weigh for each in data.values())
    if scores and not hasattr(engine, "score"):
        raise ConfigError(f"engine.kind {suite.engine.kind} cannot score given text; set nll to false and answers to generate")
    for (arm, _), each in data.items():
        if suite.answers == "choose" and not each.task.choices:
            raise ConfigError(f"arms.{arm}: answers is choose, but {each.task.name} has no set of choices; set answers to generate")


def _figures(data: dict[tuple[str, int], Data], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What tasks say of all items of a cell together: corpus metrics, and what the choices' probabilities are worth."""
    by_cell: dict[Cell, list[Row]] = {}
    for row in rows:
        if not row.baseline and not row.too_long:
            by_cell.setdefault(row.cell, []).append(row)
    found = []
    for cell, group in by_cell.items():
        task, items = data[cell.arm, cell.seed].task, {item.id: item for item in data[cell.arm, cell.seed].items}
        texts = [(items[row.item], row.text) for row in group]
        figures = {} if task.corpus is None else {task.metric: task.corpus(texts)}
        figures |= task.figures(texts) if task.figures else {}
        figures |= task.weigh([(items[row.item], row.choices) for row in group]) if task.weigh else {}
        if figures:
            found.append({**cell._asdict(), **figures})
    return found
