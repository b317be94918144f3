"""What a shared prefix saves, and what one more item costs behind a long one: python evals/bench_prefix.py [--part NAME ...]

Models are random Qwen2 of the shapes below, made here; times are of this machine, so read the ratios. With and without the cache alternate
within one process, and a ratio is the median over the pairs. Writes evals/results/prefix_reuse.md.
"""

import argparse
import inspect
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.run import commit, write_atomic
from posttrain.types import Sampling, TokenIds

if TYPE_CHECKING:
    from posttrain.sampling.hf import HFEngine
    from posttrain.sampling.vllm import VLLMEngine

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}  # read when torch is imported
SERVER_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
SHAPES = {  # hidden size, layers, heads, MLP size
    "base": (512, 4, 8, 2048),
    "wide": (1024, 2, 16, 8192),
    "tiny": (64, 3, 2, 256),
}
GREEDY = Sampling(max_tokens=8, temperature=0)
ONE = Sampling(max_tokens=1, temperature=0)
ITEMS, PREFIX, OWN = 32, 2048, 16
SHOT = 4  # tokens of a shot in the second part
FEW, MANY = 64, 4096  # shots
RESULT = Path(__file__).parent / "results" / "prefix_reuse.md"


def make_model(folder: Path, shape: str, positions: int) -> Path:
    """A random model of a few million parameters, so that reading a prompt costs more than handling a request."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from posttrain.sft.tokenizer import word_tokenizer

    hidden, layers, heads, mlp = SHAPES[shape]
    tokenizer = word_tokenizer(f" {n}" for n in range(100))
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=1,
        intermediate_size=mlp,
        max_position_embeddings=positions,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def some_ids(num: int, seed: int) -> TokenIds:
    draw = random.Random(seed)
    return tuple(draw.randrange(4, 360) for _ in range(num))


def timed(work: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    began = time.monotonic()
    result = work(*args)
    return time.monotonic() - began, result


def behind_one_prefix(number: int) -> list[TokenIds]:
    prefix = some_ids(PREFIX, number)
    return [(*prefix, *some_ids(OWN, 1000 * number + i + 1)) for i in range(ITEMS)]


def reuse_in_process(folder: Path, rounds: int) -> list[str]:
    """Items behind one prefix with the prefix cache and without, in turn, on one vLLM engine; each round has a prefix of its own."""
    from posttrain.sampling.vllm import VLLMEngine

    engine = VLLMEngine(str(folder), [1], max_model_len=PREFIX + 64)
    engine.generate([some_ids(64, -1)], GREEDY, [0])  # what only the first call pays
    rows, ratios = [], []
    for number in range(rounds):
        prompts, seconds, made = behind_one_prefix(number), {}, {}
        for which in ("on", "off") if number % 2 else ("off", "on"):
            assert engine._llm.reset_prefix_cache()
            engine.reads_cache = which == "on"
            seconds[which], made[which] = timed(engine.generate, prompts, GREEDY, range(ITEMS))
        same = sum(a.ids == b.ids for a, b in zip(made["off"], made["on"]))
        cached, total = sum(c.num_cached for c in made["on"]), sum(map(len, prompts))
        assert not any(c.num_cached for c in made["off"])
        ratios.append(seconds["off"] / seconds["on"])
        figures = f"{seconds['off']:.2f} | {seconds['on']:.2f} | {ratios[-1]:.1f}"
        rows.append(f"| {number + 1} | {figures} | {cached:,} of {total:,} | {same} of {ITEMS} |")
    engine.close()
    head = ["| round | off, s | on, s | off / on | cached tokens | same greedy tokens |", "|---|---|---|---|---|---|"]
    return [*head, *rows, "", f"Median: **{statistics.median(ratios):.1f} times** faster."]


def reuse_over_http(folder: Path, rounds: int) -> list[str]:
    """The same through vLLM's OpenAI server on loopback: items behind one prefix, and items of the same length that share nothing."""
    from transformers import AutoTokenizer

    from posttrain.sampling.server import ServerEngine

    rows, ratios = [], []
    with served(folder, PREFIX + 64) as url:
        engine = ServerEngine(url, "bench", AutoTokenizer.from_pretrained(folder), [1], concurrency=ITEMS)
        engine.generate([some_ids(64, -1)], GREEDY, [0])
        for number in range(rounds):
            shared, apart = behind_one_prefix(number), [some_ids(PREFIX + OWN, 77_000 + 100 * number + i) for i in range(ITEMS)]
            with_prefix, made = timed(engine.generate, shared, GREEDY, range(ITEMS))
            without, alone = timed(engine.generate, apart, GREEDY, range(ITEMS))
            ratios.append(without / with_prefix)
            cached = [f"{sum(c.num_cached for c in each):,}" for each in (made, alone)]
            rows.append(f"| {number + 1} | {without:.2f} | {with_prefix:.2f} | {ratios[-1]:.1f} | {cached[0]} | {cached[1]} |")
        engine.close()
    head = ["| round | apart, s | shared, s | apart / shared | cached, shared | cached, apart |", "|---|---|---|---|---|---|"]
    return [*head, *rows, "", f"Median: **{statistics.median(ratios):.1f} times** faster."]


def added_item(folder: Path, rounds: int) -> list[str]:
    """The cost of one more item behind a prefix that has been read: (CPU time of 128 items - of 64) / 64, the median of the rounds.

    CPU time of this process, in which both engines run, as it depends less than the clock on what else the machine does.
    """
    head = [f"| engine | work | {FEW} shots, ms | {MANY:,} shots, ms | ratio |", "|---|---|---|---|---|"]
    rows = []
    for open_engine in (_vllm, _hf):
        engine = open_engine(folder)
        works = {"one-token answer": _answer, "score of 2 tokens": _score}
        found = {
            (work, shots): statistics.median(_added(engine, works[work], shots, number) for number in range(rounds))
            for shots in (FEW, MANY)
            for work in works
        }
        for work in works:
            few, many = found[work, FEW], found[work, MANY]
            rows.append(f"| {open_engine.__name__[1:]} | {work} | {1000 * few:.2f} | {1000 * many:.2f} | {many / few:.2f} |")
            print(rows[-1], flush=True)
        engine.close()
    return head + rows


def _vllm(folder: Path) -> "VLLMEngine":
    from posttrain.sampling.vllm import VLLMEngine

    return VLLMEngine(str(folder), [1], max_model_len=MANY * SHOT + 64, kv_cache_gib=2.0)


def _hf(folder: Path) -> "HFEngine":
    from transformers import AutoModelForCausalLM

    from posttrain.sampling.hf import HFEngine

    return HFEngine(AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval(), [1])


def _added(engine: "VLLMEngine | HFEngine", work: Callable[..., Any], shots: int, number: int, n: int = 64) -> float:
    prefix = some_ids(MANY * SHOT, 0)[: shots * SHOT]
    engine.generate([(*prefix, 5, 6)], ONE, [0])
    seconds = []
    for many in (n, 2 * n):
        prompts = [(*prefix, *some_ids(SHOT, 1000 * (10 * number + many) + i)) for i in range(many)]
        began = time.process_time()
        work(engine, prompts)
        seconds.append(time.process_time() - began)
    return (seconds[1] - seconds[0]) / n


def _answer(engine: "VLLMEngine | HFEngine", prompts: Sequence[TokenIds]) -> None:
    engine.generate(prompts, ONE, range(len(prompts)))


def _score(engine: "VLLMEngine | HFEngine", prompts: Sequence[TokenIds]) -> None:
    engine.score(prompts, [(7, 8)] * len(prompts))


@contextmanager
def served(folder: Path, max_model_len: int) -> Iterator[str]:
    """The address of vLLM's own OpenAI server for the model."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    options = ["--served-model-name", "bench", "--dtype", "float32", "--enforce-eager", "--max-model-len", str(max_model_len)]
    options += ["--host", "127.0.0.1", "--port", str(port), "--enable-prompt-tokens-details", "--block-size", "32"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *options]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | SERVER_ENVIRONMENT, start_new_session=True, **quiet)
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


PARTS = {
    "reuse": ("vLLM in this process", reuse_in_process, "base", PREFIX + 64),
    "server": ("vLLM's OpenAI server on loopback", reuse_over_http, "base", PREFIX + 64),
    "added": ("The cost of an added item, a model whose cost is the handling of requests", added_item, "tiny", MANY * SHOT + 64),
    "added_wide": ("The cost of an added item, a model whose arithmetic is the cost", added_item, "wide", MANY * SHOT + 64),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args(argv)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    lines = [f"# Prefix reuse: `python evals/bench_prefix.py`, commit {commit()}, {os.cpu_count()} cores, one thread", ""]
    for part in args.part:
        title, bench, shape, positions = PARTS[part]
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(Path(folder), shape, positions)
            hidden, layers, heads, mlp = SHAPES[shape]
            lines += [f"## {title}", "", inspect.cleandoc(bench.__doc__ or ""), ""]
            lines += [f"Model: {layers} layers x {hidden}, MLP {mlp}, {heads} heads of {hidden // heads}, 1 key-value head, float32.", ""]
            lines += [*bench(model, args.rounds), ""]
        print("\n".join(lines[-12:]), flush=True)
    write_atomic(args.out, "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
