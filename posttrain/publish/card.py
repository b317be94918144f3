"""The card of a published model: recipe, data, figures and provenance, read from what the run recorded."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from posttrain.evaluation.budget import recorded
from posttrain.evaluation.run import identity
from posttrain.publish.licences import Source, sources_of

WEIGHTS = re.compile(r"\(weights \w+\)")
OTHERS = {
    "sft": "supervised fine-tuning on two attempts",
    "self_training": "self-training on its own attempts",
    "think_twice": "ThinkTwice (arXiv 2604.01591)",
    "grpo": "GRPO (arXiv 2402.03300)",
}
USE = """\
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("THIS")
    model = AutoModelForCausalLM.from_pretrained("THIS")
"""
USE_ADAPTER = """\
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("THIS")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("BASE"), "THIS")
"""


def card(run: Path, *, adapter: bool, licence: str | None, tables: Mapping[str, int]) -> str:
    """README.md as the hub reads it: a head of keys, then the text."""
    chain = lineage(run)
    recipe, base = chain[-1][1], base_of(chain)
    data = sources_of(recipe.get("task") or {})
    parts = [
        f"# {run.resolve().name}\n\n{method(recipe)}, from {base or 'random weights'}.",
        f"## Use\n\n{(USE_ADAPTER if adapter else USE).replace('BASE', str(recipe.get('model')))}",
        f"## Figures\n\n{figures(run)}",
        f"## Training\n\n{training(chain)}",
        f"## Data\n\n{_data(data)}",
        f"## Episodes\n\n{_episodes(tables)}",
        f"## Provenance\n\n{provenance(chain)}",
    ]
    stated = "" if licence else "\n\n## Licence\n\nNone is stated. Those of the model that it started from and of the data apply."
    return f"---\n{_head(recipe, base, data, adapter=adapter, licence=licence)}---\n\n" + "\n\n".join(parts) + stated + "\n"


def lineage(run: Path) -> list[tuple[Path, dict[str, Any]]]:
    """(folder, recipe) of the runs that led to this one, it being the last; a model that is no run's ends the chain."""
    chain = [(run, recorded(run))]
    while isinstance(model := chain[0][1].get("model"), str):
        folders = Path(model).parents if Path(model).exists() else ()
        before = next((folder for folder in folders if (folder / "config.yaml").is_file()), None)
        if before is None or before in [folder for folder, _ in chain]:
            break
        chain.insert(0, (before, recorded(before)))
    return chain


def base_of(chain: Sequence[tuple[Path, dict[str, Any]]]) -> str | None:
    """The model that the first run of the chain started from; None for random weights."""
    model = chain[0][1].get("model")
    return model.get("name") if isinstance(model, dict) else model


def method(recipe: Mapping[str, Any]) -> str:
    """What a recipe does, in words."""
    if recipe.get("kind") != "score":
        return f"Trained by {OTHERS.get(str(recipe.get('kind')), recipe.get('kind'))}"
    weight, bonus = recipe["weight"], recipe.get("bonus", 0)
    if bonus:
        return f"Trained by SCoRe, Stage II (arXiv 2409.12917, Eq. 4; alpha {bonus:g})"
    if len(weight) > 1 and weight[0] == 0:
        return "Trained by SCoRe, Stage I (arXiv 2409.12917, Eq. 3)"
    return f"Trained by RL on {len(weight)} attempts (arXiv 2409.12917, Eq. 2)" if len(weight) > 1 else "Trained by single-turn RL"


def figures(run: Path) -> str:
    """A table of the evaluations in RUN/eval that were of these weights; what else there is, is named and left out."""
    weights = WEIGHTS.findall(identity(str(run / "model")))
    rows, others = [], []
    for folder in sorted(path.parent for path in run.glob("eval/*/summary.json")):
        how = recorded(folder)
        if WEIGHTS.findall(str(how.get("model"))) != weights:
            others.append(folder.name)
            continue
        summary = json.loads((folder / "summary.json").read_text())["summary"]
        sampling = how.get("sampling") or {}
        settings = f"{summary['problems']} problems x {how.get('samples', 1)}, temperature {sampling.get('temperature', 0):g}"
        settings += f", seed {how.get('seed', 0)}"
        accuracies = [_percent(each) for each in summary["acc"]]
        rows.append([folder.name, *accuracies[:2], *(_percent(summary[key]) for key in ("delta", "fixed", "broken")), settings])
    if not rows:
        said = "Not evaluated: there is no figure to report."
    else:
        head = ["evaluation", "Acc@t1", "Acc@t2", "Delta", "i->c", "c->i", "over"]
        said = "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
        said += "\n\nIn percent with 95% intervals, clustered by problem. Delta = Acc@t2 - Acc@t1 = (i->c) - (c->i)."
    left = f"\n\nLeft out, as they are of other weights: {', '.join(others)}." if others else ""
    return said + left


def training(chain: Sequence[tuple[Path, dict[str, Any]]]) -> str:
    """Each stage in a line, then the last recipe whole."""
    stages = [f"`{folder.resolve().name}`: {method(recipe)}, {recipe.get('steps', '?')} steps" for folder, recipe in chain]
    lines = [f"{number}. {stage}" for number, stage in enumerate(stages, 1)]
    text = yaml.safe_dump(chain[-1][1], sort_keys=False, allow_unicode=True)
    return "\n".join(lines) + f"\n\nThe last one's recipe (`recipe.yaml`):\n\n```yaml\n{text}```"


def provenance(chain: Sequence[tuple[Path, dict[str, Any]]]) -> str:
    """Commit, seed, start, versions and command of each stage, as far as they were recorded."""
    lines = []
    for folder, recipe in chain:
        file = folder / "provenance.json"
        row = json.loads(file.read_text()) if file.is_file() else {}
        words = [Path(word).name if i == 0 else word for i, word in enumerate(map(str, row.get("command", ())))]
        versions = ", ".join(f"{name} {version}" for name, version in row.get("versions", {}).items())
        facts = [f"commit {row.get('commit', 'not recorded')}", f"seed {recipe.get('seed', 'not recorded')}", row.get("started", "")]
        lines.append(f"- `{folder.resolve().name}`: {', '.join(fact for fact in facts if fact)}; `{' '.join(words)}`; {versions}")
    return "\n".join(lines)


def _head(recipe: Mapping[str, Any], base: str | None, data: Sequence[Source], *, adapter: bool, licence: str | None) -> str:
    keys: dict[str, Any] = {"license": licence} if licence else {}
    keys |= {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if base and base.count("/") == 1 and not base.startswith((".", "/")) and not Path(base).exists():
        keys["base_model"] = base
    if hub := [source.hub for source in data if source.hub]:
        keys["datasets"] = list(dict.fromkeys(hub))
    keys["tags"] = ["posttrain", *(["score", "self-correction"] if recipe.get("kind") == "score" else [])]
    return yaml.safe_dump(keys, sort_keys=False)


def _data(data: Sequence[Source]) -> str:
    rows = [["split", "data", "licence"], ["---"] * 3, *([source.split, source.what, source.licence] for source in data)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) if data else "None is named in the recipe."


def _episodes(tables: Mapping[str, int]) -> str:
    if not tables:
        return "None were kept."
    lines: Iterator[str] = (f"- `episodes/{name}.parquet`: {count} episodes" for name, count in tables.items())
    return (
        "\n".join(lines)
        + '\n\n`datasets.load_dataset("parquet", data_files=FILE)` reads them; a row is one problem with all attempts and verdicts.'
    )


def _percent(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['value']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"
