"""`posttrain play`: a dream by HTTP and in a browser, from any picture of the run's size, to this machine alone."""

import base64
import http.client
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from posttrain import cli
from posttrain.agents import genie
from posttrain.agents.environments import SpritesConfig
from posttrain.agents.genie_films import WorldConfig
from posttrain.agents.genie_models import ActionsConfig, DynamicsConfig, TokenizerConfig
from posttrain.play import Dream, first_pictures, open_server
from tests.evaluation.browser import launched


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "<mine>"
    cfg = genie.Config(
        films=WorldConfig(env=SpritesConfig(layouts=3), clips=10), frames=3, held_out=3,
        tokenizer=TokenizerConfig(codes=16, dim=4, width=8, heads=1, steps=2, batch=2),
        actions=ActionsConfig(codes=3, width=8, heads=1, steps=2, batch=2),
        dynamics=DynamicsConfig(width=8, heads=1, steps=2, batch=2),
    )  # fmt: skip
    assert genie.main(cfg, folder, False) == 0
    return folder


def dream_of(run: Path) -> Dream:
    _, models = genie.load_run(run)
    return Dream(models, first_pictures(sorted((run / "pictures").glob("*.png")), models), seed=0)


@pytest.fixture
def port(run) -> Iterator[int]:
    server = open_server("127.0.0.1", 0, dream_of(run), run.name)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def ask(port: int, path: str, what: object = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Host": f"127.0.0.1:{port}"} | headers
    if what is None:
        connection.request("GET", path, headers=headers)
    else:
        connection.request("POST", path, what if isinstance(what, str) else json.dumps(what), headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def picture(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(json.loads(body)["picture"])))


def test_every_key_gives_a_picture_of_the_runs_size_and_the_same_keys_the_same_dream(run, port):
    def played():
        first = picture(ask(port, "/begin", {"number": 1})[1])
        return [first.tobytes()] + [picture(ask(port, "/act", {"action": action})[1]).tobytes() for action in (0, 2, 1, 1)]

    pictures, direct = played(), dream_of(run)
    assert all(len(x) == 3 * 16 * 16 for x in pictures)
    assert pictures[0] == Image.open(run / "pictures" / "1.png").tobytes()
    begun = direct.begin(1)
    again = [begun, *(direct.act(action) for action in (0, 2, 1, 1))]
    assert [(x * 255).round().byte().permute(1, 2, 0).numpy().tobytes() for x in again] == pictures


def test_a_dream_keeps_what_the_models_know_at_once_and_no_more(run):
    dream = dream_of(run)
    for _ in range(5):
        dream.act(0)
    assert dream.seen_1TCHW.shape[1] == dream.done_1T.shape[1] == 2
    assert torch.equal(dream.begin(3), dream.begin(0))  # after the last the first comes again


@pytest.mark.parametrize(
    ("path", "what", "status"),
    [
        ("/act", {"action": 3}, 400),
        ("/act", {"action": -1}, 400),
        ("/act", {"action": "1"}, 400),
        ("/act", {"action": True}, 400),
        ("/act", {"number": 1}, 400),
        ("/act", [1], 400),
        ("/act", "{not json", 400),
        ("/act", '{"action": 1, "more": "' + "x" * 1000 + '"}', 400),
        ("/else", {"action": 1}, 404),
        ("/pictures/0.png", None, 404),
    ],
)
def test_a_wrong_request_is_refused_and_the_dream_goes_on(port, path, what, status):
    assert ask(port, path, what)[0] == status
    assert ask(port, "/act", {"action": 2})[0] == 200


@pytest.mark.parametrize(
    "headers", [{"Host": "example.org"}, {"Host": "10.0.0.1:80"}, {"Origin": "http://example.org"}, {"Origin": "null"}]
)
def test_requests_for_or_from_another_host_are_refused(port, headers):
    assert ask(port, "/act", {"action": 1}, **headers)[0] == 403
    assert ask(port, "/", **headers)[0] == 403


def test_a_page_of_this_machine_may_ask(port):
    assert ask(port, "/act", {"action": 1}, Origin=f"http://127.0.0.1:{port}")[0] == 200


def test_in_a_browser_keys_advance_the_picture(port):
    with launched() as browser:
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("html[data-ready]")
        assert page.inner_text("#name") == "<mine>"
        assert page.locator("#actions button").count() == 3
        first = page.get_attribute("#now", "src")
        page.keyboard.press("2")
        page.wait_for_function("document.querySelector('#step').value === '1'")
        assert page.get_attribute("#now", "src") != first
        assert page.evaluate("document.querySelector('#action').value") == "2"
        page.click("#actions button:nth-child(3)")
        page.wait_for_function("document.querySelector('#step').value === '2'")
        page.keyboard.press("n")
        page.wait_for_function("document.querySelector('#step').value === '0'")
        assert [each for each in said if "favicon" not in each and "404" not in each] == []


def test_a_sketch_of_the_right_size_begins_a_dream_and_another_size_is_one_line(run, tmp_path, capsys):
    Image.new("RGB", (16, 16), "teal").save(tmp_path / "sketch.png")
    Image.new("RGB", (20, 16), "teal").save(tmp_path / "wide.png")
    (tmp_path / "text.png").write_text("no picture")
    _, models = genie.load_run(run)
    assert Dream(models, first_pictures([tmp_path / "sketch.png"], models), 0).act(0).shape == (3, 16, 16)
    for name, said in (("wide.png", "found 20 x 16 pixels, expected 16 x 16"), ("text.png", "cannot be read as a picture")):
        assert cli.main(["play", str(run), "--picture", str(tmp_path / name)]) == 2
        message = capsys.readouterr().err
        assert said in message
        assert message.count("\n") == 1


def test_a_film_shows_every_latent_action(run, tmp_path, capsys):
    assert cli.main(["play", str(run), "--film", str(tmp_path / "film.gif")]) == 0
    gif = Image.open(tmp_path / "film.gif")
    assert gif.n_frames >= 2
    assert gif.width > 3 * 128


def test_what_cannot_be_played_is_one_line(tmp_path, run, capsys):
    assert cli.main(["play", str(tmp_path)]) == 2
    assert "holds no genie.pt, expected a finished run of kind genie" in capsys.readouterr().err
    assert cli.main(["play", str(run), "--host", "0.0.0.0"]) == 2
    assert "expected a loopback address" in capsys.readouterr().err
