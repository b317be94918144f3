"""An evaluation's figures for a terminal, in percent with 95% intervals."""

from collections.abc import Sequence

from posttrain.evaluation import samples
from posttrain.evaluation.metrics import Summary, breakdown
from posttrain.evaluation.samples import Sampled, accuracy_by
from posttrain.evaluation.stats import Estimate
from posttrain.types import Episode


def as_text(found: Summary | Sampled, episodes: Sequence[Episode]) -> str:
    """Of several attempts: what became of them, and per level; of several samples: what a choice of them is worth."""
    if isinstance(found, Summary):
        lines = [table(found, breakdown(episodes, "level"))]
        of_samples = samples.sampled(episodes)
        return "\n".join([*lines, *(["", *samples.as_text(of_samples)] if of_samples.samples > 1 else [])])
    attempt = found.attempts[0]
    lines = [f"{found.problems} problems, {found.episodes} samples, {found.unscored} unscored, cut at max_tokens: {attempt.clip:.1%}"]
    lines += samples.as_text(found)
    for by in ("level", "subject"):
        groups = accuracy_by(episodes, by)
        if len(groups) > 1:
            lines += ["", f"  {by}", *(f"  {name:<24} {_cell(estimate)}" for name, estimate in groups.items())]
    return "\n".join(lines)


def table(summary: Summary, levels: dict[str, Summary]) -> str:
    """The figures of several attempts."""
    first, second = summary.between
    note = f"exact p = {summary.p_value:.2g} ({summary.num_fixed} fixed, {summary.num_broken} broken)"
    rows: list[tuple[str, Estimate | None, str]] = [(f"Acc@t{k}", acc, "") for k, acc in enumerate(summary.acc, 1)]
    rows += [(f"Delta(t{first},t{second})", summary.delta, note)]
    rows += [("Delta i->c", summary.fixed, "of all episodes"), ("Delta c->i", summary.broken, "of all episodes")]
    rows += [("fix rate", summary.fix_rate, "of those wrong at first"), ("break rate", summary.break_rate, "of those right at first")]
    rows += [
        ("answer changed", summary.answer_change, ""),
        ("text copied", summary.text_copy, ""),
        ("edit ratio", summary.edit_ratio, "mean"),
    ]
    lines = [f"  {label:<14} {_cell(estimate)}  {text}".rstrip() for label, estimate, text in rows if estimate is not None]
    clipped = ", ".join(f"{share:.1%}" for share in summary.clip)
    head = (
        f"{summary.problems} problems, {summary.episodes} episodes, {summary.unscored} unscored, cut at max_tokens per attempt: {clipped}"
    )
    if len(levels) > 1:
        lines += ["", f"  {'level':<14} {'n':>6}  {'t1':>6} {'t2':>6}   Delta"]
        lines += [f"  {k:<14} {s.problems:>6}  {_pc(s.acc[0])} {_pc(s.acc[1])}  {_cell(s.delta)}" for k, s in levels.items()]
    return "\n".join([head, *lines])


def _cell(estimate: Estimate) -> str:
    return f"{100 * estimate.value:6.1f}  [{100 * estimate.low:5.1f}, {100 * estimate.high:5.1f}]"


def _pc(estimate: Estimate) -> str:
    return f"{100 * estimate.value:6.1f}"
