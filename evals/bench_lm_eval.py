"""The same model, items, prompts and engine under `posttrain eval` and under lm-evaluation-harness: the same scores, and at what cost?

    .venv/peers-lm-eval/bin/python evals/bench_lm_eval.py [--items 2000] [--repeats 5]       (make bench-lm-eval)

lm-eval calls our problems and grader by the tasks in `posttrain/evaluation/harness/tasks`, and our engine through a model class of twenty
lines, so that all that differs is the evaluation around the engine. Its own `hf` model on the same items is there for reference. Engine
alone is `generate` on the very prompts. All three give it all rows of an attempt at once. Everything runs in one process, in turns; the
order is drawn anew in each repeat, and ratios are of the same repeat. Both write their results to disk, samples included.

Two models with tokenizers of their own: one trained here in a minute on small sums, right now and then, whose answers are as short as
answers get; and a random one that writes 64 tokens nearly each time, as a short worked solution does.
"""

import argparse
import contextlib
import io
import json
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.evaluator
from lm_eval.api.model import LM
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from posttrain.config import build
from posttrain.evaluation.harness.read import TASKS, episodes_of
from posttrain.evaluation.run import evaluate
from posttrain.evaluation.suite import Suite, open_format
from posttrain.rollout.store import read_episodes
from posttrain.run import commit, provenance
from posttrain.sampling.engine import open_engine
from posttrain.tasks import make_task
from posttrain.types import Completion, Message, Sampling
from tests.tiny_models import make_tiny_model

TASK = {"kind": "sums", "pick": 2, "numbers": 6, "largest": 30}
ROWS = 256
"""Rows that an engine decodes together."""


WITHOUT = "lm-eval, no report of the machine"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Seconds on the wall's clock and of this process's CPU time."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Spent":
        return cls(wall=time.perf_counter(), cpu=time.process_time())

    def since(self, before: "Spent") -> "Spent":
        return Spent(wall=self.wall - before.wall, cpu=self.cpu - before.cpu)


class Timed:
    """An engine that knows how much CPU time it took."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.max_length, self.seconds = engine, engine.max_length, 0.0

    def generate(self, prompts: Sequence[Any], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        began = time.process_time()
        made = self.engine.generate(prompts, sampling, seeds)
        self.seconds += time.process_time() - began
        return made


class Environment:
    """How long lm-eval spends on its report of the machine (`add_env_info`, about a second, whatever is evaluated)."""

    def __init__(self) -> None:
        self.report, self.seconds = lm_eval.evaluator.add_env_info, 0.0
        lm_eval.evaluator.add_env_info = self

    def __call__(self, storage: dict[str, Any]) -> None:
        began = time.perf_counter()
        self.report(storage)
        self.seconds += time.perf_counter() - began


class OurEngine(LM):
    """Our engine as a model of lm-eval."""

    def __init__(self, engine: Any, chat: Any) -> None:
        super().__init__()
        self.engine, self.chat = engine, chat

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        how = requests[0].args[1]
        prompts = [self.chat.encode(request.args[0]) for request in requests]
        sampling = Sampling(max_tokens=how["max_gen_toks"], temperature=how["temperature"])
        return [self.chat.text(done.ids) for done in self.engine.generate(prompts, sampling, [0] * len(prompts))]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.chat.render([Message(**message) for message in chat_history])

    @property
    def tokenizer_name(self) -> str:
        return "ours"

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every way of evaluating is given."""

    model: Path
    suite_file: Path
    items: int
    attempts: int
    max_tokens: int
    folder: Path

    @property
    def suite(self) -> Suite:
        how = {"task": TASK | {"test_size": self.items}, "attempts": self.attempts, "chunk": self.items, "dtype": "float32"}
        return build(Suite, [("bench", how | {"sampling": {"max_tokens": self.max_tokens}})])


def ours(bench: Bench, engine: Any, chat: Any, out: Path) -> None:
    task = make_task(bench.suite.task)
    evaluate(bench.suite, task, task.load("test"), engine, chat, out, model=str(bench.model))


def theirs(bench: Bench, model: Any, out: Path) -> None:
    """lm-eval's evaluation: the first attempts, then the second ones behind them."""
    first = _lm_eval(bench, model, "posttrain_first", {}, out)
    if bench.attempts == 2:
        _lm_eval(bench, model, "posttrain_second", {"first": str(first)}, out)


def _lm_eval(bench: Bench, model: Any, task: str, more: dict[str, Any], out: Path) -> Path:
    """Run one task and write what lm-eval writes with --log_samples --output_path; the file of its samples."""
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"suite": str(bench.suite_file), **more})
    tracker = EvaluationTracker(output_path=str(out))
    found = lm_eval.simple_evaluate(
        model=model,
        model_args={"pretrained": str(bench.model), "dtype": "float32"} if isinstance(model, str) else None,
        batch_size=ROWS if isinstance(model, str) else None,
        device="cpu" if isinstance(model, str) else None,
        tasks=[task],
        task_manager=manager,
        apply_chat_template=True,
        log_samples=True,
        evaluation_tracker=tracker,
        bootstrap_iters=0,
    )
    samples = found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=samples)
    tracker.save_results_samples(task_name=task, samples=samples[task])
    return max(out.rglob(f"samples_{task}_*.jsonl"), key=lambda file: file.stat().st_mtime)


def prompts_of(out: Path) -> list[list[Any]]:
    """Per attempt, the prompts of an evaluation."""
    episodes = list(read_episodes(out / "episodes.jsonl"))
    return [[episode.turns[k].prompt_ids for episode in episodes] for k in range(len(episodes[0].turns))]


def engine_alone(engine: Any, prompts: Sequence[Sequence[Any]], sampling: Sampling) -> None:
    for rows in prompts:
        engine.generate(rows, sampling, [0] * len(rows))


def agreement(bench: Bench, out: Path, peer: Path) -> dict[str, Any]:
    """How many prompts, texts and verdicts are the same on both sides, per attempt, and both accuracies."""
    mine = list(read_episodes(out / "episodes.jsonl"))
    shown = {row["problem"]: row.get("prompt") for row in map(json.loads, (out / "prompts.jsonl").read_text().splitlines())}
    found: dict[str, Any] = {}
    for attempt, task in enumerate(("posttrain_first", "posttrain_second")[: bench.attempts]):
        file = max(peer.rglob(f"samples_{task}_*.jsonl"), key=lambda file: file.stat().st_mtime)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        taken = [episode.turns[attempt] for episode in episodes_of(file)]
        mine_at = [episode.turns[attempt] for episode in mine]
        found[f"t{attempt + 1}"] = {
            "prompts": sum(row["arguments"]["gen_args_0"]["arg_0"] == shown[row["doc"]["id"]] for row in rows) if not attempt else None,
            "texts": sum(a.text == b.text for a, b in zip(mine_at, taken)),
            "verdicts": sum(a.verdict.correct == b.verdict.correct for a, b in zip(mine_at, taken)),
            "accuracy_ours": sum(turn.verdict.correct for turn in mine_at) / len(mine_at),
            "accuracy_lm_eval": sum(turn.verdict.correct for turn in taken) / len(taken),
        }
    return found


def measure(bench: Bench, repeats: int, seed: int, own_hf: bool) -> dict[str, Any]:
    """Seconds of every way in every repeat, and what the last ones agree on."""
    chat, pad_id = open_format(bench.suite, str(bench.model))
    engine = open_engine(bench.suite.engine, str(bench.model), eos_ids=chat.eos_ids, pad_id=pad_id, dtype="float32")
    first = bench.folder / "warm"
    with quiet():
        ours(bench, engine, chat, first)
        theirs(bench, OurEngine(engine, chat), bench.folder / "warm_lm_eval")
    prompts, sampling = prompts_of(first), Sampling(max_tokens=bench.max_tokens, temperature=0.0)
    ways: dict[str, Callable[[Path], None]] = {
        "engine alone": lambda out: engine_alone(engine, prompts, sampling),
        "posttrain": lambda out: ours(bench, engine, chat, out),
        "lm-eval": lambda out: theirs(bench, OurEngine(engine, chat), out),
    }
    if own_hf:
        ways["lm-eval, its own hf model"] = lambda out: theirs(bench, "hf", out)
    seconds: dict[str, list[Spent]] = {name: [] for name in ways} | {WITHOUT: []}
    environment = Environment()
    rng = random.Random(seed)
    for repeat in range(repeats):
        for name in rng.sample(list(ways), len(ways)):
            out = bench.folder / f"{name.replace(' ', '_').replace(',', '')}_{repeat}"
            environment.seconds, began = 0.0, Spent.now()
            with quiet():
                ways[name](out)
            spent = Spent.now().since(began)
            seconds[name].append(spent)
            if name == "lm-eval":  # its report runs in processes of its own, so only the clock on the wall is without it
                seconds[WITHOUT].append(Spent(wall=spent.wall - environment.seconds, cpu=spent.cpu))
    timed = Timed(engine)
    began = time.process_time()
    with quiet():
        ours(bench, timed, chat, bench.folder / "timed")
    outside = (time.process_time() - began - timed.seconds) / timed.seconds
    found = {
        "seconds": seconds,
        "outside_engine": outside,
        "same": agreement(bench, bench.folder / "posttrain_0", bench.folder / "lm-eval_0"),
    }
    if own_hf:
        found["same_as_its_own_hf"] = agreement(bench, bench.folder / "posttrain_0", bench.folder / "lm-eval_its_own_hf_model_0")
    return found


def report(bench: Bench, found: dict[str, Any]) -> None:
    seconds = found["seconds"]
    how = f"{bench.attempts} attempt(s) of at most {bench.max_tokens} tokens, greedy, float32, {len(seconds['posttrain'])} repeats"
    print(f"\n{bench.items:,} items, {how}")
    for clock in ("wall", "cpu"):
        print(f"  {clock} time" + (" of this process, which other work on the machine does not lengthen" if clock == "cpu" else ""))
        told = {name: [getattr(spent, clock) for spent in each] for name, each in seconds.items()}
        for name, times in told.items():
            ratios = [own / base for own, base in zip(times, told["engine alone"])]
            over = f"over engine alone {statistics.median(ratios):.3f} {_span(ratios)}"
            print(f"    {name:<34} {statistics.median(times):7.2f} s {_span(times)}   {over}")
        for name in ("lm-eval", WITHOUT):
            against = [their / own for their, own in zip(told[name], told["posttrain"])]
            print(f"    {name} over posttrain: {statistics.median(against):.3f} {_span(against)}")
    print(f"  posttrain outside its engine, within one run: {100 * found['outside_engine']:.1f}% of the engine's CPU time")
    for what in ("same", "same_as_its_own_hf"):
        for attempt, counts in found.get(what, {}).items():
            print(f"  {what.replace('_', ' ')}, {attempt}: {json.dumps(counts)}")


def _span(values: Sequence[float]) -> str:
    return f"[{min(values):.3f}, {max(values):.3f}]"


@contextlib.contextmanager
def quiet() -> Any:
    """No bars and no tables: writing them is no part of either evaluation."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def make_model(folder: Path) -> Path:
    from posttrain.sft.train import Config, main

    recipe = {
        "kind": "sft",
        "model": {"kind": "new", "hidden_size": 64, "heads": 2, "mlp_size": 128},
        "task": TASK,
        "demonstrations": 20_000,
    }
    main(build(Config, [("bench", recipe | {"steps": 400, "batch": 64, "lr": 3e-3, "warmup_steps": 20})]), folder, resume=False)
    return folder / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a model folder in place of one that is trained here")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"commit {commit()}, lm-eval {lm_eval.__version__}, seed {args.seed}, versions {provenance()['versions']}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with quiet():
            model = args.model or make_model(folder / "model")
            talker = make_tiny_model(folder / "talker", "qwen2")
        cases = ((model, 1, 8, True), (model, 2, 8, False), (talker, 1, 64, False))
        for number, (chosen, attempts, max_tokens, own_hf) in enumerate(cases):
            at = folder / str(number)
            at.mkdir()
            suite_file = at / "suite.yaml"
            task = json.dumps(TASK | {"test_size": args.items})
            suite_file.write_text(f"kind: eval\ntask: {task}\nsampling: {{max_tokens: {max_tokens}}}\nattempts: {attempts}\n")
            bench = Bench(model=chosen, suite_file=suite_file, items=args.items, attempts=attempts, max_tokens=max_tokens, folder=at)
            report(bench, measure(bench, args.repeats, args.seed, own_hf))


if __name__ == "__main__":
    main()
