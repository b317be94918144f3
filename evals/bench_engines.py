"""Sampling with our loop around a transformers model, with transformers' continuous batching, and with vLLM: python evals/bench_engines.py

The same prompts, several samples each, no bound on the tokens to choose from; one id in twenty ends a row, so lengths vary as they do in
training. In one process and one thread, in turns; CPU seconds, which depend less than the clock on what else the machine does. The models
are random. Writes evals/results/engines.md.
"""

import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from posttrain.run import commit, write_atomic
from posttrain.types import Sampling

RESULT = Path(__file__).parent / "results" / "engines.md"
MODELS = {"2 layers x 64, 64 ids": (2, 64, 64), "4 layers x 512, 32,000 ids": (4, 512, 32_000)}
PROMPTS, SAMPLES, PROMPT_TOKENS, MAX_TOKENS, REPEATS = 32, 8, 24, 64, 5
ENDS = 20  # one id in so many ends a row


def make_model(folder: Path, layers: int, width: int, num_ids: int) -> Any:
    """A random model of the Qwen2 architecture, saved for vLLM."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    heads = width // 32
    model = Qwen2ForCausalLM(
        Qwen2Config(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=4 * width,
            vocab_size=num_ids,
            max_position_embeddings=512,
        )
    ).eval()
    model.save_pretrained(folder)
    return model


def samplers(model: Any, folder: Path, num_ids: int) -> dict[str, Callable[[], int]]:
    """Name -> a function that samples all rows and returns how many tokens it made."""
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    from posttrain.sampling.hf import HFEngine
    from posttrain.sampling.vllm import VLLMEngine

    draw = random.Random(0)
    eos_ids = list(range(num_ids // ENDS))
    asked = [tuple(draw.randrange(len(eos_ids), num_ids) for _ in range(PROMPT_TOKENS)) for _ in range(PROMPTS)]
    prompts = [prompt for prompt in asked for _ in range(SAMPLES)]
    seeds, sampling = list(range(len(prompts))), Sampling(max_tokens=MAX_TOKENS)
    ours = HFEngine(model, eos_ids, shared=True)
    vllm = VLLMEngine(str(folder), eos_ids, max_model_len=512)
    free = GenerationConfig(max_new_tokens=MAX_TOKENS, eos_token_id=eos_ids, pad_token_id=0, do_sample=True, top_k=0, top_p=1.0)
    pages = ContinuousBatchingConfig(num_blocks=1024, block_size=32, max_batch_tokens=4096)

    def continuous() -> int:
        made = model.generate_batch([list(prompt) for prompt in prompts], generation_config=free, continuous_batching_config=pages)
        return sum(len(row.generated_tokens) for row in made.values())

    return {
        "ours": lambda: sum(len(row.ids) for row in ours.generate(prompts, sampling, seeds)),
        "transformers' continuous batching": continuous,
        "vLLM": lambda: sum(len(row.ids) for row in vllm.generate(prompts, sampling, seeds)),
    }


def tokens_per_cpu_s(sample: Callable[[], int]) -> float:
    began = time.process_time()
    tokens = sample()
    return tokens / (time.process_time() - began)


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    sections = []
    for name, shape in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            engines = samplers(make_model(Path(folder), *shape), Path(folder), shape[2])
            for sample in engines.values():
                sample()  # what is compiled or cached at first
            rounds = [{engine: tokens_per_cpu_s(sample) for engine, sample in engines.items()} for _ in range(REPEATS)]
        rows = []
        for engine in engines:
            ratios = [row["ours"] / row[engine] for row in rounds]
            shown = "1" if engine == "ours" else f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            rows.append(f"| {engine} | {median(row[engine] for row in rounds):,.0f} | {shown} |")
        sections.append(f"## {name}\n\n| engine | tokens per CPU second, median | ours / it |\n|---|---|---|\n" + "\n".join(rows))
    text = f"""# Engines beside each other: `make bench-engines`, one thread

Commit {commit()}. {PROMPTS} prompts of {PROMPT_TOKENS} tokens, {SAMPLES} samples each, one id in {ENDS} ends a row, at most {MAX_TOKENS}
tokens; n = {REPEATS} rounds of all three in turns, ratios of neighbours as median [lowest, highest]. Ours and vLLM,
called as in training, give log-probabilities and each row draws by a seed of its own; transformers' gives neither. CPU seconds count every
thread of the process. vLLM is made for GPUs and for many more parameters than these: this is what it costs on CPUs, no more.

"""
    write_atomic(RESULT, text + "\n\n".join(sections) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
