"""`posttrain import SAMPLES.jsonl --out FOLDER`: results of lm-evaluation-harness as an evaluation, to be compared, graded again, exported.

What is known there becomes what it is here: text, answer, reference, verdict. Token ids are not in its files, so they are empty. Only the
response that the metric judged has a verdict: where a task asked several times, that is the first one.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain.complaint import nearest
from posttrain.config import ConfigError
from posttrain.evaluation.run import claim, sum_up
from posttrain.evaluation.text import as_text
from posttrain.grading.answer import final_answer
from posttrain.jsonl import read_objects
from posttrain.rollout.store import write_episodes
from posttrain.run import write_atomic
from posttrain.types import Completion, DataError, Episode, FinalAnswer, Problem, Turn, Verdict, VerdictStatus

HELP = """\
Results of lm-evaluation-harness (lm_eval ... --log_samples --output_path DIR) as an evaluation of ours.

    posttrain import DIR/<model>/samples_gsm8k_2025-01-01T00-00-00.jsonl --filter flexible-extract --out runs/eval/gsm8k/theirs
    posttrain regrade runs/eval/gsm8k/theirs --with ours
    posttrain compare runs/eval/gsm8k/theirs runs/eval/gsm8k/mine

`posttrain import --tasks` prints the folder of our tasks for lm-eval's --include_path.
"""
TASKS = Path(__file__).parent / "tasks"
METRICS = ("acc_t2", "acc", "exact_match", "math_verify", "pass@1", "pass_at_1")
QUESTIONS, IDS = ("question", "problem", "query", "prompt", "text"), ("id", "unique_id", "task_id", "idx")
RIGHT = 0.5
"""From which value of a metric an answer counts as right: they are 0 or 1, but for our own export of several samples, which is a mean."""


def episodes_of(file: Path, *, metric: str | None = None, chosen: str | None = None) -> list[Episode]:
    """An episode per document; raises `DataError` naming file and line, `ConfigError` where a filter or metric must be chosen."""
    located = read_objects(file)
    filters = list(dict.fromkeys(str(row.get("filter", "none")) for _, row in located))
    if chosen is not None and chosen not in filters:
        raise ConfigError(f"--filter {chosen}: {file} has {', '.join(filters)}{nearest(chosen, filters)}")
    if chosen is None and len(filters) > 1:
        raise ConfigError(f"{file}: holds verdicts of several filters; choose one of {', '.join(filters)} with --filter")
    kept = [(where, row) for where, row in located if row.get("filter", "none") == (chosen or filters[0])]
    listed = kept[0][1].get("metrics") or []
    name = metric or next((name for name in METRICS if name in listed), None)
    if name is None or name not in kept[0][1]:
        raise ConfigError(f"{file}: no metric that tells right from wrong; choose one of {', '.join(listed) or 'none'} with --metric")
    found = [_episode(where, row, name) for where, row in kept]
    seen: dict[str, str] = {}
    for (where, _), episode in zip(kept, found):
        twin = seen.setdefault(episode.problem.id, where)
        if twin != where:
            raise DataError(f"{where}: the document {episode.problem.id!r} stands already in {twin}")
    return found


def cli(argv: Sequence[str]) -> int:
    """`posttrain import`."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="posttrain import", description=HELP, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("samples", nargs="?", type=Path, help="a samples_*.jsonl")
    parser.add_argument("--out", type=Path, help="folder for the evaluation")
    parser.add_argument("--metric", help="the metric that is the verdict (default: the first known one)")
    parser.add_argument("--filter", help="whose filter's answers to take, where there are several")
    parser.add_argument("--tasks", action="store_true", help="print the folder of our tasks for lm-eval and stop")
    args = parser.parse_args(argv)
    if args.tasks:
        print(TASKS)
        return 0
    if not args.samples or not args.out:
        raise ConfigError("name a samples_*.jsonl of lm-eval and --out FOLDER")
    episodes = episodes_of(args.samples, metric=args.metric, chosen=args.filter)
    results = results_beside(args.samples)
    name = args.samples.stem.removeprefix("samples_").rpartition("_")[0] or args.samples.stem
    model = str(results.get("model_name", "unknown"))
    claim(args.out, {"model": model, "kind": "lm_eval", "harness_task": name, "attempts": len(episodes[0].turns), "samples": 1})
    write_episodes(args.out / "episodes.jsonl", episodes)
    prompts = [{"problem": e.problem.id, "prompt": prompt} for e, prompt in zip(episodes, _prompts(args.samples, args.filter))]
    write_atomic(args.out / "prompts.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in prompts))
    found = sum_up(episodes, args.out, model=model, name=name)
    print(f"{name}: {model}\n{as_text(found, episodes)}\nepisodes and summary in {args.out}")
    return 0


def results_beside(samples: Path) -> dict[str, Any]:
    """The results_*.json of the same run; empty where there is none."""
    stamp = samples.stem.rpartition("_")[2]
    file = samples.with_name(f"results_{stamp}.json")
    try:
        return json.loads(file.read_text()) if file.is_file() else {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not JSON: {error}") from None


def _prompts(file: Path, chosen: str | None) -> Iterator[str]:
    for _, row in read_objects(file):
        if chosen in (None, row.get("filter")):
            yield str((row.get("arguments") or {}).get("gen_args_0", {}).get("arg_0", ""))


def _episode(where: str, row: dict[str, Any], metric: str) -> Episode:
    try:
        doc, said = row["doc"], row["resps"][0][0]
        problem = Problem(
            id=next((str(doc[key]) for key in IDS if doc.get(key) not in (None, "")), str(row["doc_id"])),
            question=next((doc[key] for key in QUESTIONS if isinstance(doc.get(key), str)), ""),
            reference=FinalAnswer(text=final_answer(str(row["target"])) or str(row["target"])),
            level=str(doc.get("level") or ""),
            subject=str(doc.get("subject") or doc.get("type") or ""),
        )
        answer = row["filtered_resps"][0]
        turns = [_turn(said, answer if isinstance(answer, str) else said, row[metric], metric)]
        if "acc_t1" in row and "first_attempt" in doc:
            turns.insert(0, _turn(doc["first_attempt"], doc["first_attempt"], row["acc_t1"], "acc_t1"))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: not a row of lm-eval's samples: {error!r}") from None
    if not isinstance(said, str):
        raise DataError(f"{where}: the response is not text but {said!r:.60}; only tasks that generate text can be taken")
    return Episode(problem=problem, turns=tuple(turns))


def _turn(text: str, answer: str, value: Any, metric: str) -> Turn:
    status: VerdictStatus = "unscored" if value is None else "correct" if float(value) >= RIGHT else "wrong"
    verdict = Verdict(status=status, why=f"{metric} = {value}", rule=f"lm-eval {metric}")
    return Turn(prompt_ids=(), completion=Completion(ids=(), logprobs=(), finish="stop"), text=text, answer=answer, verdict=verdict)
