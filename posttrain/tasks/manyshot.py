"""`posttrain prompt RECIPE.yaml` for `kind: manyshot`: the prompts of an in-context task, with where each shot came from.

A recipe names a task, a method (whose answers, if any, the shots hold), rules that keep shots out, an order and sizes. `prompts` makes one
nested `ManyShotPrompt` per seed; `rows` writes out a prompt for each seed, size and test item.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from posttrain.complaint import nearest
from posttrain.config import ConfigError, config, load
from posttrain.prompting.chat import chat_format, eos_ids_of
from posttrain.prompting.manyshot import RAW, Encode, Frame, Kind, ManyShotPrompt, Shape, build, in_chat, plain_encode, raw, written
from posttrain.prompting.order import POLICIES, Order, shuffled
from posttrain.prompting.selection import Rules, Selection, listed, select
from posttrain.prompting.shots import InContextTask, Layout, PromptError, Shot, human_shots, question_shots, read_shots
from posttrain.prompting.similar import SimilarShots
from posttrain.run import write_atomic
from posttrain.tasks.icl import InContextTaskConfig, make_icl_task
from posttrain.tasks.show import load_tokenizer
from posttrain.types import DataError, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Method = Literal["zero_shot", "few_shot", "human", "reinforced", "unsupervised"]


@config
class Config:
    """Many-shot prompts (arXiv 2404.11018)."""

    kind: Literal["manyshot"] = "manyshot"
    task: InContextTaskConfig
    method: Method = "human"
    """few_shot: the benchmark's own prompt; human: the pool's solutions; reinforced: the model's right ones; unsupervised: no answers."""
    rationales: tuple[str, ...] = ()
    """For reinforced: files of shots made by `posttrain prompt reinforce`; a later iteration's stand after an earlier one's."""
    layout: dict[str, str] = Field(default_factory=dict)
    """Texts of the task's layout to replace, e.g. {preamble: "Solve such problems.\\n"}."""
    shape: Shape = "raw"
    """Plain text; that text as one message of a user; or each shot as a user's and an assistant's turn."""
    shots: tuple[int, ...] | None = None
    """Sizes to build, nested; null for as many shots as the budget holds."""
    budget: int | None = Field(default=None, ge=1)
    """Most tokens of shots, the longest item and an answer of the task's length together, counted by the model's tokenizer."""
    seeds: tuple[int, ...] = (0,)
    """Each draws its own shots."""
    order: Order = "random"
    """Of the shots that a seed drew."""
    subset: str | None = None
    """A file of shot ids, one a line, as a search found them: these shots, in this order, instead of a draw."""
    tail: int = Field(default=0, ge=0)
    """So many shots most like the item (BM25) go between the cached block and the item (arXiv 2507.16217)."""
    solved: int = Field(default=0, ge=0, le=4)
    """For unsupervised: so many solved shots of the benchmark's own prompt show how to answer, instead of the instruction."""
    rules: Rules = Rules()
    items: int | None = Field(default=1, ge=1)
    """Test items to write prompts for, the first so many; null for all."""
    output: Literal["text", "ids"] = "text"
    """What a row holds: the text (in a chat shape the messages), or the token ids."""

    def __post_init__(self) -> None:
        if self.shots is None and self.budget is None and self.method not in ("zero_shot", "few_shot") and self.subset is None:
            raise ValueError("needs shots or a budget: neither is given")
        if self.shots is not None and (not self.shots or min(self.shots) < 0):
            raise ValueError(f"shots must be sizes of 0 or more, got {list(self.shots)}")
        if (self.method == "reinforced") != bool(self.rationales):
            raise ValueError(f"rationales belong to method reinforced, and it to them; found {self.method} with {len(self.rationales)}")
        if self.solved and self.method != "unsupervised":
            raise ValueError(f"solved is for method unsupervised, found {self.method}")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How a model's tokenizer makes ids of a prompt."""

    encode: Encode
    frame: Frame


@dataclass(frozen=True, kw_only=True)
class SeedPrompts:
    """One seed's nested prompts and which sizes of them to use; `similar` finds an item's tail."""

    seed: int
    prompt: ManyShotPrompt
    sizes: tuple[int, ...]
    item_tokens: int
    """The longest item with its tail."""
    similar: SimilarShots | None = None

    def tail(self, problem: Problem, num: int) -> tuple[Shot, ...]:
        return self.similar.nearest(problem, num) if self.similar else ()


def tokens_of(tokenizer: "PreTrainedTokenizerBase", shape: Shape, model: str | None = None) -> Tokens:
    """Raises `TemplateError` where a chat shape is asked of a tokenizer without a fitting template."""
    if shape == "raw":
        return Tokens(encode=plain_encode(tokenizer), frame=raw(tokenizer))
    chat = chat_format(tokenizer, eos_ids_of(tokenizer, model))
    return Tokens(encode=chat.encode, frame=in_chat(chat, shape))


def task_of(cfg: Config) -> InContextTask:
    """The task with the recipe's texts in its layout; raises `ConfigError` on a text that layouts have not."""
    task = make_icl_task(cfg.task)
    names = [field.name for field in dataclasses.fields(Layout)]
    for name in cfg.layout:
        if name not in names:
            raise ConfigError(f"layout.{name}: unknown key{nearest(name, names) or '; expected one of ' + ', '.join(names)}")
    return dataclasses.replace(task, layout=dataclasses.replace(task.layout, **cfg.layout))


def pool(cfg: Config, task: InContextTask, test: Sequence[Problem], encode: Encode) -> Selection:
    """The shots that the recipe's rules leave; raises `PromptError`, `DataError`."""
    layout = task.layout
    sources = {
        "zero_shot": lambda: [],
        "few_shot": lambda: human_shots(task.load("few_shot")),
        "human": lambda: human_shots(task.load("pool")),
        "unsupervised": lambda: question_shots(task.load("pool")),
        "reinforced": lambda: _rationales(cfg.rationales),
    }
    shots = sources[cfg.method]()
    if cfg.method == "zero_shot":
        return Selection(shots=[], dropped=[])

    def count(shot: Shot) -> int:
        return len(encode(written(shot, "solved" if shot.answer else "unsupervised", layout, RAW)))

    return select(shots, cfg.rules, test=test, count=count, answered=cfg.method != "unsupervised")


def prompts(cfg: Config, task: InContextTask, selection: Selection, items: Sequence[Problem], tokens: Tokens) -> Iterator[SeedPrompts]:
    """Each seed's prompts; sizes and budget are checked. Raises `PromptError`."""
    kinds: dict[str, Kind] = {"zero_shot": "zero_shot", "unsupervised": "unsupervised"}
    kind = kinds.get(cfg.method, "solved")
    solved = select(human_shots(task.load("few_shot")), cfg.rules, test=items).shots[: cfg.solved] if cfg.solved else ()
    if len(solved) < cfg.solved:
        raise PromptError(f"{cfg.solved} solved shots were asked for, but the task's own prompt has {len(solved)}")
    for seed in cfg.seeds:
        shots = _drawn(cfg, selection.shots, seed)
        most = len(shots) if cfg.shots is None else max(cfg.shots)
        if most > len(shots):
            raise PromptError(f"{most} shots were asked for, but the pool has {len(shots)}: {selection}")
        prompt = build(shots[:most], task.layout, tokens.encode, kind=kind, frame=tokens.frame, solved=solved)
        similar = SimilarShots(_outside(prompt, selection.shots)) if cfg.tail else None
        made = SeedPrompts(seed=seed, prompt=prompt, sizes=(), item_tokens=0, similar=similar)
        longest = max(len(prompt.item_ids(item, made.tail(item, cfg.tail))) for item in items)
        if cfg.budget is not None:
            fitting = prompt.largest_K(cfg.budget, longest + task.max_tokens)
            if cfg.shots is not None and fitting < most:
                need = prompt.ends[most] + longest + task.max_tokens
                raise PromptError(f"{most} shots need {need} tokens, more than the budget of {cfg.budget}; {fitting} shots fit")
            most = fitting
        if cfg.order != "random" and cfg.subset is None and cfg.method != "few_shot":  # of the drawn shots alone, or easy ones crowd out
            ordered = POLICIES[cfg.order](prompt.shots[:most], seed)
            prompt = build(ordered, task.layout, tokens.encode, kind=kind, frame=tokens.frame, solved=solved)
        yield dataclasses.replace(made, prompt=prompt, sizes=cfg.shots or (most,), item_tokens=longest)


def rows(cfg: Config, made: SeedPrompts, items: Sequence[Problem]) -> Iterator[dict[str, Any]]:
    """One row per size and item: the prompt, its counts, and each shot's source in order."""
    prompt = made.prompt
    for num in made.sizes:
        for item in items:
            tail = made.tail(item, cfg.tail)
            rest = prompt.item_ids(item, tail)
            row = {"item": item.id, "method": cfg.method, "seed": made.seed, "shots": num, "prefix_tokens": prompt.ends[num]}
            row["tokens"] = prompt.ends[num] + len(rest)
            if cfg.output == "ids":
                row["ids"] = [*prompt.prefix_ids(num), *rest]
            elif prompt.frame.shape == "raw":
                row["text"] = prompt.text(num, item, tail)
            else:
                row["messages"] = [dataclasses.asdict(message) for message in prompt.messages(num, item, tail)]
            sources = [("block", shot) for shot in prompt.shots[:num]] + [("tail", shot) for shot in tail]
            row["provenance"] = [
                {"place": place, "id": shot.id, "source": shot.source, "problem": shot.problem or shot.id, "from": shot.provenance}
                for place, shot in sources
            ]
            yield row


def skeleton(cfg: Config, task: InContextTask, selection: Selection, made: SeedPrompts, items: Sequence[Problem]) -> Iterator[str]:
    """The largest prompt's outline, counts, and what it costs to read for all items."""
    prompt, num, item = made.prompt, max(made.sizes), items[0]
    prefix, opening = prompt.ends[num], prompt.ends[0]
    lengths = [b - a for a, b in zip(prompt.ends, prompt.ends[1 : num + 1])]
    tail = f" and a tail of {cfg.tail} shots" if cfg.tail else ""
    yield f"{task.name}, {cfg.method}, seed {made.seed}, {prompt.frame.shape}: {num} shots; pool: {selection}"
    yield f"  {opening:>9,} tokens  opening"
    if num:
        yield f"  {prefix - opening:>9,} tokens  {num} shots: {min(lengths)} to {max(lengths)}, mean {(prefix - opening) / num:.1f}"
    yield f"  {made.item_tokens:>9,} tokens  longest of {len(items)} items, with what stands between the shots and it{tail}"
    yield f"  {task.max_tokens:>9,} tokens  longest answer"
    yield f"  {prefix + made.item_tokens + task.max_tokens:>9,} tokens  in all" + (f"; the budget is {cfg.budget:,}" if cfg.budget else "")
    rest = sum(len(prompt.item_ids(each, made.tail(each, cfg.tail))) for each in items)
    yield f"  to read for {len(items)} items: {prefix + rest:,} tokens with the prefix cached, {prefix * len(items) + rest:,} without"
    text = prompt.text(num, item, made.tail(item, cfg.tail))
    ends = (text,) if len(text) <= 1200 else (text[:600], f"[... {len(text) - 1200:,} characters ...]", text[-600:])
    yield "\n".join(ends)


def cli(argv: Sequence[str]) -> int:
    """`posttrain prompt` for a recipe of this kind."""
    parser = argparse.ArgumentParser(prog="posttrain prompt", allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="a recipe of kind manyshot; --key.path VALUE flags win over it")
    parser.add_argument(
        "--model", required=True, help="folder or hub id whose tokenizer counts, and whose chat template is used in a chat shape"
    )
    parser.add_argument("--show", action="store_true", help="print the outline of each seed's largest prompt, counts and cost")
    parser.add_argument("--out", type=Path, help="write the prompts as JSON Lines")
    args, flags = parser.parse_known_args(argv)
    cfg = load(Config, [args.recipe], flags)
    if not args.show and not args.out:
        raise ConfigError("nothing to do: name --out FILE.jsonl, or --show, or both")
    task, tokens = task_of(cfg), tokens_of(load_tokenizer(args.model), cfg.shape, args.model)
    test = task.load("test")
    items = test[: cfg.items]
    if not items:
        raise DataError(f"{task.name}: the test split is empty")
    selection = pool(cfg, task, test, tokens.encode)
    lines: list[str] = []
    for made in prompts(cfg, task, selection, items, tokens):
        if args.show:
            print("\n".join(skeleton(cfg, task, selection, made, items)))
        if args.out:
            lines += [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(cfg, made, items)]
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(args.out, "".join(lines))
        print(f"{len(lines)} prompts in {args.out}; pool: {selection}")
    return 0


def _rationales(files: Sequence[str]) -> list[Shot]:
    """The shots of all files; a shot that stands in two of them is one."""
    found: dict[str, Shot] = {}
    for file in files:
        for shot in read_shots(Path(file)):
            if found.setdefault(shot.id, shot) != shot:
                raise DataError(f"{file}: the id {shot.id!r} stands in an earlier file with another answer; ids must be unique")
    return list(found.values())


def _drawn(cfg: Config, shots: Sequence[Shot], seed: int) -> list[Shot]:
    """All shots in the order in which sizes take them."""
    if cfg.subset is not None:
        if not Path(cfg.subset).is_file():
            raise DataError(f"{cfg.subset}: no such file of shot ids")
        return listed(shots, Path(cfg.subset).read_text(encoding="utf-8").split(), cfg.subset)
    return list(shots) if cfg.method in ("few_shot", "zero_shot") else shuffled(shots, seed)


def _outside(prompt: ManyShotPrompt, shots: Sequence[Shot]) -> list[Shot]:
    block = {shot.id for shot in prompt.shots}
    return [shot for shot in shots if shot.id not in block]
