"""`posttrain play RUN`: play in the world that a run of kind genie dreams, in a browser of this machine: a key for each latent action.

The page asks for one picture after another; what was dreamt so far is kept here. It begins with a picture of the run's size: one that the
run held out, or any other, a sketch too. `--film` makes a GIF instead, of every latent action held for some steps.
"""

import argparse
import base64
import io
import json
import threading
from collections.abc import Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from posttrain import loopback
from posttrain.agents.genie import load_run
from posttrain.agents.genie_models import Genie
from posttrain.agents.kernel.films import read_picture, to_image
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import ConfigError

PAGE = Path(__file__).with_name("play.html")
HELD = 7  # steps that a film holds an action for
LONGEST = 100  # bytes of a request


def cli(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="posttrain play",
        description="Play in a world that a run of kind genie has learnt: a key for each latent action.",
        epilog="Exit codes: 0 stopped by Ctrl-C, or the film is written; 2 the call was wrong.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run of kind genie")
    parser.add_argument("--picture", type=Path, help="a picture to begin with, of the run's size (default: those in RUN/pictures)")
    parser.add_argument("--film", type=Path, metavar="OUT.gif", help="write a GIF of every latent action, held for some steps, and end")
    parser.add_argument("--seed", type=int, default=0, help="of the draws of tokens (default: 0)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for any that is free (default: 8000)")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: 127.0.0.1); no other is served")
    args = parser.parse_args(argv)
    _, genie = load_run(args.run)
    paths = [args.picture] if args.picture else sorted((args.run / "pictures").glob("*.png"))
    dream = Dream(genie, first_pictures(paths, genie), args.seed)
    if args.film:
        film(genie, dream.firsts[0], args.film, args.seed)
        print(f"written: {args.film}")
        return 0
    server = open_server(args.host, args.port, dream, args.run.resolve().name)
    loopback.serve(server, f"playing {args.run}: http://{args.host}:{server.server_port}/")
    return 0


def first_pictures(paths: Sequence[Path], genie: Genie) -> list[Tensor]:
    """Pictures to begin with, [C, H, W] each; raises `ConfigError` where there are none, or one is of another size."""
    if not paths:
        raise ConfigError("RUN/pictures: holds no picture, expected one to begin with: name another by --picture")
    try:
        return [read_picture(path, *genie.shape[1:]) for path in paths]
    except (ValueError, OSError) as error:
        raise ConfigError(f"--picture: {error}") from None


class Dream:
    """A dream in progress. One request at a time."""

    def __init__(self, genie: Genie, firsts: Sequence[Tensor], seed: int) -> None:
        self.genie, self.firsts = genie, firsts
        self.draws = torch.Generator().manual_seed(seed)
        self._lock = threading.Lock()
        self.begin(0)

    @property
    def num_actions(self) -> int:
        return self.genie.actions.cfg.codes

    def begin(self, number: int) -> Tensor:
        """Begin anew with a first picture; of those after the last the first comes again."""
        with self._lock:
            first_CHW = self.firsts[number % len(self.firsts)]
            self.seen_1TCHW, self.done_1T = first_CHW[None, None], torch.zeros(1, 0, dtype=torch.long)
            return first_CHW

    def act(self, action: int) -> Tensor:
        """The next picture, [C, H, W]; raises `ValueError` where there is no such action."""
        if not 0 <= action < self.num_actions:
            raise ValueError(f"action: found {action}, expected 0 to {self.num_actions - 1}")
        with self._lock, one_thread():
            known = self.genie.frames - 1
            self.done_1T = torch.cat([self.done_1T, torch.tensor([[action]])], 1)[:, -known:]
            next_1CHW = self.genie.dream(self.seen_1TCHW, self.done_1T, self.draws)
            self.seen_1TCHW = torch.cat([self.seen_1TCHW, next_1CHW[:, None]], 1)[:, -known:]
            return next_1CHW[0]


def open_server(host: str, port: int, dream: Dream, name: str) -> ThreadingHTTPServer:
    """GET / is the page; POST /begin {"number": n} and POST /act {"action": a} answer {"picture": a PNG in base64}."""
    page = PAGE.read_text(encoding="utf-8").replace("NUM", str(dream.num_actions), 1)
    page = page.replace("NAME", json.dumps(name).replace("<", "\\u003c"), 1)  # a name cannot end the script
    ways = {"/begin": ("number", dream.begin), "/act": ("action", dream.act)}

    class Handler(loopback.Handler):
        def do_GET(self) -> None:
            if self.refused():
                return
            if self.path != "/":
                self.send_error(404)
            else:
                self.answer(page.encode(), "text/html; charset=utf-8")

        def do_POST(self) -> None:
            if self.refused():
                return
            if self.path not in ways:
                self.send_error(404)
                return
            key, way = ways[self.path]
            try:
                asked = json.loads(self.rfile.read(min(int(self.headers.get("Content-Length", "0")), LONGEST)))
                number = asked[key] if isinstance(asked, dict) else None
                if type(number) is not int:
                    raise ValueError(f"expected {{{key!r}: a whole number}}")
                picture_CHW = way(number)
            except (ValueError, KeyError) as error:
                self.send_error(400, f"{self.path}: {error}")
                return
            self.answer(json.dumps({"picture": png(picture_CHW)}).encode(), "application/json")

    return loopback.open_server(host, port, Handler)


def png(picture_CHW: Tensor) -> str:
    """A picture as a PNG in base64."""
    file = io.BytesIO()
    to_image(as_bytes(picture_CHW)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def as_bytes(picture: Tensor) -> Tensor:
    return (picture * 255).round().byte()


@one_thread()
def film(genie: Genie, first_CHW: Tensor, path: Path, seed: int) -> None:
    """A GIF: one picture, and what follows where each latent action is held, side by side."""
    num = genie.actions.cfg.codes
    action_NT = torch.arange(num)[:, None].expand(-1, HELD)
    draws = torch.Generator().manual_seed(seed)
    dreamt_NTCHW = genie.dream_on(first_CHW.expand(num, -1, -1, -1), action_NT, draws)
    all_NTCHW = as_bytes(torch.cat([first_CHW.expand(num, 1, -1, -1, -1), dreamt_NTCHW], 1))
    scale, gap, columns = max(1, 128 // first_CHW.shape[-1]), 12, min(4, num)
    tall, wide, font = scale * first_CHW.shape[-2], scale * first_CHW.shape[-1], ImageFont.load_default(18)
    rows = -(-num // columns)
    sheets = []
    for t in range(HELD + 1):
        sheet = Image.new("RGB", (columns * (wide + gap) + gap, rows * (tall + gap + 24) + gap), "white")
        for n in range(num):
            left, top = gap + n % columns * (wide + gap), gap + n // columns * (tall + gap + 24)
            sheet.paste(to_image(all_NTCHW[n, t], scale), (left, top + 22))
            label = f"key {n + 1}" if t else "first picture"
            ImageDraw.Draw(sheet).text((left, top - 2), label, fill="black" if t else "grey", font=font)
        sheets.append(sheet)
    lasts = [900] + [280] * (HELD - 1) + [900]
    sheets[0].save(path, format="GIF", save_all=True, append_images=sheets[1:], duration=lasts, loop=0)
