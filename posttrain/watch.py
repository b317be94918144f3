"""`posttrain watch RUN`: the run's report page in a browser of this machine, made again whenever its files have changed.

Until there is an evaluation to report, the page lists the last figures of each run in the folder. Nothing is served to other machines:
the server binds to the loopback address, and a request for another host name, as from a page that points its own name here, is refused.
"""

import argparse
import html
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path

from posttrain import loopback
from posttrain.config import ConfigError
from posttrain.evaluation import rows, show
from posttrain.evaluation.metrics import NothingScored
from posttrain.run import read_jsonl
from posttrain.types import DataError

REFRESH_S = 10
"""How often a browser asks again."""
SHOWN = ("train/acc_", "val/acc_", "train/answer_change", "train/loss", "train/unscored")  # of the last row, where there is no report yet
EPILOG = """\
Open the address that it prints. On a machine that you reach by ssh, forward the port: ssh -L 8000:127.0.0.1:8000 MACHINE.
Exit codes: 0 stopped by Ctrl-C, 2 the call was wrong."""


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain watch",
        description="Serve a run's report page on this machine, made again when the run goes on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run or a study")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for any that is free (default: 8000)")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: 127.0.0.1); no other is served")
    parser.add_argument("--suite", help="which evaluation to show, where runs have several")
    parser.add_argument("--against", metavar="ROW", help="name of the row that every other row is tested against")
    args = parser.parse_args(argv)
    if not args.run.is_dir():
        raise ConfigError(f"{args.run}: no such run folder")
    server = open_server(args.host, args.port, Page(args.run, args.suite, args.against))
    loopback.serve(server, f"watching {args.run}: http://{args.host}:{server.server_port}/")
    return 0


class Page:
    """The page of a run, kept until the run's files change."""

    def __init__(self, run: Path, suite: str | None = None, against: str | None = None) -> None:
        self.run, self.suite, self.against = run, suite, against
        self._lock = threading.Lock()
        self._seen: list[tuple[str, int, int]] | None = None
        self._text = b""

    def text(self) -> bytes:
        """The page as it is now."""
        with self._lock:
            found = list(self._files())
            if found != self._seen:
                self._text, self._seen = self._make(), found
            return self._text

    def _files(self) -> Iterator[tuple[str, int, int]]:
        """(path, time, size) of what a page is made from."""
        for pattern in ("metrics.jsonl", "episodes.jsonl"):
            for path in sorted(self.run.rglob(pattern)):
                stat = path.stat()
                yield str(path), stat.st_mtime_ns, stat.st_size

    def _make(self) -> bytes:
        try:
            figures = show.figures(rows.sources([str(self.run)], self.suite), self.against)
            with tempfile.TemporaryDirectory() as folder:
                page = Path(folder, "report.html")
                show.write_page(page, self.run.resolve().name, figures)
                return page.read_bytes()
        except (ConfigError, DataError, NothingScored) as error:  # not evaluated yet, or an evaluation is being written
            return so_far(self.run, str(error)).encode()


def so_far(run: Path, why: str) -> str:
    """A plain page for a run that has no report yet: the last figures of each metrics.jsonl in it, and why there is no more."""
    parts = []
    for path in sorted(run.rglob("metrics.jsonl")):
        logged = list(read_jsonl(path))
        if logged:
            last = {key: value for key, value in logged[-1].items() if key == "step" or key.startswith(SHOWN)}
            cells = "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(json.dumps(value))}</td></tr>" for key, value in last.items())
            parts.append(f"<h2>{html.escape(str(path.parent.relative_to(run)))}</h2><table>{cells}</table>")
    name, body = html.escape(run.resolve().name), "".join(parts) or "<p>No figure yet.</p>"
    style = "body{font:15px sans-serif;margin:2em auto;max-width:50em}th{text-align:left;font-weight:normal;padding-right:2em}"
    note = f"<p>The report comes with the first evaluation: {html.escape(why)}</p>"
    head = f'<meta charset="utf-8"><title>{name}</title><style>{style}</style>'
    return f'<!doctype html><html lang="en">{head}<h1>{name}</h1>{body}{note}</html>'


def open_server(host: str, port: int, page: Page) -> ThreadingHTTPServer:
    """A server on a loopback address; raises `ConfigError` on any other, or where the port is taken."""

    class Handler(loopback.Handler):
        def do_GET(self) -> None:
            if self.refused():
                return
            if self.path != "/":
                self.send_error(404)
            else:
                self.answer(page.text(), "text/html; charset=utf-8", Refresh=str(REFRESH_S))

    return loopback.open_server(host, port, Handler)
