"""`posttrain completion SHELL`: the script offers what the verbs really take; tried in bash."""

import subprocess
from pathlib import Path

import pytest

from posttrain import cli
from posttrain.completion import SHELLS, parser_of, whole_parser


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "posttrain.bash"
    import shtab

    path.write_text(shtab.complete(whole_parser(), shell="bash"))
    return path


def offered(script: Path, *words: str, cwd: Path | None = None) -> set[str]:
    """What bash offers after these words, the last of which is being typed."""
    typed = " ".join(f"'{word}'" for word in ("posttrain", *words))
    code = f"source '{script}'; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _shtab_posttrain; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_verbs_are_offered(script):
    assert offered(script, "") == set(cli.VERBS)
    assert offered(script, "pu") == {"publish"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("train", "--res"), {"--resume"}),
        (("train", "--optim.l"), {"--optim.lr"}),
        (("train", "x.yaml", "--kl.est"), {"--kl.estimator"}),
        (("train", "--kl.estimator", "k2"), {"k2_in_loss"}),
        (("eval", "--sampling.t"), {"--sampling.temperature"}),
        (("report", "--ag"), {"--against"}),
        (("grade", ""), {"math", "code", "image"}),
        (("grade", "code", "--sand"), {"--sandbox"}),
        (("data", ""), {"check", "overlap", "repair"}),
        (("publish", "--pu"), {"--push", "--public"}),
        (("completion", "z"), {"zsh"}),
    ],
)
def test_options_keys_and_choices_are_offered(script, words, found):
    assert offered(script, *words) == found


@pytest.mark.parametrize("words", [("train",), ("eval",), ("train", "x.yaml", "--out")])
def test_files_are_offered_where_one_is_named(script, tmp_path, words):
    (tmp_path / "mine.yaml").touch()
    assert offered(script, *words, "mi", cwd=tmp_path) == {"mine.yaml"}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_that_knows_an_option(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert "adapter" in capsys.readouterr().out


def test_a_parser_is_the_verbs_own():
    assert parser_of("posttrain.new_project", []).prog == "posttrain init"
