"""The candidate's program as the tests see it: names that call into a cell, and values that come back as exact built-in types.

A `Session` is one cell with one program in it. `Remote` stands for what the program has and cannot send: a function, a class, an
object, an iterator. The tests may call it, iterate over it, index it, and read its attributes, length, truth or text. What they may
not is have it take part in a comparison or in arithmetic with a value of theirs: that would hand the value to the program and its
answer to the program's taste. So a `Remote` equals nothing but itself.

A program's death or a broken reply ends the tests whatever they catch: the session remembers it, and `judge.py` looks there first.
"""

import builtins
import json
import os
from collections.abc import Callable
from typing import Any, NoReturn

from posttrain.grading import plain
from posttrain.grading.sandbox import Cell, CellDied, SandboxError
from posttrain.types import VerdictStatus

EXCEPTIONS = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)}
BUILTINS = {id(value): name for name, value in vars(builtins).items() if callable(value)}
ENDS: dict[str, VerdictStatus] = {"cpu": "timeout", "wall": "timeout", "memory": "limit", "output": "limit"}
UNREADABLE = (plain.Malformed, ValueError, RecursionError, AttributeError, LookupError, TypeError)
SHOWN = 250  # characters of what a program says


def shown(said: str) -> str:
    """What a program says, fit for a log and a terminal: one line, not long, nothing in it that is not printable."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(said[: 4 * SHOWN].split())[:SHOWN])


class Broken(BaseException):
    """No further call can succeed: the program is dead, over a limit, or does not keep to the protocol."""

    def __init__(self, status: VerdictStatus, rule: str, why: str) -> None:
        super().__init__(why)
        self.status, self.rule, self.why = status, rule, why


class Session:
    """The judge's side of one cell: numbered requests, and values on their way in and out."""

    def __init__(self, cell: Cell, exceptions: dict[str, type[BaseException]]) -> None:
        """`exceptions`: classes that the tests catch and the program defines, by name."""
        self.cell = cell
        self.exceptions = {**EXCEPTIONS, **exceptions}
        self.calls = 0
        self.broken: Broken | None = None
        self.raised: BaseException | None = None
        self.given: list[Callable[..., Any]] = []

    def load(self, source: str) -> None:
        self._ask({"op": "load", "source": source}, ())

    def perform(self, op: str, on: plain.Tree, *args: Any, **kwargs: Any) -> Any:
        """What the program makes of an operation, or the exception that it raises; `Broken` where it can do neither."""
        self.calls += op == "call"
        request = {"op": op, "on": on, "args": [self._encode(arg) for arg in args]}
        if kwargs:
            request["kwargs"] = {name: self._encode(value) for name, value in kwargs.items()}
        return self._ask(request, args)

    def _ask(self, request: dict[str, Any], args: tuple[Any, ...]) -> Any:
        """The answer to a request whose number nobody could have known before; callbacks are served on the way."""
        if self.broken:
            raise self.broken
        number = int.from_bytes(os.urandom(6), "big")
        try:
            self.cell.send(json.dumps({"n": number, **request}).encode())
            while "call" in (reply := self._receive(number)):
                self.cell.send(json.dumps(self._served(reply)).encode())
            value, error = self._read(reply, args)
        except CellDied as death:
            self._end(ENDS.get(death.reason, "crash"), f"cell: {death.reason}", f"the program's process ended: {death.detail}")
        except SandboxError as failure:
            self._end("unscored", "sandbox", str(failure))
        except MemoryError:
            self._end("limit", "program", "what the program returned takes more memory than the tests may use")
        except UNREADABLE as odd:
            self._end("crash", "protocol", f"not a reply to what was asked: {type(odd).__name__}: {odd}")
        if isinstance(error, StopIteration) and request["op"] != "next":
            error = RuntimeError("the program raised StopIteration")  # out of a call it would end a loop of the tests, as if all were done
        if error is not None:
            self.raised = error
            raise error
        return value

    def _receive(self, number: int) -> dict[str, Any]:
        reply = json.loads(self.cell.receive())
        if type(reply) is not dict or type(reply.get("n")) is not int or reply["n"] != number:
            raise plain.Malformed("it bears another number")
        return reply

    def _read(self, reply: dict[str, Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
        """The value or the exception in a reply, after what the call did to its arguments."""
        if "limit" in reply:
            self._end("limit", "program", f"the program hit a limit: {reply['limit']}")
        for position, tree in reply.get("changed", ()):
            plain.update(args[position], self._decode(tree))
        if "raised" in reply:
            return None, self._exception(*reply["raised"])
        return self._decode(reply["ok"]), None

    def _exception(self, names: list[str], args: plain.Tree, said: str) -> BaseException:
        """The program's exception as the first of its classes that exists here."""
        kind = next((self.exceptions[name] for name in names if name in self.exceptions), Exception)
        values = self._decode(args)
        try:
            return kind(*values)
        except Exception:  # some classes want certain arguments
            error = kind.__new__(kind)
            error.args = (str(said)[:SHOWN],)
            return error

    def _served(self, reply: dict[str, Any]) -> dict[str, Any]:
        """A function of the tests, called by the program that got it as an argument."""
        function, args = self.given[reply["call"]], self._decode(reply["args"])
        try:
            return {"ok": self._encode(function(*args))}
        except Exception as error:
            kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in EXCEPTIONS)
            return {"raised": [kind, [str(error)[:SHOWN]]]}

    def _encode(self, value: Any) -> plain.Tree:
        try:
            return plain.encode(value, self._refer)
        except plain.TooLarge as error:
            self._end("limit", "tests", f"an argument that cannot cross: {error}")  # the tests' own would have failed the reference

    def _decode(self, tree: plain.Tree) -> Any:
        return plain.decode(tree, self._resolve)

    def _refer(self, value: Any) -> plain.Tree:
        """How the program may know a value of the tests that has no plain form."""
        if isinstance(value, Remote):
            return tree_of(value)
        if id(value) in BUILTINS:
            return {"builtin": BUILTINS[id(value)]}
        if callable(value) or hasattr(type(value), "__next__"):
            self.given.append(value if callable(value) else value.__next__)
            return {"call" if callable(value) else "stream": len(self.given) - 1}
        self._end("unscored", "tests", f"the tests pass an argument that cannot cross: {type(value).__name__}")

    def _resolve(self, tag: str, payload: Any) -> "Remote":
        if tag not in ("ref", "iter") or type(payload) is not int:
            raise plain.Malformed(f"no value is written as {str(tag)[:SHOWN]!r}")
        return (RemoteIterator if tag == "iter" else Remote)(self, {tag: payload})

    def _end(self, status: VerdictStatus, rule: str, why: str) -> NoReturn:
        self.broken = Broken(status, rule, shown(why))
        raise self.broken from None


class Remote:
    """Something of the program's, by its name or number."""

    __slots__ = ("_session", "_tree")

    def __init__(self, session: Session, tree: plain.Tree) -> None:
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_tree", tree)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._session.perform("call", self._tree, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)  # copying, pickling and the like ask for these: there is nothing of ours to give
        return self._session.perform("attribute", self._tree, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._session.perform("set_attribute", self._tree, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._session.perform("item", self._tree, key)

    def __iter__(self) -> Any:
        return self._session.perform("iterator", self._tree)

    def __len__(self) -> int:
        return self._session.perform("length", self._tree)

    def __bool__(self) -> bool:
        return self._session.perform("truth", self._tree)

    def __str__(self) -> str:
        return self._session.perform("text", self._tree)

    def __repr__(self) -> str:
        return self._session.perform("repr", self._tree)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other._session is self._session and other._tree == self._tree

    def __hash__(self) -> int:
        return hash(tuple(self._tree.items()))


class RemoteIterator(Remote):
    """An iterator or generator of the program's: it runs on only as far as the tests ask."""

    __slots__ = ()

    def __iter__(self) -> "RemoteIterator":
        return self

    def __next__(self) -> Any:
        return self._session.perform("next", self._tree)


def tree_of(remote: Remote) -> plain.Tree:
    return remote._tree
