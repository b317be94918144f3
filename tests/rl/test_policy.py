import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from posttrain.config import ConfigError
from posttrain.rl.batch import Batch
from posttrain.rl.policy import LoraConfig, OptimConfig, Policy, PolicyConfig, learning_rate, load_policy
from tests.sampling.reference import FAMILIES, forward_logprobs, load, some_prompts
from tests.tiny_models import make_tiny_model

OPTIM = OptimConfig(lr=1e-2, warmup_steps=2)
FULL, LORA = PolicyConfig(), PolicyConfig(lora=LoraConfig(rank=4, alpha=8))
BOTH = pytest.mark.parametrize("cfg", [FULL, LORA], ids=["full", "lora"])


def batch_of(rows: Sequence[tuple[int, ...]]) -> Batch:
    """Rows of given ids, padded with an id that means something; every token but the first counts as sampled in attempt 1."""
    length = torch.tensor([len(row) for row in rows])
    ids = torch.tensor([[*row, *[5] * (int(length.max()) - len(row))] for row in rows])
    place = torch.arange(ids.shape[1])
    turn = ((place > 0) & (place < length[:, None])).long()
    return Batch(ids=ids, turn=turn, length=length, sampler_logp=torch.zeros(ids.shape), num_attempts=1)


def open_policy(folder: Path, cfg: PolicyConfig = FULL, reference: Path | None = None, temperature: float = 1.0, seed: int = 0) -> Policy:
    return load_policy(str(folder), reference and str(reference), cfg, OPTIM, temperature, seed)


def train_once(policy: Policy, batch: Batch) -> None:
    policy.backward(-(policy.logprobs(batch) * batch.turn).sum())
    policy.update()


def state(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}


@pytest.fixture(scope="module")
def batch() -> Batch:
    return batch_of(some_prompts(300, (9, 30, 4, 17)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_of_a_padded_batch_are_those_of_each_row_alone(family, temperature, tiny_folder, batch):
    logp_BT = open_policy(tiny_folder(family), temperature=temperature).logprobs(batch)
    plain = load(tiny_folder(family))
    for row, length, logp_T in zip(batch.ids.tolist(), batch.length.tolist(), logp_BT.tolist()):
        truth = forward_logprobs(plain, (row[0],), tuple(row[1:length]), temperature)
        assert logp_T[0] == 0
        assert logp_T[1:length] == pytest.approx(truth, abs=1e-4)


@BOTH
def test_the_default_reference_is_the_model_as_it_was_at_the_start(cfg, tiny_qwen2, batch):
    policy = open_policy(tiny_qwen2, cfg)
    before = policy.logprobs(batch).detach()
    assert torch.allclose(policy.reference_logprobs(batch), before, atol=1e-5)
    train_once(policy, batch)
    assert torch.allclose(policy.reference_logprobs(batch), before, atol=1e-5)
    assert not torch.allclose(policy.logprobs(batch), before, atol=1e-2)


@BOTH
def test_a_named_reference_is_the_model_of_that_folder(cfg, tiny_qwen2, tmp_path, batch):
    other = make_tiny_model(tmp_path, "qwen2", seed=1)
    policy = open_policy(tiny_qwen2, cfg, reference=other)
    theirs = open_policy(other).logprobs(batch).detach()
    assert torch.allclose(policy.reference_logprobs(batch), theirs, atol=1e-5)
    assert not torch.allclose(policy.logprobs(batch), theirs, atol=1e-2)
    assert torch.allclose(policy.logprobs(batch), open_policy(tiny_qwen2).logprobs(batch), atol=1e-5)


def test_with_an_adapter_only_the_adapter_is_trained(tiny_qwen2, batch):
    policy = open_policy(tiny_qwen2, LORA)
    before = state(policy)
    train_once(policy, batch)
    moved = {name for name, value in state(policy).items() if not torch.equal(value, before[name])}
    assert moved
    assert all(".lora_" in name for name in moved)
    assert {name for name in before if ".lora_B." in name} <= moved


def test_two_adapters_from_one_seed_are_the_same_and_from_another_are_not(tiny_qwen2):
    torch.manual_seed(1)
    one = state(open_policy(tiny_qwen2, LORA, seed=3))
    torch.manual_seed(2)
    two, other = state(open_policy(tiny_qwen2, LORA, seed=3)), state(open_policy(tiny_qwen2, LORA, seed=4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", FAMILIES)
@BOTH
def test_a_saved_policy_says_the_same_when_loaded_by_plain_from_pretrained(family, cfg, tiny_folder, tmp_path, batch):
    policy = open_policy(tiny_folder(family), cfg)
    train_once(policy, batch)
    policy.save(tmp_path)
    plain = Policy(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32), None, policy.tokenizer, OPTIM, temperature=1.0)
    assert torch.allclose(plain.logprobs(batch), policy.logprobs(batch), atol=1e-4)
    assert not any("lora" in name for name, _ in plain.model.named_parameters())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("2 + 2 is \\boxed{4}")["input_ids"] == policy.tokenizer("2 + 2 is \\boxed{4}")["input_ids"]
    assert tokenizer.chat_template == policy.tokenizer.chat_template


@BOTH
def test_the_pushed_weights_make_a_plain_model_say_what_the_policy_says(cfg, tiny_llama, batch):
    policy = open_policy(tiny_llama, cfg)
    train_once(policy, batch)
    pushed = dict(policy.weights())
    assert {weight.dtype for weight in pushed.values()} == {torch.float32}
    plain = Policy(load(tiny_llama), None, policy.tokenizer, OPTIM, temperature=1.0)
    plain.model.load_state_dict(pushed)
    assert torch.allclose(plain.logprobs(batch), policy.logprobs(batch), atol=1e-4)


@BOTH
def test_a_restored_policy_makes_the_next_update_bit_for_bit(cfg, tiny_qwen2, tmp_path, batch):
    policy = open_policy(tiny_qwen2, cfg)
    for _ in range(3):
        train_once(policy, batch)
    policy.save(tmp_path)
    torch.save(policy.training_state(), tmp_path / "training.pt")
    train_once(policy, batch)

    again = open_policy(tiny_qwen2, cfg, seed=9)
    again.restore(tmp_path, torch.load(tmp_path / "training.pt", weights_only=True))
    train_once(again, batch)
    expected, found = state(policy), state(again)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert again.step == policy.step == 4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8)], ids=["full", "lora"])
def test_gradient_checkpointing_runs_each_layer_again_and_changes_no_gradient(family, lora, tiny_folder, batch):
    gradients, num_runs = [], []
    for on in (False, True):
        policy = open_policy(tiny_folder(family), PolicyConfig(lora=lora, gradient_checkpointing=on))
        runs: list[str] = []
        for name, module in policy.model.named_modules():
            if name.endswith("layers.0.mlp"):
                module.register_forward_pre_hook(lambda *_, runs=runs, name=name: runs.append(name))
        policy.backward(policy.logprobs(batch).sum())
        gradients.append({name: p.grad for name, p in policy.model.named_parameters() if p.requires_grad})
        num_runs.append(len(runs))
    assert num_runs == [1, 2]
    assert all(torch.allclose(gradients[0][name], gradients[1][name], rtol=1e-4, atol=1e-5) for name in gradients[0])
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0].values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_that_was_made_with_dropout_has_none_here(checkpointing, tiny_qwen2, tmp_path, batch):
    names = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    shape = GPT2Config(vocab_size=384, n_embd=32, n_layer=2, n_head=2, n_positions=64, **dict.fromkeys(names, 0.5))
    GPT2LMHeadModel(shape).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_qwen2).save_pretrained(tmp_path)
    policy = open_policy(tmp_path, PolicyConfig(gradient_checkpointing=checkpointing))
    with torch.no_grad():
        assert torch.equal(policy.logprobs(batch), policy.logprobs(batch))
        assert torch.allclose(policy.logprobs(batch), policy.reference_logprobs(batch), atol=1e-5)


@BOTH
def test_bf16_autocast_trains_float32_weights_and_stays_near_them(cfg, tiny_qwen2, batch):
    exact = open_policy(tiny_qwen2, cfg).logprobs(batch)
    policy = open_policy(tiny_qwen2, PolicyConfig(lora=cfg.lora, precision="bf16_autocast"))
    near = policy.logprobs(batch)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert (near - exact).abs().mean() < 0.05
    assert (policy.reference_logprobs(batch) - exact).abs().mean() < 0.05
    train_once(policy, batch)
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in policy.model.parameters())
    assert policy.logprobs(batch)[batch.turn > 0].mean() > near[batch.turn > 0].mean()


def test_the_learning_rate_warms_up_in_a_line_and_then_stays(tiny_qwen2, batch):
    policy = open_policy(tiny_qwen2)  # lr 1e-2, 2 steps of warm-up
    rates = []
    for _ in range(4):
        policy.backward(policy.logprobs(batch).sum() * 1e-3)
        rates.append(policy.update()["lr"])
    assert rates == pytest.approx([5e-3, 1e-2, 1e-2, 1e-2])


def test_a_gradient_that_is_not_a_number_is_refused_and_moves_nothing(tiny_qwen2, batch):
    policy = open_policy(tiny_qwen2)
    before = state(policy)
    policy.backward(policy.logprobs(batch).sum() * math.nan)
    with pytest.raises(FloatingPointError, match="gradient norm is nan"):
        policy.update()
    after = state(policy)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_tokenizer_with_more_ids_than_the_model_embeds_is_refused(tiny_qwen2, tmp_path):
    load(tiny_qwen2).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    tokenizer.add_tokens([f"<new{i}>" for i in range(10)])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"tokenizer has 394 tokens, the model embeds only 384"):
        open_policy(tmp_path)


@pytest.mark.parametrize("role", ["model", "reference"])
def test_a_model_that_cannot_be_loaded_is_one_line_that_names_it_and_its_role(role, tiny_qwen2, tmp_path):
    for what in ("missing", "cut"):
        folder = tmp_path / what
        if what == "cut":
            load(tiny_qwen2).save_pretrained(folder)
            (folder / "model.safetensors").write_bytes((tiny_qwen2 / "model.safetensors").read_bytes()[:-1000])
        names = {"folder": tiny_qwen2, "reference": None} | ({"folder": folder} if role == "model" else {"reference": folder})
        with pytest.raises(ConfigError) as caught:
            open_policy(**names)
        assert str(caught.value).startswith(f"{role}: cannot load '{folder}': ")
        assert "\n" not in str(caught.value)


def test_the_learning_rate_goes_up_along_a_line_and_down_along_a_cosine():
    optim = OptimConfig(lr=2.0, warmup_steps=4, decay_until=12)
    assert [learning_rate(optim, step) for step in (1, 2, 4)] == [0.5, 1.0, 2.0]
    assert learning_rate(optim, 8) == pytest.approx(1.0)
    assert learning_rate(optim, 6) == pytest.approx(1 + math.sqrt(0.5))
    assert learning_rate(optim, 12) == learning_rate(optim, 20) == 0.0
    assert [learning_rate(OptimConfig(lr=2.0, warmup_steps=0), step) for step in (1, 100)] == [2.0, 2.0]
    with pytest.raises(ValueError, match="decay_until is 4, expected a step after the 4 of the warm-up"):
        OptimConfig(lr=2.0, warmup_steps=4, decay_until=4)


def test_flash_attention_asks_for_16_bits_and_for_its_package_in_one_line(tiny_qwen2):
    with pytest.raises(ValueError, match="attention flash_attention_2 computes in 16 bits only: set precision to bf16_autocast"):
        PolicyConfig(attention="flash_attention_2")
    if find_spec("flash_attn") is None:
        with pytest.raises(ConfigError, match=r"^model: cannot load .*[Ff]lash"):
            open_policy(tiny_qwen2, PolicyConfig(attention="flash_attention_2", precision="bf16_autocast"))
