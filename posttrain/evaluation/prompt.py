"""`posttrain prompt`: which of its three works is meant, by the first word or the recipe's kind."""

from collections.abc import Sequence

from posttrain.config import ConfigError, read_yaml

HELP = """\
posttrain prompt RECIPE.yaml --model M [--show] [--out FILE.jsonl]   build the prompts of a recipe of kind manyshot
posttrain prompt reinforce RECIPE.yaml --model M --out DIR           sample rationales and keep those that are right as shots
posttrain prompt reinforce --from LOG [--from LOG] --out FILE.jsonl  take the right answers of stored evaluations as shots
posttrain prompt WHAT --model M [--split S] [-n N]                   show both prompts of a training recipe, suite or kind of task

With --help after any of them: its own options."""


def cli(argv: Sequence[str]) -> int:
    """Raises `ConfigError` and whatever the work itself raises."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    if argv[0] == "reinforce":
        from posttrain.evaluation import reinforce

        return reinforce.cli(argv[1:])
    files = [word for word in argv if word.endswith((".yaml", ".yml"))]
    kind = read_yaml(files[0])[1].get("kind") if files else None
    if kind == "reinforce":
        raise ConfigError(f"{files[0]}: is of kind reinforce; run `posttrain prompt reinforce {files[0]}`")
    if kind == "manyshot":
        from posttrain.tasks import manyshot

        return manyshot.cli(argv)
    from posttrain.tasks import show

    return show.cli(argv)
