"""`posttrain prompt reinforce`: a model's own right answers to training problems, as shots (Reinforced ICL, arXiv 2404.11018, sec. 3).

    OUT/config.yaml · provenance.json · rationales.jsonl (every sample with its score; grows chunk by chunk) · shots.jsonl · yield.json

An answer is kept for its final answer alone: no step is checked, so a lucky one is kept too. A second iteration starts from a prompt of
the first one's shots and takes only the problems that the first left unsolved. Stored evaluations are a source as well, with no sampling.
"""

import argparse
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from posttrain.config import ConfigError, config, load
from posttrain.evaluation.model import identity
from posttrain.evaluation.run import claim
from posttrain.evaluation.suite import EvalSampling
from posttrain.progress import progress_bar
from posttrain.prompting.chat import eos_ids_of
from posttrain.prompting.manyshot import ManyShotPrompt, Shape, build
from posttrain.prompting.order import shuffled
from posttrain.prompting.selection import Rules, select
from posttrain.prompting.shots import InContextTask, PromptError, Shot, human_shots, read_shots, write_shots
from posttrain.prompting.stop import before_stop
from posttrain.rollout.store import read_episodes
from posttrain.run import read_jsonl, seed_for, write_atomic
from posttrain.sampling.engine import EngineConfig, HFEngineConfig, open_engine
from posttrain.schema import plain
from posttrain.tasks.icl import InContextTaskConfig
from posttrain.tasks.manyshot import Config as PromptConfig
from posttrain.tasks.manyshot import Tokens, task_of, tokens_of
from posttrain.tasks.show import load_tokenizer
from posttrain.types import DataError, Engine, Problem, Sampling


@config
class Config:
    """Sample rationales for training problems and keep the right ones."""

    kind: Literal["reinforce"] = "reinforce"
    task: InContextTaskConfig
    layout: dict[str, str] = Field(default_factory=dict)
    """Texts of the task's layout to replace."""
    start: Literal["zero_shot", "few_shot", "shots"] = "few_shot"
    """What stands before a problem: the instruction, the benchmark's own prompt, or `start_shots`."""
    start_shots: tuple[str, ...] = ()
    """Files of shots that an earlier iteration made."""
    start_size: int = Field(default=25, ge=1)
    """So many of them, drawn by `seed`; 25 in the paper's second iteration."""
    skip_solved: tuple[str, ...] = ()
    """Files of shots whose problems need no more answers."""
    shape: Shape = "raw"
    samples: int = Field(default=10, ge=1)
    """Per problem; 10 in the paper for BIG-Bench Hard."""
    sampling: EvalSampling | None = None
    """null: the task's longest answer, at temperature 1.0."""
    at_least: float = Field(default=1.0, gt=0, le=1)
    """The score from which an answer counts as right."""
    per_problem: int = Field(default=1, ge=1)
    """Right answers kept of one problem, the earliest samples first."""
    rules: Rules = Rules()
    """Keep problems out that stand in the test set, or twice."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many problems; null for all."""
    engine: EngineConfig = HFEngineConfig()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    chunk: int = Field(default=64, ge=1)
    """Problems sampled together, and the most that an interruption loses."""
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.start == "shots") != bool(self.start_shots):
            raise ValueError(f"start_shots belong to start: shots, and it to them; found {self.start} with {len(self.start_shots)} files")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rationale:
    """One sample and what it was worth; `score` is None where the grader failed."""

    problem: str
    sample: int
    text: str
    score: float | None
    tokens: int


def start_prompt(cfg: Config, task: InContextTask, tokens: Tokens) -> ManyShotPrompt:
    """What stands before every problem; raises `PromptError`."""
    if cfg.start == "zero_shot":
        return build((), task.layout, tokens.encode, kind="zero_shot", frame=tokens.frame)
    if cfg.start == "few_shot":
        return build(human_shots(task.load("few_shot")), task.layout, tokens.encode, frame=tokens.frame)
    shots = [shot for file in cfg.start_shots for shot in read_shots(Path(file))]
    if len(shots) < cfg.start_size:
        raise PromptError(f"start_size: {cfg.start_size} shots were asked for, but {', '.join(cfg.start_shots)} hold {len(shots)}")
    return build(shuffled(shots, cfg.seed)[: cfg.start_size], task.layout, tokens.encode, frame=tokens.frame)


def wanted(cfg: Config, task: InContextTask, prompt: ManyShotPrompt) -> list[Problem]:
    """The problems to sample for: of the pool, not in the test set, not solved before, not in the prompt itself."""
    pool = {problem.id: problem for problem in task.load("pool")}
    questions = [Shot(id=problem.id, question=problem.question, answer="", source="question") for problem in pool.values()]
    kept = select(questions, cfg.rules, test=task.load("test"), answered=False).shots
    solved = {shot.problem or shot.id for file in cfg.skip_solved for shot in read_shots(Path(file))}
    left = [pool[shot.id] for shot in kept if shot.id not in solved and shot.question not in prompt.questions][: cfg.limit]
    if not left:
        raise PromptError(
            f"no problem is left of {len(pool)}: {len(solved)} are solved, {len(pool) - len(kept)} were left out by the rules"
        )
    return left


def sample(
    cfg: Config, task: InContextTask, problems: Sequence[Problem], prompt: ManyShotPrompt, engine: Engine, text_of: Any, file: Path
) -> list[Rationale]:
    """`cfg.samples` rationales of every problem; what `file` has of them is taken from there, the rest is appended chunk by chunk."""
    how = cfg.sampling or EvalSampling(max_tokens=task.max_tokens, temperature=1.0)
    sampling = Sampling(max_tokens=how.max_tokens, temperature=how.temperature, stop=_stops(task, prompt))
    rows = _taken_up(file, [problem.id for problem in problems], cfg.samples, cfg.chunk)
    start = len(rows) // cfg.samples
    with open(file, "a") as log, progress_bar(len(problems), "rationales", "problem", start) as bar:
        for first in range(start, len(problems), cfg.chunk):
            asked = [(problem, number) for problem in problems[first : first + cfg.chunk] for number in range(cfg.samples)]
            prefix = prompt.prefix_ids(len(prompt.shots))
            ids = {problem.id: (*prefix, *prompt.item_ids(problem)) for problem, _ in asked}
            seeds = [seed_for("reinforce", cfg.seed, problem.id, number) for problem, number in asked]
            done = engine.generate([ids[problem.id] for problem, _ in asked], sampling, seeds)
            texts = [before_stop(text_of(completion.ids), sampling.stop).strip() for completion in done]
            scores = task.score([(problem, text) for (problem, _), text in zip(asked, texts)])
            made = [
                Rationale(problem=problem.id, sample=number, text=text, score=score, tokens=len(completion.ids))
                for (problem, number), text, score, completion in zip(asked, texts, scores, done, strict=True)
            ]
            log.write("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in made))
            log.flush()
            os.fsync(log.fileno())
            rows += made
            bar.update(len(made) // cfg.samples)
    return rows


def right_ones(cfg: Config, problems: Sequence[Problem], rows: Iterable[Rationale], where: str) -> list[Shot]:
    """The right rationales as shots, at most `cfg.per_problem` different ones of a problem, in problem order."""
    by_id = {problem.id: problem for problem in problems}
    shots = [
        _shot(by_id[row.problem], row.text, f"{row.problem}#{cfg.seed}.{row.sample}", f"{where}, sample {row.sample}")
        for row in rows
        if row.score is not None and row.score >= cfg.at_least and row.text
    ]
    return _capped(shots, cfg.per_problem)


def yields(cfg: Config, problems: Sequence[Problem], rows: Sequence[Rationale], shots: Sequence[Shot]) -> dict[str, Any]:
    """How many samples were right and how many problems solved: in all, per level, and per problem."""
    right = Counter(row.problem for row in rows if row.score is not None and row.score >= cfg.at_least)
    kept = Counter(shot.problem for shot in shots)
    groups: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.level].append(problem)

    def summed(some: Sequence[Problem]) -> dict[str, int]:
        return {
            "problems": len(some),
            "solved": sum(right[problem.id] > 0 for problem in some),
            "samples": len(some) * cfg.samples,
            "right": sum(right[problem.id] for problem in some),
            "kept": sum(kept[problem.id] for problem in some),
        }

    by_level = {level: summed(some) for level, some in sorted(groups.items())}
    unscored = sum(row.score is None for row in rows)
    tokens = sum(row.tokens for row in rows)
    by_problem = {problem.id: right[problem.id] for problem in problems}
    return {"all": summed(problems), "unscored": unscored, "tokens": tokens, "by_level": by_level, "right_by_problem": by_problem}


def shots_of_log(log: Path, per_problem: int) -> list[Shot]:
    """The right answers in a stored evaluation or a run's episodes: of each attempt that is right, not of the last one alone.

    Raises `DataError` where there are none, with what there is.
    """
    files = [*sorted((log / "episodes").glob("*.jsonl")), log / "episodes.jsonl"] if log.is_dir() else [log]
    shots: list[Shot] = []
    statuses: Counter[str] = Counter()
    episodes = 0
    for file in (file for file in files if file.exists() or not log.is_dir()):
        for episode in read_episodes(file):
            episodes += 1
            for number, turn in enumerate(episode.turns, 1):
                statuses[turn.verdict.status] += 1
                if turn.verdict.correct and turn.text.strip():
                    name = f"{episode.problem.id}#{episode.policy_step}.{episode.sample}.{number}"
                    where = f"{file}, step {episode.policy_step}, sample {episode.sample}, attempt {number}"
                    shots.append(_shot(episode.problem, turn.text.strip(), name, where))
    if not shots:
        found = ", ".join(f"{count} {status}" for status, count in statuses.items()) or "none"
        raise DataError(f"{log}: no right answer among the attempts of {episodes} episodes; verdicts: {found}")
    return _capped(shots, per_problem)


def cli(argv: Sequence[str]) -> int:
    """`posttrain prompt reinforce`."""
    parser = argparse.ArgumentParser(prog="posttrain prompt reinforce", allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", type=Path, help="a recipe of kind reinforce; --key.path VALUE flags win over it")
    parser.add_argument("--model", help="folder or hub id of the model that samples")
    parser.add_argument(
        "--from", dest="logs", type=Path, action="append", help="an episodes file or run folder instead of a recipe; repeatable"
    )
    parser.add_argument("--per-problem", type=int, default=1, help="with --from: right answers kept of one problem (default: 1)")
    parser.add_argument("--out", type=Path, help="folder for a recipe (default: runs/reinforce/<recipe>), file of shots for --from")
    args, flags = parser.parse_known_args(argv)
    if bool(args.logs) == bool(args.recipe):
        raise ConfigError("name either a recipe of kind reinforce or one or more --from LOG")
    if args.logs:
        return _from_logs(args.logs, args.per_problem, args.out)
    if not args.model:
        raise ConfigError("--model is missing: name the folder or hub id of the model that samples")
    return _run(load(Config, [args.recipe], flags), args.model, args.out or Path("runs/reinforce") / args.recipe.stem)


def _from_logs(logs: Sequence[Path], per_problem: int, out: Path | None) -> int:
    if out is None or per_problem < 1:
        raise ConfigError(f"--from needs --out FILE.jsonl and a --per-problem of at least 1, found {out} and {per_problem}")
    shots = _capped([shot for log in logs for shot in shots_of_log(log, per_problem)], per_problem)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_shots(out, shots)
    print(f"{len(shots)} shots of {len({shot.problem for shot in shots})} problems in {out}")
    return 0


def _run(cfg: Config, model: str, out: Path) -> int:
    tokenizer = load_tokenizer(model)
    task = task_of(PromptConfig(task=cfg.task, layout=cfg.layout, method="zero_shot"))
    tokens = tokens_of(tokenizer, cfg.shape, model)
    prompt = start_prompt(cfg, task, tokens)
    problems = wanted(cfg, task, prompt)
    start = hashlib.blake2b(json.dumps(prompt.ids).encode(), digest_size=8).hexdigest()
    claim(out, {"model": identity(model), "start_prompt": start, **plain(cfg)})
    eos_ids = eos_ids_of(tokenizer, model)
    stops = bool(_stops(task, prompt))
    engine = open_engine(cfg.engine, model, eos_ids=eos_ids, pad_id=tokenizer.pad_token_id, dtype=cfg.dtype, text_stops=stops)
    try:
        rows = sample(
            cfg, task, problems, prompt, engine, lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True), out / "rationales.jsonl"
        )
    finally:
        engine.close()
    shots = right_ones(cfg, problems, rows, str(out / "rationales.jsonl"))
    found = yields(cfg, problems, rows, shots)
    write_shots(out / "shots.jsonl", shots)
    write_atomic(out / "yield.json", json.dumps(found, indent=1) + "\n")
    print("\n".join(_table(found)))
    print(f"{len(shots)} shots in {out / 'shots.jsonl'}")
    if not shots:
        raise PromptError(f"{out}: none of {len(rows)} samples of {len(problems)} problems is right; try another start or more samples")
    return 0


def _table(found: dict[str, Any]) -> Iterator[str]:
    yield f"  {'level':<10} {'problems':>8} {'solved':>8} {'samples':>8} {'right':>8} {'kept':>6}"
    for level, row in (*found["by_level"].items(), ("all", found["all"])):
        share = f"{row['right'] / row['samples']:.1%}"
        yield f"  {level or '-':<10} {row['problems']:>8} {row['solved']:>8} {row['samples']:>8} {share:>8} {row['kept']:>6}"
    yield f"  {found['tokens']:,} tokens sampled, {found['unscored']} samples that the grader could not score"


def _stops(task: InContextTask, prompt: ManyShotPrompt) -> tuple[str, ...]:
    """Raw text has no end of turn, so an answer ends where the next shot would begin; a chat's answer may hold such text."""
    return task.stop if prompt.frame.shape == "raw" else ()


def _taken_up(file: Path, problems: Sequence[str], samples: int, chunk: int) -> list[Rationale]:
    """The rows of the whole chunks in `file`; what a kill left behind them is cut off, and so made again."""
    if not file.exists():
        return []
    with open(file, "rb") as log:
        sizes = [len(line) for line in log if line.endswith(b"\n")]
    expected = [(problem, number) for problem in problems for number in range(samples)]
    keep = len(sizes) if len(sizes) == len(expected) else len(sizes) // (chunk * samples) * chunk * samples
    os.truncate(file, sum(sizes[:keep]))
    try:
        rows = [Rationale(**row) for row in read_jsonl(file)]
    except TypeError as error:
        raise DataError(f"{file}: not a log of rationales: {error}") from None
    if [(row.problem, row.sample) for row in rows] != expected[:keep]:
        raise DataError(f"{file}: holds rationales of other problems than the recipe's; remove it or name another --out")
    return rows


def _shot(problem: Problem, answer: str, name: str, where: str) -> Shot:
    return Shot(
        id=name,
        question=problem.question,
        answer=answer,
        source="model",
        problem=problem.id,
        level=problem.level,
        subject=problem.subject,
        provenance=where,
    )


def _capped(shots: Sequence[Shot], per_problem: int) -> list[Shot]:
    """At most so many different answers of each problem."""
    kept: dict[str, dict[str, Shot]] = defaultdict(dict)
    for shot in shots:
        if len(kept[shot.problem]) < per_problem:
            kept[shot.problem].setdefault(" ".join(shot.answer.split()), shot)
    return [shot for answers in kept.values() for shot in answers.values()]
