"""`posttrain data`: which of its works is meant, by the first word."""

from collections.abc import Sequence

from posttrain.complaint import nearest
from posttrain.config import ConfigError
from posttrain.evaluation import repair
from posttrain.tasks import check, overlap_report

WORKS = {"check": check.cli, "overlap": overlap_report.cli, "repair": repair.cli}
HELP = """\
Data sets: are they right, are they apart, and what can be made of stored answers?

usage: posttrain data check WHAT                           every reference must pass its own grader
       posttrain data overlap WHAT [--against SUITE ...]   which training questions do evaluation sets ask as well?
       posttrain data repair WHAT FILE ...                 keep wrong answers, for another model to repair

With --help after any of them: its own options."""


def cli(argv: Sequence[str]) -> int:
    """Raises `ConfigError` and whatever the work itself raises."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    if argv[0] not in WORKS:
        raise ConfigError(f"data: found {argv[0]!r}, expected one of {', '.join(WORKS)}{nearest(argv[0], WORKS)}")
    return WORKS[argv[0]](argv[1:])
