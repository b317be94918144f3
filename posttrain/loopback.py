"""Servers for this machine alone: they listen on a loopback address and refuse requests that come for, or from, any other host."""

import ipaddress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from posttrain.config import ConfigError


class Handler(BaseHTTPRequestHandler):
    """What a server here is made of: subclasses add `do_GET` and `do_POST`, which ask `refused` first."""

    def refused(self) -> bool:
        """Whether the request is answered already: it named another host, as a page does that points its name here, or came from one."""
        asked = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        came_from = self.headers.get("Origin")
        if is_loopback(asked.strip("[]")) and (came_from is None or is_loopback(urlsplit(came_from).hostname or "")):
            return False
        self.send_error(403, "only requests to the loopback address are served")
        return True

    def answer(self, body: bytes, kind: str, **headers: str) -> None:
        """A whole answer, which no browser keeps."""
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""


def open_server(host: str, port: int, handler: type[Handler]) -> ThreadingHTTPServer:
    """A server on a loopback address; raises `ConfigError` on any other, or where the port is taken."""
    if not is_loopback(host):
        raise ConfigError(f"--host: found {host!r}, expected a loopback address such as 127.0.0.1; forward the port by ssh instead")
    try:
        return ThreadingHTTPServer(("127.0.0.1" if host == "localhost" else host, port), handler)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"--port {port}: cannot listen there: {said}; name another, or 0 for any that is free") from None


def serve(server: ThreadingHTTPServer, said: str) -> None:
    """Until Ctrl-C."""
    print(f"{said}  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
