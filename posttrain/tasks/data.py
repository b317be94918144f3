"""`posttrain data`: which of its two works is meant."""

from collections.abc import Sequence

from posttrain.complaint import nearest
from posttrain.config import ConfigError
from posttrain.tasks import check, overlap_report

ACTIONS = {"check": check.cli, "overlap": overlap_report.cli}
HELP = """\
posttrain data check WHAT                           every reference must pass its own grader
posttrain data overlap WHAT [--against SUITE ...]   which training questions do evaluation sets ask as well?

With --help after either: its own options."""


def cli(argv: Sequence[str]) -> int:
    """Raises `ConfigError` and whatever the work itself raises."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    if argv[0] not in ACTIONS:
        raise ConfigError(f"data: found {argv[0]!r}, expected one of {', '.join(ACTIONS)}{nearest(argv[0], ACTIONS)}")
    return ACTIONS[argv[0]](argv[1:])
