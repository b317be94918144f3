import time

import pytest

from posttrain.grading.program import code_in, program_in

PROMPT = 'from typing import List\n\n\ndef first(items: List[int]) -> int:\n    """The first item."""\n'
BODY = "    return items[0]\n"
WHOLE = "def first(items):\n    return items[0]\n"


def program(text):
    return program_in(text, prompt=PROMPT, entry_point="first")


@pytest.mark.parametrize("text", [BODY, "\n" + BODY, "\treturn items[0]", "    # ```\n" + BODY])
def test_a_bare_continuation_is_taken_letter_by_letter(text):
    assert program(text) == (PROMPT + text, "continuation")


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{WHOLE}```",
        f"```\n{WHOLE}```",
        f"```py\n{WHOLE}```\n",
        f"~~~python\n{WHOLE}~~~",
        f"````python\n{WHOLE}````",
        f"Sure.\n\n```Python\n{WHOLE}```\n\nThat is all.",
        f"```python\n{WHOLE}",
        "1. Code:\n\n   ```python\n   def first(items):\n       return items[0]\n   ```\n",
        f"```python\n{WHOLE}```\nUse it so:\n```python\nprint(first([1]))\n```",
        f"```bash\npip install x\n```\n```python\n{WHOLE}```\n```text\n1\n```",
    ],
)
def test_a_block_that_defines_the_function_goes_behind_the_prompt(text):
    assert program(text) == (f"{PROMPT}\n\n{WHOLE}", "block")


def test_of_several_definitions_the_last_counts():
    text = "First try:\n```python\ndef first(items):\n    return None\n```\nNo, rather:\n```python\n" + WHOLE + "```"
    assert program(text)[0].endswith(WHOLE)


def test_a_block_with_the_body_alone_continues_the_prompt():
    assert program(f"The body:\n```python\n{BODY}```") == (PROMPT + BODY, "continuation")


def test_without_a_fence_the_definition_is_read_up_to_the_prose_after_it():
    text = f"Here is the function.\n\n{WHOLE}\nThis returns the first item of the list.\n"
    assert program(text) == (f"{PROMPT}\n\n{WHOLE}\n", "definition")


def test_a_repeated_signature_replaces_the_prompts(tmp_path):
    found, form = program(WHOLE)
    space: dict = {}
    exec(found, space)
    assert (space["first"]([7, 8]), form) == (7, "definition")


def test_future_imports_come_first():
    found, _ = program(f"```python\nfrom __future__ import annotations\nimport math\n\n{WHOLE}```")
    assert found.startswith("from __future__ import annotations\nfrom typing")
    compile(found, "program", "exec")


@pytest.mark.parametrize("text", ["", " \n ", "I do not know.", "```python\n```", "```\n   \n```", "The answer is 42!"])
def test_a_text_without_code_is_no_program(text):
    assert program(text) is None


def test_text_within_a_docstring_is_no_prose_after_the_program():
    text = 'def first(items):\n    """Return it.\n\nThis line stands at the margin.\n"""\n    return items[0]\n'
    assert code_in(text, "first").source == text


@pytest.mark.parametrize("part", ["```", "```python\n", "def f", '"""', "`" * 50, "x = 1\n", "\n", "~~~\n```\n"])
def test_a_long_text_is_read_in_time_that_grows_with_its_length(part):
    text = part * (200_000 // len(part))
    code_in(text[:1000], "f")
    start = time.process_time()
    code_in(text, "f")
    assert time.process_time() - start < 20  # a quadratic reader takes minutes
