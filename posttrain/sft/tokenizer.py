"""A small tokenizer for generated problems: one token for a number with the space before it, one for each fixed phrase.

It is a Qwen2 tokenizer, as the model is of that family and loaders go by the family. All other text falls back to bytes.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from posttrain.prompting.revise import ONELINER, SUMS
from posttrain.tasks.oneliners import ASK, OPERATIONS, OnelinersTask, signature
from posttrain.tasks.sums import COUNT, IN_SYMBOLS, IN_WORDS, NAMES, SumsTask, written

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
MOST_WORDS = 2000  # tokens of a tokenizer made from texts; what is rarer falls back to bytes
CHAT_TEMPLATE = (
    f"{{% for m in messages %}}{{{{ '{USER}' if m.role == 'user' else '{ASSISTANT}' }}}}{{{{ m.content }}}}{END}{{% endfor %}}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def sums_tokenizer(task: SumsTask) -> "PreTrainedTokenizerBase":
    """Tokens for every number and phrase that `task` writes, with a chat template that keeps history."""
    forms = [form.replace("{count}", COUNT[task.pick]).replace("{names}", NAMES[task.pick]) for form in (IN_WORDS, IN_SYMBOLS)]
    texts = [form.format(numbers="1 1", target=1) for form in forms] + [written([1] * task.pick), SUMS]
    numbers = [f" {n}" for n in range(task.pick * task.largest)]
    return word_tokenizer([*numbers, *phrases(texts)])


def oneliners_tokenizer(task: OnelinersTask) -> "PreTrainedTokenizerBase":
    """Tokens for every number that a test of `task` can hold, for what stands around it, and for every part of a program but names."""
    arguments = [f"{n}, " for n in range(1, task.largest + 1)]
    results = [str(n) for n in range(1 - task.largest, task.largest**2 + 1)]
    question, start = ASK.partition("{tests}")[0].format(names=signature(task.arguments)), f"def f({signature(task.arguments)}): return "
    operations = [f"{op}(" if op.isalpha() else f" {op} " for op in OPERATIONS]
    return word_tokenizer([*arguments, *results, question, "assert f(", ") == ", start, *operations, ", ", ONELINER])


def word_tokenizer(words: Iterable[str]) -> "PreTrainedTokenizerBase":
    """One token for each of `words`, which are found in a text wherever they stand, longer ones first."""
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    special = [PAD, END, USER, ASSISTANT]
    vocab = {token: i for i, token in enumerate([*special, *sorted(ByteLevel.alphabet())])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], unk_token=PAD, eos_token=END, pad_token=PAD, extra_special_tokens=special[2:])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def words_of(texts: Iterable[str]) -> list[str]:
    """The words and numbers of the texts with the space before each, and runs of other signs: the `MOST_WORDS` most frequent."""
    counts = Counter(piece for text in texts for piece in re.findall(r" ?\w+| ?[^\w\s]+", text))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_WORDS]]


def phrases(texts: Iterable[str]) -> list[str]:
    """What stands between the numbers of each text, in order of appearance."""
    return list(dict.fromkeys(piece for text in texts for piece in re.split(r" \d+", text) if piece))
