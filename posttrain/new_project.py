"""`posttrain init DIR`: a folder with a task of the user's own, recipes that train on it, a suite that evaluates it, and a test."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from posttrain.config import ConfigError

TEMPLATE = Path(__file__).parent / "project"
EPILOG = """\
The folder runs as it stands: a small model is made from nothing on the task in it (sorting numbers), then trained by plain RL and by SCoRe,
in 2.5 minutes of CPU time, and a page is written. Edit task.py to make it yours.
Exit codes: 0 made, 2 the folder is there already or cannot be written."""


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain init",
        description="Make a new project: a task file to edit, recipes, a suite, a test.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="the new folder; it may be there if it is empty")
    folder: Path = parser.parse_args(argv).dir
    made = make(folder)
    print(f"{folder}: made {', '.join(made)}\n\nNext:\n    cd {folder}\n    posttrain data check task.py\n    posttrain train study.yaml")
    return 0


def make(folder: Path) -> list[str]:
    """Write the project into `folder` and name its files; raises `ConfigError` rather than write over anything."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder}: is there already and not an empty folder; name a new one")
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in TEMPLATE.iterdir() if path.is_file())
        for name in names:
            shutil.copyfile(TEMPLATE / name, folder / (".gitignore" if name == "gitignore" else name))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from None
    return [".gitignore" if name == "gitignore" else name for name in names]
