"""The answers of an in-context run, as items to read: one per item and draw of shots, its attempts the numbers of shots."""

from collections.abc import Sequence

from posttrain.evaluation.icl.log import Row
from posttrain.evaluation.metrics import edit_distance_ratio
from posttrain.evaluation.page.reading import Attempt, Item, Reading, kept

RIGHT_OR_WRONG = (("kept", "kept right"), ("fixed", "fixed"), ("broken", "broken"), ("still wrong", "kept wrong"))
GRADED = (("kept", "same score"), ("fixed", "score rose"), ("broken", "score fell"))


def reading(rows: Sequence[Row]) -> Reading:
    """All answers under the first order of each draw; what more shots did compares the most with the fewest."""
    own = [row for row in rows if row.order == 0 and not row.baseline]
    arms = list(dict.fromkeys(row.arm for row in own))
    counts = [sorted({row.shots for row in own if row.arm == arm}) for arm in arms]
    binary = all(row.score in (0.0, 1.0, None) for row in own)
    asked: dict[tuple[str, str, int], dict[int, Row]] = {}
    for row in own:
        asked.setdefault((row.arm, row.item, row.seed), {})[row.shots] = row
    every = [_item(arms.index(arm), item, seed, counts[arms.index(arm)], found, binary) for (arm, item, seed), found in asked.items()]
    return Reading(
        models=tuple(arms),
        outcomes=RIGHT_OR_WRONG if binary else GRADED,
        labels=tuple(tuple(f"{n:,} shot{'s' * (n != 1)}" for n in each) for each in counts),
        items=tuple(kept(every)),
        compared=(0, -1),
        sampling="draw",
        num_all=len(every),
    )


def _item(model: int, item: str, seed: int, counts: Sequence[int], found: dict[int, Row], binary: bool) -> Item:
    first, last = found.get(counts[0]), found.get(counts[-1])
    return Item(
        model=model,
        id=item,
        sample=seed,
        outcome=_outcome(first, last, binary),
        question="",
        reference="",
        group=next(iter(found.values())).subject,
        attempts=tuple(_attempt(found.get(n), binary) for n in counts),
        edit=round(edit_distance_ratio(first.text, last.text), 4) if first and last else None,
    )


def _outcome(first: Row | None, last: Row | None, binary: bool) -> int:
    if first is None or last is None or first.score is None or last.score is None:
        return -1
    if first.score != last.score:
        return 1 if last.score > first.score else 2
    return 3 if binary and not last.score else 0


def _attempt(row: Row | None, binary: bool) -> Attempt:
    if row is None:
        return Attempt(text="", answer=None, status="not asked")
    told = f"score {row.score:.3g}" if row.score is not None else ""
    status = "too long" if row.too_long else "unscored" if row.score is None else told
    if binary and row.score is not None:
        status = "correct" if row.score else "wrong"
    nll = "" if row.nll is None else f"NLL of the reference answer {row.nll:.3f} nats over {row.nll_tokens} tokens"
    return Attempt(
        text=row.text,
        answer=" ".join(row.text.split())[:60] or None,
        status=status,
        cut=row.finish == "length",
        num_tokens=row.answer_tokens,
        why=nll,
        note="the prompt does not fit into the context" if row.too_long else "",
    )
