"""`posttrain export EVALUATION`: an evaluation for other tools, as one Parquet table or as lm-evaluation-harness would have written it."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain.config import ConfigError
from posttrain.evaluation.harness import write as harness
from posttrain.rollout.store import read_episodes
from posttrain.run import read_jsonl
from posttrain.types import DataError, Episode

HELP = """\
An evaluation for other tools.

    posttrain export runs/eval/math500/m --parquet math500.parquet    one row per attempt; datasets, pandas and DuckDB read it
    posttrain export runs/eval/math500/m --lm-eval results            results_*.json and samples_*.jsonl of lm-evaluation-harness
"""
ROW_GROUP = 4096


def rows(episodes: Sequence[Episode], prompts: dict[str, str]) -> Iterator[dict[str, Any]]:
    """One row per attempt. `prompt` is the first prompt's text where it is known; a later one follows from the rows before."""
    for episode in episodes:
        problem, reference = episode.problem, episode.problem.reference
        for number, turn in enumerate(episode.turns, 1):
            yield {
                "problem": problem.id,
                "sample": episode.sample,
                "attempt": number,
                "level": problem.level,
                "subject": problem.subject,
                "question": problem.question,
                "reference": getattr(reference, "text", None) or getattr(reference, "code", ""),
                "prompt": prompts.get(problem.id) if number == 1 else None,
                "text": turn.text,
                "answer": turn.answer,
                "correct": turn.verdict.correct if turn.verdict.scored else None,
                "status": turn.verdict.status,
                "why": turn.verdict.why,
                "rule": turn.verdict.rule,
                "gold_form": turn.verdict.gold_form,
                "pred_form": turn.verdict.pred_form,
                "finish": turn.completion.finish,
                "given": turn.given,
                "prompt_tokens": len(turn.prompt_ids),
                "completion_ids": list(turn.completion.ids),
                "completion_logprobs": list(turn.completion.logprobs),
                "policy_step": episode.policy_step,
            }


def write_parquet(file: Path, episodes: Sequence[Episode], prompts: dict[str, str]) -> None:
    """The rows as a Parquet file, put in place whole; raises `ConfigError`."""
    import pyarrow as arrow
    from pyarrow import parquet

    texts = ("problem", "level", "subject", "question", "reference", "prompt", "text", "answer")
    told = ("status", "why", "rule", "gold_form", "pred_form", "finish")
    kinds = {name: arrow.string() for name in (*texts, *told)} | {name: arrow.bool_() for name in ("correct", "given")}
    kinds |= {name: arrow.int32() for name in ("sample", "attempt", "prompt_tokens", "policy_step")}
    kinds |= {"completion_ids": arrow.list_(arrow.int32()), "completion_logprobs": arrow.list_(arrow.float64())}
    made = list(rows(episodes, prompts))
    schema = arrow.schema([(name, kinds[name]) for name in made[0]])
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.Table.from_pylist(made, schema), temporary, compression="zstd", row_group_size=ROW_GROUP)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None


def stored_prompts(folder: Path) -> dict[str, str]:
    """Problem -> the text of its first prompt, where the evaluation kept it."""
    file = folder / "prompts.jsonl"
    return {row["problem"]: row["prompt"] for row in read_jsonl(file) if row.get("problem") is not None} if file.is_file() else {}


def cli(argv: Sequence[str]) -> int:
    """`posttrain export`."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="posttrain export", description=HELP, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("evaluation", type=Path, help="an evaluation's folder")
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--parquet", type=Path, metavar="FILE", help="write this Parquet file")
    form.add_argument("--lm-eval", type=Path, metavar="FOLDER", help="write FOLDER/<model>/results_*.json and samples_*.jsonl")
    args = parser.parse_args(argv)
    episodes = list(read_episodes(args.evaluation / "episodes.jsonl"))
    if not episodes:
        raise DataError(f"{args.evaluation / 'episodes.jsonl'}: holds no episode")
    prompts = stored_prompts(args.evaluation)
    if args.parquet:
        write_parquet(args.parquet, episodes, prompts)
        print(f"wrote {args.parquet}: {sum(len(episode.turns) for episode in episodes)} attempts")
        return 0
    summary = args.evaluation / "summary.json"
    if not summary.is_file():
        raise DataError(f"{args.evaluation}: has no summary.json: it is not finished; run the same posttrain eval again")
    row = json.loads(summary.read_text())
    for file in harness.write(args.lm_eval, episodes, prompts, model=row["model"], suite=row["suite"]):
        print(f"wrote {file}")
    return 0
