"""Messages to token ids, and the check that a later turn extends the earlier one token by token.

Two-attempt RL trains on the very ids that were sampled. So the second prompt is never made by rendering the whole conversation again:
it is the first prompt, the sampled ids, and the ids of what the template puts between an assistant's turn and the next one. That is
only right if the template leaves earlier turns alone; many strip earlier reasoning. `ChatFormat` finds such a template at start-up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import jinja2

from posttrain.types import Message, TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A placeholder for what the model wrote: it has no space at its ends, which templates strip, and no tags, which they interpret.
SENTINEL = "0SENTINEL0"


class TemplateError(ValueError):
    """The tokenizer's chat template is missing or rewrites history; the message names it."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer's chat template as token ids; made by `chat_format`, which checks it."""

    tokenizer: "PreTrainedTokenizerBase"
    eos_ids: tuple[int, ...]
    _known: dict[str, TokenIds] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Instruction -> what stands between two attempts: the same for every row, and slow to render."""

    def ask(self, messages: Sequence[Message]) -> TokenIds:
        """The prompt for a first attempt, ending where the assistant's text begins."""
        return self.encode(self.render(messages))

    def revise(self, prompt_ids: TokenIds, completion_ids: TokenIds, instruction: str) -> TokenIds:
        """The prompt for the next attempt: `prompt_ids + completion_ids + the template's ids from there to the next attempt`.

        A completion cut by its length limit gets the end-of-turn id that it lacks; one that ended by itself keeps its own.
        """
        if instruction not in self._known:
            self._known[instruction] = self._between(instruction)
        between = self._known[instruction]
        ended = bool(completion_ids) and completion_ids[-1] in self.eos_ids
        if ended and between and between[0] in self.eos_ids:
            between = between[1:]
        return (*prompt_ids, *completion_ids, *between)

    def text(self, completion_ids: TokenIds) -> str:
        """What the model wrote, without the end-of-sequence id."""
        return self.tokenizer.decode(list(completion_ids), skip_special_tokens=True)

    def _between(self, instruction: str) -> TokenIds:
        """Ids from the end of an assistant's text to the start of its next one, the instruction within."""
        user, reply = Message(role="user", content="x"), Message(role="assistant", content=SENTINEL)
        rendered = self.render([user, reply, Message(role="user", content=instruction)])
        return self.encode(rendered.partition(SENTINEL)[2])

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as text, up to where the assistant speaks next; raises `TemplateError`."""
        chat = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except jinja2.TemplateError as error:  # bad syntax, or the template's own refusal, e.g. of a system message
            raise TemplateError(f"{_name_of(self.tokenizer)}: the chat template fails: {' '.join(str(error).split())}") from None

    def encode(self, text: str) -> TokenIds:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def chat_format(tokenizer: "PreTrainedTokenizerBase", eos_ids: Sequence[int]) -> ChatFormat:
    """The chat format of `tokenizer`, proven to extend; raises `TemplateError`.

    `eos_ids` are all ids that end a turn (a model's generation config may list several). Two properties are checked: the rendering
    of a conversation starts with the rendering of its beginning, and what was said earlier is still there, unchanged.
    """
    name = _name_of(tokenizer)
    if not tokenizer.chat_template:
        raise TemplateError(f"{name}: the tokenizer has no chat template; add chat_template.jinja to the model folder")
    if not eos_ids:
        raise TemplateError(f"{name}: no end-of-sequence id in the tokenizer or the generation config")
    form = ChatFormat(tokenizer, tuple(eos_ids))
    user, again = Message(role="user", content="1+1?"), Message(role="user", content="Check it.")
    said = f"<think>{SENTINEL}</think>{SENTINEL}"  # reasoning models' templates delete what stands in these tags from earlier turns
    first = form.render([user])
    for text, kind in ((SENTINEL, "answers"), (said, "reasoning")):
        rendered = form.render([user, Message(role="assistant", content=text), again])
        if not rendered.startswith(first + text):
            found = rendered[len(_common_prefix(rendered, first + text)) :][:60]
            raise TemplateError(
                f"{name}: the chat template rewrites earlier {kind}, so a second attempt cannot extend the first one's tokens: "
                f"expected {(first + text)[-40:]!r} to stand unchanged, found {found!r}; use a template that keeps history"
            )
    return form


def eos_ids_of(tokenizer: "PreTrainedTokenizerBase", model_folder: str | Path | None = None) -> tuple[int, ...]:
    """Every id that ends a turn: the tokenizer's, and those of the folder's or hub model's generation config."""
    from transformers import GenerationConfig

    ids = [tokenizer.eos_token_id]
    if model_folder is not None:
        try:
            listed = GenerationConfig.from_pretrained(str(model_folder)).eos_token_id
        except OSError:  # a model without generation_config.json has the tokenizer's id only
            listed = None
        ids += listed if isinstance(listed, list) else [listed]
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def _name_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__


def _common_prefix(a: str, b: str) -> str:
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return a[:i]
    return a[: min(len(a), len(b))]
