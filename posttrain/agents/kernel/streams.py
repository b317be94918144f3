"""Streams of texts of which it is known by construction whether they are novel and learnable to an observer that reads them in order."""

import random
import string
from collections.abc import Callable, Sequence
from itertools import cycle, islice

LETTERS = string.ascii_lowercase
WIDTH = 48
"""Characters of an artifact."""


def word(draws: random.Random, length: int) -> str:
    return "".join(draws.choices(LETTERS, k=length))


def mutated(text: str, prob: float, draws: random.Random) -> str:
    """Each character is, with probability `prob`, a letter drawn anew."""
    return "".join(draws.choice(LETTERS) if draws.random() < prob else character for character in text)


def constant(count: int, draws: random.Random) -> list[str]:
    """The same text for ever: soon known, and then nothing new."""
    return [word(draws, WIDTH)] * count


def periodic(count: int, draws: random.Random, period: int = 11) -> list[str]:
    """`period` texts in turn: known once they have come round."""
    return list(islice(cycle([word(draws, WIDTH) for _ in range(period)]), count))


def noise(count: int, draws: random.Random) -> list[str]:
    """Letters drawn evenly: never predictable, and never less so than before."""
    return [word(draws, WIDTH) for _ in range(count)]


def vocabulary(sizes: Sequence[int], draws: random.Random) -> list[str]:
    """Artifact T is eight words drawn evenly from the first `sizes[T]` of a list of random words."""
    words = [word(draws, WIDTH // 8 - 1) for _ in range(max(sizes))]
    return [" ".join(draws.choices(words[:size], k=8)) for size in sizes]


def growing(count: int, draws: random.Random) -> list[str]:
    """A vocabulary that doubles every sixth of the stream, to the end: novel, and learnable from what came just before."""
    return vocabulary([round(4 * 2 ** (6 * at / count)) for at in range(count)], draws)


def saturating(count: int, draws: random.Random) -> list[str]:
    """The same until half of the stream, then no word more: learnable, and no longer novel."""
    return vocabulary([round(4 * 2 ** (6 * min(at / count, 0.5))) for at in range(count)], draws)


def copies(count: int, draws: random.Random) -> list[str]:
    """Copies of a fixed past, count / 4 texts, each drawn evenly and with one letter in twenty drawn anew: learnable, not novel."""
    past = noise(count // 4, draws)
    return [mutated(draws.choice(past), 0.05, draws) for _ in range(count)]


def keys(count: int, draws: random.Random) -> list[str]:
    """A fresh key of 2 to 24 letters, longer and longer, repeated to the artifact's width.

    Within an artifact the key is learnt; of the next one it tells nothing: novel, and not learnable.
    """
    return ["".join(islice(cycle(word(draws, 2 + 22 * at // count)), WIDTH)) for at in range(count)]


def drift(count: int, draws: random.Random) -> list[str]:
    """The same text of twice the width, one letter of it drawn anew at every eighth artifact: by definition novel and learnable."""
    text, made = word(draws, 2 * WIDTH), list[str]()
    while len(made) < count:
        if len(made) % 8 == 0:
            at = draws.randrange(len(text))
            text = text[:at] + draws.choice(LETTERS) + text[at + 1 :]
        made.append(text)
    return made


KNOWN: dict[str, tuple[Callable[[int, random.Random], list[str]], str]] = {  # name -> (stream, verdict that it should get)
    "constant": (constant, "learnable only"),
    "periodic": (periodic, "learnable only"),
    "noise": (noise, "neither"),
    "growing": (growing, "open-ended"),
    "saturating": (saturating, "learnable only"),
    "copies": (copies, "learnable only"),
    "keys": (keys, "novel only"),
    "drift": (drift, "open-ended"),
}
