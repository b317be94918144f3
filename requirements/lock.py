"""Prints the lock: every package that posttrain and its extras dev, docs and tracking need, in the versions that are installed here.

python requirements/lock.py > requirements/lock.txt
pip install --constraint requirements/lock.txt --editable .
"""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("dev", "docs", "tracking")
HEAD = """\
# Versions that the tests passed with on Linux x86-64, Python 3.11; made by requirements/lock.py. To be used as constraints:
#   pip install --constraint requirements/lock.txt --editable .
"""


def closure(declared: list[Requirement]) -> dict[str, str]:
    """Name -> installed version of the requirements and all that they need in turn; raises `PackageNotFoundError` with the name."""
    found: dict[str, str] = {}
    left = [(requirement, frozenset(requirement.extras)) for requirement in declared]
    seen = set()
    while left:
        requirement, extras = left.pop()
        name = requirement.name.lower().replace("_", "-").replace(".", "-")
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            raise PackageNotFoundError(f"{name}: needed and not installed") from None
        found[name] = installed.version.partition("+")[0]
        for text in installed.requires or ():
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                left.append((need, frozenset(need.extras)))
    return found


def declared() -> list[Requirement]:
    """What pyproject.toml asks for."""
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in EXTRAS for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


if __name__ == "__main__":
    print(HEAD + "\n".join(f"{name}=={version}" for name, version in sorted(closure(declared()).items())))
