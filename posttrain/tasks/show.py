"""`posttrain prompt`: the very prompts that a model will read, as text and as token counts."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.config import ConfigError
from posttrain.prompting.chat import ChatFormat, TemplateError, chat_format, eos_ids_of
from posttrain.tasks import make_task
from posttrain.tasks.check import splits_of, task_config
from posttrain.types import DataError, Problem, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACEHOLDER = "(the first attempt stands here, token by token as it was sampled) \\boxed{0}"
EPILOG = """\
Examples:
    posttrain prompt recipes/score_math/stage1.yaml --model Qwen/Qwen2.5-1.5B-Instruct
    posttrain prompt evals/suites/math500_two_attempts.yaml --model runs/stage1/checkpoints/best --split test -n 1
    posttrain prompt sums --model DIR --task.numbers 6
    posttrain prompt task.py --model DIR

The second prompt is made as in training: the first prompt's tokens, the attempt's tokens, then what the chat template puts before the
next attempt. A template that rewrites earlier turns cannot do that and is refused. Special tokens are shown as they are.
Exit codes: 0 shown, 2 the call, the data or the chat template was wrong."""


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain prompt",
        description="Print the first and the second prompt of a few problems of a task, for a model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "what", help="a YAML file with a `task:` key, a task file, or the kind of a task; --task.key VALUE flags win over it"
    )
    parser.add_argument("--model", required=True, help="folder or hub id whose tokenizer and chat template are used")
    parser.add_argument("--split", help="split to take the problems from (default: the task's first)")
    parser.add_argument("-n", "--n", type=int, default=2, metavar="N", help="how many problems (default: 2)")
    args, flags = parser.parse_known_args(argv)
    if args.n < 1:
        raise ConfigError(f"flags: --n must be at least 1, found {args.n}")
    cfg = task_config(args.what, flags)
    tokenizer = load_tokenizer(args.model)
    eos_ids = eos_ids_of(tokenizer, args.model)
    try:
        chat = chat_format(tokenizer, eos_ids)
    except TemplateError as error:
        raise ConfigError(str(error)) from None
    task, split = make_task(cfg), args.split or splits_of(cfg)[0]
    problems = task.load(split)[: args.n]
    print(f"task {task.name}, split {split}; model {args.model}")
    print(f"a turn ends with {', '.join(f'{i} {tokenizer.convert_ids_to_tokens(i)!r}' for i in eos_ids)}; the template keeps history")
    for problem in problems:
        for line in shown(problem, task, chat):
            print(line)
    return 0


def shown(problem: Problem, task: Task, chat: ChatFormat) -> Iterator[str]:
    """Both prompts of one problem, with a placeholder as the first attempt."""
    first = chat.ask(task.ask(problem))
    attempt = chat.encode(PLACEHOLDER)
    second = chat.revise(first, attempt, task.revise)
    added = len(second) - len(first) - len(attempt)
    yield f"\n===== {problem.id}: first prompt, {len(first)} tokens ====="
    yield chat.tokenizer.decode(list(first))
    yield f"===== {problem.id}: second prompt, {len(first)} + {len(attempt)} of the attempt + {added} tokens ====="
    yield chat.tokenizer.decode(list(second))
    yield f"===== {problem.id}: reference {getattr(problem.reference, 'text', '(unit tests)')!r} ====="


def load_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or hub model; raises `DataError` where there is none."""
    from transformers import AutoTokenizer

    if not Path(model).is_dir() and (model.count("/") > 1 or model.startswith((".", "/"))):
        raise DataError(f"{model}: no such model folder; train it first, or name another folder or a model of the hub")
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{model}: no tokenizer can be loaded from it: {said}") from None
