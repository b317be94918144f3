"""`posttrain completion bash|zsh|fish`: a completion script, made by shtab from the verbs' own parsers and the keys of recipes.

    posttrain completion bash > ~/.local/share/bash-completion/completions/posttrain

The script is made once and holds everything, so that a press of the tab key starts no Python.
"""

import argparse
import contextlib
import importlib
from collections.abc import Iterator, Sequence

import shtab

from posttrain.cli import KINDS, VERBS
from posttrain.schema import describe

SHELLS = ("bash", "zsh", "fish")
SUITES = ("posttrain.evaluation.run", "posttrain.evaluation.icl.run")
WAYS: dict[str, dict[str, list[str]]] = {
    "grade": {"math": ["math"], "code": ["code"], "image": ["image"]},
    "data": {"check": ["check"], "overlap": ["overlap"], "repair": ["repair"]},
    "prompt": {"": ["WHAT"]},
}
"""Verbs with parsers below their own: the word that leads to each, and the call that does."""
PATHS = ("--out", "--model", "--problems", "--from")
EPILOG = """\
Put it where the shell looks, then open a new shell:
    posttrain completion bash > ~/.local/share/bash-completion/completions/posttrain
    posttrain completion zsh  > ~/.zfunc/_posttrain          (with `fpath+=~/.zfunc` before compinit)
    posttrain completion fish > ~/.config/fish/completions/posttrain.fish
Exit codes: 0 printed, 2 no such shell."""


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain completion",
        description="Print a script that completes verbs, options, keys of recipes and files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(argv).shell
    print(shtab.complete(whole_parser(), shell=shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """One parser that knows every verb's own; it is read by shtab and parses nothing."""
    whole = argparse.ArgumentParser(prog="posttrain", add_help=False)
    verbs = whole.add_subparsers(dest="verb")
    for verb, (module, text) in VERBS.items():
        ways = WAYS.get(verb, {"": []})
        found = {word: _with_files(parser_of(module, call)) for word, call in ways.items()}
        here = [found[""]] if "" in found else []
        added = verbs.add_parser(verb, help=text, parents=here, add_help=False, conflict_handler="resolve")
        if below := {word: parser for word, parser in found.items() if word}:
            words = added.add_subparsers(dest="way")
            for word, parser in below.items():
                words.add_parser(word, help=parser.description, parents=[parser], add_help=False, conflict_handler="resolve")
        if verb in ("train", "eval"):
            _add_keys(added, list(KINDS.values()) if verb == "train" else SUITES)
    return whole


def parser_of(module: str, call: Sequence[str]) -> argparse.ArgumentParser:
    """The parser with which a verb's `cli` answers `--help`: the real one, not a copy that could fall behind."""
    caught: list[argparse.ArgumentParser] = []
    shows = argparse.ArgumentParser.print_help
    argparse.ArgumentParser.print_help = lambda self, file=None: caught.append(self)  # type: ignore[method-assign]  # put back below
    try:
        with contextlib.suppress(SystemExit):
            importlib.import_module(module).cli([*call, "--help"])
    finally:
        argparse.ArgumentParser.print_help = shows  # type: ignore[method-assign]
    return caught[0]


def _with_files(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Files are offered for what names one."""
    for action in parser._actions:  # argparse has no public list of them
        if (not action.option_strings and not action.choices) or set(PATHS) & set(action.option_strings):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # how shtab is told
    return parser


def _add_keys(parser: argparse.ArgumentParser, modules: Sequence[str]) -> None:
    """Every key of these recipes or suites as an option, with its choices."""
    taken = {option for action in parser._actions for option in action.option_strings}
    for key, kind, text in _keys(modules):
        if f"--{key}" not in taken:
            taken.add(f"--{key}")
            parser.add_argument(
                f"--{key}", help=text.replace("%", "%%"), choices=kind.split("|") if "|" in kind and " " not in kind else None
            )


def _keys(modules: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for name in modules:
        module = importlib.import_module(name)
        for key, kind, _, text in describe(getattr(module, "Suite", None) or module.Config):
            if key != "kind" and "NAME" not in key:
                yield key.partition(" ")[0], kind, text
