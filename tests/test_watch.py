"""`posttrain watch`: the report as it is now, to this machine alone."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from posttrain import cli
from posttrain.config import ConfigError
from posttrain.watch import Page, open_server
from tests.evaluation.hand_made import population
from tests.evaluation.on_disk import put_evaluation, put_run, steps

EPISODES = population(0, 40, acc=0.5, fix=0.3, broke=0.1, copy=0.5)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return put_run(tmp_path / "<mine>", {"kind": "score", "model": "m"}, steps(3))


@pytest.fixture
def port(run) -> Iterator[int]:
    server = open_server("127.0.0.1", 0, Page(run))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def get(port: int, path: str = "/", host: str | None = None) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.headers)


def test_before_an_evaluation_the_last_figures_are_shown_and_a_browser_asks_again(port):
    status, text, headers = get(port)
    assert status == 200
    assert "<tr><th>train/acc_t1</th><td>0.5</td></tr>" in text
    assert "<h1>&lt;mine&gt;</h1>" in text
    assert "holds no evaluation" in text
    assert (headers["Refresh"], headers["Cache-Control"]) == ("10", "no-store")


def test_the_page_is_made_again_when_the_run_goes_on_and_only_then(run, port):
    page = Page(run)
    assert page.text() is page.text()
    put_run(run, {"kind": "score", "model": "m"}, steps(4))
    assert "<td>4</td>" in page.text().decode()
    assert "<td>4</td>" in get(port)[1]


def test_with_an_evaluation_it_is_the_report(run, port):
    put_evaluation(run / "eval" / "held_out", EPISODES, "m")
    _, text, _ = get(port)
    assert "holds no evaluation" not in text
    assert "Acc@t1" in text
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("host", ["example.org", "example.org:8000", "10.0.0.1", "127.0.0.1.example.org", ""])
def test_a_request_for_another_host_is_refused(port, host):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("GET", "/", skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 403
    assert b"acc_t1" not in answer.read()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]:80"])
def test_names_of_this_machine_are_served(port, host):
    assert get(port, host=host)[0] == 200


@pytest.mark.parametrize("path", ["/metrics.jsonl", "/../config.yaml", "/?x=1"])
def test_no_other_file_is_served(port, path):
    assert get(port, path)[0] == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "example.org"])
def test_an_address_that_others_reach_is_refused(run, host):
    with pytest.raises(ConfigError, match="expected a loopback address such as 127"):
        open_server(host, 0, Page(run))


def test_a_taken_port_and_a_missing_run_are_one_line(run, port, tmp_path, capsys):
    assert cli.main(["watch", str(run), "--port", str(port)]) == 2
    assert f"--port {port}: cannot listen there: Address already in use" in capsys.readouterr().err
    assert cli.main(["watch", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such run folder" in capsys.readouterr().err
