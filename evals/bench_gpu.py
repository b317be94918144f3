"""Parity, speed and memory of two-attempt RL on one GPU, beside what is aimed at: benchmarks/gpu.sh [--tiny] [--cpu] [--out FILE]

Models are random Qwen2 of real shapes, so lengths and times are real and rewards are not. `--tiny --cpu` runs every line on a small model.
MFU counts 6 operations per weight and trained token, and 6 per layer, width and token of the row in attention (half of which is masked),
whatever is computed again for checkpointing, frozen under LoRA, or read once for several rows.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_train import Size, make_model, words_task

from posttrain.run import commit, write_atomic
from posttrain.types import Sampling, TokenIds

if TYPE_CHECKING:
    from posttrain.rl.batch import Batch
    from posttrain.rl.loop import Learner
    from posttrain.rl.policy import Policy

VOCAB = 151_936
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}  # dense bfloat16, FLOP/s
WORK: dict[str, Any] = {"problems": 8, "samples": 8, "max_tokens": 512, "asked": 256, "told": 32, "tokens": 16_384, "vocab": VOCAB}
SHAPES = {
    "0.5B": Size(title="Qwen2.5-0.5B's shape", hidden=896, layers=24, heads=14, mlp=4864, **WORK),
    "1.5B": Size(title="Qwen2.5-1.5B's shape", hidden=1536, layers=28, heads=12, mlp=8960, **WORK),
}
TINY = {
    "tiny": Size(
        title="2 layers x 64", hidden=64, layers=2, heads=2, mlp=128, vocab=2000, problems=2, samples=4, max_tokens=8, asked=40, told=8,
        tokens=512,
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure: what is aimed at is a bound that it should be below (or above), None for what is only told."""

    what: str
    value: float
    unit: str
    below: float | None = None
    above: float | None = None

    def __str__(self) -> str:
        bound = f"<= {self.below:g}" if self.below is not None else f">= {self.above:g}" if self.above is not None else ""
        missed = (self.below is not None and not self.value <= self.below) or (self.above is not None and not self.value >= self.above)
        verdict = "" if not bound else "MISSED" if missed else "ok"
        return f"| {self.what} | {self.value:.4g} {self.unit} | {bound} | {verdict} |"


def open_learner(folder: Path, size: Size, device: str, lora: bool = False) -> "Learner":
    """Stage II with the engine that is there: vLLM on a GPU where it is installed, else hf."""
    from importlib.util import find_spec

    from posttrain.config import build
    from posttrain.evaluation.model import open_chat
    from posttrain.rl.loop import Learner
    from posttrain.rl.policy import load_policy
    from posttrain.rl.recipe import Config
    from posttrain.sampling.engine import open_engine

    longest = size.asked + 2 * size.max_tokens + size.told + 64
    vllm = {"kind": "vllm", "max_model_len": longest, "gpu_memory_utilization": 0.35}
    policy = {"precision": "bf16_autocast", "gradient_checkpointing": True, "device": device}
    recipe = {
        "model": str(folder),
        "task": {"kind": "sums"},
        "steps": 1,
        "problems_per_step": size.problems,
        "samples": size.samples,
        "bonus": 10,
        "kl": {"coef": [0.01, 0.01]},
        "sampling": {"max_tokens": size.max_tokens},
        "optim": {"lr": 1e-6},
        "micro_tokens": size.tokens,
        "importance_cap": 2.0,
        "engine": vllm if device == "cuda" and find_spec("vllm") else {"kind": "hf"},
        "policy": policy | ({"lora": {"rank": 16, "alpha": 32}} if lora else {}),
    }
    cfg = build(Config, [("bench", recipe)])
    chat, pad_id = open_chat(cfg.model)
    made = load_policy(cfg.model, None, cfg.policy, cfg.optim, 1.0)
    engine = open_engine(cfg.engine, cfg.model, eos_ids=chat.eos_ids, pad_id=pad_id, dtype="bfloat16", model=made.model)
    return Learner(policy=made, engine=engine, task=words_task(size), chat=chat, cfg=cfg)


def random_batch(size: Size, rows: int, length: int, alike: int = 0) -> "Batch":
    """Rows of random ids, of which the first `alike` are the same in every row and count as the prompt."""
    import torch

    from posttrain.rl.batch import Batch

    torch.manual_seed(0)
    ids = torch.randint(4, size.vocab, (rows, length))
    ids[:, :alike] = ids[:1, :alike]
    turn = (torch.arange(length) >= max(1, alike)).long().expand(rows, -1).contiguous()
    return Batch(ids=ids, turn=turn, length=torch.full((rows,), length), sampler_logp=torch.zeros(rows, length), num_attempts=1)


def parity(folder: Path, size: Size, device: str) -> list[Line]:
    """Each fast path beside its slow twin, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    from posttrain.rl.policy import OptimConfig, PolicyConfig, load_policy
    from posttrain.sampling.hf import HFEngine

    policy = load_policy(str(folder), None, PolicyConfig(device=device), OptimConfig(lr=0.0), 1.0)
    batch = random_batch(size, 8, min(256, size.tokens // 4), alike=min(160, size.tokens // 8))
    with torch.no_grad():
        fast = policy.logprobs(batch)
        plain, policy._plain = policy._plain, dict.fromkeys(policy._plain, False)
        whole = policy.logprobs(batch)
        policy._plain = plain
        ((index, micro),) = batch.split_packed(8 * batch.ids.shape[1], width=8 * batch.ids.shape[1])
        packed = torch.zeros_like(fast)
        packed[index] = policy.logprobs(micro)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    keeps, plain = (HFEngine(model, model.generation_config.eos_token_id, pad_id=0) for _ in range(2))
    prompts: list[TokenIds] = [tuple(row) for row in batch.ids[:, :40].tolist()]
    made = keeps.generate(prompts, Sampling(max_tokens=16, continued=True), range(8))
    second = [(*prompt, *one.ids, 5, 6, 7) for prompt, one in zip(prompts, made)]
    again, kept = (engine.generate(second, Sampling(max_tokens=16, temperature=0), range(8)) for engine in (plain, keeps))
    same = sum(a.ids == b.ids for a, b in zip(again, kept)) / 8
    return [
        Line(
            what="log-probabilities, a few logits at a time - all logits", value=(fast - whole).abs().max().item(), unit="nats", below=1e-3
        ),
        Line(what="log-probabilities, packed - row by row", value=(packed - fast).abs().max().item(), unit="nats", below=1e-3),
        Line(what="greedy second attempts behind kept rows, the same as without", value=same, unit="of 1", above=0.99),
    ]


def steps(size: Size, folder: Path, device: str, peak_flops: float) -> list[Line]:
    """Three steps, the first not counted: where the time goes, how much memory it takes, and whether engine and trainer agree."""
    from posttrain.rl.score import score_step

    learner = open_learner(folder, size, device)
    grading: list[float] = []
    grade = learner.task.grade

    def timed(pairs: Any) -> Any:
        began = time.perf_counter()
        verdicts = grade(pairs)
        grading.append(time.perf_counter() - began)
        return verdicts

    learner = replace(learner, task=replace(learner.task, grade=timed))
    problems = learner.task.load("train")[: size.problems]
    try:
        score_step(learner, problems, 1)
        grading.clear()
        _forget_peak(device)
        began = time.perf_counter()
        done = [score_step(learner, problems, number) for number in (2, 3)]
        took = (time.perf_counter() - began) / len(done)
    finally:
        learner.engine.close()
    mean = {key: sum(row[key] for _, row in done) / len(done) for key in done[0][1] if key.endswith("_s") or key.startswith("train/")}
    lengths = [len(e.turns[-1].prompt_ids) + len(e.turns[-1].completion.ids) for episodes, _ in done for e in episodes]
    flops = _flops(learner.policy, lengths) / len(done)
    name = type(learner.engine).__name__
    return [
        Line(what="step", value=took, unit="s"),
        Line(what="sampled tokens per second of a step", value=mean["train/tokens"] / took, unit="tokens/s"),
        Line(what=f"rollout ({name}), share of a step", value=mean["rollout_s"] / took, unit="of 1", below=0.55),
        Line(what="reference log-probabilities, share", value=mean["reference_s"] / took, unit="of 1"),
        Line(what="update, share", value=mean["update_s"] / took, unit="of 1"),
        Line(what="grading, share (beside sampling)", value=sum(grading) / len(done) / took, unit="of 1", below=0.02),
        Line(what="weight push", value=mean["push_s"], unit="s", below=1.0),
        Line(what="prompt tokens of attempt 2 found in the cache", value=mean["train/cached_t2"], unit="of 1", above=0.8),
        Line(what="MFU of the update, all weights", value=flops / mean["update_s"] / peak_flops, unit="of 1"),
        Line(
            what="gap of engine and trainer, worse attempt", value=max(mean["train/gap_t1"], mean["train/gap_t2"]), unit="nats", below=0.05
        ),
        Line(what="peak memory of the trainer", value=_peak_gib(device), unit="GiB"),
    ]


def trainer_alone(size: Size, folder: Path, device: str, peak_flops: float) -> list[Line]:
    """LoRA on rows that fill `tokens`, forward, backward and update, three times, the first not counted."""
    from posttrain.rl.policy import LoraConfig, OptimConfig, PolicyConfig, load_policy

    lora = LoraConfig(rank=16, alpha=32)
    cfg = PolicyConfig(lora=lora, precision="bf16_autocast", gradient_checkpointing=True, device=device)
    policy = load_policy(str(folder), None, cfg, OptimConfig(lr=1e-6), 1.0)
    length = max(32, size.tokens // 8)
    batch = random_batch(size, 8, length)
    seconds = []
    for _ in range(3):
        _wait(device)
        began = time.perf_counter()
        for _, micro in batch.split(size.tokens):
            policy.backward(policy.logprobs(micro).sum() / batch.ids.numel())
        policy.update()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    took = sum(seconds[1:]) / 2
    tokens = batch.ids.numel()
    return [
        Line(what=f"LoRA trainer, {tokens:,} tokens at once", value=tokens / took, unit="tokens/s"),
        Line(what="MFU of it", value=_flops(policy, [length] * 8) / took / peak_flops, unit="of 1", above=0.20),
    ]


def _flops(policy: "Policy", lengths: Sequence[int]) -> float:
    """FLOPs of training on rows of those lengths, the head's included."""
    from posttrain.rl.head import without_adapter

    core = without_adapter(policy.model)
    config = core.config.get_text_config()
    weights = sum(p.numel() for name, p in core.named_parameters() if ".lora_" not in name)  # a tied embedding is the head's product
    return sum(length * (6 * weights + 6 * config.num_hidden_layers * config.hidden_size * length) for length in lengths)


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _forget_peak(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak_gib(device: str) -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small model in place of 0.5B and 1.5B")
    parser.add_argument("--cpu", action="store_true", help="on the CPU: shows that the lines come, not what they should say")
    parser.add_argument("--peak-tflops", type=float, help="dense bfloat16 of the GPU, where it is not known by its name")
    parser.add_argument("--out", type=Path, default=Path("evals/results/gpu.md"))
    args = parser.parse_args(argv)
    import torch

    if not args.cpu and not torch.cuda.is_available():
        parser.error("no CUDA device; --cpu --tiny shows the lines on a CPU")
    device = "cpu" if args.cpu else "cuda"
    name = "CPU" if args.cpu else torch.cuda.get_device_name()
    known = next((peak for part, peak in PEAKS.items() if part in name), 1e12 if args.cpu else None)
    if args.peak_tflops is None and known is None:
        parser.error(f"the peak of {name!r} is not known: give --peak-tflops")
    peak = 1e12 * args.peak_tflops if args.peak_tflops else known
    began = time.perf_counter()
    lines = [f"# `benchmarks/gpu.sh`, {name}, torch {torch.__version__}, commit {commit()}", ""]
    for number, (shape, size) in enumerate((TINY if args.tiny else SHAPES).items()):
        with tempfile.TemporaryDirectory() as work:
            folder = make_model(Path(work), size)
            found = parity(folder, size, device) if number == 0 else []
            for part in (steps, trainer_alone):
                found += part(size, folder, device, peak)
                if device == "cuda":
                    torch.cuda.empty_cache()
        lines += [f"## {shape}: {size.title}", "", "| | found | aimed at | |", "|---|---|---|---|", *map(str, found), ""]
        print("\n".join(lines[-len(found) - 5 :]), flush=True)
    lines += [f"Took {time.perf_counter() - began:.0f} s."]
    write_atomic(args.out, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
