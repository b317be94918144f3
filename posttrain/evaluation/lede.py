"""The sentence under a page's title, where there are too many rows for a sentence each."""

from collections.abc import Sequence

from posttrain.evaluation.numerals import points
from posttrain.evaluation.stats import Estimate

MOST_SENTENCES = 4
"""Above so many rows they are counted."""


def gains_and_losses(changes: Sequence[tuple[str, Estimate]], rows: str, cause: str) -> str:
    """How many of the named changes are gains, losses and neither, and the largest; an interval that holds 0 is neither.

    `rows` and `cause` complete "Of 29 <rows>, 14 gain <cause>, ...".
    """
    gains = sorted((change for change in changes if change[1].low > 0), key=lambda change: -change[1].value)
    losses = sorted((change for change in changes if change[1].high < 0), key=lambda change: change[1].value)
    parts = [_group(gains, "gain", cause), _group(losses, "lose", "")]
    unclear = len(changes) - len(gains) - len(losses)
    parts.append(f"{unclear or 'none'} {'shows' if unclear == 1 else 'show'} no clear change")
    return f"Of {len(changes)} {rows}, {'; '.join(parts)}."


def _group(found: Sequence[tuple[str, Estimate]], verb: str, cause: str) -> str:
    if not found:
        return " ".join(filter(None, ("none", f"{verb}s", cause)))
    words = " ".join(filter(None, (str(len(found)), f"{verb}s" if len(found) == 1 else verb, cause)))
    name, change = found[0]
    return f"{words}, {'most of all ' if len(found) > 1 else ''}{name} ({points(change.value)} points)"
