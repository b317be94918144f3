"""Observers: models that have read some texts and say how many bits another one would take.

    bits(x) = -log2 p(x | all that was learnt, in order)        C(x | history) for a compressor

An observer may adapt within x, as any predictor of sequences does, and forgets x afterwards: `bits` leaves it as it was. All of them code
the text's UTF-8 bytes (a language model its tokens) and the end of the text, so losses of different texts add up.
"""

import zlib
from collections.abc import Sequence
from math import log2
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

END = b"\n"
WINDOW = 1 << 15  # what deflate can look back on, bytes


class Observer(Protocol):
    def learn(self, text: str) -> None:
        """Append `text` to the history."""
        ...

    def bits(self, text: str) -> float:
        """-log2 p(text | history); the history stays as it is."""
        ...


def num_bytes(text: str) -> int:
    """What an observer codes of a text: its bytes and its end."""
    return len(text.encode()) + len(END)


class NGram:
    """Byte n-grams of every order up to `order`, interpolated as by Witten and Bell (1991), counted as they come.

    p_k(c | h) = (n(h c) + u(h) p_{k-1}(c | h')) / (n(h) + u(h)),      n how often, u after how many kinds of byte; p_{-1} = 1 / 256
    """

    def __init__(self, order: int = 4) -> None:
        self.order = order
        self.counts: dict[bytes, dict[int, int]] = {}
        self.totals: dict[bytes, int] = {}

    def learn(self, text: str) -> None:
        self._read(END + text.encode() + END)

    def bits(self, text: str) -> float:
        data = END + text.encode() + END
        bits = self._read(data)
        for context, byte in self._places(data):
            counts = self.counts[context]
            self.totals[context] -= 1
            counts[byte] -= 1
            if not counts[byte]:
                del counts[byte]
            if not counts:
                del self.counts[context], self.totals[context]
        return bits

    def _places(self, data: bytes) -> list[tuple[bytes, int]]:
        """Every context with the byte that follows it; the first byte is only context."""
        return [(data[at - k : at], data[at]) for at in range(1, len(data)) for k in range(min(self.order, at) + 1)]

    def _read(self, data: bytes) -> float:
        """Code and count `data` byte by byte; the bits that it took."""
        bits, known, totals = 0.0, self.counts, self.totals
        for at in range(1, len(data)):
            byte, prob, seen = data[at], 1 / 256, True
            for k in range(min(self.order, at) + 1):
                context = data[at - k : at]
                if seen and (counts := known.get(context)) is not None:
                    kinds = len(counts)
                    prob = (counts.get(byte, 0) + kinds * prob) / (totals[context] + kinds)
                    totals[context] += 1
                    counts[byte] = counts.get(byte, 0) + 1
                else:  # a longer context cannot have been seen either
                    seen = False
                    known[context] = {byte: 1}
                    totals[context] = 1
            bits -= log2(prob)
        return bits


class Deflate:
    """zlib at its best level: how much longer the compressed history gets by a text, in whole bytes. It remembers the last 32 KiB."""

    def __init__(self) -> None:
        self.history = b""
        self._ready: Any = None

    def learn(self, text: str) -> None:
        self.history = (self.history + text.encode() + END)[-WINDOW:]
        self._ready = None

    def bits(self, text: str) -> float:
        if self._ready is None:
            given: dict[str, Any] = {"zdict": self.history} if self.history else {}
            self._ready = zlib.compressobj(9, zlib.DEFLATED, -15, 9, **given)
        coder = self._ready.copy()
        return 8.0 * (len(coder.compress(text.encode() + END)) + len(coder.flush()))


class InContext:
    """A causal language model with the history before it, one text a line: as many whole texts, the latest, as its positions hold.

    Its loss is in bits of tokens. What no longer fits is forgotten, so a longer history can only help within the context.
    """

    def __init__(self, model: "nn.Module", tokenizer: "PreTrainedTokenizerBase", context: int) -> None:
        self.model, self.tokenizer, self.context = model.eval(), tokenizer, context
        self._texts: list[list[int]] = []

    def learn(self, text: str) -> None:
        self._texts.append(self._ids(text))

    def bits(self, text: str) -> float:
        """Raises `ValueError` where the text alone does not fit."""
        import torch

        own = self._ids(text)
        start = [self._first()]
        room = self.context - len(own) - len(start)
        if room < 0:
            raise ValueError(f"a text of {len(own)} tokens does not fit into a context of {self.context}")
        before: list[list[int]] = []
        for ids in reversed(self._texts):
            room -= len(ids)
            if room < 0:
                break
            before.append(ids)
        ids_1T = torch.tensor([[*start, *(i for ids in reversed(before) for i in ids), *own]])
        with torch.no_grad():
            logits_TV = self.model(input_ids=ids_1T.to(next(self.model.parameters()).device)).logits[0, -len(own) - 1 : -1].float().cpu()
        return float(-logits_TV.log_softmax(-1).gather(-1, ids_1T[0, -len(own) :, None]).sum()) / 0.6931471805599453

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text + END.decode(), add_special_tokens=False)["input_ids"])

    def _first(self) -> int:
        """What stands where no text does: the token that begins a text, or ends one."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return self._ids("")[0]


def language_model(name: str, context: int | None = None) -> InContext:
    """The model and tokenizer of a folder or hub id, reading at most `context` tokens; raises `ValueError` where there is none."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load {name!r}: {str(error).splitlines()[0]}") from None
    longest = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048)
    if torch.cuda.is_available():
        model = model.to("cuda")
    return InContext(model, tokenizer, min(context or longest, longest))


def replayed(observer: Observer, texts: Sequence[str], history: Sequence[int]) -> list[list[float]]:
    """Bits of every text of which `history[i]` earlier ones are known, [len(history)][N - history[i]]; `history` ascends."""
    found, known = [], 0
    for length in history:
        for text in texts[known:length]:
            observer.learn(text)
        known = length
        found.append([observer.bits(text) for text in texts[length:]])
    return found
