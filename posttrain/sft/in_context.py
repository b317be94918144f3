"""A small decoder, from random weights, that learns to learn in context: next-token training on worlds told by their examples.

Each update takes fresh worlds of one family (`families.py`); answers alone carry loss, every answer of a sequence at once, so a sequence
of K examples trains 0 to K - 1 shots together. Sequences, and with them the shots, grow in the course of training, as do the dimensions
(arXiv 2208.01066). Every draw is seeded by (seed, step): weights, optimizer state and the step number are all that a checkpoint needs.
"""

import math
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from posttrain.config import config
from posttrain.progress import progress_bar
from posttrain.run import RunFolder, seed_for
from posttrain.sft import families
from posttrain.sft.families import Family, World
from posttrain.sft.fit import IGNORED, new_qwen2, save
from posttrain.sft.tokenizer import word_tokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import AdamW
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

LOG_EVERY = 50
WORD = re.compile(r" ?\S+|\n")


@config
class Shape:
    """A Qwen2-architecture model."""

    hidden_size: PositiveInt = 64
    layers: PositiveInt = 3
    heads: PositiveInt = 4
    mlp_size: PositiveInt = 256
    init_std: PositiveFloat = 0.12
    """Standard deviation of the initial weights; about hidden_size ** -0.5."""
    context: PositiveInt = 8192
    look_back: float = 8.0
    """How sharply each head of the first layer begins by attending to one place back, two back, ...; 0 leaves it to chance."""


@config
class Lengths:
    """How long sequences are, in tokens: log-uniform from `shortest` to a longest that grows to `longest`."""

    shortest: PositiveInt = 32
    first_longest: PositiveInt = 64
    longest: PositiveInt = 2048
    grow_steps: PositiveInt = 2000
    """Updates until the longest sequences, and the most dimensions, are reached."""


@config
class Config:
    """Training from nothing on sequences of solved examples."""

    kind: Literal["icl_pretrain"] = "icl_pretrain"
    model: Shape = Shape()
    families: dict[str, Family]
    """Name -> the worlds that sequences tell of; an update takes one family, by weight."""
    steps: PositiveInt
    tokens: PositiveInt = 2048
    """Tokens per update, about: short sequences come in larger batches."""
    lengths: Lengths = Lengths()
    lr: PositiveFloat = 4e-3
    """Peak learning rate of AdamW, after `warmup_steps` of linear warm-up."""
    schedule: Literal["cosine", "inverse_sqrt"] = "cosine"
    """After the warm-up: along a cosine to 0, or lr * sqrt(warmup_steps / step)."""
    warmup_steps: PositiveInt = 50
    weight_decay: float = 0.01
    checkpoint_every: PositiveInt = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model.hidden_size % (2 * self.model.heads):
            raise ValueError(f"model: heads must share hidden_size in even parts, got {self.model.heads} and {self.model.hidden_size}")
        if self.lengths.longest > self.model.context:
            raise ValueError(f"lengths.longest is {self.lengths.longest}, above model.context = {self.model.context}")
        for name, family in self.families.items():
            if family.kind == "parity" and (asked := self.steps * rows_of(self, family, 0, 1)) > family.rows.pool_size:
                raise ValueError(f"families.{name}: {asked} rows, each read once, but the pool has {family.rows.pool_size}")
        if self.checkpoint_every % LOG_EVERY:
            raise ValueError(
                f"checkpoint_every must be a multiple of {LOG_EVERY}, the updates in a line of the log, got {self.checkpoint_every}"
            )


def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, then write RUN/model (plain `from_pretrained` loads it); a killed run goes on from its last checkpoint under `resume`."""
    import torch

    folder = RunFolder(out, cfg, resume=resume)
    if (out / "model" / "config.json").exists():
        return 0
    model, tokenizer = new_model(cfg)
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr, betas=(0.9, 0.98), weight_decay=cfg.weight_decay)
    done = _restore(out, model, optimizer)
    folder.forget_after(done)
    seen: list[dict[str, float]] = []
    bar = progress_bar(cfg.steps, folder.path.name, "step", done)
    for step in range(done + 1, cfg.steps + 1):
        batch = draw_batch(cfg, tokenizer, step)
        seen.append(update(model, optimizer, batch, rate(cfg, step)))
        if step % LOG_EVERY == 0 or step == cfg.steps:
            folder.log(step, _means(seen))
            said = " ".join(f"{key} {value:.2f}" for key, value in _means(seen).items() if "accuracy" in key)
            bar.set_postfix_str(said, refresh=False)
            seen = []
        if step % cfg.checkpoint_every == 0:
            _checkpoint(out, model, optimizer, step)
        bar.update()
    bar.close()
    save(model, tokenizer, out / "model")
    (out / "training.pt").unlink(missing_ok=True)
    return 0


def new_model(cfg: Config) -> "tuple[Qwen2ForCausalLM, PreTrainedTokenizerBase]":
    from posttrain.sft.look_back import look_back

    tokenizer = word_tokenizer(families.vocabulary(list(cfg.families.values())))
    model = new_qwen2(cfg.model, tokenizer, context=cfg.model.context, seed=seed_for(cfg.seed, "weights"))
    if cfg.model.look_back:
        look_back(model, cfg.model.look_back)
    return model, tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Sequences of one family; `label_BT` is the token itself where it belongs to an answer, else `IGNORED`."""

    family: str
    ids_BT: "Tensor"
    label_BT: "Tensor"


def draw_batch(cfg: Config, tokenizer: "PreTrainedTokenizerBase", step: int) -> Batch:
    """The sequences of update `step`, counted from one: the same for the same recipe, whatever came before."""
    import torch

    rng = random.Random(seed_for(cfg.seed, "worlds", step))
    name = rng.choices(list(cfg.families), [family.weight for family in cfg.families.values()])[0]
    family, grown = cfg.families[name], min(1.0, step / cfg.lengths.grow_steps)
    width = families.width(family, grown, rng)
    each = families.tokens_per_example(family, width)
    longest = cfg.lengths.first_longest * (cfg.lengths.longest / cfg.lengths.first_longest) ** grown
    length = cfg.lengths.shortest * (longest / cfg.lengths.shortest) ** rng.random()
    examples = 1 if family.kind == "parity" else max(2, int(length / each))
    rows = rows_of(cfg, family, width, examples)
    told = families.worlds(family, width, rows, examples, rng.getrandbits(63), first=rows * (step - 1))
    sequences = [tokens(world, tokenizer.get_vocab()) for world in told]
    longest_row = max(len(ids) for ids, _ in sequences)
    ids = [ids + [tokenizer.pad_token_id] * (longest_row - len(ids)) for ids, _ in sequences]  # on the right: no answer sees it
    labels = [labels + [IGNORED] * (longest_row - len(labels)) for _, labels in sequences]
    return Batch(family=name, ids_BT=torch.tensor(ids), label_BT=torch.tensor(labels))


def rows_of(cfg: Config, family: Family, width: int, examples: int) -> int:
    """How many sequences make an update."""
    return max(1, cfg.tokens // (examples * families.tokens_per_example(family, width)))


def tokens(world: World, vocab: dict[str, int]) -> tuple[list[int], list[int]]:
    """A world's examples as one row of token ids, and its labels: every example written as a prompt's shot is.

    The vocabulary holds each word, with the space before it, and the line end as one token, so that looking words up is what the
    tokenizer does.
    """
    ids: list[int] = []
    labels: list[int] = []
    for example in world.examples:
        asked = WORD.findall((world.layout.question_label + example.question + world.layout.answer_label).rstrip(" "))
        answer, after = WORD.findall(f" {example.solution}"), WORD.findall(world.layout.divider)
        ids += [vocab[word] for word in (*asked, *answer, *after)]
        labels += [*[IGNORED] * len(asked), *(vocab[word] for word in answer), *[IGNORED] * len(after)]
    return ids, labels


def update(model: "Qwen2ForCausalLM", optimizer: "AdamW", batch: Batch, lr: float) -> dict[str, float]:
    """One step of AdamW; the loss, and the accuracy over the last quarter of the answers, where most shots have been seen."""
    import torch

    predicted_BT = batch.label_BT[:, 1:]
    at = predicted_BT != IGNORED
    hidden = model.model(batch.ids_BT[:, :-1]).last_hidden_state[at]  # logits are made for answers alone
    logits, labels = model.lm_head(hidden), predicted_BT[at]
    loss = torch.nn.functional.cross_entropy(logits, labels)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    right, place = (logits.argmax(-1) == labels).float(), at.cumsum(1)[at] / at.sum(1).repeat_interleave(at.sum(1))
    return {f"{batch.family}/loss": loss.item(), f"{batch.family}/accuracy": right[place > 0.75].mean().item()}


def rate(cfg: Config, step: int) -> float:
    """The learning rate of an update, counted from one."""
    if step <= cfg.warmup_steps:
        return cfg.lr * step / cfg.warmup_steps
    if cfg.schedule == "inverse_sqrt":
        return cfg.lr * math.sqrt(cfg.warmup_steps / step)
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * (step - cfg.warmup_steps) / (cfg.steps - cfg.warmup_steps + 1)))


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: sum(found) / len(found) for key in keys if (found := [row[key] for row in rows if key in row])}


def _checkpoint(out: Path, model: "Qwen2ForCausalLM", optimizer: "AdamW", step: int) -> None:
    """Replace RUN/training.pt in one step."""
    import torch

    temporary = out / ".training.pt.tmp"
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, temporary)
    os.replace(temporary, out / "training.pt")


def _restore(out: Path, model: "Qwen2ForCausalLM", optimizer: "AdamW") -> int:
    """The step of the last checkpoint, put back; 0 where there is none."""
    import torch

    if not (out / "training.pt").exists():
        return 0
    state = torch.load(out / "training.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
