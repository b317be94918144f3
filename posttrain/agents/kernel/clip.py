"""Rewards from an encoder of images and texts, CLIP or SigLIP (arXiv 2312.09187).

    p(l | o) = softmax over {l, n_1 ... n_M} of cos(f(o), g(.)) / tau, at l        reward = 1 if p >= beta else 0

f embeds the image o, g the goal l and the negatives n. Read `goal_probability`, then `GoalReward`, which holds the texts of many goals and
embeds each of them once; `DualEncoder` is any checkpoint that transformers' AutoModel and AutoProcessor read.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 256  # images embedded at a time
NEAREST, BILINEAR, BICUBIC = 0, 2, 3  # of PIL, as a checkpoint's `resample` names them


def goal_probability(image_BD: Tensor, text_KD: Tensor, goal_B: Tensor, rivals_GK: Tensor, temperature: float) -> Tensor:
    """p(l | o) of each image's own goal, all embeddings of length 1, [B].

    `goal_B` are rows of `text_KD`; `rivals_GK[g]` says which texts are the negatives of goal g, which is set against itself in any case.
    """
    logits_BK = image_BD @ text_KD.T / temperature
    rivals_BK = rivals_GK[goal_B].scatter(1, goal_B[:, None], True)
    return logits_BK.masked_fill(~rivals_BK, -torch.inf).softmax(1).gather(1, goal_B[:, None])[:, 0]


def ensembled(text_TKD: Tensor) -> Tensor:
    """One embedding of length 1 for several wordings of each text: the direction of their mean (arXiv 2103.00020, sec. 3.1.4)."""
    return normalize(text_TKD.mean(0), dim=-1)


def contrastive_loss(image_BD: Tensor, text_BD: Tensor, scale: Tensor, caption_B: Tensor) -> Tensor:
    """The mean of cross-entropies from images to texts and back, of logits scale * cos (arXiv 2103.00020, fig. 3).

    Pairs of one caption, by its number in `caption_B`, are right for each other, and share the target evenly.
    """
    logits_BB = scale * image_BD @ text_BD.T
    target_BB = (caption_B[:, None] == caption_B[None]).float()
    target_BB = target_BB / target_BB.sum(1, keepdim=True)
    return 0.5 * (cross_entropy(logits_BB, target_BB) + cross_entropy(logits_BB.T, target_BB))


def precision_recall(score_N: Tensor, true_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thresholds from high to low, one a different score, and precision and recall of calling true what reaches each; recall ends at 1.

    Raises `ValueError` where nothing is true, as there is no recall then.
    """
    if not bool(true_N.any()):
        raise ValueError("precision_recall: found no true example, expected one at least")
    order_N = score_N.argsort(descending=True)
    score_N, found_N = score_N[order_N], true_N[order_N].double().cumsum(0)
    last_N = torch.cat([score_N[1:] != score_N[:-1], torch.ones(1, dtype=torch.bool, device=score_N.device)])  # ties come together
    called_N = torch.arange(1, len(score_N) + 1, device=score_N.device)
    return score_N[last_N], (found_N / called_N)[last_N], (found_N / found_N[-1])[last_N]


def average_precision(precision_N: Tensor, recall_N: Tensor) -> float:
    """sum_n (R_n - R_{n-1}) P_n over the thresholds of `precision_recall`."""
    return float((torch.diff(recall_N, prepend=recall_N.new_zeros(1)) * precision_N).sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """What a checkpoint's image processor does to an image, in this order; None leaves a step out."""

    shortest_edge: int | None
    size: tuple[int, int] | None
    """Height and width, whatever the image's shape."""
    resample: int
    crop: tuple[int, int] | None
    factor: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def prepared(image_BCHW: Tensor, how: Preparation) -> Tensor:
    """uint8 images as the image processor gives them, all at once and on their device; up to a level of 255 as PIL does."""
    height, width = image_BCHW.shape[-2:]
    target = how.size or (height, width)
    if how.shortest_edge:  # cut down, not rounded, as transformers does
        short = min(height, width)
        target = (how.shortest_edge * height // short, how.shortest_edge * width // short)
    x = image_BCHW.float()
    if target != (height, width):
        mode = {NEAREST: "nearest-exact", BILINEAR: "bilinear", BICUBIC: "bicubic"}[how.resample]
        x = interpolate(x, target, mode=mode, antialias=mode != "nearest-exact").round().clamp(0, 255)
    if how.crop:
        tall, wide = how.crop
        top, left = (x.shape[-2] - tall) // 2, (x.shape[-1] - wide) // 2
        x = x[..., top : top + tall, left : left + wide]
    x = x * how.factor if how.factor else x
    if how.mean and how.std:
        x = (x - x.new_tensor(how.mean)[:, None, None]) / x.new_tensor(how.std)[:, None, None]
    return x


class DualEncoder:
    """Images and texts as directions in one space. A text is embedded once."""

    def __init__(self, model: nn.Module, tokenizer: "PreTrainedTokenizerBase", how: Preparation) -> None:
        self.model, self.tokenizer, self.how = model.eval().requires_grad_(False), tokenizer, how
        self.device = next(model.parameters()).device
        config: Any = model.config
        self.longest = int(config.text_config.max_position_embeddings)
        patch = config.vision_config.patch_size
        self.smallest = patch if isinstance(patch, int) else max(patch)
        """Side of a patch: an image below it shows nothing."""
        self._embedded: dict[str, Tensor] = {}

    @property
    def temperature(self) -> float:
        """The one that the checkpoint was trained to."""
        return float((-self.model.logit_scale).exp())  # type: ignore[operator]

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of length 1, [K, D]; raises `ValueError` on a text that the encoder does not read whole."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._embedded]:
            for text, ids in zip(new, self.tokenizer(new)["input_ids"], strict=True):
                if len(ids) > self.longest:
                    raise ValueError(f"text of {len(ids)} tokens, the encoder reads {self.longest} at most: {text!r:.60}")
                if self.tokenizer.unk_token_id in ids[:-1]:  # in CLIP it is the end of the text: what follows would not be read
                    raise ValueError(f"text with what the encoder's tokenizer does not know: {text!r:.60}")
            given = self.tokenizer(new, padding="max_length", max_length=self.longest, return_tensors="pt").to(self.device)
            with torch.no_grad():
                embedded_KD = normalize(self.model.get_text_features(**given).pooler_output.float(), dim=-1)  # type: ignore[operator]
            self._embedded |= dict(zip(new, embedded_KD, strict=True))
        return torch.stack([self._embedded[text] for text in texts])

    @torch.no_grad()
    def images(self, image_BCHW: Tensor) -> Tensor:
        """Embeddings of length 1, [B, D], of RGB images from 0 to 255; raises `ValueError` on anything else."""
        shape, kind = tuple(image_BCHW.shape), image_BCHW.dtype
        if len(shape) != 4 or shape[1] != 3 or kind != torch.uint8:
            raise ValueError(f"images of shape {shape} and {kind}, expected [B, 3, H, W] of torch.uint8")
        if min(shape[2:]) < self.smallest:
            raise ValueError(f"images of {shape[2]} x {shape[3]} pixels, expected {self.smallest} x {self.smallest} at least, a patch")
        parts = []
        for chunk_BCHW in image_BCHW.split(CHUNK):
            pixels = prepared(chunk_BCHW.to(self.device), self.how)
            parts.append(self.model.get_image_features(pixel_values=pixels).pooler_output.float())  # type: ignore[operator]
        return normalize(torch.cat(parts), dim=-1)


def load_dual_encoder(name: str, device: torch.device | str = "cpu") -> DualEncoder:
    """The checkpoint of a folder or hub id; raises `ValueError` where there is none, or it is no encoder of images and texts."""
    from transformers import AutoModel, AutoProcessor

    try:
        model = AutoModel.from_pretrained(name, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"cannot load {name!r}: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    if not hasattr(model, "get_image_features") or not hasattr(model, "logit_scale") or not hasattr(processor, "image_processor"):
        found = model.config.model_type
        raise ValueError(f"{name!r} is a model of kind {found!r}, expected an encoder of images and texts such as clip or siglip")
    return DualEncoder(model.to(device), processor.tokenizer, preparation_of(processor.image_processor))


def worded(encoder: DualEncoder, goals: Sequence[str], templates: Sequence[str], negatives: Sequence[str]) -> Tensor:
    """Embeddings of goals, each in all wordings, then those of the negatives as they stand, [K, D]. A template has one {} for the goal."""
    each_TGD = torch.stack([encoder.texts([template.replace("{}", goal) for goal in goals]) for template in templates])
    return torch.cat([ensembled(each_TGD), *([encoder.texts(negatives)] if negatives else [])])


def preparation_of(processor: Any) -> Preparation:
    """The steps of transformers' image processor."""
    size, crop = dict(processor.size or {}), dict(getattr(processor, "crop_size", None) or {})
    resizes, normalises = processor.do_resize, processor.do_normalize
    return Preparation(
        shortest_edge=size.get("shortest_edge") if resizes else None,
        size=(size["height"], size["width"]) if resizes and size.get("height") else None,
        resample=int(processor.resample),
        crop=(crop["height"], crop["width"]) if getattr(processor, "do_center_crop", None) else None,
        factor=processor.rescale_factor if processor.do_rescale else None,
        mean=tuple(processor.image_mean) if normalises else None,
        std=tuple(processor.image_std) if normalises else None,
    )


class GoalReward:
    """p(goal | image) for a fixed list of goals, each worded by the templates; images seen before are not embedded again.

    Negatives of a goal are the further texts `negatives`, and with `others` every other goal. What was embedded is part of `state_dict`, as
    a batch of other images may round otherwise: a run that is resumed goes on exactly.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        goals: Sequence[str],
        templates: Sequence[str],
        negatives: Sequence[str],
        others: bool,
        temperature: float | None = None,
        keep: int = 16_384,
    ) -> None:
        """Templates have one {} where the goal's name goes; `keep` bounds the images remembered. Raises `ValueError` on bad wording."""
        if bad := [template for template in templates if template.count("{}") != 1]:
            raise ValueError(f"template {bad[0]!r}, expected a text with one {{}}, where the goal's name goes")
        if not templates or not (negatives or (others and len(goals) > 1)):
            raise ValueError("found no template, or no negative: a goal that stands against nothing has probability 1 everywhere")
        self.encoder, self.goals, self.keep = encoder, tuple(goals), keep
        self.temperature = temperature or encoder.temperature
        self.text_KD = worded(encoder, goals, templates, negatives)
        self.rivals_GK = torch.ones(len(goals), len(self.text_KD), dtype=torch.bool, device=encoder.device)
        self.rivals_GK[:, : len(goals)] = others
        self._place: dict[bytes, int] = {}
        self._known_ND = self.text_KD[:0]

    def __call__(self, image_BCHW: Tensor, goal_B: Tensor) -> Tensor:
        """Probabilities, [B], of goals by their place in `goals`."""
        return goal_probability(self.embedded(image_BCHW), self.text_KD, goal_B, self.rivals_GK, self.temperature)

    def embedded(self, image_BCHW: Tensor) -> Tensor:
        keys = [hashlib.blake2b(image, digest_size=16).digest() for image in image_BCHW.cpu().numpy()]
        new = {key: i for i, key in enumerate(keys) if key not in self._place}
        if new:
            if len(self._place) + len(new) > self.keep:
                self._place = {}
                new = {key: i for i, key in enumerate(keys)}
            images = self.encoder.images(image_BCHW[list(new.values())])
            self._known_ND = torch.cat([self._known_ND, images]) if self._place else images
            self._place |= {key: len(self._place) + i for i, key in enumerate(new)}
        return self._known_ND[[self._place[key] for key in keys]]

    def state_dict(self) -> dict[str, Any]:
        keys = torch.frombuffer(bytearray(b"".join(self._place)), dtype=torch.uint8) if self._place else torch.empty(0, dtype=torch.uint8)
        return {"keys": keys, "known": self._known_ND.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        digests = bytes(state["keys"].tolist())
        self._place = {digests[i : i + 16]: i // 16 for i in range(0, len(digests), 16)}
        self._known_ND = state["known"].to(self.text_KD.device)
