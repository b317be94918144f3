"""A guest for tests: each message is Python source to run; the answer is the repr of its `result`, or of what it raised."""

import os


def main(read_fd: int, write_fd: int) -> None:
    while len(head := os.read(read_fd, 4)) == 4:
        left, source = int.from_bytes(head, "big"), b""
        while len(source) < left:
            source += os.read(read_fd, left - len(source))
        space = {"__name__": "candidate"}
        try:
            exec(compile(source, "candidate", "exec"), space)
            answer = repr(space.get("result"))
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        reply = answer.encode()
        reply = len(reply).to_bytes(4, "big") + reply
        while reply:
            reply = reply[os.write(write_fd, reply) :]
