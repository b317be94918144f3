"""A task behind solved shots: what is asked, what is left out, and that SCoRe trains on it."""

import pytest

from posttrain import cli
from posttrain.config import build
from posttrain.prompting.shots import PromptError, human_shots, write_shots
from posttrain.rl import score
from posttrain.rl.recipe import Config as ScoreConfig
from posttrain.rollout.store import read_episodes
from posttrain.tasks import make_task, sums
from posttrain.tasks.sums import SumsTask
from posttrain.tasks.with_shots import WithShotsTask
from tests.sums_base import TASK

PLAIN = SumsTask(**{key: value for key, value in TASK.items() if key != "kind"})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "shots.jsonl"
    write_shots(path, human_shots(sums.load(PLAIN, "train")[:5]))
    return str(path)


def test_the_block_is_the_same_before_every_question_and_the_question_is_asked_as_ever(file):
    behind, plain = make_task(WithShotsTask(task=PLAIN, shots=(file,), count=3, preamble="Like this:\n")), sums.make(PLAIN)
    first, second = behind.load("train")[:2]
    (asked,), (bare,) = behind.ask(first), plain.ask(first)
    block = asked.content.removesuffix(bare.content)
    assert block.startswith("Like this:\n")
    assert block.count("\\boxed") == 3
    assert behind.ask(second)[0].content == block + second.question
    assert (behind.revise, behind.grade([(first, "x")])) == (plain.revise, plain.grade([(first, "x")]))


def test_problems_that_stand_in_the_block_are_not_asked(file):
    behind = make_task(WithShotsTask(task=PLAIN, shots=(file,), count=3))
    assert [p.id for p in behind.load("train")] == [p.id for p in sums.load(PLAIN, "train")[3:]]


def test_more_shots_than_there_are_is_one_line_with_the_numbers(file):
    with pytest.raises(PromptError, match=r"9 shots were asked for, but .*shots.jsonl leave 5 of 5 shots"):
        make_task(WithShotsTask(task=PLAIN, shots=(file,), count=9))


def test_score_trains_behind_shots(file, sums_base, tmp_path):
    recipe = {"model": str(sums_base), "task": {"kind": "with_shots", "task": TASK, "shots": [file], "count": 2}, "steps": 1}
    recipe |= {"problems_per_step": 2, "samples": 4, "kl": {"coef": [0.01, 0.01]}, "sampling": {"max_tokens": 8}, "optim": {"lr": 1e-3}}
    assert score.main(build(ScoreConfig, [("test", recipe | {"checkpoint": {"every": 1}})]), tmp_path / "run", resume=False) == 0
    episodes = list(read_episodes(tmp_path / "run" / "episodes" / "step_000001.jsonl"))
    prompts = {episode.turns[0].prompt_ids for episode in episodes}
    shared = next(i for i, ids in enumerate(zip(*prompts)) if len(set(ids)) > 1)
    assert shared > 20  # both questions stand behind the same tokens


def test_a_data_check_looks_at_what_is_asked_behind_the_block(file, tmp_path, capsys):
    (tmp_path / "suite.yaml").write_text(
        f"kind: eval\ntask: {{kind: with_shots, task: {{kind: sums, test_size: 5}}, shots: ['{file}'], count: 1}}\n"
    )
    assert cli.main(["data", "check", str(tmp_path / "suite.yaml"), "--split", "test"]) == 0
    assert "5 of 5 references pass" in capsys.readouterr().out
