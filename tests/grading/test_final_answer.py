import random
import time

import pytest

from posttrain.grading.answer import fallback_answer, final_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so it is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"first \boxed{1}, no: \boxed{2}", "2"),
        (r"\boxed{x = \boxed{3}}", "3"),
        (r"\boxed 5", "5"),
        (r"\fbox{7}", "7"),
        (r"$\boxed{2}$ and $\boxed{-2}$", "2, -2"),
        (r"\boxed{2} \text{ or } \boxed{3}", "2, 3"),
        (r"$\boxed{4}$, so again $\boxed{4}$", "4"),
        (r"a stray } and { before \boxed{8}", "8"),
    ],
)
def test_the_last_box_that_closes_is_the_answer(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize("text", ["", "no answer here, 42", r"\boxed{}", r"\boxed{ }", r"\boxed{\frac{1}{", "#### Step one", "answer"])
def test_a_text_that_commits_to_nothing_has_no_answer(text):
    assert final_answer(text) is None


def test_an_empty_last_box_takes_back_an_earlier_one():
    assert final_answer(r"\boxed{1} ... \boxed{}") is None


def test_a_box_cut_off_by_the_length_limit_leaves_the_one_before():
    assert final_answer(r"\boxed{1} or rather \boxed{\frac{2}") == "1"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48/2 = 24\n#### 72", "72"),
        ("#### 1,250", "1,250"),
        ("#### -3.", "-3"),
        ("#### Step 2\nThe final answer is $\\frac12$. I hope it is correct.", "\\frac12"),
        ("Final Answer: The final answer is 2\\sqrt{3}. I hope it is correct.", "2\\sqrt{3}"),
        ("**Answer:** 42.", "42"),
        ("The answer is: **7**", "7"),
        ("The answer is 3.5 apples. Good.", "3.5 apples"),
        ("Therefore\nA: 26", "26"),
        ("Final answer: $1$ and $2$", "$1$ and $2$"),
        ("The answer is \\(x^2\\).", "x^2"),
        ("The answer is 5.\n#### 6", "6"),
        ("#### 6\nNo, the answer is 5.", "5"),
    ],
)
def test_without_a_box_the_last_closing_line_or_hashes_decide(text, answer):
    assert final_answer(text) == answer


def test_a_number_in_prose_counts_only_when_asked_for():
    text = "She walks 3 km, then 1,200 m, so 4.2 km in all"
    assert final_answer(text) is None
    assert fallback_answer(text) == ("4.2", "last number")


HOSTILE = {
    "spaces": " " * 10**6 + "\\boxed{1}",
    "open boxes": "\\boxed{" * 10**5,
    "boxes": "\\boxed{2}" * 10**5,
    "joined boxes": "\\boxed{2}, " * 10**5,
    "braces": "{" * 10**6,
    "box then spaces": "\\boxed" + " " * 10**6,
    "box words": "\\boxed \\boxed " * 10**5,
    "answer is": "answer is " * 10**5,
    "answer then spaces": "answer" + " " * 10**6,
    "stars": "answer is" + "*" * 10**6,
    "dollars": "The answer is " + "$" * 10**6,
    "hope": "answer is I hope " * 60_000,
    "hashes": "#### " * 200_000,
    "digits": "1" * 10**6,
    "thousands": "1,111" * 200_000,
    "slashes": "1/" * 500_000,
    "newlines": "A: \n" * 250_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_million_characters_are_read_in_two_seconds_of_cpu_time(name):
    started = time.process_time()
    final_answer(HOSTILE[name])
    fallback_answer(HOSTILE[name])
    assert time.process_time() - started < 2.0


def test_no_text_makes_it_raise():
    rng = random.Random(0)
    pieces = [
        "\\boxed{",
        "\\boxed ",
        "}",
        "{",
        "$",
        "\\(",
        "\\)",
        "answer is ",
        "#### ",
        "A: ",
        "1,2",
        "-",
        "\n",
        "\\",
        "и",
        "٣",
        "²",
        "\x00",
    ]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randrange(30)))
        final_answer(text)
        fallback_answer(text)
