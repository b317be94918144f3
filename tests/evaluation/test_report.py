import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from posttrain import cli
from posttrain.config import ConfigError
from posttrain.evaluation import charts, drawing
from posttrain.evaluation.entries import Entry, Stage, load_entry, to_read
from posttrain.evaluation.metrics import OUTCOMES, summarise
from posttrain.evaluation.report import differing, p_text, write_figure, write_report
from posttrain.rollout.store import write_episodes
from tests.evaluation.hand_made import each_its_problem, episode, population

VOID = {"meta", "br", "line", "circle", "polyline"}


class Page(HTMLParser):
    """What a browser makes of a page: its elements, checked to be closed in order, and its visible text."""

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.stack):
            self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.elements if name == tag]


def rows(num: int, first: float, second: float) -> list[dict]:
    made = []
    for step in range(1, num + 1):
        row = {"step": step, "train/acc_t1": first, "train/acc_t2": second * step / num, "train/answer_change": 0.3, "train/kl_t1": 0.01}
        row |= {"train/kl_t2": 0.02 * step, "train/loss": 0.0, "push_s": 0.1}
        made.append(row | ({"val/acc_t1": first, "val/acc_t2": second, "val/answer_change": 0.2} if step % 5 == 0 else {}))
    return made


@pytest.fixture(scope="module")
def entries():
    base = Entry(name="Base", episodes=population(1, 300, acc=0.6, fix=0.1, broke=0.35, copy=0.7))
    stages = (Stage(name="stage1", metrics=rows(20, 0.6, 0.7)), Stage(name="stage2", metrics=rows(30, 0.65, 0.8)))
    score = Entry(
        name="SCoRe",
        episodes=population(1, 300, acc=0.7, fix=0.4, broke=0.02, copy=0.6),
        stages=stages,
        provenance=(("stage2", "commit abc"),),
    )
    return [base, score]


@pytest.fixture(scope="module")
def page(entries, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    write_report(path, "A title", entries, notes=["A note."])
    return Page(path.read_text())


def test_the_page_needs_no_network(page):
    for _, attrs in page.elements:
        assert not {"src", "href", "action", "srcset", "data"} & attrs.keys()
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_headline_holds_each_models_figures_and_the_papers(entries, page):
    for entry in entries:
        found = summarise(entry.episodes)
        for value in (found.acc[0].value, found.acc[1].value, found.fixed.value):
            assert f"{100 * value:.1f}" in page.text
        assert charts.points(found.delta.value) in page.text
        assert f"{charts.points(found.delta.low)} to {charts.points(found.delta.high)}" in page.text
    assert "another model and another task (Gemini 1.5 Flash on MATH500" in page.text
    assert "−11.2" in page.text
    assert "Base loses" in page.text
    assert "SCoRe gains" in page.text


def test_no_gain_is_claimed_where_zero_is_in_the_interval(tmp_path):
    write_report(tmp_path / "r.html", "T", [Entry(name="Model", episodes=each_its_problem(*["wc"] * 2, *["cw"] * 1, *["cc"] * 30))])
    text = Page((tmp_path / "r.html").read_text()).text
    assert "Model shows no clear change (+3.0)" in text
    assert "gains" not in text


def test_twenty_episodes_of_each_model_stand_with_their_outcome(page, entries):
    articles = page.all("article")
    assert len(articles) == 40
    for model in "01":
        assert {a["data-outcome"] for a in articles if a["data-model"] == model} == set(OUTCOMES)
    assert page.text.count("Attempt 1") == page.text.count("Attempt 2") == 40


def test_picking_episodes_is_even_over_outcomes_and_repeats():
    made = each_its_problem(*["cc"] * 50, *["wc"] * 3, *["cw"] * 2, *["ww"] * 50, *["uw"] * 5)
    picked = to_read(made, 20)
    kinds = [kind for kind, _ in picked]
    assert {kind: kinds.count(kind) for kind in OUTCOMES} == {"kept": 8, "fixed": 3, "broken": 2, "still wrong": 7}
    assert picked == to_read(list(reversed(made)), 20)
    assert len(to_read(made[:3], 20)) == 3


HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>&lt;b&gt; {{ 7 * 7 }}"


def test_what_a_model_wrote_stays_text(tmp_path):
    bad = episode("wc", problem=HOSTILE, texts=(HOSTILE, "x"), answers=(HOSTILE, "7"), level=HOSTILE, subject=HOSTILE)
    bad = replace(bad, problem=replace(bad.problem, question=HOSTILE))
    write_report(tmp_path / "r.html", HOSTILE, [Entry(name=HOSTILE, episodes=[bad, *each_its_problem("cc")])], notes=[HOSTILE])
    page = Page((tmp_path / "r.html").read_text())
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert page.text.count(HOSTILE) >= 8


def test_only_the_pages_own_script_may_run(page, entries, tmp_path):
    import base64
    import hashlib

    write_report(tmp_path / "r.html", "T", entries)
    text = (tmp_path / "r.html").read_text()
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    allowed = re.search(r"script-src 'sha256-(.*?)'", text)[1]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == allowed


def test_curves_mark_where_a_stage_begins(page, entries):
    assert page.text.count("stage1") == 3
    assert len([a for a in page.all("line") if "stroke-dasharray" in a]) == 3


def test_a_base_model_alone_needs_no_training(tmp_path):
    write_report(tmp_path / "r.html", "T", [Entry(name="Base", episodes=each_its_problem("cw", "cc"))])
    assert "Training" not in Page((tmp_path / "r.html").read_text()).text


def test_a_curve_without_figures_of_its_own_stays_empty():
    svg = charts.curve([Stage(name="x", metrics=[{"step": 3, "train/acc_t1": None}])], ("acc_t1",), (0, 1), 10, charts.percent, "t")
    assert "polyline" not in svg
    assert charts.span([], ("acc_t1",)) == (0.0, 1.0)


def test_marked_words_are_the_ones_that_differ():
    first, second = differing("So 3 + 4 = 8, carry 1.", "So 3 + 4 = 7, carry 1.")
    assert first == [(False, "So 3 + 4 = "), (True, "8"), (False, ", carry 1.")]
    assert second == [(False, "So 3 + 4 = "), (True, "7"), (False, ", carry 1.")]


def test_marking_keeps_every_character():
    for e in population(3, 40, acc=0.5, fix=0.3, broke=0.3, copy=0.3):
        for text, pieces in zip((t.text for t in e.turns), differing(*(t.text for t in e.turns))):
            assert "".join(piece for _, piece in pieces) == text


def test_changes_with_no_word_between_them_are_one_mark():
    words = "we then add the two and carry the one so it is"
    assert differing(f"{words} 3 + 4 now", f"{words} 5 - 6 now") == (
        [(False, f"{words} "), (True, "3 + 4"), (False, " now")],
        [(False, f"{words} "), (True, "5 - 6"), (False, " now")],
    )


def test_texts_with_little_in_common_are_left_unmarked():
    assert differing("one two three", "alpha beta gamma") == ([(False, "one two three")], [(False, "alpha beta gamma")])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, 500, [0, 100, 200, 300, 400, 500]), (-0.18, 0.09, [-0.1, 0])],
)
def test_ticks_are_round(low, high, expected):
    assert drawing.ticks(low, high) == pytest.approx(expected)


def test_shares_of_a_histogram_add_up_and_one_is_in_the_last_bin():
    found = charts.shares_of([0.0, 0.0, 0.5, 1.0], bins=10)
    assert (found[0], found[5], found[9]) == (0.5, 0.25, 0.25)


@pytest.mark.parametrize(("p", "text"), [(1.0, "1"), (0.2327, "0.23"), (0.0031, "0.0031"), (3.1e-4, "3e-4"), (1e-9, "<1e-6")])
def test_p_values_have_the_digits_that_matter(p, text):
    assert p_text(p) == text


def test_the_figure_is_a_picture_of_readme_size(entries, tmp_path):
    write_figure(tmp_path / "new" / "figure.png", entries)
    width, height = Image.open(tmp_path / "new" / "figure.png").size
    assert 1000 < width < 2400
    assert 300 < height < 900


def run_on_disk(folder, seed: int, stages: dict[str, int], suites=("held_out",)):
    """Run folders as training and evaluation leave them."""
    for i, (name, steps) in enumerate(stages.items()):
        run = folder / name
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(steps, 0.6, 0.7)))
        (run / "provenance.json").write_text(json.dumps({"command": ["posttrain", "train", f"{name}.yaml"], "commit": "c0ffee"}))
        (run / "config.yaml").write_text(f"kind: score\nseed: {seed}\n")
        if i == len(stages) - 1:
            for suite in suites:
                (run / "eval" / suite).mkdir(parents=True)
                made = population(seed, 60, acc=0.6, fix=0.4, broke=0.05, copy=0.5)
                write_episodes(run / "eval" / suite / "episodes.jsonl", made)
                (run / "eval" / suite / "summary.json").write_text(json.dumps({"summary": asdict(summarise(made))}))
    return folder


def test_the_command_chains_stages_and_names_models(tmp_path, capsys):
    folder = run_on_disk(tmp_path, 4, {"stage1": 10, "stage2": 15})
    out = tmp_path / "page.html"
    words = [f"My SCoRe={folder}/stage1,{folder}/stage2", f"{folder}/stage2/eval/held_out", "--out", str(out)]
    assert cli.main(["report", *words, "--figure", str(tmp_path / "f.png")]) == 0
    text = Page(out.read_text()).text
    assert "My SCoRe gains" in text
    assert "held_out gains" in text
    assert "commit c0ffee · seed 4 · posttrain train stage1.yaml" in text
    assert str(out) in capsys.readouterr().out
    assert (tmp_path / "f.png").is_file()


def test_a_chained_run_is_one_training(tmp_path):
    folder = run_on_disk(tmp_path, 4, {"stage1": 10, "stage2": 15})
    entry = load_entry("SCoRe", [folder / "stage1", folder / "stage2"])
    assert [(stage.name, len(stage.metrics)) for stage in entry.stages] == [("stage1", 10), ("stage2", 15)]
    assert len(entry.episodes) == 60


def test_several_suites_must_be_chosen_from(tmp_path):
    run_on_disk(tmp_path, 1, {"run": 5}, suites=("easy", "hard"))
    with pytest.raises(ConfigError, match="choose one of easy, hard with --suite"):
        load_entry("x", [tmp_path / "run"])
    assert len(load_entry("x", [tmp_path / "run"], "hard").episodes) == 60
    with pytest.raises(ConfigError, match="was not evaluated on 'none'; found easy, hard"):
        load_entry("x", [tmp_path / "run"], "none")


@pytest.mark.parametrize(("make", "said"), [(False, "no such run folder"), (True, "holds no evaluation")])
def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path, capsys, make, said):
    if make:
        (tmp_path / "run").mkdir()
    assert cli.main(["report", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_an_unwritable_page_is_one_clear_line(tmp_path, capsys):
    run_on_disk(tmp_path, 1, {"run": 5})
    (tmp_path / "file").write_text("")
    assert cli.main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "file" / "r.html")]) == 2
    assert "cannot write the report" in capsys.readouterr().err
