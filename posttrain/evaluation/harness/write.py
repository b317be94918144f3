"""An evaluation in the layout of lm-evaluation-harness 0.4 (`--output_path` with `--log_samples`), one task per attempt.

    FOLDER/<model>/results_<time>.json · samples_<suite>_t1_<time>.jsonl · samples_<suite>_t2_<time>.jsonl

`acc` of a problem is the mean over its samples that have a verdict; its standard error is over problems. A later attempt's prompt is told
as far as it is text: the first prompt, the earlier answers and the instruction stand in `doc`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from posttrain.config import ConfigError
from posttrain.evaluation.metrics import acc_at, per_problem
from posttrain.evaluation.stats import clustered_mean
from posttrain.run import commit, write_atomic
from posttrain.types import Episode

LAYOUT = "0.4.13"
"""The version whose files these are like."""


def write(folder: Path, episodes: Sequence[Episode], prompts: dict[str, str], *, model: str, suite: str) -> list[Path]:
    """The files that were written; raises `ConfigError`."""
    place = folder / re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model.partition(" (weights ")[0])
    now = datetime.now()
    stamp = now.isoformat().replace(":", "-")
    tasks = {f"{suite}_t{k}": k for k in range(1, len(episodes[0].turns) + 1)}
    samples = {task: list(_samples(episodes, prompts, attempt)) for task, attempt in tasks.items()}
    results = {
        "results": {task: _figures(task, episodes, attempt, len(samples[task])) for task, attempt in tasks.items()},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {task: {"task": task, "output_type": "generate_until", "repeats": _repeats(episodes)} for task in tasks},
        "versions": {task: 1 for task in tasks},
        "n-shot": {task: 0 for task in tasks},
        "higher_is_better": {task: {"acc": True} for task in tasks},
        "n-samples": {task: {"original": len(samples[task]), "effective": len(samples[task])} for task in tasks},
        "config": {"model": "posttrain", "model_args": {"pretrained": model}},
        "git_hash": commit(),
        "date": now.timestamp(),
        "lm_eval_version": LAYOUT,
        "task_hashes": {
            task: _hash("".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in each)) for task, each in samples.items()
        },
        "model_source": "posttrain",
        "model_name": model,
        "model_name_sanitized": place.name,
    }
    try:
        place.mkdir(parents=True, exist_ok=True)
        files = {place / f"results_{stamp}.json": json.dumps(results, indent=2, ensure_ascii=False)}
        for task, each in samples.items():
            files[place / f"samples_{task}_{stamp}.jsonl"] = "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in each)
        for file, text in files.items():
            write_atomic(file, text)
    except OSError as error:
        raise ConfigError(f"{place}: cannot write the results: {error.strerror}") from None
    return list(files)


def _samples(episodes: Sequence[Episode], prompts: dict[str, str], attempt: int) -> Iterator[dict[str, Any]]:
    """One row per problem, all its samples in `resps`."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.problem.id, []).append(episode)
    for number, group in enumerate(groups.values()):
        problem, turns = group[0].problem, [episode.turns[attempt - 1] for episode in group]
        target = str(getattr(problem.reference, "text", None) or getattr(problem.reference, "code", ""))
        doc: dict[str, Any] = {
            "id": problem.id,
            "question": problem.question,
            "level": problem.level,
            "subject": problem.subject,
            "reference": target,
        }
        if attempt > 1:
            doc["earlier_attempts"] = [[turn.text for turn in episode.turns[: attempt - 1]] for episode in group]
        prompt = prompts.get(problem.id, "")
        right = [turn.verdict.correct for turn in turns if turn.verdict.scored]
        yield {
            "doc_id": number,
            "doc": doc,
            "target": target,
            "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {}}},
            "resps": [[turn.text for turn in turns]],
            "filtered_resps": [turns[0].text],
            "filter": "none",
            "metrics": ["acc"],
            "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": _hash(prompt),
            "target_hash": _hash(target),
            "acc": sum(right) / len(right) if right else None,
            "verdicts": [turn.verdict.status for turn in turns],
        }


def _figures(task: str, episodes: Sequence[Episode], attempt: int, problems: int) -> dict[str, Any]:
    scored = [episode for episode in episodes if episode.turns[attempt - 1].verdict.scored]
    found = clustered_mean(*per_problem(scored, acc_at(attempt)))
    counted = len({episode.problem.id for episode in scored})
    error = (found.high - found.low) / 2 / float(stdtrit(counted - 1, 0.975)) if counted > 1 else "N/A"
    return {"name": task, "alias": task, "sample_len": problems, "acc,none": found.value, "acc_stderr,none": error}


def _repeats(episodes: Sequence[Episode]) -> int:
    return max(episode.sample for episode in episodes) + 1


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
