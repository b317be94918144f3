"""`posttrain VERB ...`: each verb is a module with a `main`, imported only when it is called."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from posttrain.config import ConfigError, describe, read_flags, read_yaml
from posttrain.types import DataError

KINDS = {  # a recipe's `kind` -> the module that runs it, with `Config` and `main(config, out, resume)`
    "score": "posttrain.rl.score",
    "sft": "posttrain.sft.train",
    "study": "posttrain.study",
}
VERBS = {
    "train": "train a model by a recipe, or run a study of several recipes",
    "eval": "evaluate a checkpoint or hub model on a suite",
    "prompt": "print the prompts that a recipe or suite makes, as text and as token counts",
    "grade": "grade a file of answers",
    "report": "make the page that shows one or more runs",
    "data": "verify data sets: every reference must pass its own grader",
}
EPILOG = """\
Several YAML files merge left to right, and --key.path VALUE flags win over them. `posttrain train RECIPE --help` lists every key
of that recipe's kind. Exit codes: 0 done, 1 the work failed, 2 the call or its input was wrong, 143 stopped by SIGTERM after a checkpoint."""


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return run(argv)
    except (ConfigError, DataError) as error:
        print(f"posttrain: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run(argv: Sequence[str]) -> int:
    if argv[:1] == ["train"]:
        return train(argv[1:])
    if argv and argv[0] in VERBS:
        module = {"eval": "evaluation.run", "prompt": "prompting.show", "grade": "grading.file", "report": "evaluation.report", "data": "tasks.check"}
        return importlib.import_module(f"posttrain.{module[argv[0]]}").cli(argv[1:])
    parser = argparse.ArgumentParser(prog="posttrain", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = "Post-training for language models: SCoRe self-correction, many-shot prompts, graders, honest evaluation."
    verbs = parser.add_subparsers(metavar="VERB")
    for name, text in VERBS.items():
        verbs.add_parser(name, help=text)
    parser.parse_args(argv)
    parser.print_help()
    return 2 if not argv else 0


def train(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="posttrain train", add_help=False, description=VERBS["train"])
    parser.add_argument("recipe", nargs="*", help="recipe files; later ones win")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/<name of the last-but-overlay recipe>)")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")
    parser.add_argument("-h", "--help", action="store_true")
