"""The second prompt is the first one's tokens and what was sampled, gone on with, in three families of templates."""

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from posttrain.prompting import revise
from posttrain.prompting.chat import ChatFormat, TemplateError, chat_format, eos_ids_of
from posttrain.types import Message
from tests.tiny_models import HEADER_TEMPLATE, IM_START_TEMPLATE

FAMILIES = ["qwen2", "llama", "gemma"]
ASKED = [Message(role="user", content="What is the sum of twelve and 35?")]
ATTEMPT = "We have 3x = 15, so x = 5. The final answer is \\boxed{5}."
AGAIN = revise.MATH
END = {"qwen2": "<|im_end|>", "llama": "<|eot_id|>", "gemma": "<end_of_turn>"}
STRIPS_REASONING = IM_START_TEMPLATE.replace("m['content']", "m['content'].split('</think>')[-1]")


@pytest.fixture(scope="module")
def form_of(tiny_folder):
    """Family -> its chat format, made as a run makes it."""

    def form(family: str) -> ChatFormat:
        tokenizer = AutoTokenizer.from_pretrained(tiny_folder(family))
        return chat_format(tokenizer, eos_ids_of(tokenizer, tiny_folder(family)))

    made = {family: form(family) for family in FAMILIES}
    return made.__getitem__


def end_of(form: ChatFormat, family: str) -> int:
    return form.tokenizer.convert_tokens_to_ids(END[family])


def conversation(form: ChatFormat, *said: str) -> tuple[int, ...]:
    """The ids of a whole conversation rendered at once, up to where the assistant's next text begins."""
    roles = ("user", "assistant")
    return form.ask([Message(role=roles[i % 2], content=text) for i, text in enumerate(said)])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_the_second_prompt_is_the_whole_conversation_rendered_at_once_where_the_attempt_is_plain_text(form_of, family, system):
    form = form_of(family)
    asked = [*([Message(role="system", content=system)] if system else []), *ASKED]
    sampled = (*form.encode(ATTEMPT), end_of(form, family))
    whole = form.ask([*asked, Message(role="assistant", content=ATTEMPT), Message(role="user", content=AGAIN)])
    assert form.revise(form.ask(asked), sampled, AGAIN) == whole


@pytest.mark.parametrize("family", FAMILIES)
def test_a_third_prompt_goes_on_from_the_second(form_of, family):
    form = form_of(family)
    sampled = (*form.encode(ATTEMPT), end_of(form, family))
    second = form.revise(form.ask(ASKED), sampled, AGAIN)
    third = form.revise(second, sampled, AGAIN)
    assert third == conversation(form, ASKED[0].content, ATTEMPT, AGAIN, ATTEMPT, AGAIN)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_that_no_text_would_give_are_kept_as_they_were_sampled(form_of, family):
    form = form_of(family)
    letters = tuple(i for char in " answer" for i in form.encode(char))
    assert letters != form.encode(" answer")
    first = form.ask(ASKED)
    second = form.revise(first, letters, AGAIN)
    assert second[: len(first) + len(letters)] == (*first, *letters)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_attempt_cut_by_its_limit_gets_its_end_of_turn_and_the_instruction_uncut(form_of, family):
    form = form_of(family)
    cut = form.encode(ATTEMPT)[:5]
    added = form.revise(form.ask(ASKED), cut, AGAIN)[len(form.ask(ASKED)) + 5 :]
    assert added[0] == end_of(form, family)
    assert AGAIN in form.tokenizer.decode(list(added), skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_attempt_that_ended_and_one_that_was_cut_are_followed_by_the_same(form_of, family):
    form = form_of(family)
    first, said = form.ask(ASKED), form.encode(ATTEMPT)
    assert form.revise(first, (*said, end_of(form, family)), AGAIN) == form.revise(first, said, AGAIN)


def test_whichever_id_ended_an_attempt_stays_and_no_second_one_is_put_after_it(form_of):
    form = form_of("qwen2")
    turn, text = (form.tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>"))
    assert set(form.eos_ids) == {turn, text}
    by_turn, by_text = (form.revise((1,), (2, end), AGAIN) for end in (turn, text))
    assert by_text == tuple(text if i == 2 else token for i, token in enumerate(by_turn))
    assert by_turn.count(turn) == 2  # the attempt's and the instruction's


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_attempt_is_an_attempt(form_of, family):
    form = form_of(family)
    first = form.ask(ASKED)
    assert form.revise(first, (), AGAIN) == form.revise(first, (end_of(form, family),), AGAIN)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_model_wrote_is_read_without_the_end_of_its_turn(form_of, family):
    form = form_of(family)
    assert form.text((*form.encode(ATTEMPT), end_of(form, family))) == ATTEMPT
    assert form.text(()) == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_is_the_template_s_own_with_one_start_of_text(form_of, family):
    form = form_of(family)
    chat = [{"role": "user", "content": ASKED[0].content}]
    own = form.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert form.ask(ASKED) == tuple(own)
    if form.tokenizer.bos_token_id is not None:
        assert form.ask(ASKED).count(form.tokenizer.bos_token_id) == 1


def test_a_tokenizer_that_begins_every_text_with_a_start_of_its_own_adds_none_to_the_template_s(form_of, tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    bos = tokenizer.bos_token
    begins = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begins
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    form = chat_format(tokenizer, eos_ids_of(tokenizer))
    assert form.revise(form.ask(ASKED), (5,), AGAIN) == form_of("llama").revise(form_of("llama").ask(ASKED), (5,), AGAIN)
    assert form.ask(ASKED).count(tokenizer.bos_token_id) == 1


def test_every_id_that_ends_a_turn_is_found_in_tokenizer_and_generation_config(tiny_folder, tmp_path):
    names = {"qwen2": ["<|im_end|>", "<|endoftext|>"], "llama": ["<|eot_id|>"], "gemma": ["<eos>", "<end_of_turn>"]}
    for family in FAMILIES:
        tokenizer = AutoTokenizer.from_pretrained(tiny_folder(family))
        assert tokenizer.convert_ids_to_tokens(list(eos_ids_of(tokenizer, tiny_folder(family)))) == names[family]
        assert eos_ids_of(tokenizer) == (tokenizer.eos_token_id,)
    tokenizer.save_pretrained(tmp_path)  # a folder without generation_config.json
    assert eos_ids_of(tokenizer, tmp_path) == (tokenizer.eos_token_id,)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "the tokenizer has no chat template; add chat_template.jinja to the model folder"),
        (STRIPS_REASONING, "the chat template rewrites earlier reasoning"),
        (HEADER_TEMPLATE.replace("m['content'] | trim", "m['content'] | lower"), "rewrites earlier answers"),
        (IM_START_TEMPLATE.replace("in messages", "in messages[-1:]"), "rewrites earlier answers"),
        (IM_START_TEMPLATE.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n"), "rewrites earlier answers"),
        ("{{ raise_exception('no roles but user') }}", "the chat template fails: no roles but user"),
        ("{% for m in messages %}", "the chat template fails: "),
    ],
)
def test_a_template_that_second_attempts_cannot_extend_is_refused_by_the_model_s_name(tiny_qwen2, template, said):
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    tokenizer.chat_template = template
    with pytest.raises(TemplateError) as caught:
        chat_format(tokenizer, eos_ids_of(tokenizer, tiny_qwen2))
    line = str(caught.value)
    assert line.startswith(f"{tiny_qwen2}: ")
    assert said in line
    assert "\n" not in line


def test_a_template_that_is_refused_is_shown_where_it_departs(tiny_qwen2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    tokenizer.chat_template = STRIPS_REASONING
    with pytest.raises(TemplateError, match=r"expected '.*<think>.*' to stand unchanged, found '.*'; use a template that keeps history"):
        chat_format(tokenizer, (1,))


def test_a_model_that_nothing_can_stop_is_refused(tiny_qwen2):
    with pytest.raises(TemplateError, match="no end-of-sequence id"):
        chat_format(AutoTokenizer.from_pretrained(tiny_qwen2), ())
