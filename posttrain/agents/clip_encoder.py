"""A small CLIP, trained from nothing on captioned pictures of a world of shapes: the encoder that `clip_reward` takes its reward from.

    loss = (CE(s cos(f(o_i), g(c_j)), i = j) + CE(the same transposed)) / 2        images o, captions c, a learnt scale s (arXiv 2103.00020)

Pictures and captions are drawn anew at every step (`kernel/envs/shapes.py`, `kernel/captions.py`). What is written is a checkpoint like any
other CLIP's, `OUT/model`: CLIPModel, CLIPTokenizer, image processor. Left out: augmentation, a schedule of the rate but for its warm-up and
fall. Expected: pictures find their captions better the larger the encoder is (recipes/clip_reward).
"""

import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from posttrain.agents.environments import check_device
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.captions import byte_pairs, caption, words
from posttrain.agents.kernel.clip import Preparation, contrastive_loss, preparation_of, prepared
from posttrain.agents.kernel.envs.shapes import AGENT, CELL, LAYOUT, OBJECTS, Shapes, draw_layouts, picture_side
from posttrain.agents.kernel.nets import descend
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import config
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPProcessor


@config
class Config:
    """A run of contrastive training."""

    kind: Literal["clip_encoder"] = "clip_encoder"
    seed: NonNegativeInt = 0
    """Of every draw."""
    n: int = Field(default=4, ge=2)
    """Side of the room, cells."""
    width: PositiveInt = 32
    """Features of a token, in both towers."""
    layers: PositiveInt = 2
    """Of both towers."""
    heads: PositiveInt = 2
    joint: PositiveInt = 32
    """Numbers of an embedding."""
    steps: PositiveInt = 400
    batch: PositiveInt = 128
    """Pairs of a step."""
    learning_rate: PositiveFloat = 2e-3
    """Of AdamW: rises for a tenth of the steps, then falls linearly to 0."""
    log_every: PositiveInt = 50
    """Steps between rows of metrics."""
    checkpoint_every: PositiveInt = 200
    """Steps between checkpoints."""
    final_batches: PositiveInt = 8
    """Batches of the evaluation at the end."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width: found {self.width}, expected a multiple of heads = {self.heads}")


def make_processor(cfg: Config) -> "CLIPProcessor":
    """A tokenizer of the grammar's words, and an image processor that leaves the pictures' size alone."""
    from transformers import CLIPProcessor, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    vocab, merges = byte_pairs(words())
    side = picture_side(cfg.n)
    size = {"height": side, "width": side}
    images = CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    return CLIPProcessor(images, CLIPTokenizer(vocab, merges))


def make_model(cfg: Config, tokenizer: Any) -> "CLIPModel":
    """A random CLIP whose patches are as large as the cells, and lie across them."""
    from transformers import CLIPConfig, CLIPModel

    tower = {
        "hidden_size": cfg.width,
        "intermediate_size": 4 * cfg.width,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "projection_dim": cfg.joint,
        "hidden_act": "gelu",
    }
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = tower | special | {"vocab_size": len(tokenizer), "max_position_embeddings": 24}
    vision = tower | {"image_size": picture_side(cfg.n), "patch_size": CELL}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=cfg.joint))


def pairs(cfg: Config, when: int | str) -> tuple[Tensor, list[str]]:
    """Pictures [B, 3, H, W] and a caption of each; in half of them the agent stands at an object. Draws depend on `when` alone."""
    draws = torch.Generator().manual_seed(seed_for(cfg.seed, "pairs", when))
    rng = random.Random(seed_for(cfg.seed, "captions", when))
    env = Shapes(draw_layouts(cfg.batch, cfg.n, draws), limit=1, num_envs=cfg.batch)
    env.reset(draws)
    state_BF = env.state_BF
    state_BF[:, LAYOUT] = torch.arange(cfg.batch)
    state_BF[:, AGENT] = torch.randint(env.num_cells, (cfg.batch,), generator=draws)
    at_B = torch.randint(OBJECTS, (cfg.batch,), generator=draws)
    half = cfg.batch // 2
    state_BF[:half, AGENT] = env.layouts.cell_LO[torch.arange(half), at_B[:half]]
    rooms = zip(state_BF[:, AGENT].tolist(), env.layouts.cell_LO.tolist(), env.layouts.kind_LO.tolist(), strict=True)
    return env.frames(state_BF), [caption(agent, cells, kinds, cfg.n, rng) for agent, cells, kinds in rooms]


def embedded(model: "CLIPModel", tokenizer: Any, how: Preparation, cfg: Config, when: int | str) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of the pictures and of the captions of a batch, and the number of each one's caption."""
    picture_BCHW, captions = pairs(cfg, when)
    texts = tokenizer(captions, padding=True, return_tensors="pt").to(cfg.device)
    image_BD = model.get_image_features(pixel_values=prepared(picture_BCHW.to(cfg.device), how)).pooler_output
    text_BD = model.get_text_features(**texts).pooler_output
    number = {text: i for i, text in enumerate(dict.fromkeys(captions))}
    caption_B = torch.tensor([number[text] for text in captions], device=cfg.device)
    return normalize(image_BD, dim=-1), normalize(text_BD, dim=-1), caption_B


def update(model: "CLIPModel", optimiser: torch.optim.Optimizer, tokenizer: Any, how: Preparation, cfg: Config, step: int) -> float:
    """One step; returns its loss."""
    warm_up = max(1, cfg.steps // 10)
    image_BD, text_BD, caption_B = embedded(model, tokenizer, how, cfg, step)
    loss = contrastive_loss(image_BD, text_BD, model.logit_scale.exp(), caption_B)
    descend(optimiser, loss, 1.0, cfg.learning_rate * min(step / warm_up, 1 - (step - 1) / cfg.steps))
    model.logit_scale.data.clamp_(max=4.6052)  # a scale of 100, as in the paper
    return loss.item()


@torch.no_grad()
def evaluate(model: "CLIPModel", tokenizer: Any, how: Preparation, cfg: Config) -> dict[str, float]:
    """Loss, and how often the likeliest caption of its batch is a picture's own, over pairs that were not trained on."""
    model.eval()
    losses, found = [], []
    for number in range(cfg.final_batches):
        image_BD, text_BD, caption_B = embedded(model, tokenizer, how, cfg, f"end {number}")
        losses.append(contrastive_loss(image_BD, text_BD, model.logit_scale.exp(), caption_B).item())
        found.append((caption_B[(image_BD @ text_BD.T).argmax(1)] == caption_B).float().mean().item())
    return {"loss": sum(losses) / len(losses), "found": sum(found) / len(found)}


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, write `model/` and `result.json`; returns the exit code."""
    check_device(cfg.device)
    run, saved = RunFolder(out, cfg, resume=resume, free=("checkpoint_every",)), out / "checkpoint.pt"
    torch.manual_seed(seed_for(cfg.seed))
    processor = make_processor(cfg)
    tokenizer, how = processor.tokenizer, preparation_of(processor.image_processor)
    model = make_model(cfg, tokenizer).to(cfg.device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=cfg.learning_rate, weight_decay=0.01)
    parts, done, spent_s = {"model": model, "optimiser": optimiser}, 0, 0.0
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        done, spent_s = numbers["done"], numbers["spent_s"]
    run.forget_after(done)
    with StopSignal() as stop:
        for step in range(done + 1, cfg.steps + 1):
            before_s = time.process_time()
            loss = update(model, optimiser, tokenizer, how, cfg, step)
            spent_s += time.process_time() - before_s
            if step % cfg.log_every == 0 or step == cfg.steps:
                run.log(step, {"loss": loss, "scale": model.logit_scale.exp().item(), "train_cpu_s": spent_s})
            if step % cfg.checkpoint_every == 0 or step == cfg.steps or stop.came:
                checkpoint.save(saved, parts, done=step, spent_s=spent_s)
            if stop.came:
                return INTERRUPTED
    model.save_pretrained(out / "model")
    processor.save_pretrained(out / "model")
    size = {"parameters": sum(p.numel() for p in model.parameters())}
    result = size | evaluate(model, tokenizer, how, cfg) | {"train_cpu_s": spent_s}
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0
