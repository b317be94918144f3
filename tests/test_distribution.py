"""What is built and pinned agrees with what the project declares."""

import re
import tomllib
from functools import partial
from glob import glob
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "requirements" / "lock.txt").read_text(), flags=re.MULTILINE))


def test_the_lock_pins_what_the_project_declares_and_names_no_host():
    extras = PROJECT["project"]["optional-dependencies"]
    texts = [*PROJECT["project"]["dependencies"], *(text for extra in ("dev", "docs", "tracking") for text in extras[extra])]
    for requirement in map(Requirement, texts):
        assert requirement.specifier.contains(LOCK[requirement.name.lower()]), requirement
    assert "://" not in (ROOT / "requirements" / "lock.txt").read_text()


def test_every_file_of_the_package_that_is_no_module_is_package_data():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["posttrain"]
    package = ROOT / "posttrain"
    read = partial(glob, root_dir=package, recursive=True)  # as setuptools reads them
    packed = {package / path for pattern in patterns for path in read(pattern)}
    packages = {path.parent for path in package.rglob("__init__.py")}
    found = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in found - packed if path.suffix != ".py" or path.parent not in packages} == set()


def test_the_licence_is_the_one_that_the_project_names():
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
