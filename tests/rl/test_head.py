import ctypes
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, PhiConfig, Qwen2Config

from posttrain.rl import head
from posttrain.rl.head import chosen_logprobs, plain_head
from posttrain.rl.policy import LoraConfig, PolicyConfig
from tests.rl.test_policy import batch_of, open_policy
from tests.sampling.reference import FAMILIES, load, some_prompts, with_lora


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
def test_values_and_gradients_are_those_of_a_log_softmax_over_all_logits(temperature, rows_at_once, monkeypatch):
    monkeypatch.setitem(head.LOGITS_AT_ONCE, "cpu", 50 * rows_at_once)
    torch.manual_seed(0)
    hidden, weight, grad = torch.randn(10, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True), torch.randn(10)
    token = torch.randint(50, (10,))
    plain = (hidden @ weight.T / temperature).log_softmax(1).gather(1, token[:, None])[:, 0]
    chunked = chosen_logprobs(hidden, weight, token, temperature)
    assert torch.allclose(chunked, plain, atol=1e-6)
    expected = torch.autograd.grad(plain, (hidden, weight), grad)
    found = torch.autograd.grad(chunked, (hidden, weight), grad)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected))


def test_under_autocast_the_product_is_made_in_bfloat16_as_the_model_would_and_summed_in_float32():
    torch.manual_seed(0)
    hidden, weight = torch.randn(6, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    token = torch.randint(50, (6,))
    with torch.autocast("cpu", torch.bfloat16):
        plain = nn.functional.linear(hidden, weight).float().log_softmax(1).gather(1, token[:, None])[:, 0]
        chunked = chosen_logprobs(hidden, weight, token)
    assert torch.equal(chunked, plain) or torch.allclose(chunked, plain, atol=1e-6)
    assert chunked.dtype == torch.float32
    for a, b in zip(torch.autograd.grad(chunked.sum(), (hidden, weight)), torch.autograd.grad(plain.sum(), (hidden, weight))):
        assert a.dtype == torch.float32
        assert torch.allclose(a, b, atol=0.05)


SHAPE = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}


def made(config) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_head_is_found_tied_or_not_and_under_an_adapter(family, tiny_folder):
    model = load(tiny_folder(family))
    assert plain_head(model) is model.get_output_embeddings().weight
    adapted = with_lora(load(tiny_folder(family)))
    assert plain_head(adapted) is adapted.get_base_model().get_output_embeddings().weight


def test_a_cap_a_bias_a_scale_or_an_adapter_on_the_head_is_noticed(tiny_llama):
    capped = made(Gemma2Config(**SHAPE, intermediate_size=64, head_dim=16, final_logit_softcapping=30.0))
    biased = made(PhiConfig(**SHAPE, intermediate_size=64))
    assert biased.get_output_embeddings().bias is not None
    scaled = made(Qwen2Config(**SHAPE, intermediate_size=64))
    plain = scaled.forward
    scaled.forward = lambda *args, **kwargs: type(out := plain(*args, **kwargs))(logits=out.logits * 0.5)
    adapted = with_lora(load(tiny_llama), target_modules=["lm_head"])
    assert [plain_head(model) for model in (capped, biased, scaled, adapted)] == [None] * 4
    assert plain_head(made(GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2))) is not None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "cfg",
    [PolicyConfig(), PolicyConfig(lora=LoraConfig(rank=4, alpha=8)), PolicyConfig(gradient_checkpointing=True)],
    ids=["full", "lora", "checkpointing"],
)
def test_a_policy_without_whole_logits_has_the_loss_and_gradients_of_one_with_them(family, cfg, tiny_folder, monkeypatch):
    monkeypatch.setitem(head.LOGITS_AT_ONCE, "cpu", 4000)  # about ten rows
    batch = batch_of(some_prompts(300, (9, 30, 4, 17)))
    found = []
    for whole in (True, False):
        policy = open_policy(tiny_folder(family), cfg, temperature=0.8)
        assert policy._plain[id(policy.model)]
        if whole:
            policy._plain = dict.fromkeys(policy._plain, False)
        loss = policy.logprobs(batch).sum() / batch.ids.numel()
        policy.backward(loss)
        found.append((loss.item(), {name: p.grad for name, p in policy.model.named_parameters() if p.requires_grad}))
    (loss, slow), (same, fast) = found
    assert same == pytest.approx(loss, abs=1e-6)
    assert all(torch.allclose(fast[name], slow[name], rtol=1e-5, atol=1e-6) for name in slow)
    assert max(gradient.abs().max() for gradient in slow.values()) > 1e-3


def test_tokens_that_nobody_sampled_get_no_logits(tiny_qwen2, monkeypatch):
    policy = open_policy(tiny_qwen2)
    batch = batch_of(some_prompts(300, (9, 30)))
    batch.turn[:, :7] = 0
    num: list[int] = []
    monkeypatch.setattr("posttrain.rl.policy.chosen_logprobs", lambda *args: num.append(len(args[2])) or chosen_logprobs(*args))
    logp_BT = policy.logprobs(batch)
    assert num == [2 + 23]
    assert (logp_BT[batch.turn == 0] == 0).all()


def peak_mib(work) -> float:
    """How far the resident memory of this process rises at most while `work` runs, MiB."""
    ctypes.CDLL(None).malloc_trim(0)  # memory that earlier work freed would be filled first, and no rise be seen
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the highest is set to what is resident now
    before = highest_mib()
    work()
    return highest_mib() - before


def highest_mib() -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def test_the_peak_memory_of_the_loss_does_not_grow_with_the_tokens():
    """At 151,936 ids: all logits of 256 tokens would be 148 MiB, and several times that with what their softmax and gradient take."""
    weight = torch.randn(151_936, 16, requires_grad=True)

    def loss_of(tokens: int, logprobs=chosen_logprobs) -> float:
        hidden, token = torch.randn(tokens, 16, requires_grad=True), torch.randint(151_936, (tokens,))
        return peak_mib(lambda: torch.autograd.grad(logprobs(hidden, weight, token).sum(), (hidden, weight)))

    def whole(hidden: torch.Tensor, weight: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        return (hidden @ weight.T).log_softmax(1).gather(1, token[:, None])[:, 0]

    loss_of(64)
    few, many = loss_of(64), loss_of(256)
    assert many < few + 20
    assert many < 100
    assert loss_of(256, whole) > 2 * 148
