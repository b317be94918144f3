"""A model that a caller named, opened for evaluation: whose weights it is, its chat format, its tokenizer, an engine."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.config import ConfigError
from posttrain.prompting.chat import ChatFormat, TemplateError, chat_format, eos_ids_of
from posttrain.sampling.engine import open_engine
from posttrain.types import Engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WINDOWS, WINDOW = 64, 1 << 16  # how much of a weights file is read to tell it from another: so many places, so many bytes each


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
        raise ConfigError(f"{model}: no such model folder; train it first, or name another folder or a model of the hub")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        return tokenizer, eos_ids_of(tokenizer, model)
    except (OSError, ValueError) as error:  # no such folder or hub id, no network, no tokenizer in it
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{model}: neither a model folder nor a hub model that can be loaded: {said}") from None


def load_engine(cfg: Any, model: str, eos_ids: Sequence[int], pad_id: int | None, dtype: str, *, text_stops: bool = False) -> Engine:
    """`open_engine` for a model that a caller named; raises `ConfigError` where its weights cannot be loaded, else `EngineError`."""
    try:
        return open_engine(cfg, model, eos_ids=eos_ids, pad_id=pad_id, dtype=dtype, text_stops=text_stops)
    except OSError as error:  # a folder with a tokenizer and no weights
        raise ConfigError(f"{model}: its weights cannot be loaded: {' '.join(str(error).split())[:300]}") from None
