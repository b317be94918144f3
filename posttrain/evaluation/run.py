"""`posttrain eval SUITE.yaml --model DIR_OR_HUB_ID`: attempts at every problem of a split, graded, summed up, kept to be read.

    OUT/config.yaml · provenance.json · prompts.jsonl · episodes.jsonl (grows chunk by chunk) · summary.json

The same command goes on where an interrupted one stopped, with any number of workers, and ends with the same bytes as one that was not
interrupted.
"""

import argparse
import dataclasses
import importlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from posttrain.config import ConfigError, build, dump, load, read_yaml
from posttrain.evaluation.groups import ALL_BY
from posttrain.evaluation.metrics import NothingScored, Summary, breakdown, summarise, verifier_accuracy
from posttrain.evaluation.model import identity, load_engine
from posttrain.evaluation.numerals import percent
from posttrain.evaluation.samples import Sampled, accuracy_by, sampled
from posttrain.evaluation.shards import open_shards
from posttrain.evaluation.suite import RawPrompt, Suite, fixed_keys, open_format
from posttrain.evaluation.text import as_text
from posttrain.prompting.raw import PromptFormat
from posttrain.rollout.log import Sampler, sample_into
from posttrain.rollout.self_correct import Rollout, RolloutFunction, first_attempts, self_correct
from posttrain.rollout.store import read_episodes
from posttrain.rollout.verify import attempts_with_verdict
from posttrain.run import keep_source, provenance, write_atomic
from posttrain.sampling.cache import CachedEngine
from posttrain.sampling.engine import ServerEngineConfig
from posttrain.schema import describe, plain
from posttrain.tasks import make_task
from posttrain.types import Engine, Episode, Problem, Sampling, Task

HELP = """\
Several suite files merge left to right, and --key.path VALUE flags win over all of them:

    posttrain eval evals/suites/math500_two_attempts.yaml --model Qwen/Qwen2.5-1.5B-Instruct --limit 50
    posttrain eval evals/suites/math500.yaml evals/suites/overlays/sampled.yaml --model runs/score/model --shards 4

The same command goes on with an interrupted evaluation, also with another number of --shards or other servers. With a suite, --help
lists every key.
"""
ALONE = ("--help", "--dry-run")  # words that take no value
MODULES = {"icl": "posttrain.evaluation.icl.run", "battery": "posttrain.evaluation.battery"}  # kind of suite -> its module, if not this


def evaluate(
    suite: Suite,
    task: Task,
    problems: Sequence[Problem],
    engine: Engine,
    chat: PromptFormat,
    out: Path,
    *,
    model: str,
    name: str = "eval",
) -> Summary | Sampled:
    """Sample and grade what `out` lacks with one engine, which stays open, and sum up: of one attempt, what its samples say.

    `model` must identify the weights (`identity` does), as an evaluation of other weights is never gone on with: that, or another suite,
    raises `ConfigError`. Raises `NothingScored` where the grader failed everywhere.
    """
    how = rollout_of(suite, problems)
    samplers = [sampler_of(task, engine, chat, how, way_of(suite))]
    return fill(suite, task, asked(problems, how), samplers, chat, out, model=model, name=name)


def fill(
    suite: Suite,
    task: Task,
    problems: Sequence[Problem],
    samplers: Sequence[Sampler],
    chat: PromptFormat,
    out: Path,
    *,
    model: str,
    name: str,
) -> Summary | Sampled:
    """As `evaluate`, with these workers."""
    claim(out, {"model": model, **plain(suite)}, suite)
    keep_source(out, task.source)
    write_prompts(out / "prompts.jsonl", problems, task, chat, suite)
    episodes = sample_into(out / "episodes.jsonl", problems, samplers, samples=suite.samples, chunk=suite.chunk, name=name)
    return sum_up(episodes, out, model=model, name=name, verified=suite.method == "verify")


def sum_up(episodes: Sequence[Episode], out: Path, *, model: str, name: str, verified: bool = False) -> Summary | Sampled:
    """Write OUT/summary.json, with the accuracy of the model's own verdicts if its attempts were `verified`; raises `NothingScored`."""
    of_samples = sampled(episodes)
    row: dict[str, Any] = {"model": model, "suite": name, "sampled": dataclasses.asdict(of_samples)}
    if of_samples.attempts[1:]:
        summary = summarise(episodes)
        row["summary"] = dataclasses.asdict(summary)
        row |= {f"by_{by}": {key: dataclasses.asdict(s) for key, s in breakdown(episodes, by).items()} for by in ALL_BY}
        if verified:
            row["verifier_acc"] = dataclasses.asdict(verifier_accuracy(episodes))
    else:
        row |= {f"by_{by}": {key: dataclasses.asdict(e) for key, e in accuracy_by(episodes, by).items()} for by in ALL_BY}
    write_atomic(out / "summary.json", json.dumps(row, indent=1) + "\n")
    return summary if of_samples.attempts[1:] else of_samples


def write_prompts(file: Path, problems: Sequence[Problem], task: Task, chat: PromptFormat, suite: Suite) -> None:
    """The text of each problem's first prompt, once, as the model reads it; and of what is asked for every later attempt."""
    if file.exists():
        return
    rows: list[dict[str, Any]] = [{"problem": problem.id, "prompt": chat.render(task.ask(problem))} for problem in problems]
    rows += [{"problem": None, "revise": task.revise}] if suite.attempts > 1 else []
    write_atomic(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def sampler_of(task: Task, engine: Engine, chat: PromptFormat, how: Rollout, by: RolloutFunction = self_correct) -> Sampler:
    return lambda problems: by(problems, task, engine, chat, how)


def way_of(suite: Suite) -> RolloutFunction:
    return attempts_with_verdict if suite.method == "verify" else self_correct


def rollout_of(suite: Suite, problems: Sequence[Problem]) -> Rollout:
    """How the suite samples; raises `ConfigError` where a problem lacks the first attempt that it is to be given."""
    stored = list(read_episodes(suite.first_attempts)) if suite.first_attempts else []
    given, to_repair = first_attempts(stored), all(episode.turns[0].given for episode in stored)
    lacking = [problem.id for problem in problems if problem.id not in given] if suite.first_attempts else []
    if lacking and (not to_repair or len(lacking) == len(problems)):
        raise ConfigError(
            f"first_attempts: {suite.first_attempts} has none for {len(lacking)} of {len(problems)} problems, e.g. {lacking[0]}; "
            "make it with posttrain eval on the same task and split"
        )
    stop = suite.prompt.stop if isinstance(suite.prompt, RawPrompt) else ()
    return Rollout(
        sampling=Sampling(max_tokens=suite.sampling.max_tokens, temperature=suite.sampling.temperature, stop=stop),
        attempts=suite.attempts,
        samples=suite.samples,
        given=given,
        given_share=1.0 if given else 0.0,
        self_refine=suite.method == "self_refine",
        seed=suite.seed,
    )


def asked(problems: Sequence[Problem], how: Rollout) -> list[Problem]:
    """All, but of a set to repair only those in it."""
    return [problem for problem in problems if not how.given or problem.id in how.given]


def cli(argv: Sequence[str]) -> int:
    """`posttrain eval`."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="posttrain eval", add_help=False, description=HELP, formatter_class=formatter)
    parser.add_argument("suite", nargs="*", type=Path, help="suite files; in case of conflict the later one wins")
    parser.add_argument("--model", help="folder or hub id of the model")
    parser.add_argument("--out", type=Path, help="folder for the results (default: runs/eval/<suite>/<model name>)")
    parser.add_argument("--checkpoints", metavar="all|STEPS", help="--model is a run: evaluate these of its checkpoints, e.g. 50,100")
    parser.add_argument("--against", metavar="MODEL", help="with several suites (kind battery): evaluate this one too, and test the gain")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved suite and stop")
    parser.add_argument("-h", "--help", action="store_true", help="with a suite: list its keys")
    own_words, flags = _split(argv)
    own = parser.parse_args(own_words)
    if not own.suite:
        parser.print_help()
        return 0 if own.help else 2
    kind = _kind(own.suite)
    module = importlib.import_module(MODULES.get(kind, __name__))
    cls = module.Battery if kind == "battery" else module.Suite
    if own.help:
        parser.print_help()
        keys = [f"  --{key}  <{kind}>  [{default}]\n      {text}" for key, kind, default, text in describe(cls)]
        print("\nKeys:\n" + "\n".join(keys))
        return 0
    cfg = load(cls, own.suite, flags)
    if own.dry_run:
        print(dump(cfg), end="")
        return 0
    if not own.model:
        raise ConfigError("--model is missing: name the folder or hub id of the model to evaluate")
    for flag, given, needs in (("--checkpoints", own.checkpoints, "eval"), ("--against", own.against, "battery")):
        if given and kind != needs:
            raise ConfigError(f"{flag}: is for a suite of kind {needs}, and {own.suite[0]} is of kind {kind}")
    name = "_".join(file.stem for file in own.suite)
    out = own.out or Path("runs/eval") / name / Path(own.model.rstrip("/")).name
    if kind == "battery":
        return module.run(module.resolved(cfg, own.suite[0].parent), own.model, out, own.against)
    if own.checkpoints:
        return importlib.import_module("posttrain.evaluation.sweep").sweep(cfg, name, Path(own.model), own.checkpoints, out)
    return module.run(cfg, name, own.model, out)


def evaluate_model(suite: Suite, name: str, model: str, out: Path) -> Summary | Sampled:
    """Open what `suite` names on a folder or hub id, and `evaluate` into `out`. Raises `ConfigError`, `EngineError`."""
    task = make_task(suite.task)
    problems = task.load(suite.split)[: suite.limit]
    chat, _ = open_format(suite, model)
    how = rollout_of(suite, problems)
    with samplers_of(suite, model, how) as samplers:
        return fill(suite, task, asked(problems, how), samplers, chat, out, model=identity(model), name=name)


@contextmanager
def samplers_of(suite: Suite, model: str, how: Rollout) -> Iterator[Sequence[Sampler]]:
    """The suite's workers for a model: threads around one server's engine, an engine of this process, or processes with one each."""
    if suite.shards > 1 and not isinstance(suite.engine, ServerEngineConfig):
        shards = open_shards(suite.shards, open_sampler, (suite, model, how))
        try:
            yield shards
        finally:
            for shard in shards:
                shard.close()
        return
    engine = open_engine_of(suite, model)
    try:
        yield [sampler_of(make_task(suite.task), engine, open_format(suite, model)[0], how, way_of(suite))] * suite.shards
    finally:
        engine.close()


def open_sampler(suite: Suite, model: str, how: Rollout) -> Sampler:
    """A worker with an engine of its own, as a process of a sharded evaluation opens it."""
    return sampler_of(make_task(suite.task), open_engine_of(suite, model), open_format(suite, model)[0], how, way_of(suite))


def open_engine_of(suite: Suite, model: str) -> Engine:
    """The suite's engine, behind its cache if it has one."""
    chat, pad_id = open_format(suite, model)
    stops = isinstance(suite.prompt, RawPrompt) and bool(suite.prompt.stop)
    engine = load_engine(suite.engine, model, chat.eos_ids, pad_id, suite.dtype, text_stops=stops)
    if suite.cache is None:
        return engine
    kept = fixed_keys({"engine": plain(suite.engine)})["engine"]
    return CachedEngine(engine, suite.cache, json.dumps([identity(model), kept, suite.dtype, chat.eos_ids], sort_keys=True))


def _kind(files: Sequence[Path]) -> str:
    """The kind of suite that these files make up: eval where none says."""
    kinds = [str(layer["kind"]) for _, layer in map(read_yaml, files) if "kind" in layer]
    return kinds[-1] if kinds else "eval"


def run(suite: Suite, name: str, model: str, out: Path) -> int:
    """Evaluate, and print the table."""
    began = time.monotonic()
    try:
        found = evaluate_model(suite, name, model, out)
    except NothingScored as error:
        tqdm.write(f"posttrain: {out}: {error}")
        return 1
    episodes = list(read_episodes(out / "episodes.jsonl"))
    print(f"{name}: {model}\n{as_text(found, episodes)}")
    if suite.method == "verify":
        print(f"verdicts right about the first attempt: {percent(verifier_accuracy(episodes).value)} %")
    print(f"{time.monotonic() - began:.0f} s; episodes and summary in {out}")
    return 0


def claim(out: Path, record: dict[str, Any], suite: Any = None) -> None:
    """Make `out` the folder of this evaluation; raises `ConfigError` if it is another's or cannot be written.

    What `suite` (of the record's class) has learnt since the folder was made counts as at its default then.
    """
    recorded = out / "config.yaml"
    try:
        if recorded.exists():
            before = yaml.safe_load(recorded.read_text()) or {}
            old, new = fixed_keys(_completed(before, suite, recorded)), fixed_keys(record)
            differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            if differing:
                raise ConfigError(f"{out}: holds an evaluation with another {', '.join(differing)}; remove it or name another --out")
            return
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "provenance.json", json.dumps(provenance(), indent=1) + "\n")
        write_atomic(recorded, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise ConfigError(f"{out}: cannot write the results: {error.strerror}") from None


def _completed(before: dict[str, Any], suite: Any, recorded: Path) -> dict[str, Any]:
    """A recorded evaluation with the defaults of keys that it lacks; as it is where it cannot be read as such a suite."""
    try:
        rest = {key: value for key, value in before.items() if key != "model"}
        return before if suite is None else {"model": before.get("model"), **plain(build(type(suite), [(str(recorded), rest)]))}
    except ConfigError:
        return before


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own words, and the `--key value` pairs that are the suite's."""
    own: list[str] = []
    flags: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("--"):
            own.append(word)
            continue
        side = own if word.partition("=")[0] in ("--model", "--out", "--checkpoints", "--against", *ALONE) else flags
        side.append(word)
        if "=" not in word and word not in ALONE:
            side += [value for value in [next(words, None)] if value is not None]
    return own, flags
