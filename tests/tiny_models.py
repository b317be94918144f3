"""Random models of three real architectures, each with a tokenizer and a chat template of its family's kind, in a second.

They know nothing; they make the paths real: other special ids, other templates, several end-of-sequence ids, pad equal to eos,
tied and untied heads. The folder loads by plain `from_pretrained`, as a downloaded one does.
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM as AutoModel
from transformers import Gemma3TextConfig, GenerationConfig, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast, Qwen2Config

Family = Literal["qwen2", "llama", "gemma"]

CORPUS = [
    "What is the sum of twelve and 35? Find the value of x if 3x + 7 = 22.",
    "We have 3x = 22 - 7 = 15, so x = 5. The final answer is \\boxed{5}.",
    "There might be an error in the solution above. Please correct the error, if any, and rewrite the solution.",
    "A train travels 60 miles in 2 hours; its speed is \\frac{60}{2} = 30 miles per hour. The answer is $\\boxed{30}$.",
    "Let n be a positive integer such that n^2 + 2n + 1 = 100. Then (n + 1)^2 = 100 and n = 9.",
]

IM_START_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADER_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
TURN_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set head = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set head = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ head if loop.first else '' }}{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def make_tiny_model(folder: Path, family: Family, *, seed: int = 0, vocab: int = 384, positions: int = 2048) -> Path:
    """`folder`, holding a float32 model of 2 layers x 64, its tokenizer, chat template and generation config.

    `vocab` bounds the tokenizer's size; `positions` is the longest sequence. qwen2 and llama list a pad id, llama's being its eos.
    """
    tokenizer = {"qwen2": _qwen2_tokenizer, "llama": _llama_tokenizer, "gemma": _gemma_tokenizer}[family](vocab)
    id_of = tokenizer.convert_tokens_to_ids
    eos_names = {
        "qwen2": ["<|im_end|>", "<|endoftext|>"],
        "llama": ["<|eot_id|>"],
        "gemma": ["<eos>", "<end_of_turn>"],
    }[family]
    eos = [id_of(name) for name in eos_names]
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": eos if len(eos) > 1 else eos[0],
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    model = AutoModel.from_config(_config(family, len(tokenizer), positions, special), dtype=torch.float32)
    model.generation_config = GenerationConfig(do_sample=True, **special)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _config(family: Family, vocab: int, positions: int, special: dict) -> PretrainedConfig:
    """Weights are drawn wide (0.15), or a random model's distribution is so flat that greedy decoding is a matter of rounding."""
    shape = {
        "vocab_size": vocab,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": positions,
        "initializer_range": 0.15,
        **special,
    }
    if family == "qwen2":
        return Qwen2Config(**shape, tie_word_embeddings=True)
    if family == "llama":
        return LlamaConfig(**shape, tie_word_embeddings=False)
    layers = ["sliding_attention", "full_attention"]
    return Gemma3TextConfig(**shape, head_dim=32, query_pre_attn_scalar=32, sliding_window=64, layer_types=layers, tie_word_embeddings=True)


def _qwen2_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=vocab - len(special), initial_alphabet=alphabet, show_progress=False))
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return _finish(raw, special, IM_START_TEMPLATE, names)


def _llama_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """BPE over words marked by U+2581 (Metaspace), falling back to bytes; the special tokens and template of Llama 3."""
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    size = vocab - len(special) - len(BYTES) - 1
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", *BYTES, *sorted(model["vocab"], key=model["vocab"].get)]
    merges = [tuple(pair) for pair in model["merges"]]
    raw = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|eot_id|>", "unk_token": "<unk>"}
    return _finish(raw, special, HEADER_TEMPLATE, names)


def _gemma_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """Unigram pieces (the corpus's words and characters, scored by frequency) with spaces as U+2581, falling back to bytes."""
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    words = "".join(CORPUS).replace(" ", " ▁").split(" ")
    counts = Counter(words) + Counter(char for word in words for char in word)
    pieces = [(piece, math.log(count / counts.total())) for piece, count in counts.most_common(vocab - len(special) - len(BYTES) - 1)]
    raw = Tokenizer(models.Unigram([("<unk>", 0.0), *((b, -20.0) for b in BYTES), *pieces], unk_id=0, byte_fallback=True))
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return _finish(raw, special, TURN_TEMPLATE, names)


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _finish(raw: Tokenizer, special: list[str], template: str, names: dict[str, str]) -> PreTrainedTokenizerFast:
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False, **names)
    tokenizer.chat_template = template
    return tokenizer
