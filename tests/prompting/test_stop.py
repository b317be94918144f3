import pytest

from posttrain.prompting.stop import before_stop


@pytest.mark.parametrize(
    ("text", "stop", "left"),
    [("a\n\nb", ("\n\n",), "a"), ("a#b\nc", ("\n", "#"), "a"), ("abc", ("\n",), "abc"), ("abc", (), "abc"), ("\nabc", ("\n",), "")],
)
def test_an_answer_ends_before_the_first_stop(text, stop, left):
    assert before_stop(text, stop) == left
