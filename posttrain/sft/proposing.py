"""A model proposes problems, another learns to solve them: a growing curriculum of what is valid, new and learnable (arXiv 2406.04268).

Every round
    propose     texts are drawn from the proposer
    keep        what the task reads as a problem with one answer and not in its test set (valid), what costs an n-gram observer of all
                earlier problems enough bits (new), and what the solver gets right neither never nor always (learnable)
    solve       the solver is trained on its own right answers to all problems kept so far (STaR, arXiv 2203.14465)
    go on       the proposer is trained on the problems kept last

and the solver is asked held-out problems of several lengths. Without `filters` every valid problem is kept; with `source: fixed` problems
come from the seed problems instead, as many and with as many samples and updates: the two controls. The loop ends at the first of
`limits`. Nothing is kept or refused unseen: every text drawn is in proposals.jsonl with the reason.

    RUN/problems.jsonl (kept; `task.train_file` of kind sums reads it) · RUN/round_1/proposals.jsonl · solver · proposer · round.json · ...
    RUN/model (the last solver) · RUN/result.json
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, PositiveInt

from posttrain.agents.kernel.observers import NGram, num_bytes
from posttrain.config import config
from posttrain.evaluation.model import open_chat
from posttrain.rollout.problems import draw_problems
from posttrain.rollout.self_correct import Rollout, self_correct
from posttrain.run import RunFolder, read_jsonl, seed_for, write_atomic
from posttrain.sampling.engine import HFEngineConfig, VLLMEngineConfig, open_engine
from posttrain.sft.fit import IGNORED, FitConfig, fit, load_model, rows_of, save
from posttrain.tasks import make_task, sums
from posttrain.tasks.sums import SumsTask
from posttrain.types import Episode, Message, Problem, Sampling

ASK = [Message(role="user", content="Ask.")]  # short, as small tokenizers fall back to bytes


@config
class Filters:
    """What a valid problem must be to be kept."""

    new: float = Field(default=1.5, ge=0)
    """Least bits per byte that it costs an n-gram that has read the seed problems and all problems before it."""
    rates: tuple[float, float] = (0.1, 0.9)
    """Least and greatest share of the solver's samples that are right."""

    def __post_init__(self) -> None:
        if not 0 <= self.rates[0] <= self.rates[1] <= 1:
            raise ValueError(f"rates: expected two shares in order, got {self.rates}")


@config
class Limits:
    """Where the loop ends, whatever comes of it."""

    rounds: PositiveInt = 6
    tokens: PositiveInt = 10_000_000
    """Sampled by proposer and solver together; looked at between rounds."""
    kept: PositiveInt = 10_000
    """Problems; what is proposed beyond is refused."""
    least: int = Field(default=1, ge=0)
    """A round that keeps fewer is the last one: the curriculum is exhausted."""


@config
class Held:
    """What the solver is asked after every round."""

    lengths: tuple[PositiveInt, ...] = (4, 5, 6, 7, 8)
    problems: PositiveInt = 200
    """Of each length, from the test split, decoded greedily."""


@config
class Config:
    """A curriculum that a model proposes, and the solver that is trained on it."""

    kind: Literal["proposer"] = "proposer"
    model: str
    """Folder or hub id of the first solver."""
    proposer: str | None = None
    """Folder or hub id of the first proposer; null for the solver's."""
    task: SumsTask
    """Says what a problem is; its `numbers` is not read."""
    lengths: tuple[PositiveInt, ...] = (3, 4, 5)
    """Lengths of the seed problems' lists."""
    seeds: PositiveInt = 500
    """Seed problems of each length, from the training split."""
    source: Literal["proposer", "fixed"] = "proposer"
    """fixed takes the seed problems, in turn, in place of proposed ones."""
    draws: PositiveInt = 2000
    """Texts that the proposer draws in a round."""
    max_tokens: PositiveInt = 40
    """Of a text."""
    temperature: float = Field(default=1.2, gt=0)
    """Of the proposer; the solver samples at 1."""
    candidates: PositiveInt = 256
    """Problems of a round that the solver tries, at most."""
    samples: PositiveInt = 8
    """Its answers to each."""
    answer_tokens: PositiveInt = 8
    filters: Filters | None = Filters()
    """null keeps whatever is valid."""
    memory: PositiveInt = 400
    """The problems kept last that the proposer is trained on."""
    limits: Limits = Limits()
    held: Held = Held()
    first: FitConfig
    """How the proposer learns the seed problems."""
    fit: FitConfig
    """How the solver is trained in a round."""
    follow: FitConfig
    """How the proposer is trained in a round."""
    engine: HFEngineConfig | VLLMEngineConfig = Field(default=HFEngineConfig(), discriminator="kind")
    seed: int = 0

    def __post_init__(self) -> None:
        if self.source == "fixed" and self.filters:
            raise ValueError("source: fixed problems are not filtered: set filters to null")
        for length in (*self.lengths, *self.held.lengths):
            if not self.task.pick < length <= self.task.largest:
                raise ValueError(f"lengths must lie above pick = {self.task.pick} and within largest = {self.task.largest}, got {length}")


class Proposal(NamedTuple):
    """A text with what became of it."""

    text: str
    why: str
    problem: Problem | None = None
    loss: float | None = None
    """bits per byte to the observer"""
    rate: float | None = None
    """share of the solver's samples that were right"""
    kept: bool = False


class Round(NamedTuple):
    proposals: list[Proposal]
    episodes: list[Episode]
    """the solver's, of all candidates"""
    tokens: int


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Run rounds into `out` until a limit; under `resume` finished rounds are left as they are. Raises `ConfigError`, `DataError`."""
    seeds = seed_problems(cfg)
    for model in (cfg.model, *([cfg.proposer] if cfg.proposer else [])):
        open_chat(model)  # before the folder is taken
    folder = RunFolder(out, cfg, resume=resume)
    done = next(n for n in range(cfg.limits.rounds + 1) if not (out / f"round_{n + 1}" / "round.json").exists())
    folder.forget_after(done * cfg.fit.steps)
    _first(cfg, out, seeds)
    while not (ended := why_ended(cfg, rounds_of(out))):
        done += 1
        _round(cfg, folder, _anew(out / f"round_{done}"), done, seeds)
    rounds = rounds_of(out)
    if not (out / "model").is_dir():
        shutil.copytree(out / f"round_{done}" / "solver", out / ".model.tmp", dirs_exist_ok=True)
        (out / ".model.tmp").rename(out / "model")
    last = rounds[-1]
    found = {"rounds": done, "kept": sum(row["kept"] for row in rounds), "tokens": sum(row["tokens"] for row in rounds), "ended": ended}
    write_atomic(out / "result.json", json.dumps(found | {"held": last["held"], "before": rounds[0]["held"]}, indent=1) + "\n")
    print(f"{out}: {done} rounds, {found['kept']} problems kept, ended as {ended}; held-out accuracy by length: {last['held']}")
    return 0


def why_ended(cfg: Config, rounds: Sequence[dict[str, Any]]) -> str | None:
    """The limit that the finished rounds have reached, None where there is a next round; the first row is before any round."""
    if len(rounds) > 1 and rounds[-1]["kept"] < cfg.limits.least:
        return f"round {len(rounds) - 1} kept {rounds[-1]['kept']} problems"
    for name, at in (("tokens", sum(row["tokens"] for row in rounds)), ("kept", sum(row["kept"] for row in rounds))):
        if at >= getattr(cfg.limits, name):
            return f"limits.{name} was reached"
    return "limits.rounds was reached" if len(rounds) > cfg.limits.rounds else None


def rounds_of(out: Path) -> list[dict[str, Any]]:
    """What round.json of every finished round says, the first being what there was before any."""
    found: list[dict[str, Any]] = []
    while (file := out / f"round_{len(found)}" / "round.json").exists():
        found.append(json.loads(file.read_text()))
    return found


def seed_problems(cfg: Config) -> list[Problem]:
    """The problems that are there from the start, of all lengths alike."""
    splits = [sums.load(replace(cfg.task, numbers=length, train_size=cfg.seeds, train_file=None), "train") for length in cfg.lengths]
    return [problem for row in zip(*splits, strict=True) for problem in row]


def _first(cfg: Config, out: Path, seeds: Sequence[Problem]) -> None:
    """Round 0: the solver as it is, asked the held-out problems, and the proposer taught the seed problems."""
    if (out / "round_0" / "round.json").exists():
        return
    part = _anew(out / "round_0")
    save(*load_model(cfg.model), part / "solver")
    if cfg.source == "proposer":
        _teach(cfg, cfg.proposer or cfg.model, [problem.question for problem in seeds], cfg.first, part, 0)
    row = {"kept": 0, "tokens": 0, "held": held_out(cfg, str(part / "solver"))}
    write_atomic(part / "round.json", json.dumps(row) + "\n")


def _anew(part: Path) -> Path:
    """The folder of a round, empty: of a round that a kill cut short nothing is kept, and it comes out the same again."""
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    return part


def _round(cfg: Config, folder: RunFolder, part: Path, number: int, seeds: Sequence[Problem]) -> None:
    """One round, and its files; round.json, the last one, says that it is finished."""
    out, before = part.parent, part.parent / f"round_{number - 1}"
    earlier = list(kept_in(out, number))
    room = cfg.limits.kept - len(earlier)
    made = propose(cfg, before, number, seeds, [row["question"] for row in earlier], room)
    write_atomic(part / "proposals.jsonl", "".join(json.dumps(_row(proposal)) + "\n" for proposal in made.proposals))
    kept = [proposal for proposal in made.proposals if proposal.kept]
    again = [*earlier, *(_problem_row(proposal, number) for proposal in kept)]
    rows = list({row["id"]: row for row in again}.values())  # a fixed set comes round, a file of problems asks each once
    write_atomic(out / "problems.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    keeps = {proposal.problem.id for proposal in kept if proposal.problem}
    right = {e.problem.id: e for e in made.episodes if e.problem.id in keeps and e.turns[0].verdict.correct}
    traces = [*_traces(out, number), *rows_of(list(right.values()), (1,))]
    write_atomic(part / "traces.jsonl", "".join(json.dumps(row) + "\n" for row in traces[len(traces) - len(right) :]))
    model, tokenizer = load_model(str(before / "solver"))
    if traces:
        after = (number - 1) * cfg.fit.steps
        fit(model, tokenizer, traces, cfg.fit, seed=seed_for(cfg.seed, number) % 2**31, folder=folder, after=after)
    save(model, tokenizer, part / "solver")
    if cfg.source == "proposer":
        texts = [row["question"] for row in rows[-cfg.memory :]] or [problem.question for problem in seeds]
        _teach(cfg, str(before / "proposer"), texts, cfg.follow, part, number)
    held = held_out(cfg, str(part / "solver"))
    counts = Counter(proposal.why.partition(":")[0] for proposal in made.proposals)
    levels = Counter(proposal.problem.level for proposal in kept if proposal.problem)
    row = {"kept": len(kept), "trained_on": len(traces), "tokens": made.tokens, "held": held, "why": dict(counts), "lengths": dict(levels)}
    folder.log(number * cfg.fit.steps, {"round": number, "kept": len(kept), **{f"held/{length}": x for length, x in held.items()}})
    write_atomic(part / "round.json", json.dumps(row) + "\n")


def propose(cfg: Config, before: Path, number: int, seeds: Sequence[Problem], earlier: Sequence[str], room: int) -> Round:
    """The round's proposals, each kept or refused, with the solver's answers to those that it tried."""
    if cfg.source == "fixed":
        drawn = draw_problems(seeds, cfg.candidates, number, cfg.seed)
        texts, tokens = [problem.question for problem in drawn], 0
    else:
        texts, tokens = _drawn(cfg, before / "proposer", number)
    observer, known = NGram(), set[str]()
    for text in [*(problem.question for problem in seeds), *earlier]:
        observer.learn(text)
    if cfg.source == "proposer":
        known = {problem.id for problem in seeds} | {p.id for text in earlier if isinstance(p := sums.posed(cfg.task, text), Problem)}
    proposals: list[Proposal] = []
    tried: dict[str, int] = {}
    for text in texts:
        proposals.append(_looked_at(cfg, text, known, observer, len(tried)))
        if (problem := proposals[-1].problem) is not None:
            tried[problem.id] = len(proposals) - 1
            known.add(problem.id)
            observer.learn(problem.question)
    candidates = [problem for at in tried.values() if (problem := proposals[at].problem)]
    episodes = _solved(cfg, before / "solver", candidates, number)
    right = Counter(episode.problem.id for episode in episodes if episode.turns[0].verdict.correct)
    for name, at in tried.items():
        proposals[at] = _judged(cfg, proposals[at], right[name], room)
        room -= proposals[at].kept
    return Round(proposals, episodes, tokens + sum(len(episode.turns[0].completion.ids) for episode in episodes))


def _looked_at(cfg: Config, text: str, known: set[str], observer: NGram, tried: int) -> Proposal:
    """The text as a candidate, with its problem, or refused."""
    problem = sums.posed(cfg.task, text)
    if isinstance(problem, str):
        return Proposal(text, f"not valid: {problem}")
    if problem.id in known:
        return Proposal(text, "not new: asked before")
    loss = observer.bits(problem.question) / num_bytes(problem.question)
    if cfg.filters and loss < cfg.filters.new:
        return Proposal(text, f"not new: costs the observer {loss:.2f} bits a byte", loss=loss)
    if tried >= cfg.candidates:
        return Proposal(text, "not tried: enough candidates", loss=loss)
    return Proposal(text, "", problem, loss)


def _judged(cfg: Config, proposal: Proposal, right: int, room: int) -> Proposal:
    """A candidate kept or refused by how often the solver was right."""
    rate, said = right / cfg.samples, f"solved {right} times of {cfg.samples}, costs the observer {proposal.loss:.2f} bits a byte"
    if cfg.filters and not cfg.filters.rates[0] <= rate <= cfg.filters.rates[1]:
        return proposal._replace(why=f"not learnable: {said}", rate=rate)
    if room <= 0:
        return proposal._replace(why=f"limit: {said}; limits.kept was reached", rate=rate)
    return proposal._replace(why=f"kept: {said}", rate=rate, kept=True)


def _drawn(cfg: Config, proposer: Path, number: int) -> tuple[list[str], int]:
    """Texts of the proposer, and how many tokens they took."""
    chat, pad_id = open_chat(str(proposer))
    engine = open_engine(cfg.engine, str(proposer), eos_ids=chat.eos_ids, pad_id=pad_id, dtype="float32")
    try:
        of = [seed_for(cfg.seed, "propose", number, i) for i in range(cfg.draws)]
        sampling = Sampling(max_tokens=cfg.max_tokens, temperature=cfg.temperature)
        made = engine.generate([chat.ask(ASK)] * cfg.draws, sampling, of)
    finally:
        engine.close()
    return [chat.text(completion.ids) for completion in made], sum(len(completion.ids) for completion in made)


def _solved(cfg: Config, solver: Path, problems: Sequence[Problem], number: int) -> list[Episode]:
    """`samples` answers to each problem."""
    how = Rollout(sampling=Sampling(max_tokens=cfg.answer_tokens), attempts=1, samples=cfg.samples, seed=cfg.seed, step=number)
    return _asked(cfg, str(solver), problems, how) if problems else []


def held_out(cfg: Config, solver: str) -> dict[str, float]:
    """The share of held-out problems that are solved greedily, by the length of their lists."""
    found = {}
    how = Rollout(sampling=Sampling(max_tokens=cfg.answer_tokens, temperature=0.0), attempts=1)
    for length in cfg.held.lengths:
        problems = sums.load(replace(cfg.task, numbers=length, test_size=cfg.held.problems), "test")
        episodes = _asked(cfg, solver, problems, how)
        found[str(length)] = sum(episode.turns[0].verdict.correct for episode in episodes) / len(episodes)
    return found


def _asked(cfg: Config, model: str, problems: Sequence[Problem], how: Rollout) -> list[Episode]:
    chat, pad_id = open_chat(model)
    engine = open_engine(cfg.engine, model, eos_ids=chat.eos_ids, pad_id=pad_id, dtype="float32")
    try:
        return self_correct(problems, make_task(cfg.task), engine, chat, how)
    finally:
        engine.close()


def _teach(cfg: Config, model_folder: str, texts: Sequence[str], how: FitConfig, part: Path, number: int) -> None:
    """Train a proposer to write such texts, into part/proposer."""
    chat, _ = open_chat(model_folder)
    model, tokenizer = load_model(model_folder)
    ask, end = chat.ask(ASK), chat.eos_ids[0]
    told = [[*chat.encode(text), end] for text in texts]
    rows = [{"input_ids": [*ask, *ids], "labels": [IGNORED] * len(ask) + ids} for ids in told]
    fit(model, tokenizer, rows, how, seed=seed_for(cfg.seed, "proposer", number) % 2**31, folder=RunFolder(part / "proposing", cfg))
    save(model, tokenizer, part / "proposer")


def kept_in(out: Path, before: int) -> Iterator[dict[str, Any]]:
    """Rows of the problems that the rounds before that one kept."""
    for number in range(1, before):
        for row in read_jsonl(out / f"round_{number}" / "proposals.jsonl"):
            if row["kept"]:
                yield {"round": number, **row["problem"], **{key: row[key] for key in ("loss", "rate", "why")}}


def _traces(out: Path, before: int) -> list[dict[str, list[int]]]:
    """The rows that the solver was given in the rounds before that one."""
    return [row for number in range(1, before) for row in read_jsonl(out / f"round_{number}" / "traces.jsonl")]


def _row(proposal: Proposal) -> dict[str, Any]:
    problem = proposal.problem
    asks = {"id": problem.id, "question": problem.question, "level": problem.level} if problem else None
    return {**proposal._asdict(), "problem": asks}


def _problem_row(proposal: Proposal, number: int) -> dict[str, Any]:
    row = _row(proposal)
    return {"round": number, **row["problem"], **{key: row[key] for key in ("loss", "rate", "why")}}
