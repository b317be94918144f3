"""What may be said of a picture of `envs/shapes.py`: captions drawn from a small grammar, all of them true.

    caption -> where the agent is          NP at the red ring · NP next to the blue cross · NP on empty ground
             | what there is               a red ring · a red ring and a blue cross
    NP      -> the agent is | an agent standing | a robot

So "a red ring" says that there is one, not that the agent is at it: a reward that is asked for the bare name cannot tell the two apart.
"""

import random
import string
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from posttrain.agents.kernel.envs.shapes import COLOURS, KINDS, SHAPES

WHO = ("the agent is", "an agent standing", "a robot")
AT = ("at the {}", "on the {}")
NEXT_TO = ("next to the {}", "beside the {}")
NOWHERE = ("on empty ground", "at nothing")
END_OF_WORD = "</w>"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")  # as CLIP calls them
AGENT_SHARE = 0.7  # of the captions are about the agent


def caption(agent: int, cells: Sequence[int], kinds: Sequence[int], n: int, rng: random.Random) -> str:
    """One caption of a room of n x n cells with `kinds[i]` at `cells[i]`."""
    if rng.random() >= AGENT_SHARE:
        first, second = rng.sample(range(len(kinds)), 2)
        return f"a {KINDS[kinds[first]]}" + (f" and a {KINDS[kinds[second]]}" if rng.random() < 0.5 else "")
    near = [kind for cell, kind in zip(cells, kinds, strict=True) if abs(cell // n - agent // n) + abs(cell % n - agent % n) == 1]
    if agent in cells:
        return f"{rng.choice(WHO)} {rng.choice(AT).format(KINDS[kinds[cells.index(agent)]])}"
    if near and rng.random() < 0.5:
        return f"{rng.choice(WHO)} {rng.choice(NEXT_TO).format(KINDS[rng.choice(near)])}"
    return f"{rng.choice(WHO)} {rng.choice(NOWHERE)}"


def words() -> list[str]:
    """Every word of the grammar."""
    texts = [*WHO, *(form.format("") for form in (*AT, *NEXT_TO)), *NOWHERE, "a and", *COLOURS, *SHAPES]
    return list(dict.fromkeys(" ".join(texts).split()))


def byte_pairs(known: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-pair tokenizer with a token for each known word, and letters, digits and signs for all others.

    The most frequent pair of neighbours is merged until none is left, the first in the alphabet among equals: tokenizers' own trainer
    takes any of them, and other numbers for the same words would make another model of the same seed.
    """
    spelled = [[*word[:-1], f"{word[-1]}{END_OF_WORD}"] for word in known]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for parts in spelled for pair in pairwise(parts)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in spelled:
            for i in reversed(range(len(parts) - 1)):
                if tuple(parts[i : i + 2]) == best:
                    parts[i : i + 2] = ["".join(best)]
    alphabet = string.ascii_lowercase + string.digits + string.punctuation
    tokens = [*alphabet, *(f"{sign}{END_OF_WORD}" for sign in alphabet), *map("".join, merges)]
    return {token: i for i, token in enumerate(dict.fromkeys((*SPECIAL, *tokens)))}, merges
