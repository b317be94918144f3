"""Prompts in plain text, for models without a chat template: what is asked stands as it is, and an answer is what the model writes next.

It has the methods of `ChatFormat`, so that whatever samples can take either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from posttrain.prompting.chat import ChatFormat
from posttrain.prompting.stop import before_stop
from posttrain.types import Message, TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RawFormat:
    """`eos_ids` and, in text, `stop` end an answer; `gap` stands between messages and before the answer."""

    tokenizer: "PreTrainedTokenizerBase"
    eos_ids: tuple[int, ...]
    stop: tuple[str, ...] = ()
    gap: str = "\n\n"

    def ask(self, messages: Sequence[Message]) -> TokenIds:
        """The ids of the text, behind the tokenizer's own beginning of a text where it has one."""
        bos = self.tokenizer.bos_token_id
        begins = (bos,) if bos is not None and self.tokenizer("")["input_ids"][:1] == [bos] else ()
        return (*begins, *self.encode(self.render(messages)))

    def revise(self, prompt_ids: TokenIds, completion_ids: TokenIds, instruction: str) -> TokenIds:
        """`prompt_ids + completion_ids`, an id that ended the answer included, then the instruction between gaps."""
        return (*prompt_ids, *completion_ids, *self.encode(f"{self.gap}{instruction}{self.gap}"))

    def text(self, completion_ids: TokenIds) -> str:
        """What the model wrote, up to the first stop."""
        return before_stop(self.tokenizer.decode(list(completion_ids), skip_special_tokens=True), self.stop)

    def render(self, messages: Sequence[Message]) -> str:
        return self.gap.join(message.content for message in messages) + self.gap

    def encode(self, text: str) -> TokenIds:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


PromptFormat: TypeAlias = ChatFormat | RawFormat
"""How a task's messages become tokens."""
