"""`python -m posttrain.sampling.trial KIND FOLDER`: open an engine on a model folder, continue one prompt greedily, print the ids as JSON.

For `posttrain doctor`, which runs it as a process of its own: an engine that crashes or hangs then says so and takes nothing with it.
"""

import json
import sys
from typing import Any

from posttrain.config import build
from posttrain.prompting.chat import eos_ids_of
from posttrain.sampling.engine import HFEngineConfig, VLLMEngineConfig, open_engine
from posttrain.types import Sampling

PROMPT = (10, 20, 30, 40, 50)
KINDS: dict[str, type[Any]] = {"hf": HFEngineConfig, "vllm": VLLMEngineConfig}


def try_engine(kind: str, folder: str) -> list[int]:
    """The ids that continue `PROMPT`. Raises whatever the engine raises."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = {"max_model_len": 64, "kv_cache_gib": 0.1, "gpu_memory_utilization": 0.3, "enforce_eager": True} if kind == "vllm" else {}
    cfg: HFEngineConfig | VLLMEngineConfig = build(KINDS[kind], [("trial", settings)])
    engine = open_engine(cfg, folder, eos_ids=eos_ids_of(tokenizer, folder), pad_id=tokenizer.pad_token_id, dtype="float32")
    try:
        (completion,) = engine.generate([PROMPT], Sampling(max_tokens=4, temperature=0.0), [0])
    finally:
        engine.close()
    return list(completion.ids)


if __name__ == "__main__":
    print(json.dumps(try_engine(*sys.argv[1:])))
