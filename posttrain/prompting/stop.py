"""Where an answer behind shots ends: a model that continues text goes on to the next question."""

from collections.abc import Sequence


def before_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first of these, whichever comes first; all of it where there is none."""
    return text[: min((place for each in stop if (place := text.find(each)) >= 0), default=len(text))]
