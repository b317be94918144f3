import pytest
import torch
from safetensors import safe_open

from posttrain.sampling.weights import merged_weights
from tests.sampling.reference import FAMILIES, load, some_prompts, with_lora


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_those_of_the_checkpoint(family, tiny_folder):
    with safe_open(tiny_folder(family) / "model.safetensors", "pt") as file:
        saved = set(file.keys())
    assert {name for name, _ in merged_weights(load(tiny_folder(family)))} == saved
    assert {name for name, _ in merged_weights(with_lora(load(tiny_folder(family))))} == saved


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"modules_to_save": ["norm"]}], ids=["plain", "rslora", "modules_to_save"])
def test_a_plain_model_with_merged_weights_says_what_the_adapted_one_says(family, options, tiny_folder):
    adapted, plain = with_lora(load(tiny_folder(family)), **options).eval(), load(tiny_folder(family))
    if "modules_to_save" in options:
        with torch.no_grad():
            adapted.base_model.model.model.norm.weight.mul_(1.5)
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    ids = torch.tensor([some_prompts(plain.config.vocab_size, (30,))[0]])
    base = plain(ids).logits
    missing = plain.load_state_dict(dict(merged_weights(adapted)), strict=False)
    assert missing.unexpected_keys == []
    assert torch.allclose(plain(ids).logits, adapted(ids).logits, atol=1e-4)
    assert not torch.allclose(plain(ids).logits, base, atol=1e-2)
    assert all(torch.equal(before[name], tensor) for name, tensor in adapted.state_dict().items())


def test_merging_is_in_float32_whatever_the_weights_are(tiny_qwen2):
    adapted = with_lora(load(tiny_qwen2).bfloat16())
    layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
    w, a, b = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        b.add_(torch.randn_like(b) / 1000)  # adapters are float32 over a bfloat16 model, and training moves them by little
    exact = (w.float() + 2.0 * (b.float() @ a.float())).bfloat16()  # alpha 8 over r 4
    rounded = w + 2.0 * (b.bfloat16() @ a.bfloat16())
    merged = dict(merged_weights(adapted))["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(merged, exact)
    assert not torch.equal(merged, rounded)


def test_with_its_adapter_disabled_a_model_has_the_base_weights(tiny_qwen2):
    adapted, base = with_lora(load(tiny_qwen2)), dict(merged_weights(load(tiny_qwen2)))
    with adapted.disable_adapter():
        assert all(torch.equal(base[name], tensor) for name, tensor in merged_weights(adapted))
    assert not all(torch.equal(base[name], tensor) for name, tensor in merged_weights(adapted))


def test_adapters_that_cannot_be_merged_exactly_are_refused(tiny_qwen2):
    with pytest.raises(ValueError, match="only plain LoRA"):
        list(merged_weights(with_lora(load(tiny_qwen2), use_dora=True)))
    with pytest.raises(ValueError, match="tied to another"):
        list(merged_weights(with_lora(load(tiny_qwen2), target_modules=["lm_head"])))
