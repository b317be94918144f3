"""Hostile programs in every backend: each must be held, and nothing outside touched. As a table: python -m tests.grading.test_escapes."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from posttrain.grading.sandbox import CellDied, CellLimits, Sandbox, SandboxError
from tests.grading.hostile_programs import ATTACKS, PRELUDE, Attack
from tests.grading.hostile_world import World, hostile_world

GUEST = Path(__file__).with_name("sandbox_guest.py")
LIMITS = CellLimits(cpu_s=5.0, memory_mib=512, threads=16, file_mib=16)
IMPATIENT = {"cpu": CellLimits(cpu_s=0.5, memory_mib=512), "wall": CellLimits(wall_s=1.0)}
"""For programs that only a limit on time ends."""


class Unfiltered(Sandbox):
    """The zygote's cells without the filter on system calls: what the namespaces and limits hold by themselves."""

    entry = "tests.grading.unfiltered_zygote"


def open_sandbox(backend: str) -> Sandbox:
    if backend == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed: apt install bubblewrap")
    try:
        if backend == "unfiltered":
            return Unfiltered("zygote", guest=GUEST)
        return Sandbox(backend, allow_unsafe=backend == "unsafe", guest=GUEST)
    except SandboxError as refusal:
        pytest.skip(str(refusal))


def attack(sandbox: Sandbox, world: World, attack: Attack) -> tuple[str, str]:
    """(how the cell ended, or "" where it answered; what it answered or what ended it)."""
    with sandbox.cell(IMPATIENT.get("".join(attack.ends), LIMITS)) as cell:
        try:
            cell.send(f"W = {world.told!r}\n{PRELUDE}\n{attack.source}".encode())
            return "", cell.receive().decode()
        except CellDied as death:
            return death.reason, death.detail


def escapes(hostile: Attack, world: World, ended: str, said: str) -> list[str]:
    """What the attack achieved; nothing, if it was held as it should be."""
    if hostile.name == "left behind":
        time.sleep(1.0)  # what it leaves behind would act 0.4 s later
    found = re.findall(r"[^,{]*ESCAPED[^,}]*", said) + world.touched()
    if ended not in (hostile.ends or ("",)):
        found.append(f"it ended by {ended or 'an answer'}, not by {hostile.ends or 'an answer'}: {said}")
    return found + ["the secret"] * (world.secret in said)


@pytest.fixture(scope="module", params=["zygote", "bwrap", "unsafe", "unfiltered"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with open_sandbox(request.param) as sandbox:
        sandbox.name = request.param
        yield sandbox


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with hostile_world(tmp_path) as world:
        yield world


@pytest.mark.parametrize("hostile", ATTACKS, ids=lambda hostile: hostile.name)
def test_a_hostile_program_is_held(hostile: Attack, sandbox: Sandbox, world: World):
    if sandbox.name == "unsafe" and not hostile.limits_alone:
        pytest.skip("nothing in this backend holds it")
    if sandbox.name == "unfiltered" and hostile.filter_alone:
        pytest.skip("only the filter holds it")
    assert escapes(hostile, world, *attack(sandbox, world, hostile)) == []


@pytest.mark.parametrize("hostile", [hostile for hostile in ATTACKS if hostile.escapes_unsafe], ids=lambda hostile: hostile.name)
def test_where_nothing_isolates_the_same_program_escapes(hostile: Attack, world: World):
    with open_sandbox("unsafe") as sandbox:
        assert escapes(hostile, world, *attack(sandbox, world, hostile)) != []


def table() -> str:
    """What each program tries and what stopped it in each backend, in Markdown."""
    backends = {"zygote": "zygote", "unfiltered": "zygote, its filter taken out", "bwrap": "bwrap"}
    lines = [f"| program | tries to | held by | {' | '.join(backends.values())} |", "|---" * (3 + len(backends)) + "|"]
    for hostile in ATTACKS:
        row = [_outcome(backend, hostile) for backend in backends]
        lines.append(f"| {' | '.join([hostile.name, hostile.tries, hostile.held_by, *row])} |")
    return "\n".join(lines)


def _outcome(backend: str, hostile: Attack) -> str:
    if backend == "unfiltered" and hostile.filter_alone:
        return "(the filter is what holds it)"
    with tempfile.TemporaryDirectory() as folder, hostile_world(Path(folder)) as world, open_sandbox(backend) as sandbox:
        ended, said = attack(sandbox, world, hostile)
        if escaped := escapes(hostile, world, ended, said):
            return f"**ESCAPED**: {', '.join(escaped)}"
        if ended:
            return f"ended: {ended}"
        return "; ".join(dict.fromkeys(_errors(said))) or "nothing there"


def _errors(said: str) -> list[str]:
    """What the system said to each attempt: the message without its number and path, or the exception's name."""
    found = re.findall(r"['\"](\w+(?:Error|Exception)): (?:\[Errno \d+\] )?(.*?)(?:: ['\"\\]|['\"][,}])", said)
    return [message.strip().lower() or name for name, message in found]


if __name__ == "__main__":
    print(table())
