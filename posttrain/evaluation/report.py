"""What the page of `posttrain report` says of models that answer twice: figures, flows, training, rewriting, episodes.

`write_report` takes entries, one per model, and makes sections of them; `page/write.py` draws them.
"""

from collections.abc import Sequence
from pathlib import Path

from posttrain.evaluation import plots
from posttrain.evaluation.entries import Entry
from posttrain.evaluation.lede import MOST_SENTENCES, gains_and_losses
from posttrain.evaluation.metrics import (
    OUTCOMES,
    Summary,
    acc_at,
    breakdown,
    compare,
    delta_of,
    edit_distance_ratio,
    outcome,
    summarise,
)
from posttrain.evaluation.numerals import p_text, percent, points
from posttrain.evaluation.page.reading import Attempt, Item, Reading, kept
from posttrain.evaluation.page.write import Page, write
from posttrain.evaluation.paper import PAPER_ROWS, PAPER_TITLE, PaperRow
from posttrain.evaluation.second import Second
from posttrain.evaluation.section import Cell, Flow, Section, cell, toned
from posttrain.run import commit
from posttrain.types import Episode, FinalAnswer, Turn, UnitTests

LABELS = {"kept": "kept right", "fixed": "fixed", "broken": "broken", "still wrong": "kept wrong"}
ROW = tuple[str, Summary]


def write_report(
    path: str | Path,
    title: str,
    entries: Sequence[Entry],
    *,
    rows: Sequence[ROW] | None = None,
    sections: Sequence[Section] = (),
    paper_rows: Sequence[PaperRow] = PAPER_ROWS,
    paper_title: str = PAPER_TITLE,
    notes: Sequence[str] = (),
    counted: str = "problems",
) -> None:
    """Write the page for these models, in the order given; each needs scored episodes of at least two attempts.

    `rows` are the models' figures where they are more than their entry's own, as over several seeds; intervals are over what is `counted`.
    """
    if not entries:
        raise ValueError("a report needs at least one entry")
    rows = rows or [(entry.name, summarise(entry.episodes)) for entry in entries]
    made = [_figures(rows, paper_rows, paper_title, counted), *([] if sections else _comparisons(entries)), *sections]
    made += [_flows(entries), *_training(entries), _rewriting(entries), *_levels(entries)]
    page = Page(
        title=title,
        kind=_kind(entries, rows, counted),
        lede=_lede(rows),
        notes=tuple(notes),
        sections=tuple(made),
        hero=_hero(rows[0][1]) if len(rows) == 1 else (),
        reading=_reading(entries),
        reading_text="Every episode with both attempts, what the second one changed, and why the grader decided as it did.",
        provenance=tuple(_provenance(entries, rows)),
    )
    write(Path(path), page)


def _kind(entries: Sequence[Entry], rows: Sequence[ROW], counted: str) -> str:
    what = "Training" if any(entry.stages for entry in entries) else "Evaluation"
    models = f"{len(rows)} models" if len(rows) > 1 else rows[0][0]
    last, per_problem = rows[-1][1], rows[-1][1].episodes / rows[-1][1].problems
    samples = f" × {per_problem:.3g} samples" if per_problem > 1 else ""
    return f"{what} · {models} · {last.problems:,} problems{samples}" + (" over all seeds" if "seeds" in counted else "")


def _lede(rows: Sequence[ROW]) -> str:
    """What the second attempt does to each model; of many, how many gain by it, and which one ends highest."""
    if len(rows) <= MOST_SENTENCES:
        return " ".join(_sentence(name, s) for name, s in rows)
    best, highest = max(((name, s.acc[s.between[1] - 1].value) for name, s in rows), key=lambda row: row[1])
    told = gains_and_losses([(name, s.delta) for name, s in rows], "models", "by a second attempt")
    return f"{told} Right most often at the second attempt: {best} ({percent(highest)}%)."


def _sentence(name: str, s: Summary) -> str:
    """What the second attempt does to this model's accuracy, claimed only where the interval is clear of 0."""
    size = f"{abs(100 * s.delta.value):.1f} points"
    if s.delta.low > 0:
        return f"{name} gains {size} from its second attempt."
    if s.delta.high < 0:
        return f"{name} loses {size}."
    return f"{name} shows no clear change ({points(s.delta.value)})."


def _hero(s: Summary) -> tuple[tuple[str, Cell], ...]:
    first, second = s.between
    p = Cell(value=f"{s.num_fixed:,} : {s.num_broken:,}", interval=f"exact p = {p_text(s.p_value)}")
    accuracies = [(f"Attempt {k}, % right", cell(s.acc[k - 1])) for k in (first, second)]
    return (*accuracies, ("Change, points", toned(s.delta, points)), ("Fixed : broken", p), ("Answers changed, %", cell(s.answer_change)))


def _figures(rows: Sequence[ROW], paper_rows: Sequence[PaperRow], paper_title: str, counted: str) -> Section:
    seeds = "seeds" in counted
    text = f"Percent, with 95% intervals over {counted}. i→c and c→i are shares of all episodes, so the change is their difference. " + (
        "n: problems × samples, those of all seeds together. p: of no change, from the same variance as the interval."
        if seeds
        else "p: exact test of no change, McNemar's for one sample per problem."
    )
    head: tuple[str, ...] = ("Model", "Acc@t1", "Acc@t2", "Change,\nt2 − t1", "p\nfixed : broken", "Fixed\ni→c", "Broken\nc→i")
    head += ("Answer\nchanged", "Text\ncopied", "n")
    told = [(name, _row(s)) for name, s in rows]
    paper = [(row.name, _paper_row(row)) for row in paper_rows]
    return Section(name="Figures", title="Figures", text=text, head=head, rows=(*told, *([(paper_title, ())] if paper else []), *paper))


def _row(s: Summary) -> tuple[Cell, ...]:
    a, b = s.between
    test = Cell(value=p_text(s.p_value), interval=f"{s.num_fixed:,} : {s.num_broken:,}")
    shares = (cell(each) for each in (s.fixed, s.broken, s.answer_change, s.text_copy))
    return (cell(s.acc[a - 1]), cell(s.acc[b - 1]), toned(s.delta, points), test, *shares, Cell(value=_count(s)))


def _paper_row(row: PaperRow) -> tuple[Cell, ...]:
    values = (f"{row.t1:.1f}", f"{row.t2:.1f}", points(row.delta / 100), "", f"{row.fixed:.1f}", f"{row.broken:.1f}", "", "", "")
    return tuple(Cell(value=value, tone="soft") for value in values)


def _count(s: Summary) -> str:
    return f"{s.problems:,}" if s.episodes == s.problems else f"{s.problems:,} × {s.episodes / s.problems:.3g}"


def _comparisons(entries: Sequence[Entry]) -> list[Section]:
    """The last model against each of the others."""
    last, found = entries[-1], []
    for other in entries[:-1]:
        if {e.problem.id for e in other.episodes} & {e.problem.id for e in last.episodes}:
            cells = (toned(compare(other.episodes, last.episodes, measure), points) for measure in (acc_at(2), delta_of))
            found.append((f"{last.name} − {other.name}", tuple(cells)))
    text = "The same problems, paired: points, with 95% bootstrap intervals."
    head = ("Difference", "Acc@t2", "Change, t2 − t1")
    return [Section(title="Between models", text=text, head=head, rows=tuple(found))] if found else []


def _flows(entries: Sequence[Entry]) -> Section:
    text = "Right and wrong at the first attempt, and where those answers went at the second, in episodes. Press a ribbon to read them."
    flows = tuple(_flow(i, entry) for i, entry in enumerate(entries))
    return Section(name="Flow", title="What became of the answers", text=text, flows=flows)


def _flow(model: int, entry: Entry) -> Flow:
    scored = [e for e in entry.episodes if all(turn.verdict.scored for turn in e.turns)]
    kinds = [outcome(e) for e in scored]
    same = sum(kind == "still wrong" and e.turns[0].answer == e.turns[1].answer for kind, e in zip(kinds, scored))
    counts = {"kept": kinds.count("kept"), "fixed": kinds.count("fixed"), "broken": kinds.count("broken")}
    return Flow(name=entry.name, model=model, same_wrong=same, other_wrong=kinds.count("still wrong") - same, **counts)


def _training(entries: Sequence[Entry]) -> list[Section]:
    found = plots.training(entries)
    text = (
        "Sampled training batches: pale as logged, strong as a moving mean; dots are held-out validation. All runs share their axes. "
        "A dashed line is the limit from which the run warns. Point at a plot to read it; drag across it to zoom, double-click to go back."
    )
    return [Section(name="Training", title="Training", text=text, plots=tuple(found))] if found else []


def _rewriting(entries: Sequence[Entry]) -> Section:
    text = (
        "Edit distance between the two attempts over the sum of their lengths: 0 is a copy. Share of episodes in %, all on the same axes."
    )
    title = "How much of the text is rewritten"
    return Section(name="Rewriting", title=title, text=text, plots=tuple(plots.histograms(entries)))


def _levels(entries: Sequence[Entry]) -> list[Section]:
    found = []
    head = ("Level", "Acc@t1", "Acc@t2", "Change", "Fixed\ni→c", "Broken\nc→i", "n")
    for entry in entries:
        groups = breakdown(entry.episodes, "level")
        rows = [
            (k, (cell(s.acc[0]), cell(s.acc[1]), toned(s.delta, points), cell(s.fixed), cell(s.broken), Cell(value=_count(s))))
            for k, s in groups.items()
        ]
        if len(groups) > 1:
            found.append(Section(title=f"{entry.name} by level", text="", head=head, rows=tuple(rows), folded=True))
    return found


def _reading(entries: Sequence[Entry]) -> Reading:
    every = [_item(model, episode, entry.second) for model, entry in enumerate(entries) for episode in entry.episodes]
    return Reading(
        models=tuple(entry.name for entry in entries),
        outcomes=tuple(LABELS.items()),
        labels=tuple(tuple(f"Attempt {k}" for k in range(1, len(entry.episodes[0].turns) + 1)) for entry in entries),
        items=tuple(kept(every)),
        pieces=tuple(entry.pieces for entry in entries),
        num_all=len(every),
    )


def _item(model: int, episode: Episode, second: Second) -> Item:
    problem, reference = episode.problem, episode.problem.reference
    scored = all(turn.verdict.scored for turn in episode.turns)
    groups = (f"level {problem.level}" if problem.level[:1].isdigit() else problem.level, problem.subject)
    opinions = second.get((problem.id, episode.sample)) or [()] * len(episode.turns)
    told = [0, *(len(turn.prompt_ids) + len(turn.completion.ids) for turn in episode.turns)]
    return Item(
        model=model,
        id=problem.id,
        sample=episode.sample,
        outcome=OUTCOMES.index(outcome(episode)) if scored else -1,
        question=problem.question,
        reference=reference.text if isinstance(reference, FinalAnswer) else reference.entry_point,
        tests=reference.code if isinstance(reference, UnitTests) else "",
        group=" · ".join(part for part in groups if part),
        attempts=tuple(_attempt(turn, before, said) for turn, before, said in zip(episode.turns, told, opinions)),
        edit=round(edit_distance_ratio(episode.turns[0].text, episode.turns[1].text), 4),
    )


def _attempt(turn: Turn, before: int, second: tuple[tuple[str, str], ...]) -> Attempt:
    """`before`: how many tokens of its prompt are those of earlier attempts; `second`: what other graders said."""
    verdict = turn.verdict
    return Attempt(
        text=turn.text,
        answer=turn.answer,
        status=verdict.status,
        cut=turn.completion.finish == "length",
        num_tokens=len(turn.completion.ids),
        why=verdict.why,
        rule=verdict.rule,
        gold_form=verdict.gold_form,
        pred_form=verdict.pred_form,
        given=turn.given,
        second=second,
        prompt_ids=turn.prompt_ids[before:],
        ids=turn.completion.ids,
    )


def _provenance(entries: Sequence[Entry], rows: Sequence[ROW]) -> list[tuple[str, str]]:
    facts = [("This page", f"posttrain report · commit {commit()}")]
    for entry, (name, s) in zip(entries, rows):
        cut = ", ".join(f"{percent(share)} %" for share in s.clip)
        tokens = ", ".join(f"{mean:.0f}" for mean in s.tokens)
        counts = f"{_count(s)} problems, {s.unscored} unscored, cut by the length limit per attempt {cut}, mean tokens {tokens}"
        facts += [(name, counts), *((f"{name}: {what}", value) for what, value in entry.provenance)]
    return facts
