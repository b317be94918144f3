"""Properties of many-shot prompts, over tokenizers that merge across any boundary, mark words, and chat templates of three families."""

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from posttrain.prompting.chat import ChatFormat, TemplateError, chat_format, eos_ids_of
from posttrain.prompting.manyshot import ManyShotPrompt, build, in_chat, plain_encode, raw
from posttrain.prompting.shots import Layout, PromptError, Shot
from posttrain.types import FinalAnswer, Problem
from tests.tiny_models import CORPUS

LAYOUT = Layout(preamble="Problems:\n", announce="Such problems follow:", instruction="Give the answer in a box.")
WORDS = st.text(st.sampled_from("ab 1+=\n-\\boxed{}é中"), min_size=1, max_size=24).map(lambda text: f"q{text}q")
SHOTS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8, unique_by=lambda pair: pair[0]).map(
    lambda pairs: [shot(f"{i}", question, f"ANSWER{answer}") for i, (question, answer) in enumerate(pairs)]
)
ITEM = Problem(id="item", question="What is 17 + 4?", reference=FinalAnswer(text="21"))
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shot(name: str, question: str, answer: str) -> Shot:
    return Shot(id=name, question=question, answer=answer, source="human" if answer else "question")


@cache
def greedy_bpe() -> PreTrainedTokenizerFast:
    """Byte-level BPE without any split into words: it merges across divider and label, so joined text has other ids than joined blocks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [f"{LAYOUT.question_label}{text}{LAYOUT.answer_label}{text}{LAYOUT.divider}{LAYOUT.question_label}" for text in CORPUS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="session", params=["greedy", "qwen2", "llama", "gemma"])
def tokenizer(request, tiny_folder):
    return greedy_bpe() if request.param == "greedy" else AutoTokenizer.from_pretrained(tiny_folder(request.param))


@pytest.fixture(scope="session", params=["qwen2", "llama", "gemma"])
def chat(request, tiny_folder) -> ChatFormat:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder(request.param))
    return chat_format(tokenizer, eos_ids_of(tokenizer, tiny_folder(request.param)))


def solved_prompt(tokenizer, shots) -> ManyShotPrompt:
    return build(shots, LAYOUT, plain_encode(tokenizer), frame=raw(tokenizer))


@quick
@given(shots=SHOTS)
def test_every_prompt_is_a_token_prefix_of_the_next_and_of_a_prompt_built_with_more_shots(tokenizer, shots):
    prompt = solved_prompt(tokenizer, shots)
    for num in range(len(shots)):
        here, further = prompt.prefix_ids(num), prompt.prefix_ids(num + 1)
        assert further[: len(here)] == here
        assert len(further) > len(here)
        if num:
            assert solved_prompt(tokenizer, shots[:num]).prefix_ids(num) == here


@quick
@given(shots=SHOTS)
def test_the_ids_read_as_the_text_with_the_item_last(tokenizer, shots):
    prompt = solved_prompt(tokenizer, shots)
    ids = prompt.prefix_ids(len(shots)) + prompt.item_ids(ITEM)
    start = len(prompt.frame.start_ids)
    text = prompt.text(len(shots), ITEM)
    assert tokenizer.decode(list(ids[start:]), clean_up_tokenization_spaces=False).lstrip(" ") == text
    assert text.endswith(f"{LAYOUT.question_label}{ITEM.question}{LAYOUT.answer_label}")


def test_the_hard_tokenizer_does_merge_across_blocks():
    shots = [shot("0", "1+1?", "2"), shot("1", "2+2?", "4")]
    prompt = solved_prompt(greedy_bpe(), shots)
    assert prompt.encode(prompt.text(2, ITEM)) != prompt.prefix_ids(2) + prompt.item_ids(ITEM)


@quick
@given(shots=SHOTS)
def test_the_same_shots_give_the_same_ids(tokenizer, shots):
    first, second = solved_prompt(tokenizer, shots), solved_prompt(tokenizer, list(shots))
    assert first.ids == second.ids


@quick
@given(shots=SHOTS, spare=st.integers(0, 400))
def test_the_budget_is_never_exceeded_and_one_more_shot_would_exceed_it(tokenizer, shots, spare):
    prompt = solved_prompt(tokenizer, shots)
    item = len(prompt.item_ids(ITEM)) + 20
    budget = prompt.ends[1] + item + spare
    num = prompt.largest_K(budget, item)
    assert len(prompt.prefix_ids(num) + prompt.item_ids(ITEM)) + 20 <= budget
    assert num == len(shots) or len(prompt.prefix_ids(num + 1)) + item > budget


@quick
@given(shots=SHOTS)
def test_an_unsupervised_prompt_holds_no_answer_and_grows_in_its_list_alone(tokenizer, shots):
    prompt = build(shots, LAYOUT, plain_encode(tokenizer), kind="unsupervised")
    text = prompt.text(len(shots), ITEM)
    assert "ANSWER" not in text
    assert text.startswith(f"{LAYOUT.announce}\n\n{LAYOUT.question_label}{shots[0].question}")
    assert text.endswith(f"----------\n\n{LAYOUT.instruction}\n\n{LAYOUT.question_label}{ITEM.question}{LAYOUT.answer_label}")
    assert len({prompt.text(num, ITEM)[-40:] for num in range(len(shots) + 1)}) == 1


def test_solved_shots_take_the_place_of_the_instruction_behind_the_list():
    listed, worked = [shot("0", "1+1?", ""), shot("1", "2+2?", "")], [shot("s", "3+3?", "6")]
    prompt = build(listed, LAYOUT, plain_encode(greedy_bpe()), kind="unsupervised", solved=worked)
    assert prompt.text(2, ITEM) == (
        "Such problems follow:\n\nProblem:\n1+1?\n\nProblem:\n2+2?\n\n----------\n\n"
        "Now follow problems with their solutions. Solve the last one in the same way:\n\n"
        "Problem:\n3+3?\nSolution:\n6\n\n----------\n\nProblem:\nWhat is 17 + 4?\nSolution:\n"
    )


@pytest.mark.parametrize("shape", ["one_message", "turns"])
def test_in_a_chat_the_joined_ids_read_as_the_template_renders_the_messages_and_nest(chat, shape):
    shots = [shot(str(i), f"{i}+{i}?", f"It is {2 * i}.") for i in range(4)]
    prompt = build(shots, LAYOUT, chat.encode, frame=in_chat(chat, shape))
    for num in (1, 3, 4):
        messages = prompt.messages(num, ITEM)
        assert chat.render(messages) == prompt.text(num, ITEM)
        ids = prompt.prefix_ids(num) + prompt.item_ids(ITEM)
        assert ChatFormat.encode(chat, chat.tokenizer.decode(list(ids))) == ChatFormat.encode(chat, prompt.text(num, ITEM))
        assert prompt.prefix_ids(4)[: len(prompt.prefix_ids(num))] == prompt.prefix_ids(num)
    assert len(messages) == (1 if shape == "one_message" else 9)


def test_a_zero_shot_prompt_is_the_instruction_and_the_item_in_every_shape(chat):
    for frame in (raw(chat.tokenizer), in_chat(chat, "one_message"), in_chat(chat, "turns")):
        prompt = build((), LAYOUT, chat.encode, kind="zero_shot", frame=frame)
        assert f"{LAYOUT.instruction}\n\n{LAYOUT.question_label}{ITEM.question}" in prompt.text(0, ITEM)
        if frame.shape != "raw":
            assert chat.render(prompt.messages(0, ITEM)) == prompt.text(0, ITEM)


def test_a_template_that_numbers_its_turns_cannot_nest(tiny_qwen2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    tokenizer.chat_template = "{% for m in messages %}[{{ loop.index }} {{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    with pytest.raises(TemplateError, match="shots as turns would not nest"):
        in_chat(ChatFormat(tokenizer, (0,)), "turns")


def test_similar_shots_stand_between_the_shared_prefix_and_the_item():
    shots = [shot("0", "1+1?", "2"), shot("1", "2+2?", "4")]
    prompt, near = solved_prompt(greedy_bpe(), shots), shot("n", "17 + 5?", "22")
    text = prompt.text(2, ITEM, [near])
    assert text.index("2+2?") < text.index("17 + 5?") < text.index("17 + 4?")
    ids = prompt.prefix_ids(2) + prompt.item_ids(ITEM, [near])
    assert greedy_bpe().decode(list(ids)) == text


def test_an_answer_goes_on_from_the_item_though_the_item_ends_before_its_space():
    layout = Layout(question_label="Q: ", answer_label="\nA: ", divider="\n\n")
    prompt = build([shot("0", "1+1?", "2")], layout, plain_encode(greedy_bpe()))
    ids = prompt.prefix_ids(1) + prompt.item_ids(ITEM) + prompt.answer_ids(ITEM, "21")
    assert greedy_bpe().decode(list(ids)) == "Q: 1+1?\nA: 2\n\nQ: What is 17 + 4?\nA: 21"


def test_bad_requests_name_their_numbers():
    encode = plain_encode(greedy_bpe())
    prompt = solved_prompt(greedy_bpe(), [shot("0", "1+1?", "2")])
    with pytest.raises(PromptError, match="2 shots were asked for, but the pool has 1"):
        prompt.prefix_ids(2)
    with pytest.raises(PromptError, match=r"a budget of 3 tokens is too small for one shot: .* take \d+, item and answer 5, together \d+"):
        prompt.largest_K(3, 5)
    with pytest.raises(PromptError, match="the pool is empty"):
        build([], LAYOUT, encode)
    with pytest.raises(PromptError, match="1 of 1 shots have no answer"):
        build([shot("0", "1+1?", "")], LAYOUT, encode)
    with pytest.raises(PromptError, match="'item' is one of the 1 shots"):
        build([shot("0", ITEM.question, "21")], LAYOUT, encode).item_ids(ITEM)
    with pytest.raises(PromptError, match="has no messages"):
        prompt.messages(1, ITEM)
