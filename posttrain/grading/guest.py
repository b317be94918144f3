"""What runs inside a cell: the candidate's program, and the calls that the judge makes to it.

`main` gets two file descriptors. A frame is four bytes of length (big endian) and that many bytes of JSON. The first frame loads the
program; each later one is a request with a number that the reply must repeat:

    {"n": 7, "op": "call", "on": {"name": "add"}, "args": [1, {"tuple": []}], "kwargs": {}}
    {"n": 7, "ok": 3}, or {"n": 7, "raised": [...]}, or {"n": 7, "limit": "..."}; with "changed" where an argument was

Values cross as `plain` trees. What has no plain form stays here under a number, {"ref": 4} or {"iter": 4}, and the judge asks for its
items, attributes or length when the tests do. A function of the tests, given as an argument, is called by a reply {"n": 7, "call": 0,
"args": [...]}, which the judge answers before the call goes on.

Nothing here protects anything: the program shares this process and may rewrite all of it. Whatever it sends, the judge takes it for
the claim of a stranger. Needs the standard library and `plain` alone.
"""

import builtins
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from posttrain.grading import plain

MOST_TEXT = 300  # characters of an exception's message
LARGEST_FRAME = 8 << 20


def main(read_fd: int, write_fd: int) -> None:
    """Serve the judge until it closes its end."""
    channel = Channel(read_fd, write_fd)
    guest = Guest(channel)
    while (request := channel.receive()) is not None:
        channel.send(guest.answer(request))


class Channel:
    """Frames of JSON over two file descriptors."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd

    def receive(self) -> Any:
        """The next message, None where the judge has gone."""
        head = self._read(4)
        return json.loads(self._read(int.from_bytes(head, "big"))) if len(head) == 4 else None

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        if len(body) > LARGEST_FRAME:
            body = json.dumps({"n": message["n"], "limit": f"a value of {len(body):,} bytes"}).encode()
        body = len(body).to_bytes(4, "big") + body
        while body:
            body = body[os.write(self.write_fd, body) :]

    def _read(self, size: int) -> bytes:
        parts = []
        while size and (part := os.read(self.read_fd, size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class Guest:
    """The program's namespace, and the values of it that the judge knows by number."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.module = types.ModuleType("solution")  # its name is not __main__: a program's own script part does not run
        self.held: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.number = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request. Whatever the program raises is part of the reply; only running out of memory here is not."""
        self.number = request["n"]
        try:
            if request["op"] == "load":
                self._load(request["source"])
                return {"n": self.number, "ok": None}
            return self._perform(request)
        except plain.TooLarge as error:
            return {"n": self.number, "limit": str(error)}
        except MemoryError:
            return {"n": self.number, "limit": "out of memory"}
        except BaseException as error:
            return {"n": self.number, "raised": self._told(error)}

    def _load(self, source: str) -> None:
        sys.modules["solution"] = self.module
        exec(compile(source, "solution.py", "exec"), vars(self.module))

    def _perform(self, request: dict[str, Any]) -> dict[str, Any]:
        on, sent = self._decode(request["on"]), request["args"]
        args = self._decode(sent)
        kwargs = {name: self._decode(tree) for name, tree in request.get("kwargs", {}).items()}
        reply: dict[str, Any] = {"n": self.number}
        try:
            result = OPERATIONS[request["op"]](on, *args, **kwargs)
            reply["ok"] = plain.encode(result, self._refer)
        except (MemoryError, plain.TooLarge):
            raise
        except BaseException as error:
            reply["raised"] = self._told(error)
        if request["op"] == "call" and (changed := self._changed(sent, args)):
            reply["changed"] = changed
        return reply

    def _changed(self, sent: list[Any], args: list[Any]) -> list[Any]:
        """[position, tree] of each argument that the call has changed."""
        trees = [(i, plain.encode(args[i], self._refer)) for i, tree in enumerate(sent) if plain.is_mutable(tree)]
        return [[i, tree] for i, tree in trees if json.dumps(tree) != json.dumps(sent[i])]

    def _told(self, error: BaseException) -> list[Any]:
        """[names of its classes, arguments, message]: by the first name that the judge knows it makes its own."""
        names = [kind.__name__ for kind in type(error).__mro__]
        try:
            said = str(error)[:MOST_TEXT]
        except BaseException:
            said = ""
        try:
            args = plain.encode(list(error.args), _refuse)
        except BaseException:  # the arguments of an exception are the program's: it may have put anything there
            args = [said]
        return [names, args, said.encode(errors="replace").decode()]

    def _refer(self, value: Any) -> dict[str, Any]:
        """The number of a value that stays here; the same value has the same number each time."""
        number = self.numbers.setdefault(id(value), len(self.held))
        if number == len(self.held):
            self.held.append(value)
        return {"iter" if hasattr(type(value), "__next__") else "ref": number}

    def _decode(self, tree: Any) -> Any:
        return plain.decode(tree, self._resolve)

    def _resolve(self, tag: str, payload: Any) -> Any:
        if tag == "name":
            return vars(self.module)[payload] if payload in vars(self.module) else _undefined(payload)
        if tag == "builtin":
            return getattr(builtins, payload)
        if tag == "call":
            return self._caller(payload)
        if tag == "stream":
            return self._stream(self._caller(payload))
        return self.held[payload]

    def _caller(self, number: int) -> Callable[..., Any]:
        """A function of the tests: calling it asks the judge and waits for the answer, in which the judge may call back."""

        def call(*args: Any) -> Any:
            waiting = self.number
            self.channel.send({"n": waiting, "call": number, "args": plain.encode(list(args), self._refer)})
            while (reply := self.channel.receive()) is not None and "op" in reply:
                self.channel.send(self.answer(reply))
            self.number = waiting
            if reply is None:
                raise EOFError("the judge has gone")
            if "raised" in reply:
                raise getattr(builtins, reply["raised"][0], Exception)(*self._decode(reply["raised"][1]))
            return self._decode(reply["ok"])

        return call

    def _stream(self, following: Callable[[], Any]) -> Iterator[Any]:
        """An iterator of the tests, item by item."""
        while True:
            try:
                yield following()
            except StopIteration:
                return


def _undefined(name: str) -> Any:
    raise NameError(f"the program does not define {name!r}")


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} has no plain form")


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda on, *args, **kwargs: on(*args, **kwargs),
    "get": lambda on: on,
    "attribute": getattr,
    "set_attribute": setattr,
    "item": lambda on, key: on[key],
    "length": len,
    "iterator": iter,
    "next": next,
    "truth": bool,
    "text": str,
    "repr": repr,
}
