"""A task of the user's own: a Python file with the parts of a `Task` under the same names, and a recipe that names the file.

    task: {kind: file, path: task.py}

    load(split) -> list[Problem]               ask(problem) -> list[Message]          revise: str
    grade(problem, text) -> Verdict            answer(text) -> str | None             demonstrations(rng) -> (problem, first, second), ...

`grade` gets one answer at a time here; `demonstrations` is for supervised training alone (`sft/train.py`) and may be left out. The file
runs inside this program, as the recipe's author asks: name only files that you trust. What is wrong with it is one line with the place.
"""

import inspect
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NoReturn

from posttrain.complaint import nearest
from posttrain.config import ConfigError, config
from posttrain.types import DataError, Message, Problem, Task, Verdict

PARTS = {"load": ("split",), "ask": ("problem",), "grade": ("problem", "text"), "answer": ("text",)}
"""The functions that a file must define, and what each is called with."""


@config
class FileTask:
    """A task that a Python file of the user's defines."""

    kind: Literal["file"] = "file"
    path: Path
    """The file, relative to where the command runs. It defines load, ask, revise, grade and answer as `posttrain.types.Task` says."""


def make(cfg: FileTask) -> Task:
    """The task that the file defines; raises `ConfigError` where it cannot be run or lacks a part."""
    module = _run(cfg.path)
    parts = {name: _function(cfg.path, module, name, takes) for name, takes in PARTS.items()}
    revise = getattr(module, "revise", None)
    if not isinstance(revise, str) or not revise.strip():
        found = _missing(module, "revise") if revise is None else f"`revise` is {type(revise).__name__}"
        raise ConfigError(f"{cfg.path}: {found}; expected a text, the instruction for the second attempt")
    return Task(
        name=cfg.path.stem,
        load=lambda split: _load(cfg.path, parts, split),
        ask=parts["ask"],
        revise=revise,
        grade=lambda pairs: [_grade(cfg.path, parts["grade"], problem, text) for problem, text in pairs],
        answer=parts["answer"],
        source=cfg.path.read_text(encoding="utf-8"),
    )


def demonstrations(cfg: FileTask, rng: random.Random) -> Iterator[tuple[Problem, str, str]]:
    """What the file's `demonstrations` yields, each checked; raises `ConfigError` where there is no such function or it fails."""
    made = _function(cfg.path, _run(cfg.path), "demonstrations", ("rng",))
    try:
        for number, one in enumerate(made(rng), 1):
            match one:
                case (Problem(), str(), str()):
                    yield one
                case _:
                    expected = "(Problem, text of the first attempt, text of the second)"
                    raise ConfigError(f"{cfg.path}: demonstration {number} is {_kind(one)}, expected {expected}")
    except ConfigError:
        raise
    except Exception as error:  # code of the user's: whatever it raises is told with its place
        _refuse(cfg.path, "demonstrations(rng)", error)


def _run(path: Path) -> ModuleType:
    """The file as a module; it is run once for each call."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such task file{nearest(path.name, [other.name for other in path.parent.glob('*.py')])}")
    module = ModuleType(f"posttrain_task_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid Python: {error.msg}") from None
    except Exception as error:
        _refuse(path, "", error)
    return module


def _function(path: Path, module: ModuleType, name: str, takes: Sequence[str]) -> Callable[..., Any]:
    """The module's function, known to take these arguments."""
    found = getattr(module, name, None)
    call = f"{name}({', '.join(takes)})"
    if not callable(found):
        raise ConfigError(f"{path}: {_missing(module, name) if found is None else f'`{name}` is no function'}; expected {call}")
    try:
        inspect.signature(found).bind(*takes)
    except TypeError as error:
        raise ConfigError(f"{path}: `{name}{inspect.signature(found)}` cannot be called as {call}: {error}") from None
    return found


def _load(path: Path, parts: dict[str, Callable[..., Any]], split: str) -> list[Problem]:
    """The split, checked; its first problem is asked, and an empty answer to it graded, so that mistakes show before a model is opened."""
    try:
        problems = list(parts["load"](split))
    except Exception as error:
        _refuse(path, f"load({split!r})", error)
    if not problems:
        raise DataError(f"{path}: load({split!r}) gave no problem; expected a list of at least one")
    seen: set[str] = set()
    for number, problem in enumerate(problems, 1):
        if not isinstance(problem, Problem):
            raise DataError(f"{path}: load({split!r}) gave {_kind(problem)} as item {number}, expected Problem")
        if problem.id in seen:
            raise DataError(f"{path}: load({split!r}) gave the id {problem.id!r} twice, at item {number} again; ids must be unique")
        seen.add(problem.id)
    asked = _tried(path, "ask(problem)", parts["ask"], problems[0])
    if not isinstance(asked, list) or not asked or not all(isinstance(message, Message) for message in asked):
        raise ConfigError(f"{path}: ask(problem) gave {_kind(asked)}, expected a list of Message")
    verdict = _tried(path, "grade(problem, '')", parts["grade"], problems[0], "")
    if not isinstance(verdict, Verdict):
        raise ConfigError(f"{path}: grade(problem, '') gave {_kind(verdict)}, expected a Verdict")
    final = _tried(path, "answer('')", parts["answer"], "")
    if final is not None and not isinstance(final, str):
        raise ConfigError(f"{path}: answer('') gave {_kind(final)}, expected a text or None")
    return problems


def _grade(path: Path, grade: Callable[..., Any], problem: Problem, text: str) -> Verdict:
    """The file's verdict; where it fails on a text, that is no fault of the model, so the answer is unscored."""
    try:
        verdict = grade(problem, text)
    except Exception as error:
        return Verdict(status="unscored", rule="task file", why=f"{_place(path, error)}: {type(error).__name__}: {error}"[:300])
    if isinstance(verdict, Verdict):
        return verdict
    return Verdict(status="unscored", rule="task file", why=f"{path}: grade gave {_kind(verdict)}, expected a Verdict")


def _tried(path: Path, call: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        _refuse(path, call, error)


def _refuse(path: Path, call: str, error: Exception) -> NoReturn:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    raise ConfigError(f"{_place(path, error)}: {f'{call} failed: ' if call else ''}{said}") from error


def _place(path: Path, error: Exception) -> str:
    """The file with the line in it that was reached last."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _missing(module: ModuleType, name: str) -> str:
    names = [word for word in vars(module) if not word.startswith("_")]
    return f"defines no `{name}`{nearest(name, names)}"


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
