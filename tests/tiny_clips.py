"""Random encoders of images and texts in the layouts of real ones, each with its processor: 224 x 224 pixels, 77 or 64 tokens.

They know nothing; they make the path real that a downloaded checkpoint takes.
"""

from pathlib import Path
from typing import Literal

import torch
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer, SiglipConfig, SiglipModel, SiglipProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from posttrain.agents.kernel.captions import byte_pairs, words


def make_tiny_clip(folder: Path, family: Literal["clip", "siglip"], seed: int = 0) -> Path:
    """`folder`, holding a model of 2 layers x 32 in each tower."""
    tokenizer = CLIPTokenizer(*byte_pairs(words()))
    tokenizer.model_max_length = 77 if family == "clip" else 64
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = tower | special | {"vocab_size": len(tokenizer)}
    torch.manual_seed(seed)
    if family == "clip":
        text, vision = text | {"projection_dim": 16}, tower | {"image_size": 224, "patch_size": 32, "projection_dim": 16}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
        processor = CLIPProcessor(CLIPImageProcessorPil(), tokenizer)
    else:
        vision = tower | {"image_size": 224, "patch_size": 32}
        model = SiglipModel(SiglipConfig(text_config=text | {"projection_size": 32}, vision_config=vision))
        tokenizer.model_input_names = ["input_ids"]
        processor = SiglipProcessor(SiglipImageProcessorPil(), tokenizer)
    for parameter in model.parameters():  # wider than usual, or all images look alike to it
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
