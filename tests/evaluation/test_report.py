import base64
import hashlib
import json
import re
import zlib
from dataclasses import asdict
from html.parser import HTMLParser

import pytest
from PIL import Image

from posttrain import cli
from posttrain.config import ConfigError
from posttrain.evaluation import plots
from posttrain.evaluation.entries import Entry, Stage, load_entry
from posttrain.evaluation.figure import write_figure
from posttrain.evaluation.lede import gains_and_losses
from posttrain.evaluation.metrics import summarise
from posttrain.evaluation.numerals import p_text, percent, points
from posttrain.evaluation.page import glyphs, reading
from posttrain.evaluation.report import write_report
from posttrain.evaluation.second import read_second
from posttrain.evaluation.section import Flow
from posttrain.evaluation.stats import Estimate
from posttrain.rollout.store import write_episodes
from tests.evaluation.hand_made import each_its_problem, episode, population
from tests.evaluation.on_disk import put_evaluation

VOID = {"meta", "br", "line", "circle", "rect", "path"}


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
        assert not {"src", "action", "srcset", "data"} & attrs.keys()
        assert attrs.get("href", "#").startswith("#")
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_headline_holds_each_models_figures_and_the_papers(entries, page):
    for entry in entries:
        found = summarise(entry.episodes)
        for value in (found.acc[0].value, found.acc[1].value, found.fixed.value):
            assert f"{100 * value:.1f}" in page.text
        assert points(found.delta.value) in page.text
        assert f"{points(found.delta.low)} to {points(found.delta.high)}" in page.text
    assert "another model and another task (Gemini 1.5 Flash on MATH500" in page.text
    assert "−11.2" in page.text
    assert "Base loses" in page.text
    assert "SCoRe gains" in page.text


def test_no_gain_is_claimed_where_zero_is_in_the_interval(tmp_path):
    write_report(tmp_path / "r.html", "T", [Entry(name="Model", episodes=each_its_problem(*["wc"] * 2, *["cw"] * 1, *["cc"] * 30))])
    text = Page((tmp_path / "r.html").read_text()).text
    assert "Model shows no clear change (+3.0)" in text
    assert "gains" not in text


def test_nothing_that_a_model_wrote_is_markup(tmp_path):
    hostile = "</script><img src=x onerror=alert(1)>"
    bad = episode("wc", problem=hostile, texts=(hostile, "x"), answers=(hostile, "7"), level=hostile, subject=hostile)
    write_report(tmp_path / "r.html", "T", [Entry(name="M", episodes=[bad, *each_its_problem("cc")])])
    assert "onerror=alert(1)" not in (tmp_path / "r.html").read_text()


def test_only_the_pages_own_scripts_may_run(entries, tmp_path):
    write_report(tmp_path / "r.html", "T", entries)
    text = (tmp_path / "r.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = re.search(r"script-src (.*?);", text)[1].split()
    assert [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts] == allowed


def unpacked(text: str, name: str):
    data = re.search(rf'<script type="application/octet-stream" id="{name}">(.*?)</script>', text)[1]
    return json.loads(zlib.decompress(base64.b64decode(data), 31))


def test_every_episode_is_on_the_page_once(entries, tmp_path):
    write_report(tmp_path / "r.html", "T", entries)
    text = (tmp_path / "r.html").read_text()
    index = unpacked(text, "index")
    assert index["id"] == [e.problem.id for entry in entries for e in entry.episodes]
    told = [each for k, size in enumerate(index["chunks"]) for each in unpacked(text, f"chunk{k}")]
    assert [each["attempts"][1]["text"] for each in told] == [e.turns[1].text for entry in entries for e in entry.episodes]
    assert index["outcome"].count(1) == sum(summarise(entry.episodes).num_fixed for entry in entries)


def test_the_same_entries_give_the_same_bytes(entries, tmp_path):
    for name in "ab":
        write_report(tmp_path / name, "T", entries)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_page_too_heavy_keeps_the_same_problems_of_each_model(monkeypatch):
    monkeypatch.setattr(reading, "MOST_ITEMS", 40)
    items = [
        reading.Item(model=m, id=f"p{i}", sample=0, outcome=0, question="", reference="", attempts=()) for m in (0, 1) for i in range(100)
    ]
    kept = reading.kept(items)
    assert len(kept) == 40
    assert [item.id for item in kept if item.model == 0] == [item.id for item in kept if item.model == 1]


def test_ribbons_of_the_flow_are_as_wide_as_their_counts():
    svg = glyphs.flow(Flow(name="M", model=0, kept=60, fixed=20, broken=10, same_wrong=0, other_wrong=10))
    height = glyphs.FLOW_HEIGHT - glyphs.GAP
    bars = [float(h) for h in re.findall(r'class="bar"[^>]* height="([\d.]+)"', svg)]
    assert bars == pytest.approx([0.7 * height, 0.3 * height, 0.8 * height, 0.2 * height], abs=0.06)
    assert "60 kept right" in svg
    assert "same answer" not in svg  # nothing to press where there is nothing


def test_an_interval_stands_on_the_scale_of_its_column():
    scale = glyphs.scale_of([Estimate(0.1, 0.05, 0.2), Estimate(-0.1, -0.2, 0.0)])
    assert scale == pytest.approx((-0.216, 0.216))
    svg = glyphs.interval(Estimate(0.0, -0.216, 0.108), scale, "")
    assert [float(x) for x in re.findall(r'class="span" x1="([\d.]+)" x2="([\d.]+)"', svg)[0]] == [0.0, 0.75 * glyphs.WIDTH]


def test_a_curve_runs_over_all_stages_and_marks_where_each_begins(entries):
    found = plots.training(entries)
    accuracy = found[0]
    assert accuracy.marks == ((0.0, "stage1"), (20, "stage2"))
    assert (accuracy.x[0], accuracy.x[-1]) == (1, 50)
    held_out = next(series for series in accuracy.series if series.mark == "dots")
    assert [x for x, y in zip(accuracy.x, held_out.y) if y is not None] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]
    assert {plot.title for plot in found} >= {"Answers changed, %", "KL to the reference, nats per attempt"}


def test_the_limit_of_a_guard_is_drawn_where_it_is_on_the_plot():
    run = [{"step": k, "train/acc_t1": 0.5, "train/acc_t2": 0.5, "train/clip_t1": 0.01 * k} for k in range(1, 41)]
    found = plots.training([Entry(name="M", episodes=[], stages=(Stage(name="s", metrics=run, guards={"clipped": 0.2, "gap": 0.05}),))])
    levels = {plot.title: plot.level for plot in found}
    assert levels["Cut by the length limit, %"] == (0.2, "warns above")
    assert levels["Accuracy, %"] is None


def test_a_base_model_alone_needs_no_training(tmp_path):
    write_report(tmp_path / "r.html", "T", [Entry(name="Base", episodes=each_its_problem("cw", "cc"))])
    assert "Training" not in Page((tmp_path / "r.html").read_text()).text


def test_what_is_no_number_is_not_drawn():
    stage = Stage(name="x", metrics=[{"step": 3, "train/acc_t1": None}, {"step": 4, "train/acc_t1": float("nan")}])
    assert plots.logged([stage], "train/acc_t1") == []
    assert plots.span([], ("acc_t1",)) == (0.0, 1.0)


def test_shares_of_a_histogram_add_up_and_one_is_in_the_last_bin():
    found = plots.shares_of([0.0, 0.0, 0.5, 1.0], bins=10)
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


def test_a_run_that_was_not_evaluated_shows_its_training(tmp_path, capsys):
    folder = run_on_disk(tmp_path, 4, {"run": 10}, suites=()) / "run"
    (folder / "episodes").mkdir()
    for step in (5, 10):
        write_episodes(folder / "episodes" / f"step_{step:06d}.jsonl", population(step, 20, acc=0.6, fix=0.4, broke=0.05, copy=0.5))
    assert cli.main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "nothing is held out" in text
    assert "10, 20 training episodes" in text
    assert unpacked(text, "chunk0")[0]["question"] == population(10, 1, acc=0.6, fix=0.4, broke=0.05, copy=0.5)[0].problem.question
    assert "not evaluated yet" in capsys.readouterr().out


def test_a_run_of_single_attempts_asks_for_an_evaluation(tmp_path, capsys):
    folder = run_on_disk(tmp_path, 4, {"run": 10}, suites=()) / "run"
    (folder / "episodes").mkdir()
    write_episodes(folder / "episodes" / "step_000010.jsonl", [episode("c")])
    assert cli.main(["report", str(folder)]) == 2
    assert "holds no second attempts; evaluate the run first" in capsys.readouterr().err


def test_a_second_grader_is_asked_and_kept(tmp_path):
    made = [episode("cw", problem="p", answers=("7", "8")), episode("wc", problem="q", answers=("7", "7"))]
    folder = put_evaluation(tmp_path / "run", made, "m")
    assert cli.main(["report", str(folder), "--second", "math-verify"]) == 0
    assert read_second(folder) == {
        ("p", 0): ((("math-verify", "correct"),), (("math-verify", "wrong"),)),
        ("q", 0): ((("math-verify", "correct"),), (("math-verify", "correct"),)),
    }
    flags = unpacked((folder / "report.html").read_text(), "index")["flag"]
    assert [bool(flag >> reading.FLAGS.index("disagree") & 1) for flag in flags] == [False, True]  # q: ours says wrong of a 7


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


def test_many_models_are_counted_in_the_first_sentence_and_the_extremes_named(tmp_path):
    def some(fix, broke):
        return population(1, 200, acc=0.5, fix=fix, broke=broke, copy=0.5)

    entries = [Entry(name=f"gains {k}", episodes=some(0.3 + k / 10, 0.0)) for k in range(3)]
    entries += [Entry(name="loses", episodes=some(0.0, 0.5)), Entry(name="stays", episodes=some(0.0, 0.0))]
    write_report(tmp_path / "many.html", "Many", entries)
    highest = percent(summarise(entries[2].episodes).acc[1].value)
    gain, loss = (points(summarise(entry.episodes).delta.value) for entry in entries[2:4])
    told = f"Of 5 models, 3 gain by a second attempt, most of all gains 2 ({gain} points); 1 loses, loses ({loss} points); "
    text = Page((tmp_path / "many.html").read_text()).text
    assert f"{told}1 shows no clear change. Right most often at the second attempt: gains 2 ({highest}%)." in text


def test_where_nothing_is_clear_the_first_sentence_says_so():
    unclear = Estimate(value=0.01, low=-0.02, high=0.04)
    told = gains_and_losses([("a", unclear), ("b", unclear)], "arms", "by more shots")
    assert told == "Of 2 arms, none gains by more shots; none loses; 2 show no clear change."
