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
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TORCHDYNAMO_DISABLE": "1",
}.items():
    os.environ.setdefault(name, value)

from pathlib import Path

import pytest

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
