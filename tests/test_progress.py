"""Progress is a bar on a terminal and plain lines everywhere else."""

import io
import re
import subprocess
import sys

from posttrain import progress
from posttrain.progress import Lines, progress_bar


def run(monkeypatch, line_s: float, steps: int = 3) -> list[str]:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(progress, "LINE_S", line_s)
    with progress_bar(steps, "score", "step") as bar:
        for step in range(steps):
            bar.set_postfix_str(f"t1 {step + 1}0.0% [copying]", refresh=False)
            bar.update()
    assert "\r" not in out.getvalue()
    return out.getvalue().splitlines()


def test_a_log_file_gets_whole_lines_with_time_left_accuracy_and_guards(monkeypatch):
    *_, last = run(monkeypatch, 0.0)
    assert re.fullmatch(r"score: 3 of 3 steps, \d\d:\d\d gone, \d\d:\d\d left, t1 30.0% \[copying\]", last)


def test_lines_come_now_and_then_and_not_at_every_step(monkeypatch):
    assert len(run(monkeypatch, 0.0, steps=50)) >= 50
    first, last = run(monkeypatch, 30.0, steps=50)
    assert (first[:20], last[:20]) == ("score: 0 of 50 steps", "score: 50 of 50 step")


def test_carriage_returns_become_lines_and_repeats_are_left_out():
    out = io.StringIO()
    lines = Lines(out)
    lines.write("\ra: 1 of 2")
    lines.write("\ra: 1 of 2\n")
    lines.write("\r      \r")
    lines.write("\ra: 2 of 2\n")
    assert out.getvalue() == "a: 1 of 2\na: 2 of 2\n"


def test_on_a_terminal_it_is_a_bar():
    inner = "from posttrain.progress import progress_bar; bar = progress_bar(2, 'score', 'step'); bar.update(2); bar.close()"
    shell = f'stty cols 80 rows 24; exec "{sys.executable}" -c "{inner}"'  # a new terminal has no size
    code = f"import pty, sys; sys.exit(pty.spawn(['sh', '-c', {shell!r}]) >> 8)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0
    assert b"\rscore: 100%|" in done.stdout
