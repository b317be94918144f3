"""`posttrain data overlap`: which training questions do evaluation sets ask, in whole or in part, and which stand twice in training?"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from posttrain.config import ConfigError, read_yaml
from posttrain.run import write_atomic
from posttrain.tasks import make_task
from posttrain.tasks.check import task_config
from posttrain.tasks.decontaminate import evaluation_set, to_line
from posttrain.tasks.listing import listed
from posttrain.tasks.overlap import Overlap, by_ngrams, duplicates, exact
from posttrain.types import Problem

EPILOG = """\
Examples:
    posttrain data overlap recipes/score_math/stage1.yaml                  against the task's own test split
    posttrain data overlap recipes/score_math/stage1.yaml --against test evals/suites/gsm8k_two_attempts.yaml
    posttrain data overlap math --train math_train.jsonl.gz --test math500.jsonl --out overlap.jsonl

A question is found whole where letters and digits agree, which takes x - 1 for x + 1: "signs differ" says so. It is found in part by the
share of the evaluation question's word n-grams that occur in one training question; a question of fewer than n words has one n-gram, all
its words. Recipes drop what is found whole in the task's own test split from training by themselves (their key `decontaminate`).
With --out, every pair is a line of JSON: kind (exact, ngram, duplicate), train, other, where, share, signs_agree.
Exit codes: 0 no evaluation set asks a whole training question, 1 some do, 2 the call or the data was wrong."""


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain data overlap",
        description="Report the training questions that evaluation sets ask as well.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", help="a training recipe, another YAML file with a `task:` key, or the kind of a task")
    parser.add_argument("--split", help="the split that is trained on (default: the recipe's, else train)")
    parser.add_argument("--against", nargs="+", default=["test"], metavar="SUITE", help="suites, or splits of the task (default: test)")
    parser.add_argument("--ngram", type=int, default=13, metavar="N", help="words of an n-gram (default: 13)")
    parser.add_argument("--share", type=float, default=0.5, help="least share of n-grams to list a pair for (default: 0.5)")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write all pairs, those below --share too")
    args, flags = parser.parse_known_args(argv)
    if args.ngram < 1 or not 0 <= args.share <= 1:
        raise ConfigError(f"flags: expected --ngram of at least 1 and --share from 0 to 1, found {args.ngram} and {args.share}")
    cfg = task_config(args.what, flags)
    recipe = read_yaml(args.what)[1] if args.what.endswith((".yaml", ".yml")) else {}
    split = args.split or (recipe.get("split", "train") if recipe.get("kind") != "eval" else "train")
    train = make_task(cfg).load(split)
    twice = duplicates(train, split)
    found = list(twice)
    print(f"{split}: {len(train)} problems")
    print(*_lines(f"problems of {split} that an earlier one asks already", twice), sep="\n", end="\n" if twice else "")
    for name in args.against:
        asked = evaluation_set(cfg, name)
        whole, parts = exact(train, asked, name), by_ngrams(train, asked, name, args.ngram)
        found += [*whole, *parts]
        print("\n".join(report(name, asked, whole, parts, args.ngram, args.share)))
    if args.out:
        write_atomic(args.out, "".join(map(to_line, found)))
        print(f"{len(found)} pairs in {args.out}")
    return 1 if any(overlap.kind == "exact" for overlap in found) else 0


def report(name: str, asked: Sequence[Problem], whole: Sequence[Overlap], parts: Sequence[Overlap], n: int, least: float) -> Iterator[str]:
    """One evaluation set's findings as text."""
    touched = len({overlap.other for overlap in parts})
    yield f"{name}: {len(asked)} problems, of which {len({o.other for o in whole})} are trained on and {touched} more share a {n}-gram"
    yield from _lines(f"training problems that {name} asks", whole)
    near = [f"{o.share:.0%}  {o.train} ~ {o.other}" for o in parts if o.share >= least]
    yield from listed(f"pairs that share {least:.0%} or more of the {n}-grams", near)


def _lines(what: str, overlaps: Sequence[Overlap]) -> Iterator[str]:
    return listed(what, [f"{o.train} = {o.other}" + ("" if o.signs_agree else ", signs differ") for o in overlaps])
