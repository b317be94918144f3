"""`posttrain data`: which of its works is meant, by the first word."""

import argparse
from collections.abc import Sequence

EPILOG = "`posttrain data check --help` and `posttrain data repair --help` say more."


def cli(argv: Sequence[str]) -> int:
    """Raises whatever the work itself raises."""
    if argv and argv[0] == "repair":
        from posttrain.evaluation import repair

        return repair.cli(argv[1:])
    if argv and argv[0] == "check":
        from posttrain.tasks import check

        return check.cli(argv)
    parser = argparse.ArgumentParser(prog="posttrain data", description="Verify data sets, and make sets to repair.", epilog=EPILOG)
    parser.add_argument(
        "work", choices=["check", "repair"], help="check: every reference passes its own grader; repair: keep wrong answers"
    )
    parser.parse_args(argv)
    raise AssertionError("argparse refuses what is no work")
