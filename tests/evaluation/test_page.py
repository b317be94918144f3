"""The page in a real browser: what a reader can do with it, and what hostile text cannot."""

import re
from dataclasses import replace

import pytest

from posttrain.evaluation import plots
from posttrain.evaluation.entries import Entry, Stage
from posttrain.evaluation.metrics import summarise
from posttrain.evaluation.page.tokens import Pieces
from posttrain.evaluation.page.write import HERE
from posttrain.evaluation.report import write_report
from posttrain.sft.tokenizer import word_tokenizer
from posttrain.types import UnitTests, Verdict
from tests.evaluation.browser import launched, opened, shown_id, tally
from tests.evaluation.hand_made import episode, population
from tests.evaluation.test_report import rows


@pytest.fixture(scope="module")
def browser():
    with launched() as running:
        yield running


def two_texts(problem, first, second, marks="wc", **more):
    return episode(marks, problem=problem, texts=(first, second), **more)


@pytest.fixture(scope="module")
def hand_made():
    """Few episodes, one for each thing to look at."""
    made = [
        two_texts("carry", "So 3 + 4 = 8, carry 1.", "So 3 + 4 = 7, carry 1."),
        two_texts("formula", "We add: $\\frac{1}{2}x$ gives \\boxed{8}.", "We add: $\\frac{3}{2}x$ gives \\boxed{7}."),
        two_texts("copy", "It is 7, I think.", "It is 7, I think.", marks="cc"),
        two_texts("fresh", "one two three four", "alpha beta gamma delta", marks="cw"),
        two_texts("cut", "It goes on and on", "It goes on", marks="ww", finish=["length", "stop"]),
        episode("uw", problem="fault"),
        two_texts("fence", "Try:\n```python\ndef f(x):\n    return x + 8\n```", "Try:\n```python\ndef f(x):\n    return x + 7\n```"),
    ]
    ruled = Verdict(status="wrong", why="they differ", rule="rationals", gold_form="Rational(7)", pred_form="Rational(8)")
    first, second = made[0].turns
    made[0] = replace(made[0], turns=(replace(first, verdict=ruled), second))
    tests = UnitTests(entry_point="double", code="def check(double):\n    assert double(2) == 4")
    program = two_texts("program", "def double(x):\n    return x + x + 1", "def double(x):\n    return x + x")
    made.append(replace(program, problem=replace(program.problem, reference=tests)))
    return made


@pytest.fixture(scope="module")
def small(hand_made, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "small.html"
    said = ((("math-verify", "correct"),), (("math-verify", "correct"),))
    spoken = Pieces(word_tokenizer([" one", " two"])._tokenizer)
    turns = [replace(turn, prompt_ids=(1, 2, 3)) if k == 0 else turn for k, turn in enumerate(hand_made[0].turns)]
    turns[1] = replace(turns[1], prompt_ids=(*turns[0].prompt_ids, *turns[0].completion.ids, 2))
    made = [replace(hand_made[0], turns=tuple(turns)), *hand_made[1:]]
    write_report(path, "Small", [Entry(name="Model", episodes=made, second={("carry", 0): said}, pieces=spoken)])
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "study.html"
    stages = (Stage(name="stage1", metrics=rows(20, 0.6, 0.7)), Stage(name="stage2", metrics=rows(30, 0.65, 0.8), guards={"clipped": 0.2}))
    entries = [
        Entry(name="Base", episodes=population(1, 300, acc=0.6, fix=0.1, broke=0.35, copy=0.7)),
        Entry(name="SCoRe", episodes=population(1, 300, acc=0.7, fix=0.4, broke=0.02, copy=0.6), stages=stages),
    ]
    write_report(path, "A study", entries)
    return path, entries


def pick(page, problem):
    page.fill("input[type=search]", problem)
    page.keyboard.press("Enter")
    tally(page, "1 of 8")
    shown_id(page, problem)


def marks(page, kind):
    return page.locator(f"mark.{kind}").all_text_contents()


def test_filters_leave_what_they_say(browser, study):
    path, entries = study
    found = summarise(entries[1].episodes)
    with opened(browser, path) as page:
        tally(page, "600 episodes")
        page.select_option("select[aria-label='All models']", "1")
        tally(page, "300 of 600")
        for outcome, num in (("fixed", found.num_fixed), ("broken", found.num_broken)):
            assert page.inner_text(f"[data-filter={outcome}] b") == str(num)
            page.click(f"[data-filter={outcome}]")
            tally(page, f"{num} of 600")
            assert page.inner_text(".badge") == outcome
        page.click("[data-filter=copied]")
        tally(page, "0 of 600")  # what was broken is no copy
        assert page.inner_text(".episode") == "No episode passes these filters."
        page.keyboard.press("Escape")
        tally(page, "600 episodes")


def test_a_ribbon_of_the_flow_shows_its_episodes(browser, study):
    path, entries = study
    with opened(browser, path) as page:
        ribbon = page.locator(".ribbon.fixed[data-model='0']")
        num = summarise(entries[0].episodes).num_fixed
        assert ribbon.locator("title").text_content() == f"{num} fixed"
        ribbon.focus()
        page.keyboard.press("Enter")
        tally(page, f"{num} of 600")


def test_flags_find_what_was_cut_not_graded_and_graded_otherwise(browser, small):
    with opened(browser, small) as page:
        for flag, problem, num in (("truncated", "cut", 1), ("unscored", "fault", 1), ("disagree", "carry", 1), ("copied", "copy", 2)):
            page.click(f"[data-filter={flag}]")
            tally(page, f"{num} of 8")
            shown_id(page, problem)
            page.click(f"[data-filter={flag}]")
        page.click("[data-filter=disagree]")
        shown_id(page, "carry")
        assert "math-verify" in page.inner_text(".attempt:first-child .why")
        assert "disagrees" in page.inner_text(".attempt:first-child .why")
        assert "disagrees" not in page.inner_text(".attempt:last-child .why")


def test_search_reads_every_text(browser, small):
    with opened(browser, small) as page:
        page.keyboard.press("/")
        page.keyboard.type("GAMMA delta")
        tally(page, "1 of 8")
        shown_id(page, "fresh")
        page.fill("input[type=search]", '"carry 1"')
        shown_id(page, "carry")
        page.fill("input[type=search]", '"1 carry"')
        tally(page, "0 of 8")
        page.fill("input[type=search]", "Rationals")  # the rule of a verdict
        shown_id(page, "carry")


def test_what_the_second_attempt_changed_is_marked_by_word_and_by_formula(browser, small):
    with opened(browser, small) as page:
        pick(page, "carry")
        assert (marks(page, "del"), marks(page, "ins")) == (["8"], ["7"])
        pick(page, "formula")
        assert page.locator("mark.ins .katex").count() == 2
        assert page.locator(".attempt .katex").count() == 4
        page.click("text=Formulas")
        assert page.locator(".katex").count() == 0
        assert (marks(page, "del"), marks(page, "ins")) == (["1", "8"], ["3", "7"])
        pick(page, "copy")
        assert "The two texts are the same." in page.inner_text(".tools")
        pick(page, "fresh")
        assert "Little in common" in page.inner_text(".tools")
        assert marks(page, "del") == []
        pick(page, "carry")
        page.locator(".list").focus()
        page.keyboard.press("d")
        page.wait_for_selector("mark.del", state="detached")


def test_the_text_shown_is_the_text_written(browser, small, hand_made):
    with opened(browser, small) as page:
        for each in (hand_made[0], hand_made[2], hand_made[6], hand_made[7]):
            pick(page, each.problem.id)
            assert page.locator(".attempt .said").all_text_contents() == [turn.text for turn in each.turns]


def test_code_is_coloured_in_fences_and_where_the_task_is_to_program(browser, small):
    with opened(browser, small) as page:
        pick(page, "fence")
        assert page.locator(".attempt .code .hljs-keyword").all_text_contents() == ["def", "return"] * 2
        assert (marks(page, "del"), marks(page, "ins")) == (["8"], ["7"])
        pick(page, "program")
        assert "def" in page.locator(".attempt .hljs-keyword").all_text_contents()
        page.click("text=Tests of")
        assert "assert double(2) == 4" in page.inner_text("details.block")


def test_the_verdict_says_its_rule_and_what_was_read(browser, small):
    with opened(browser, small) as page:
        pick(page, "carry")
        told = page.inner_text(".attempt:first-child .why")
        for word in ("rationals", "Rational(7)", "Rational(8)", "they differ"):
            assert word in told


def test_prompts_are_shown_as_text_and_as_tokens_when_asked_for(browser, small):
    with opened(browser, small) as page:
        pick(page, "carry")
        assert page.locator(".tok").count() == 0
        page.click("text=Prompts and tokens")
        page.wait_for_selector(".more h3")
        assert page.locator(".more .said").all_text_contents() == ["<|end|><|user|><|assistant|>", "<|user|>"]
        page.locator(".more details").first.locator("summary").click()
        assert page.locator(".more details").first.locator(".tok").all_text_contents() == ["<|end|>1", "<|user|>2", "<|assistant|>3"]


def test_keys_move_search_filter_and_close(browser, small):
    with opened(browser, small) as page:
        shown_id(page, "carry")
        page.keyboard.press("j")
        shown_id(page, "formula")
        page.keyboard.press("j")
        page.keyboard.press("k")
        shown_id(page, "formula")
        assert page.get_attribute(".row[aria-selected=true]", "aria-posinset") == "2"
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.type") == "search"
        page.keyboard.type("jk")  # letters, not moves
        assert page.input_value("input[type=search]") == "jk"
        tally(page, "0 of 8")
        page.keyboard.press("Escape")
        tally(page, "8 episodes")
        page.keyboard.press("Escape")
        page.keyboard.press("f")
        assert page.evaluate("document.activeElement.className") == "chip"
        page.keyboard.press("?")
        assert page.locator("dialog[open]").count() == 1
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0


def test_both_themes_have_contrast_and_the_key_switches(browser, study):
    with opened(browser, study[0], dark=True) as page:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert least_contrast(page) >= 4.5
        page.keyboard.press("t")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
        assert least_contrast(page) >= 4.5


def least_contrast(page) -> float:
    """The smallest WCAG contrast of a text colour on a ground that it stands on, as the page resolves them."""
    texts, grounds = ("ink", "soft", "good", "bad", "t2-text"), ("paper", "raised")
    pairs = [(text, ground) for text in texts for ground in grounds]
    pairs += [("ink", ground) for ground in ("sunk", "kept", "same", "other", "del", "ins", "hit")] + [("soft", "sunk")]
    on_ribbons = [contrast([1.0, 1.0, 1.0], colour(page, ground)) for ground in ("fixed", "broken")]
    return min(*on_ribbons, *(contrast(colour(page, text), colour(page, ground)) for text, ground in pairs))


def colour(page, name: str) -> list[float]:
    script = "(name) => { document.body.style.outlineColor = `var(--${name})`; return getComputedStyle(document.body).outlineColor }"
    return [int(value) / 255 for value in re.findall(r"\d+", page.evaluate(script, name))[:3]]


def contrast(one: list[float], other: list[float]) -> float:
    def luminance(rgb: list[float]) -> float:
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_charts_tell_the_value_under_the_pointer_and_the_keys(browser, study):
    path, entries = study
    with opened(browser, path) as page:
        made = plots.training(entries)
        assert page.locator(".plot canvas").count() == len(made) + len(entries)
        chart = page.locator(".plot", has_text="Accuracy, %").first
        first, second = (next(each for each in made[0].series if each.name == f"{name} attempt") for name in ("first", "second"))
        assert f"second attempt{100 * second.y[-1]:.1f}" in chart.inner_text().replace("\n", "")
        chart.locator(".canvas").focus()
        page.keyboard.press("ArrowRight")
        assert "step 1" in chart.inner_text()
        box = chart.locator(".u-over").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        told = re.search(r"first attempt([\d.]+).*second attempt([\d.]+).*step (\d+)", chart.inner_text().replace("\n", ""))
        at = made[0].x.index(int(told[3]))
        assert at in (24, 25)  # in the middle of 50 steps
        assert (float(told[1]), float(told[2])) == (round(100 * first.y[at], 1), round(100 * second.y[at], 1))


HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} \" onmouseover=alert(3) x='\n"
    "$\\href{javascript:alert(4)}{x}$ \\(\\htmlStyle{position:fixed}{y}\\) $\\includegraphics{https://example.org/a.png}$\n"
    "$\\def\\a{\\a\\a}\\a$ $\\rule{9999em}{9999em}$ <!-- <svg/onload=alert(5)> ]]> &lt;b&gt;\n"
    "\u202egnp.exe\u202c zero\u200bwidth \x00\x1b[31m"
)


def test_hostile_text_stays_text(browser, tmp_path):
    bad = episode("wc", problem=HOSTILE, texts=(HOSTILE, f"{HOSTILE} again"), answers=(HOSTILE, "7"), level=HOSTILE, subject=HOSTILE)
    ruled = Verdict(status="wrong", why=HOSTILE, rule=HOSTILE, gold_form=HOSTILE, pred_form=HOSTILE)
    turns = (replace(bad.turns[0], verdict=ruled), bad.turns[1])
    bad = replace(bad, problem=replace(bad.problem, question=HOSTILE, reference=replace(bad.problem.reference, text=HOSTILE)), turns=turns)
    said = (((HOSTILE, "correct"),), ())
    entry = Entry(name=HOSTILE, episodes=[bad, episode("cc")], second={(HOSTILE, 0): said})
    write_report(tmp_path / "r.html", HOSTILE, [entry, replace(entry, name="Other")], notes=[HOSTILE])
    with opened(browser, tmp_path / "r.html") as page:
        page.wait_for_selector(".attempt .said")
        for selector in ("img", "iframe", "object", "embed", "a[href^=javascript]", "[onerror]", "[onmouseover]", "[onload]"):
            assert page.locator(selector).count() == 0, selector
        assert page.locator(".attempt .said").first.text_content().count("<script>alert(1)</script>") >= 1
        assert {"U+202E", "U+202C", "U+200B", "U+0000", "U+001B"} <= set(page.locator(".attempt .ctl").all_text_contents())
        assert page.locator(".why").first.is_visible()
        box, why = page.locator(".attempt .said").first.bounding_box(), page.locator(".why").first.bounding_box()
        assert box["y"] + box["height"] <= why["y"] + 1  # no formula reaches over the verdict
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.fill("input[type=search]", "<img src=x onerror")
        tally(page, "2 of 4")


@pytest.mark.parametrize(
    "sink",
    [
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "el.text = '1'",
        "el.src = 'data:,1'",
    ],
)
def test_the_policy_refuses_every_way_from_a_string_to_markup_or_script(browser, small, sink):
    with opened(browser, small, expected="requires 'Trusted") as page:
        tried = f"const el = document.createElement('script'); try {{ {sink}; return 'done' }} catch (error) {{ return error.name }}"
        assert page.evaluate(f"() => {{ {tried} }}") == "TypeError"


def test_ten_thousand_episodes_open_and_only_rows_in_sight_exist(browser, tmp_path):
    made = population(5, 10_000, acc=0.6, fix=0.3, broke=0.1, copy=0.5)
    write_report(tmp_path / "big.html", "Big", [Entry(name="Model", episodes=made)])
    assert (tmp_path / "big.html").stat().st_size < 50e6
    with opened(browser, tmp_path / "big.html") as page:
        tally(page, "10,000 episodes")
        assert page.locator(".row").count() < 40
        page.locator(".list").focus()
        page.keyboard.press("End")
        shown_id(page, "sum-9999")
        page.fill("input[type=search]", "sum-7777")
        tally(page, "1 of 10,000")


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_sideways_scrolling(browser, study, small, dark):
    for path in (study[0], small):
        with opened(browser, path, width=375, height=720, dark=dark) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= 375
            page.locator(".row").nth(1).click()
            page.wait_for_selector(".panes.open .attempt")
            assert page.evaluate("document.querySelector('.episode').scrollWidth") <= 375
            page.click("text=‹ List")
            assert page.locator(".panes.open").count() == 0


def test_libraries_come_only_with_what_needs_them(small, tmp_path):
    write_report(tmp_path / "plain.html", "T", [Entry(name="Model", episodes=[episode("wc"), episode("cc", problem="q")])])
    plain, rich = (tmp_path / "plain.html").read_text(), small.read_text()
    for mark in ("KaTeX_Main", "registerLanguage"):
        assert mark in rich
        assert mark not in plain


def test_no_class_that_formulas_are_given_is_one_of_the_style(browser, tmp_path):
    """Or a part of a formula would be laid out as a part of the page, as `\\text` once was."""
    many = r"$\text{area} \sqrt[3]{x} \frac{1}{2} \llap{a}\smash{b}\boxed{c}\underbrace{d}_{e}\overline{f}\xrightarrow{g}\Big(\cancel{h}$"
    array = r"\begin{array}{c|c}1&2\\\hline 3&4\end{array}"
    write_report(tmp_path / "r.html", "T", [Entry(name="M", episodes=[two_texts("p", many, array)])])
    ours = set(re.findall(r"\.([a-z][\w-]*)", re.sub(r"/\*.*?\*/", "", (HERE / "style.css").read_text(), flags=re.DOTALL)))
    with opened(browser, tmp_path / "r.html") as page:
        page.wait_for_selector(".attempt .katex")
        given = set(page.evaluate("[...document.querySelectorAll('.attempt .katex *')].flatMap((node) => [...node.classList])"))
        assert {"text", "sqrt", "mfrac", "mtable"} <= given
        assert ours & given == set()
