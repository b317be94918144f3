"""Every command in README.md, in docs/ and in a new project's README is tried: what it names exists, and every flag and key is known.

How a command is tried, by its first words, is the table `HOW`; nothing here trains, samples or needs a network. What a new project's
commands do is tried for real in test_new_project.py.
"""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from posttrain import cli
from posttrain.completion import parser_of
from posttrain.config import build, read_flags, read_yaml
from posttrain.new_project import make
from posttrain.tasks.check import task_config
from tests.kinds import class_of

INDENTED = re.compile(r"    (posttrain|make|pip|[A-Z_]+=\S+ posttrain) ")
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "posttrain" / "project" / "README.md"]


def commands(page: Path) -> Iterator[str]:
    """The commands in fenced blocks of bash and in indented blocks, without comments, one by one."""
    fenced = ""
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            fenced = "" if fenced else line[3:] or "text"
            continue
        indented = not fenced and INDENTED.match(line)
        if fenced == "bash" or indented:
            for command in re.sub(r"\s+#.*|^#.*", "", line.strip()).split("&&"):
                if command.strip():
                    yield command.strip()


def tried_by_dry_run(words: list[str]) -> None:
    """train, eval: the very command, stopped once its recipe or suite is resolved."""
    assert cli.main(words if "--help" in words else [*words, "--dry-run"]) == 0


def tried_by_parser(words: list[str]) -> None:
    """The verb's own parser takes all of it."""
    verb, *rest = words
    if "--help" not in rest:
        parser_of(cli.VERBS[verb][0], []).parse_args(rest)


def tried_grade(words: list[str]) -> None:
    parser_of(cli.VERBS["grade"][0], words[1:2]).parse_args(words[2:])


def tried_data(words: list[str]) -> None:
    """The parser takes its own words; the rest are keys of the task."""
    own, flags = parser_of(cli.VERBS["data"][0], words[1:2]).parse_known_args(words[2:])
    task_config(own.what, flags)


def tried_prompt(words: list[str]) -> None:
    """One of three works; what its parser leaves are keys of the recipe, or of its task."""
    rest = words[1:]
    if rest[0] == "reinforce":
        module, call, rest = "posttrain.evaluation.reinforce", [], rest[1:]
    else:
        manyshot = rest[0].endswith(".yaml") and read_yaml(rest[0])[1]["kind"] == "manyshot"
        module, call = ("posttrain.tasks.manyshot", []) if manyshot else ("posttrain.tasks.show", ["WHAT"])
    _, flags = parser_of(module, call).parse_known_args(rest)
    if rest[0].endswith(".yaml"):
        layer = read_yaml(rest[0])
        build(class_of(layer[1]), [layer, *([read_flags(flags)] if flags else [])])
    else:
        task_config(rest[0], flags)


def tried_make(words: list[str]) -> None:
    subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True, timeout=60)


def tried_launch(words: list[str]) -> None:
    """torchrun: what it would start."""
    tried_by_dry_run(words[words.index("posttrain.cli") + 1 :])


def tried_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[:2] == ["pip", "install"]
    assert set(re.findall(r"\[([^]]+)\]", " ".join(words))) <= set(extras)


HOW: dict[str, Callable[[list[str]], None]] = {
    "posttrain train": tried_by_dry_run,
    "posttrain eval": tried_by_dry_run,
    "posttrain prompt": tried_prompt,
    "posttrain grade": tried_grade,
    "posttrain data": tried_data,
    **{
        f"posttrain {verb}": tried_by_parser
        for verb in (
            "init",
            "doctor",
            "report",
            "publish",
            "play",
            "watch",
            "completion",
            "compare",
            "regrade",
            "export",
            "import",
            "openended",
        )
    },
    "make": tried_make,
    "pip": tried_pip,
    "torchrun": tried_launch,
    "cd": lambda words: None,
}
FOUND = sorted({(str(page.relative_to(ROOT)), command) for page in PAGES for command in commands(page)})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "mine"
    make(folder)
    return folder


def split(command: str) -> list[str]:
    """The words, without settings of the environment before them and redirections after."""
    words = shlex.split(re.sub(r"\s+[<>]\s*\S+$", "", command))
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    return words


def tried(words: list[str]) -> None:
    """Ways of `posttrain` get the words from the verb on, others all."""
    if words[0] == "posttrain":
        HOW[" ".join(words[:2])](words[1:])
    else:
        HOW[words[0]](words)


@pytest.mark.parametrize(("page", "command"), FOUND)
def test_a_command_of_the_documentation_is_known_with_all_its_flags(page, command, project, monkeypatch):
    words = split(command)
    inside = [word for word in words if word.endswith((".yaml", ".py"))]
    monkeypatch.chdir(project if inside and not any((ROOT / word).exists() for word in inside) else ROOT)
    tried(words)
    for word in inside:
        assert Path(word).exists(), f"{page}: {word}"


@pytest.mark.parametrize(
    "command",
    [
        "posttrain train recipes/score_sums/plain.yaml --optim.lrr 1",
        "posttrain eval evals/suites/sums_two_attempts.yaml --model m --sampling.heat 1",
        "posttrain report runs/a --againts Base",
        "posttrain grade code samples.jsonl --problem HumanEval.jsonl.gz --works 8",
        "posttrain data check math --tasks.limit 3",
        "posttrain prompt recipes/manyshot_math/human.yaml --model m --shown",
        "make tset",
        "pip install '.[gpu]'",
    ],
)
def test_a_flag_key_or_target_that_is_not_there_is_found(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = split(command)
    with pytest.raises((AssertionError, SystemExit, ValueError, subprocess.CalledProcessError)):
        tried(words)


def test_every_page_with_commands_is_read_and_stands_in_the_menu():
    assert len({page for page, _ in FOUND}) >= 8
    menu = re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(menu) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


def test_yaml_in_the_pages_is_yaml_that_a_task_takes():
    blocks = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), flags=re.DOTALL)]
    assert blocks
    for block in blocks:
        assert isinstance(yaml.safe_load(block), dict)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_is_named_in_the_documentation(verb):
    assert any(split(command)[:2] == ["posttrain", verb] for _, command in FOUND)


def test_what_the_table_of_features_names_is_there():
    text = (ROOT / "docs" / "features.md").read_text()
    for file, name in re.findall(r"`(tests/\S+\.py)::(\w+)`", text):
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"
    named = set(re.findall(r"`make (\S+)`", text))
    assert named <= set(re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for file in re.findall(r"`(evals/\S+)`", text):
        assert (ROOT / file).is_file(), file
