"""One step of two-attempt RL beside TRL's GRPO trainer with a two-turn rollout: python evals/bench_train.py [--part NAME ...]

Both train the same model on the same problems with the same grader, samples, bounds on tokens and tokens per forward pass, in one process,
a step of ours after each of TRL's. Seconds are CPU seconds of that one-threaded process, which depend less than the clock on what else the
machine does; ratios are between neighbouring steps, given as median [lowest, highest]. Peaks of memory are of a process each, VmHWM less
what it held before the first step. Writes evals/results/train_step.md, .jsonl and .png.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.run import commit, write_atomic
from posttrain.types import FinalAnswer, Message, Problem, Sampling, Task, TokenIds, Verdict

if TYPE_CHECKING:
    from trl import GRPOTrainer

    from posttrain.rl.loop import Learner

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
RESULT = Path(__file__).parent / "results" / "train_step"
VOCAB = 151_936  # Qwen2.5's
LR = 1e-6  # neither model moves so far that its attempts change


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model, random where `hidden` is given, and one step's work. A prompt has `asked` tokens and an instruction `told`, roughly."""

    title: str
    hidden: int = 0
    layers: int = 0
    heads: int = 0
    mlp: int = 0
    vocab: int = 0
    problems: int
    samples: int
    max_tokens: int
    asked: int = 0
    told: int = 0
    tokens: int = 4096
    """Tokens of one forward and backward pass."""
    ends: int = 24
    """One id in so many ends a row."""


SIZES = {
    "demo": Size(title="the demo's model, 2 layers x 64, sums", problems=32, samples=8, max_tokens=8, tokens=10_000),
    "small": Size(
        title="4 layers x 512, 32,000 ids", hidden=512, layers=4, heads=8, mlp=1376, vocab=32_000, problems=2, samples=8, max_tokens=32,
        asked=64, told=16,
    ),
    "memory": Size(
        title="2 layers x 256, 151,936 ids", hidden=256, layers=2, heads=4, mlp=688, vocab=VOCAB, problems=2, samples=8, max_tokens=32,
        asked=64, told=16,
    ),
}  # fmt: skip


# The work: a folder with a model, and a task


def make_model(folder: Path, size: Size) -> Path:
    """A random model of which many ids end a row, so that rows have many lengths, as those of a trained model have."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    from posttrain.sft.tokenizer import word_tokenizer

    tokenizer = word_tokenizer(f" {n}" for n in range(100))
    ends = [tokenizer.eos_token_id, *range(len(tokenizer), size.vocab, size.ends)]
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=size.vocab,
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            intermediate_size=size.mlp,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def words_task(size: Size) -> Task:
    """Questions of random words. A verdict costs nothing here and is not even: half of the texts are right."""
    draw = random.Random(0)

    def words(num: int) -> str:
        return "".join(f" {draw.randrange(100)}" for _ in range(num))

    problems = [Problem(id=f"p{i}", question=words(size.asked), reference=FinalAnswer(text="")) for i in range(64)]
    return Task(
        name="words",
        load=lambda split: problems,
        ask=lambda problem: [Message(role="user", content=problem.question)],
        revise=words(size.told),
        grade=lambda pairs: [Verdict(status="wrong" if len(text) % 2 else "correct") for _, text in pairs],
        answer=lambda text: text or None,
    )


def opened(folder: Path, size: Size, sums: dict[str, Any] | None, **changes: Any) -> "tuple[Learner, Task]":
    """Our learner: Stage II of SCoRe, and what is changed of its recipe."""
    from posttrain.config import build
    from posttrain.evaluation.model import open_chat
    from posttrain.rl.loop import Learner
    from posttrain.rl.policy import load_policy
    from posttrain.rl.recipe import Config
    from posttrain.sampling.engine import open_engine
    from posttrain.tasks import make_task

    recipe = {
        "model": str(folder),
        "task": {"kind": "sums", **(sums or {})},
        "steps": 1,
        "problems_per_step": size.problems,
        "samples": size.samples,
        "bonus": 10,
        "kl": {"coef": [0.01, 0.01]},
        "sampling": {"max_tokens": size.max_tokens},
        "optim": {"lr": LR},
        "micro_tokens": size.tokens,
    }
    cfg = build(Config, [("bench", recipe | changes)])
    task = make_task(cfg.task) if sums else words_task(size)
    chat, pad_id = open_chat(cfg.model)
    policy = load_policy(cfg.model, None, cfg.policy, cfg.optim, 1.0)
    engine = open_engine(cfg.engine, cfg.model, eos_ids=chat.eos_ids, pad_id=pad_id, dtype="float32", model=policy.model)
    return Learner(policy=policy, engine=engine, task=task, chat=chat, cfg=cfg), task


# TRL's trainer on the same work


def trl_trainer(folder: Path, size: Size, task: Task, steps: int, out: Path, clock: "Clock") -> "GRPOTrainer":
    """GRPO with both attempts in one completion, the instruction between them masked, paid r1 + r2 + 10 (r2 - r1)."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from posttrain.evaluation.model import open_chat

    chat, _ = open_chat(str(folder))
    problems = task.load("train")[:64]

    def two_turns(prompts: list[Any], trainer: "GRPOTrainer") -> dict[str, Any]:
        with clock("generate"):
            first = [list(chat.ask([Message(role="user", content=prompt[0]["content"])])) for prompt in prompts]
            ones, _ = trainer._generate_single_turn(first, None, {}, size.samples)
            second = [list(chat.revise(tuple(a), tuple(b), task.revise)) for a, b in zip(first, ones)]
            twos, _ = trainer._generate_single_turn(second, None, {}, size.samples)
        clock.count += sum(map(len, ones)) + sum(map(len, twos))
        whole = [(*p[len(a) :], *b) for a, p, b in zip(first, second, twos)]
        masks = [[1] * len(a) + [0] * (len(w) - len(a) - len(b)) + [1] * len(b) for a, w, b in zip(ones, whole, twos)]
        texts = [[chat.text(tuple(ids)) for ids in rows] for rows in (ones, twos)]
        return {
            "prompt_ids": first,
            "completion_ids": [list(ids) for ids in whole],
            "logprobs": None,
            "env_mask": masks,
            "first_text": texts[0],
            "second_text": texts[1],
        }

    def paid(number: list[int], first_text: list[str], second_text: list[str], **_: Any) -> list[float]:
        with clock("grade"):
            one, two = (
                [float(v.correct) for v in task.grade([(problems[n], text) for n, text in zip(number, texts)])]
                for texts in (first_text, second_text)
            )
        return [a + b + 10 * (b - a) for a, b in zip(one, two)]

    rows = {
        "prompt": [[{"role": m.role, "content": m.content} for m in task.ask(p)] for p in problems],
        "number": list(range(len(problems))),
    }
    tokenizer = AutoTokenizer.from_pretrained(folder)
    longest = max(len(chat.ask(task.ask(problem))) for problem in problems) + 2 * size.max_tokens
    longest += len(chat.revise((), (), task.revise))
    episodes = size.problems * size.samples
    micro = next(n for n in range(min(episodes, max(1, size.tokens // longest)), 0, -1) if episodes % n == 0)
    args = GRPOConfig(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=episodes // micro,
        num_generations=size.samples,
        generation_kwargs={"eos_token_id": list(chat.eos_ids)},
        max_completion_length=size.max_tokens,
        beta=0.01,
        learning_rate=LR,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1000,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
        seed=0,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        args=args,
        reward_funcs=paid,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
        rollout_func=two_turns,
    )
    trainer.eos_token_ids = list(chat.eos_ids)  # it took the tokenizer's alone
    trainer.remove_callback(PrinterCallback)
    clock.around(trainer, "_prepare_inputs", "prepare")
    logps = trainer._get_per_token_logps_and_entropies

    def without_gradient(*given: Any, **named: Any) -> Any:
        import torch

        with clock("log-probs", on=not torch.is_grad_enabled()):
            return logps(*given, **named)

    trainer._get_per_token_logps_and_entropies = without_gradient
    return trainer


class Clock:
    """CPU seconds and seconds by name, of one step; `count` is for sampled tokens, `passes` for how often the model is run to sample them:
    as it is, and at least, were second attempts begun while first ones are still sampled.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}
        self.count, self.passes = 0, (0, 0)

    @contextmanager
    def __call__(self, name: str, on: bool = True) -> Iterator[None]:
        began = time.process_time(), time.perf_counter()
        yield
        if on:
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - began[0]
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - began[1]

    def around(self, owner: Any, method: str, name: str) -> None:
        """Time every call of a method."""
        plain = getattr(owner, method)

        def timed(*given: Any, **named: Any) -> Any:
            with self(name):
                return plain(*given, **named)

        setattr(owner, method, timed)


@dataclass
class Steps:
    """What each step of one side took."""

    side: str
    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, clock: Clock, episodes: int) -> None:
        row = {f"{name}_cpu_s": seconds for name, seconds in clock.cpu.items()} | {"step_s": clock.wall["step"]}
        counts = {"tokens": clock.count, "episodes": episodes, "passes": clock.passes[0], "fewest_passes": clock.passes[1]}
        self.rows.append(row | {name: float(count) for name, count in counts.items()})

    def median(self, key: str) -> float:
        return statistics.median(row.get(key, 0.0) for row in self.rows)


def our_step(learner: "Learner", number: int, clock: Clock) -> None:
    """One step, timed from inside by the names that TRL's is timed by."""
    from posttrain.rl.score import score_step
    from posttrain.rollout.problems import draw_problems

    clock.reset()
    drawn = draw_problems(learner.task.load("train")[:64], learner.cfg.problems_per_step, number, 0)
    with clock("step"):
        episodes, figures = score_step(learner, drawn, number)
    clock.count = int(figures["train/tokens"])
    lengths = [[len(turn.completion.ids) for turn in episode.turns] for episode in episodes]
    clock.passes = sum(map(max, zip(*lengths))), max(map(sum, lengths))


def timed_learner(learner: "Learner", clock: Clock) -> "Learner":
    """The learner with a clock around what it calls."""
    grade = learner.task.grade

    def graded(pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        with thread_clock(clock, "grade"):
            return grade(pairs)

    clock.around(learner.engine, "generate", "generate")
    clock.around(learner.engine, "load_weights", "push")
    clock.around(learner.policy, "reference_logprobs", "log-probs")
    clock.around(learner.policy, "split", "log-probs")
    for method in ("logprobs", "backward", "update"):
        clock.around(learner.policy, method, "update")
    return replace(learner, task=replace(learner.task, grade=graded))


@contextmanager
def thread_clock(clock: Clock, name: str) -> Iterator[None]:
    """CPU seconds of this thread alone, as our grader works while the main one samples."""
    began = time.thread_time()
    yield
    clock.cpu[name] = clock.cpu.get(name, 0.0) + time.thread_time() - began


# Parts


def step_part(name: str, base: str | None, rounds: int) -> dict[str, Any]:
    """A step of ours after each of TRL's; the first of both is left out."""
    from transformers import TrainerCallback

    size = SIZES[name]
    ours, theirs, clock, trl_clock = Steps("ours"), Steps("trl"), Clock(), Clock()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(base) if base else make_model(Path(work) / "model", size)
        sums = {"pick": 2, "numbers": 6, "largest": 30} if base else None
        learner, task = opened(folder, size, sums)
        learner = timed_learner(learner, clock)
        trainer = trl_trainer(folder, size, task, rounds + 1, Path(work), trl_clock)

        class AfterEach(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                trl_clock.reset()
                self.began = time.process_time(), time.perf_counter()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                trl_clock.cpu["step"], trl_clock.wall["step"] = (
                    now - b for now, b in zip((time.process_time(), time.perf_counter()), self.began)
                )
                trl_clock.cpu["update"] = trl_clock.cpu["step"] - trl_clock.cpu["prepare"]
                our_step(learner, state.global_step, clock)
                if state.global_step > 1:
                    theirs.add(trl_clock, size.problems * size.samples)
                    ours.add(clock, size.problems * size.samples)
                told = " ".join(f"{side} {each.cpu['step']:.2f}" for side, each in (("trl", trl_clock), ("ours", clock)))
                print(f"{name}: step {state.global_step}: CPU s {told}", flush=True)

        trainer.add_callback(AfterEach())
        trainer.train()
    return {"part": name, "title": size.title, "ours": ours.rows, "trl": theirs.rows}


def prefill_part(rounds: int) -> dict[str, Any]:
    """The cost of reading first and second prompts on the 4-layer model, four samples of a prompt: the second ones behind kept rows, all
    over again with their common prompt read once, and each by itself.
    """
    from transformers import AutoModelForCausalLM

    from posttrain.sampling.hf import HFEngine

    size = replace(SIZES["small"], max_tokens=96, ends=128)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        folder = make_model(Path(work), size)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        engine, plain, alone = (HFEngine(model, model.generation_config.eos_token_id, pad_id=0) for _ in range(3))
        alone._reader = None
        for number in range(rounds + 1):
            draw = random.Random(number)
            prompts: list[TokenIds] = [ids for _ in range(2) for ids in [tuple(draw.randrange(4, 360) for _ in range(128))] * 4]
            seeds = [draw.randrange(1 << 30) for _ in prompts]
            first = _cpu(plain.generate, prompts, Sampling(max_tokens=1), seeds)[0]
            made = engine.generate(prompts, Sampling(max_tokens=size.max_tokens, continued=True), seeds)
            told = tuple(draw.randrange(4, 360) for _ in range(16))
            second = [(*prompt, *one.ids, *told) for prompt, one in zip(prompts, made)]
            again, fresh = _cpu(plain.generate, second, Sampling(max_tokens=1), seeds)
            apart, _ = _cpu(alone.generate, second, Sampling(max_tokens=1), seeds)
            kept, found = _cpu(engine.generate, second, Sampling(max_tokens=1), seeds)
            assert [one.ids for one in found] == [one.ids for one in fresh]
            shared = sum(len(prompt) + len(one.ids) for prompt, one in zip(prompts, made))
            cached = sum(one.num_cached or 0 for one in found)
            seconds = {"first_s": first, "again_s": again, "apart_s": apart, "kept_s": kept}
            rows.append(seconds | {"cached": cached, "shared": shared, "all": sum(map(len, second))})
            print(f"prefill: {rows[-1]}", flush=True)
    return {"part": "prefill", "rows": rows[1:]}


def scaling_part(base: str, rounds: int) -> dict[str, Any]:
    """Our step on the demo's model over the number of episodes: CPU seconds and peak memory."""
    from posttrain.rl.score import score_step

    rows = []
    learner, _ = opened(Path(base), SIZES["demo"], {"pick": 2, "numbers": 6, "largest": 30})
    for problems in (8, 16, 32, 64, 128):
        for number in range(rounds + 1):
            clock = Clock()
            cfg = replace(learner.cfg, problems_per_step=problems)
            before = mark_memory()
            drawn = learner.task.load("train")[:problems]
            with clock("step"):
                score_step(replace(learner, cfg=cfg), drawn, number + 1)
            if number:
                rows.append({"episodes": 8 * problems, "cpu_s": clock.cpu["step"], "peak_mib": peak_mib() - before})
        print(f"scaling: {rows[-1]}", flush=True)
    return {"part": "scaling", "rows": rows}


def memory_part(which: str) -> dict[str, Any]:
    """The peak of one step at 151,936 ids, in this process, above what it held before."""
    size = SIZES["memory"]
    with tempfile.TemporaryDirectory() as work:
        folder = make_model(Path(work) / "model", size)
        clock = Clock()
        if which == "ours":
            learner, _ = opened(folder, size, None)
            before = mark_memory()
            our_step(learner, 1, clock)
        else:
            trainer = trl_trainer(folder, size, words_task(size), 1, Path(work), clock)
            before = mark_memory()
            trainer.train()
        return {"part": "memory", "side": which, "held_mib": before, "peak_mib": peak_mib(), "tokens": clock.count}


def loss_part(which: str, tokens: int) -> dict[str, Any]:
    """The peak of loss and gradient over hidden states of width 64, above what was held before: in pieces, or with all logits."""
    import torch

    from posttrain.rl.head import chosen_logprobs

    hidden, weight = torch.randn(tokens, 64, requires_grad=True), torch.randn(VOCAB, 64, requires_grad=True)
    token = torch.randint(VOCAB, (tokens,))
    before = mark_memory()
    if which == "whole":
        logp = torch.nn.functional.linear(hidden, weight).log_softmax(1).gather(1, token[:, None])
    else:
        logp = chosen_logprobs(hidden, weight, token)
    logp.sum().backward()
    return {"part": "loss", "side": which, "ids": tokens, "peak_mib": peak_mib() - before}


def _cpu(work: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    began = time.process_time()
    result = work(*args)
    return time.process_time() - began, result


def mark_memory() -> float:
    """MiB resident now; the highest mark starts here."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def peak_mib() -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


# The report


def ratio(pairs: Sequence[tuple[float, float]]) -> str:
    each = sorted(a / b for a, b in pairs if a and b)
    return f"{statistics.median(each):.2f} [{each[0]:.2f}, {each[-1]:.2f}]" if each else "-"


def step_table(found: dict[str, Any]) -> list[str]:
    ours, theirs = Steps("ours", found["ours"]), Steps("trl", found["trl"])
    lines = ["| CPU seconds of a step, median | ours | TRL | TRL / ours |", "|---|---|---|---|"]
    for name in ("step", "generate", "grade", "log-probs", "update", "push"):
        key = f"{name}_cpu_s"
        pairs = [(b.get(key, 0.0), a.get(key, 0.0)) for a, b in zip(ours.rows, theirs.rows)]
        share = f" ({ours.median(key) / ours.median('step_cpu_s'):.1%})" if name != "step" else ""
        shared = f" ({theirs.median(key) / theirs.median('step_cpu_s'):.1%})" if name != "step" else ""
        lines.append(f"| {name} | {ours.median(key):.3f}{share} | {theirs.median(key):.3f}{shared} | {ratio(pairs)} |")
    for name in ("episodes", "tokens"):
        rates = [[row[name] / row["step_cpu_s"] for row in side.rows] for side in (ours, theirs)]
        pairs = list(zip(*rates))
        lines.append(
            f"| {name} per CPU second | {statistics.median(rates[0]):.1f} | {statistics.median(rates[1]):.1f} | ours / TRL {ratio(pairs)} |"
        )
    passes, fewest = ours.median("passes"), ours.median("fewest_passes")
    barrier = f"The model is run {passes:.0f} times to sample ours; it would be {fewest:.0f} at least without a barrier between attempts."
    return [*lines, "", f"{len(ours.rows)} pairs of steps. Both engines share the trainer's weights: nothing is pushed. {barrier}"]


def prefill_table(found: dict[str, Any]) -> list[str]:
    rows = found["rows"]
    titles = {
        "first_s": "first prompts",
        "apart_s": "second prompts, each by itself",
        "again_s": "second prompts, what samples share read once",
        "kept_s": "second prompts, rows kept",
    }
    ratios = {
        "kept / each by itself": ("kept_s", "apart_s"),
        "kept / shared read once": ("kept_s", "again_s"),
        "second, kept / first": ("kept_s", "first_s"),
        "cached, of the tokens that were there before": ("cached", "shared"),
        "cached, of all tokens of second prompts": ("cached", "all"),
    }
    return [
        "| reading prompts, CPU seconds | median |",
        "|---|---|",
        *(f"| {title} | {statistics.median(row[key] for row in rows):.3f} |" for key, title in titles.items()),
        *(f"| {title} | {ratio([(row[a], row[b]) for row in rows])} |" for title, (a, b) in ratios.items()),
    ]


def scaling_table(found: dict[str, Any]) -> list[str]:
    import numpy as np

    rows = found["rows"]
    episodes, seconds = np.array([row["episodes"] for row in rows]), np.array([row["cpu_s"] for row in rows])
    slope, start = np.polyfit(episodes, seconds, 1)
    left = 1 - ((seconds - start - slope * episodes) ** 2).sum() / ((seconds - seconds.mean()) ** 2).sum()
    lines = ["| episodes | CPU s, median | peak, MiB above what was held |", "|---|---|---|"]
    for num in sorted(set(episodes.tolist())):
        some = [row for row in rows if row["episodes"] == num]
        lines.append(
            f"| {num} | {statistics.median(r['cpu_s'] for r in some):.3f} | {statistics.median(r['peak_mib'] for r in some):.0f} |"
        )
    return [*lines, "", f"Line: {start:.3f} s + {1000 * slope:.3f} ms per episode, R^2 = {left:.4f}."]


def memory_table(found: Sequence[dict[str, Any]]) -> list[str]:
    peak = {row["side"]: row for row in found}
    lines = ["| side | peak, MiB | held before the step | sampled tokens |", "|---|---|---|---|"]
    lines += [f"| {side} | {row['peak_mib']:.0f} | {row['held_mib']:.0f} | {row['tokens']} |" for side, row in peak.items()]
    if len(peak) == 2:
        ours, theirs = peak["ours"], peak["trl"]
        above = (ours["peak_mib"] - ours["held_mib"]) / (theirs["peak_mib"] - theirs["held_mib"])
        lines += ["", f"Ours / TRL: whole process {ours['peak_mib'] / theirs['peak_mib']:.2f}, what the step adds {above:.2f}."]
    return lines


def loss_table(found: Sequence[dict[str, Any]]) -> list[str]:
    peak = {(row["side"], row["ids"]): row["peak_mib"] for row in found}
    lines = ["| tokens | in pieces, MiB | all logits, MiB |", "|---|---|---|"]
    for num in sorted({num for _, num in peak}):
        lines.append(
            f"| {num} | {peak['pieces', num]:.0f} | {format(peak['whole', num], '.0f') if ('whole', num) in peak else 'not run'} |"
        )
    return lines


def draw(found: Sequence[dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parts = [each for each in found if "ours" in each]
    names = ("generate", "grade", "log-probs", "update", "push")
    figure, axes = plt.subplots(1, len(parts), figsize=(5 * len(parts), 3), squeeze=False)
    for axis, each in zip(axes[0], parts):
        for place, side in enumerate(("ours", "trl")):
            steps, left = Steps(side, each[side]), 0.0
            whole = steps.median("step_cpu_s")
            for colour, name in enumerate(names):
                width = steps.median(f"{name}_cpu_s")
                axis.barh(place, width, left=left, color=f"C{colour}", label=name if not place else None)
                left += width
            axis.barh(place, max(0.0, whole - left), left=left, color="0.8", label="rest" if not place else None)
        axis.set_xlim(0, 1.05 * axis.dataLim.x1)
        axis.set_yticks([0, 1], ["posttrain", "TRL"])
        axis.invert_yaxis()
        axis.set_xlabel("CPU seconds per step")
        axis.set_title(each["title"], fontsize=9)
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=120, metadata={"Software": None})


TITLES = {
    "demo": "A whole step, the demo",
    "small": "A whole step, a model whose arithmetic is the cost",
    "prefill": "What a second attempt costs to read",
    "scaling": "Cost over the number of episodes, the demo",
    "memory": "Peak memory of a step at 151,936 ids",
    "loss": "Peak memory of the loss at 151,936 ids",
}
CHILDREN = {
    "demo": [["demo"]],
    "small": [["small"]],
    "prefill": [["prefill"]],
    "scaling": [["scaling"]],
    "memory": [["memory", "ours"], ["memory", "trl"]],
    "loss": [["loss", "pieces", str(n)] for n in (256, 512, 1024, 2048, 4096)] + [["loss", "whole", str(n)] for n in (256, 512, 1024)],
}


def child(args: Sequence[str], base: str, rounds: int) -> dict[str, Any]:
    match args:
        case ["demo"]:
            return step_part("demo", base, rounds)
        case ["small"]:
            return step_part("small", None, rounds)
        case ["prefill"]:
            return prefill_part(rounds)
        case ["scaling"]:
            return scaling_part(base, rounds)
        case ["memory", which]:
            return memory_part(which)
        case ["loss", which, tokens]:
            return loss_part(which, int(tokens))
    raise ValueError(args)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="*", choices=list(TITLES), default=list(TITLES), help="others keep what they found last")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of steps")
    parser.add_argument(
        "--base", default="runs/score_sums/base/model", help="the demo's base model: posttrain train recipes/score_sums/base.yaml"
    )
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print("RESULT " + json.dumps(child(args.child, args.base, args.rounds)))
        return 0
    if {"demo", "scaling"} & set(args.part) and not (Path(args.base) / "config.json").exists():
        parser.error(f"--base: no model in {args.base}; make it with posttrain train recipes/score_sums/base.yaml")
    log = RESULT.with_suffix(".jsonl")
    kept = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    found = [row for row in kept if row["part"] not in args.part]
    at = commit()  # before the report is written, which is part of the tree
    for part in args.part:
        for call in CHILDREN[part]:
            command = [sys.executable, __file__, "--base", args.base, "--rounds", str(args.rounds), "--child", *call]
            process = subprocess.run(command, env=os.environ | ENVIRONMENT, text=True, stdout=subprocess.PIPE)
            (result,) = [line for line in process.stdout.splitlines() if line.startswith("RESULT ")] or [None]
            if result is None:
                print(process.stdout, f"{' '.join(call)}: exit {process.returncode}", file=sys.stderr)
                return 1
            found.append(json.loads(result.removeprefix("RESULT ")) | {"commit": at})
        print(f"{part} done", flush=True)
        write_report(found)
    return 0


def write_report(found: Sequence[dict[str, Any]]) -> None:
    write_atomic(RESULT.with_suffix(".jsonl"), "".join(json.dumps(row) + "\n" for row in found))
    lines = [
        f"# A step of two-attempt RL beside TRL's: `make bench-train`, {os.cpu_count()} cores, one thread",
        "",
        *(__doc__ or "").splitlines()[2:],
        "",
    ]
    for part, title in TITLES.items():
        some = [row for row in found if row["part"] == part]
        if not some:
            continue
        lines += [f"## {title}", "", f"Commit {some[-1]['commit']}." + (f" Model: {some[0]['title']}." if "title" in some[0] else ""), ""]
        table = {"prefill": prefill_table, "scaling": scaling_table}.get(part, step_table)
        lines += memory_table(some) if part == "memory" else loss_table(some) if part == "loss" else table(some[0])
        lines += [""]
    write_atomic(RESULT.with_suffix(".md"), "\n".join(lines))
    if any("ours" in row for row in found):
        draw(found, RESULT.with_suffix(".png"))


if __name__ == "__main__":
    sys.exit(main())
