"""A small tokenizer for generated problems: one token for a number with the space before it, one for each fixed phrase."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from posttrain.prompting.revise import SUMS
from posttrain.tasks.sums import Demonstration

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Numbers stand alone, so that each has one token of its own; what is between them is split only where the demonstrations vary.
PIECES = r" ?\d+|[^\d\s]+(?: [^\d\s]+)*| [^\d\s]+(?: [^\d\s]+)*|\s+"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|assistant|>' }}{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(pool: Sequence[Demonstration], vocab_size: int = 1024) -> "PreTrainedTokenizerFast":
    """Byte-level BPE over the demonstrations' text and the self-correction instruction, with a chat template that keeps history."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=128,
    )
    text = (piece for demo in pool[:20_000] for piece in (demo.problem.question, *demo.attempts, SUMS))
    tokenizer.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", clean_up_tokenization_spaces=False)
    fast.add_special_tokens({"additional_special_tokens": special[2:]})
    fast.chat_template = CHAT_TEMPLATE
    return fast
