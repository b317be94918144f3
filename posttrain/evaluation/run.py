"""`posttrain eval SUITE.yaml --model DIR_OR_HUB_ID`: K attempts at every problem of a split, graded, summed up, kept to be read.

    OUT/config.yaml · provenance.json · episodes.jsonl (grows chunk by chunk) · summary.json

The same command goes on where an interrupted one stopped, and ends with the same bytes as one that was not interrupted.
"""

import argparse
import dataclasses
import hashlib
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field
from tqdm import tqdm

from posttrain.config import ConfigError, config, load, read_yaml
from posttrain.evaluation.metrics import NothingScored, Summary, breakdown, summarise, verifier_accuracy
from posttrain.evaluation.stats import Estimate
from posttrain.prompting.chat import ChatFormat, TemplateError, chat_format, eos_ids_of
from posttrain.rollout.log import sample_into
from posttrain.rollout.self_correct import Rollout, first_attempts, self_correct
from posttrain.rollout.store import read_episodes
from posttrain.rollout.verify import attempts_with_verdict
from posttrain.run import provenance, write_atomic
from posttrain.sampling.engine import EngineConfig, HFEngineConfig, open_engine
from posttrain.schema import describe, plain
from posttrain.tasks import TaskConfig, make_task
from posttrain.types import Engine, Problem, Sampling, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HELP = """\
Several suite files merge left to right, and --key.path VALUE flags win over all of them:

    posttrain eval evals/suites/math500_two_attempts.yaml --model Qwen/Qwen2.5-1.5B-Instruct --limit 50

The same command goes on with an interrupted evaluation. With a suite, --help lists every key.
"""
WINDOWS, WINDOW = 64, 1 << 16  # how much of a weights file is read to tell it from another: so many places, so many bytes each


@config
class EvalSampling:
    """How attempts are drawn."""

    max_tokens: int = Field(ge=1)
    """Per attempt."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy, as in arXiv 2409.12917 but for its inference scaling (0.7)."""


@config
class Suite:
    """What to evaluate a model on, and how."""

    kind: Literal["eval"] = "eval"
    task: TaskConfig
    split: str = "test"
    """Which of the task's splits."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many problems, for a quick look: they are no random choice. null for all."""
    attempts: int = Field(default=2, ge=2)
    """Attempts per episode; the second and later ones are asked for by the task's instruction."""
    samples: int = Field(default=1, ge=1)
    """Episodes per problem; intervals and tests still count problems."""
    method: Literal["revise", "self_refine", "verify"] = "revise"
    """How a later attempt is asked for: by the task's instruction; after feedback that the model writes itself (arXiv 2303.17651); or only
    where the model first judges its attempt wrong (arXiv 2506.10406): else that attempt counts as the second one too."""
    first_attempts: Path | None = None
    """Episodes whose first attempts stand in place of the model's own, so that models revise the same ones; null for the model's own."""
    sampling: EvalSampling
    engine: EngineConfig = HFEngineConfig()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights in the engine; auto is the checkpoint's own."""
    chunk: int = Field(default=64, ge=1)
    """Problems sampled together, and the most that an interruption loses."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method == "verify" and self.attempts != 2:
            raise ValueError(f"method verify has one revision at most: attempts must be 2, got {self.attempts}")


def evaluate(
    suite: Suite, task: Task, problems: Sequence[Problem], engine: Engine, chat: ChatFormat, out: Path, *, model: str, name: str = "eval"
) -> Summary:
    """Sample and grade what `out` lacks, and sum up; the engine stays open.

    `model` must identify the weights (`identity` does), as an evaluation of other weights is never gone on with: that, or another suite,
    raises `ConfigError`. Raises `NothingScored` where the grader failed everywhere.
    """
    how = rollout_of(suite, problems)
    claim(out, {"model": model, **plain(suite)})
    sample = attempts_with_verdict if suite.method == "verify" else self_correct
    episodes = sample_into(out / "episodes.jsonl", problems, task, engine, chat, how, chunk=suite.chunk, name=name, sample=sample)
    summary = summarise(episodes)
    groups = {f"by_{by}": _as_rows(breakdown(episodes, by)) for by in ("level", "subject")}
    row = {"model": model, "suite": name, "summary": dataclasses.asdict(summary), **groups}
    if suite.method == "verify":
        row["verifier_acc"] = dataclasses.asdict(verifier_accuracy(episodes))
    write_atomic(out / "summary.json", json.dumps(row, indent=1) + "\n")
    return summary


def rollout_of(suite: Suite, problems: Sequence[Problem]) -> Rollout:
    """How the suite samples; raises `ConfigError` where a problem lacks the first attempt that it is to be given."""
    given = first_attempts(read_episodes(suite.first_attempts)) if suite.first_attempts else {}
    lacking = [problem.id for problem in problems if problem.id not in given] if suite.first_attempts else []
    if lacking:
        raise ConfigError(
            f"first_attempts: {suite.first_attempts} has none for {len(lacking)} of {len(problems)} problems, e.g. {lacking[0]}; "
            "make it with posttrain eval on the same task and split"
        )
    return Rollout(
        sampling=Sampling(max_tokens=suite.sampling.max_tokens, temperature=suite.sampling.temperature),
        attempts=suite.attempts,
        samples=suite.samples,
        given=given,
        given_share=1.0 if given else 0.0,
        self_refine=suite.method == "self_refine",
        seed=suite.seed,
    )


def identity(model: str) -> str:
    """`model`, and for a folder a digest of its weights: the same name with other weights is another model.

    Of each weights file, 64 windows of 64 KiB spread over it are read, so that a large model costs no time and a fine-tuned one differs.
    """
    files = sorted(path for suffix in ("safetensors", "bin", "pt") for path in Path(model).glob(f"*.{suffix}"))
    if not files:
        return model
    digest = hashlib.blake2b(digest_size=8)
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}/{size}/".encode())
        with open(path, "rb") as file:
            for i in range(WINDOWS):
                file.seek(max(0, size - WINDOW) * i // (WINDOWS - 1))
                digest.update(file.read(WINDOW))
    return f"{model} (weights {digest.hexdigest()})"


def open_chat(model: str) -> tuple[ChatFormat, int | None]:
    """The chat format of a model folder or hub id, and its pad id; raises `ConfigError`."""
    tokenizer, eos_ids = open_tokenizer(model)
    try:
        return chat_format(tokenizer, eos_ids), tokenizer.pad_token_id
    except TemplateError as error:
        raise ConfigError(str(error)) from None


def open_tokenizer(model: str) -> "tuple[PreTrainedTokenizerBase, tuple[int, ...]]":
    """The tokenizer of a model folder or hub id, and every id that ends a text; raises `ConfigError`."""
    from transformers import AutoTokenizer

    folder = Path(model)
    if folder.is_dir() and not (folder / "config.json").is_file():
        steps = sorted(folder.glob("checkpoints/step_*"))
        hint = f"it is a run folder, name a checkpoint such as {steps[-1]}" if steps else "expected a folder made by save_pretrained"
        raise ConfigError(f"{model}: no config.json in it; {hint}")
    if not folder.is_dir() and (model.count("/") > 1 or model.startswith((".", "/"))):
        raise ConfigError(f"{model}: no such model folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        return tokenizer, eos_ids_of(tokenizer, model)
    except (OSError, ValueError) as error:  # no such folder or hub id, no network, no tokenizer in it
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{model}: neither a model folder nor a hub model that can be loaded: {said}") from None


def table(summary: Summary, levels: dict[str, Summary]) -> str:
    """The figures for a terminal, in percent with 95% intervals."""
    first, second = summary.between
    note = f"exact p = {summary.p_value:.2g} ({summary.num_fixed} fixed, {summary.num_broken} broken)"
    rows = [(f"Acc@t{k}", acc, "") for k, acc in enumerate(summary.acc, 1)]
    rows += [(f"Delta(t{first},t{second})", summary.delta, note)]
    rows += [("Delta i->c", summary.fixed, "of all episodes"), ("Delta c->i", summary.broken, "of all episodes")]
    rows += [("fix rate", summary.fix_rate, "of those wrong at first"), ("break rate", summary.break_rate, "of those right at first")]
    rows += [
        ("answer changed", summary.answer_change, ""),
        ("text copied", summary.text_copy, ""),
        ("edit ratio", summary.edit_ratio, "mean"),
    ]
    lines = [f"  {label:<14} {_cell(estimate)}  {text}".rstrip() for label, estimate, text in rows if estimate is not None]
    clipped = ", ".join(f"{share:.1%}" for share in summary.clip)
    head = (
        f"{summary.problems} problems, {summary.episodes} episodes, {summary.unscored} unscored, cut at max_tokens per attempt: {clipped}"
    )
    if len(levels) > 1:
        lines += ["", f"  {'level':<14} {'n':>6}  {'t1':>6} {'t2':>6}   Delta"]
        lines += [f"  {k:<14} {s.problems:>6}  {_pc(s.acc[0])} {_pc(s.acc[1])}  {_cell(s.delta)}" for k, s in levels.items()]
    return "\n".join([head, *lines])


def cli(argv: Sequence[str]) -> int:
    """`posttrain eval`."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="posttrain eval", add_help=False, description=HELP, formatter_class=formatter)
    parser.add_argument("suite", nargs="*", type=Path, help="suite files; in case of conflict the later one wins")
    parser.add_argument("--model", help="folder or hub id of the model")
    parser.add_argument("--out", type=Path, help="folder for the results (default: runs/eval/<suite>/<model name>)")
    parser.add_argument("-h", "--help", action="store_true", help="with a suite: list its keys")
    own_words, flags = _split(argv)
    own = parser.parse_args(own_words)
    if not own.suite:
        parser.print_help()
        return 0 if own.help else 2
    module = suite_module(own.suite)
    if own.help:
        parser.print_help()
        keys = [f"  --{key}  <{kind}>  [{default}]\n      {text}" for key, kind, default, text in describe(module.Suite)]
        print("\nKeys:\n" + "\n".join(keys))
        return 0
    suite = load(module.Suite, own.suite, flags)
    if not own.model:
        raise ConfigError("--model is missing: name the folder or hub id of the model to evaluate")
    name = own.suite[0].stem
    out = own.out or Path("runs/eval") / name / Path(own.model.rstrip("/")).name
    return module.run(suite, name, own.model, out)


def evaluate_model(suite: Suite, name: str, model: str, out: Path) -> Summary:
    """Open the engine that `suite` names on a folder or hub id, and `evaluate` into `out`. Raises `ConfigError`, `EngineError`."""
    task = make_task(suite.task)
    problems = task.load(suite.split)[: suite.limit]
    chat, pad_id = open_chat(model)
    engine = load_engine(suite.engine, model, chat.eos_ids, pad_id, suite.dtype)
    try:
        return evaluate(suite, task, problems, engine, chat, out, model=identity(model), name=name)
    finally:
        engine.close()


def load_engine(cfg: Any, model: str, eos_ids: Sequence[int], pad_id: int | None, dtype: str, *, text_stops: bool = False) -> Engine:
    """`open_engine` for a model that a caller named; raises `ConfigError` where its weights cannot be loaded, else `EngineError`."""
    try:
        return open_engine(cfg, model, eos_ids=eos_ids, pad_id=pad_id, dtype=dtype, text_stops=text_stops)
    except OSError as error:  # a folder with a tokenizer and no weights
        raise ConfigError(f"{model}: its weights cannot be loaded: {' '.join(str(error).split())[:300]}") from None


def suite_module(files: Sequence[Path]) -> ModuleType:
    """The module with the `Suite` and the `run` of these files' kind: this one, or that of curves over the number of shots."""
    in_context = any(layer.get("kind") == "icl" for _, layer in map(read_yaml, files))
    return importlib.import_module("posttrain.evaluation.icl.run") if in_context else sys.modules[__name__]


def run(suite: Suite, name: str, model: str, out: Path) -> int:
    """Evaluate, and print the table."""
    began = time.monotonic()
    try:
        summary = evaluate_model(suite, name, model, out)
    except NothingScored as error:
        tqdm.write(f"posttrain: {out}: {error}")
        return 1
    episodes = list(read_episodes(out / "episodes.jsonl"))
    print(f"{name}: {model}\n{table(summary, breakdown(episodes, 'level'))}")
    if suite.method == "verify":
        print(f"  {'verifier':<14} {_cell(verifier_accuracy(episodes))}  right about the first attempt")
    print(f"{time.monotonic() - began:.0f} s; episodes and summary in {out}")
    return 0


def claim(out: Path, record: dict[str, Any]) -> None:
    """Make `out` the folder of this evaluation; raises `ConfigError` if it is another's or cannot be written."""
    recorded = out / "config.yaml"
    try:
        if recorded.exists():
            before = yaml.safe_load(recorded.read_text()) or {}
            differing = [key for key in {**before, **record} if before.get(key) != record.get(key)]
            if differing:
                raise ConfigError(f"{out}: holds an evaluation with another {', '.join(differing)}; remove it or name another --out")
            return
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "provenance.json", json.dumps(provenance(), indent=1) + "\n")
        write_atomic(recorded, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise ConfigError(f"{out}: cannot write the results: {error.strerror}") from None


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own words, and the `--key value` pairs that are the suite's."""
    own: list[str] = []
    flags: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("--"):
            own.append(word)
            continue
        side = own if word.partition("=")[0] in ("--model", "--out", "--help") else flags
        side.append(word)
        if "=" not in word and word != "--help":
            side += [value for value in [next(words, None)] if value is not None]
    return own, flags


def _as_rows(groups: dict[str, Summary]) -> dict[str, Any]:
    return {name: dataclasses.asdict(summary) for name, summary in groups.items()}


def _cell(estimate: Estimate) -> str:
    return f"{100 * estimate.value:6.1f}  [{100 * estimate.low:5.1f}, {100 * estimate.high:5.1f}]"


def _pc(estimate: Estimate) -> str:
    return f"{100 * estimate.value:6.1f}"
