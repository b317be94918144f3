"""`posttrain VERB ...`: each verb is a module, imported only when it is called."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from posttrain.complaint import nearest
from posttrain.config import ConfigError, build, dump, merge, read_flags, read_yaml
from posttrain.schema import describe

KINDS = {  # a recipe's `kind` -> the module with its `Config` and `main(config, out, resume) -> exit code`
    "score": "posttrain.rl.score",
    "think_twice": "posttrain.rl.think_twice",
    "pag": "posttrain.rl.pag",
    "grpo": "posttrain.rl.grpo",
    "sft": "posttrain.sft.train",
    "self_training": "posttrain.sft.self_training",
    "proposer": "posttrain.sft.proposing",
    "icl_pretrain": "posttrain.sft.in_context",
    "muesli": "posttrain.agents.muesli",
    "muzero": "posttrain.agents.muzero",
    "ive": "posttrain.agents.ive",
    "ive_deep": "posttrain.agents.ive_deep",
    "go_selfplay": "posttrain.agents.go_selfplay",
    "domino": "posttrain.agents.domino",
    "domino_tables": "posttrain.agents.domino_tables",
    "openended": "posttrain.agents.openended",
    "icrl_s5": "posttrain.agents.icrl_s5",
    "clip_encoder": "posttrain.agents.clip_encoder",
    "clip_reward": "posttrain.agents.clip_reward",
    "h2o2": "posttrain.agents.h2o2",
    "genie": "posttrain.agents.genie",
    "genie_cloning": "posttrain.agents.genie_cloning",
    "study": "posttrain.study",
    "icl_study": "posttrain.icl_study",
    "agent_study": "posttrain.agent_study",
}
SEVERAL_RANKS = ("score", "think_twice", "pag")  # kinds whose work the ranks of a launcher (torchrun, accelerate launch) share
VERBS = {  # verb -> (the module with its `cli(argv) -> exit code`, what it does)
    "init": ("posttrain.new_project", "make a new project with a task of your own"),
    "train": ("posttrain.cli", "train by a recipe, or run a study of several recipes"),
    "eval": ("posttrain.evaluation.run", "evaluate a checkpoint or hub model on a suite"),
    "prompt": ("posttrain.evaluation.prompt", "build many-shot prompts, sample their shots, or show the prompts of a recipe or suite"),
    "completion": ("posttrain.completion", "print a script that completes verbs, options and keys in a shell"),
    "doctor": ("posttrain.doctor", "say what is installed and what works on this machine, by trying it"),
    "grade": ("posttrain.grading.file", "grade a file of answers"),
    "compare": ("posttrain.evaluation.compare", "test two evaluated checkpoints against each other, paired by problem"),
    "regrade": ("posttrain.evaluation.regrade", "grade stored answers again, with another grader or this version's"),
    "export": ("posttrain.evaluation.export", "write an evaluation as Parquet, or in the layout of lm-evaluation-harness"),
    "import": ("posttrain.evaluation.harness.read", "take results of lm-evaluation-harness as evaluations"),
    "report": ("posttrain.evaluation.show", "make the table and the page that shows one or more runs"),
    "openended": ("posttrain.agents.openended", "judge whether a stream of texts is novel and learnable to an observer"),
    "watch": ("posttrain.watch", "serve a run's report page on this machine, made again as the run goes on"),
    "play": ("posttrain.play", "play in a world that a run of kind genie has learnt, in a browser of this machine"),
    "publish": ("posttrain.publish.run", "make a folder of a trained model that others can load and judge, and upload it"),
    "data": ("posttrain.evaluation.data", "check data sets, find test questions that are trained on, make wrong answers a set to repair"),
}
EXIT_CODES = "Exit codes: 0 done, 1 the work failed, 2 the call or its input was wrong, 143 stopped by SIGTERM after a checkpoint."
TRAIN_HELP = """\
Several recipe files merge left to right, and --key.path VALUE flags win over all of them:

    posttrain train recipes/score_math/stage1.yaml recipes/overlays/tiny.yaml --optim.lr 3e-6

`posttrain train RECIPE --help` lists every key of that recipe's kind, with its type, default and meaning.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb. An error with an `exit_code` of its own is the caller's to mend and ends in one line; any other is a defect of ours."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="posttrain",
        description="Post-training for language models: SCoRe self-correction by RL, graders, honest evaluation.",
        epilog=f"`posttrain VERB --help` says more. {EXIT_CODES}",
    )
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    for name, (_, text) in VERBS.items():
        verbs.add_parser(name, help=text, add_help=False)
    verb = parser.parse_args(argv[:1]).verb
    try:
        code = cli(argv[1:]) if verb == "train" else importlib.import_module(VERBS[verb][0]).cli(argv[1:])
        sys.stdout.flush()  # here, as a reader that has gone would otherwise be noticed where nobody catches it
        return code
    except KeyboardInterrupt:
        return _fail("interrupted; --resume goes on from the last checkpoint", 130)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        return _fail(error, error.exit_code)


def cli(argv: Sequence[str]) -> int:
    """`posttrain train`."""
    parser = argparse.ArgumentParser(
        prog="posttrain train",
        add_help=False,
        allow_abbrev=False,
        description=TRAIN_HELP,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="*", type=Path, help="recipe files; in case of conflict the later one wins")
    parser.add_argument("--out", type=Path, help="run folder; by default runs/<folder>/<name> of the first recipe file")
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint, or start if there is none")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")
    parser.add_argument("-h", "--help", action="store_true", help="with a recipe: list the keys of its kind")
    words, flags = _sorted_out(argv)
    own = parser.parse_intermixed_args(words)
    if not own.recipe:
        parser.print_help()
        return 0 if own.help else 2
    layers = [read_yaml(file) for file in own.recipe]
    module = _module_of(layers)
    if own.help:
        print(keys_of(module.Config))
        return 0
    cfg = build(module.Config, [*layers, read_flags(flags)])
    if own.dry_run:
        print(dump(cfg), end="")
        return 0
    quiet_libraries()
    return module.main(cfg, own.out or Path("runs", own.recipe[0].parent.name, own.recipe[0].stem), own.resume)


def quiet_libraries() -> None:
    """Our own bars tell how far a run is; those of libraries for loading and writing a file would only tear them apart."""
    import torch
    from transformers.utils import logging

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, where it is installed, says on stdout that it found no other
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def keys_of(cls: type) -> str:
    """The keys of a recipe kind, one paragraph each."""
    lines = [f"{(cls.__doc__ or '').strip()}\n"]
    for key, kind, default, text in describe(cls):
        lines.append(f"  --{key}  <{kind}>  [{default}]" + (f"\n      {text}" if text else ""))
    return "\n".join(lines)


def _module_of(layers: Sequence[tuple[str, dict[str, Any]]]) -> ModuleType:
    """The module that runs a recipe, by its `kind`."""
    tree: dict[str, Any] = {}
    for _, layer in layers:
        tree = merge(tree, layer)
    kind = tree.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        found = "no `kind`" if kind is None else f"kind {kind!r}"
        hint = "; a suite is for `posttrain eval`" if kind == "eval" else nearest(kind, KINDS) if isinstance(kind, str) else ""
        raise ConfigError(f"{layers[0][0]}: found {found}, expected one that can be trained: {', '.join(KINDS)}{hint}")
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if num_ranks > 1 and kind not in SEVERAL_RANKS:
        raise ConfigError(f"{layers[0][0]}: kind {kind} trains in one process, and {num_ranks} were started: use no launcher")
    return importlib.import_module(KINDS[kind])


def _sorted_out(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own words, and the `--key value` pairs that are the recipe's: a value is never taken for a recipe file."""
    own: list[str] = []
    flags: list[str] = []
    words = iter(argv)
    for word in words:
        alone = word in ("--resume", "--dry-run", "--help", "-h") or not word.startswith("-")
        side = own if alone or word.partition("=")[0] == "--out" else flags
        side.append(word)
        if not alone and "=" not in word:
            side += [value for value in [next(words, None)] if value is not None]
    return own, flags


def _fail(error: object, code: int) -> int:
    print(f"posttrain: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
