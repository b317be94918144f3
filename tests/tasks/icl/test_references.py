"""What holds for every in-context task: its own references are worth full marks, its splits are apart, its config reads back."""

import pytest

from posttrain.config import ConfigError, build, dump, load
from tests.tasks.icl.fixtures import Recipe, fixture, icl_task, sources

TASKS = {
    "math": {"sources": sources("math_train.jsonl", "math_test.jsonl")},
    "gsm8k_transfer": {"sources": sources("math_train.jsonl", "gsm8k_test.jsonl")},
    "gpqa": {"sources": sources("gpqa_main.csv", "gpqa_diamond.csv")},
    "bbh": {"source": fixture("bbh/{name}.json"), "prompts": fixture("bbh/{name}.txt"), "test_items": 4},
    "translation": {
        "target_language": "German",
        "pool": {"source": fixture("flores/eng_Latn.dev"), "target": fixture("flores/deu_Latn.dev")},
        "test": {"source": fixture("flores/eng_Latn.devtest"), "target": fixture("flores/deu_Latn.devtest")},
    },
    "summaries": {"sources": sources("xsum_validation.jsonl", "xsum_test.jsonl")},
    "sentiment": {"source": fixture("phrasebank.txt"), "test_items": 4},
    "verifier": {"sources": sources("verifier_pool.jsonl", "verifier_test.jsonl")},
    "logistics": {"pool_size": 8, "test_size": 4},
    "sums": {"problems": {"train_size": 8, "test_size": 4}},
}
WRITTEN = {"math": "\\boxed{{{}}}", "gsm8k_transfer": "\\boxed{{{}}}", "gpqa": "Final Answer: {}", "bbh": "So the answer is {}."}


@pytest.mark.parametrize("kind", TASKS)
def test_every_reference_written_as_an_answer_is_worth_full_marks(kind):
    task = icl_task(kind, **TASKS[kind])
    problems = task.load("pool") + task.load("test")
    texts = [WRITTEN.get(kind, "{}").format(problem.reference.text) for problem in problems]
    assert task.score(list(zip(problems, texts))) == pytest.approx([1.0] * len(problems))


@pytest.mark.parametrize("kind", TASKS)
def test_a_persons_solution_where_there_is_one_is_worth_full_marks(kind):
    task = icl_task(kind, **TASKS[kind])
    solved = [problem for problem in task.load("pool") if problem.solution]
    assert task.score([(problem, problem.solution) for problem in solved]) == pytest.approx([1.0] * len(solved))


@pytest.mark.parametrize("kind", TASKS)
def test_no_test_question_is_in_the_pool_and_ids_are_unique(kind):
    task = icl_task(kind, **TASKS[kind])
    pool, test = task.load("pool"), task.load("test")
    assert not {problem.question for problem in pool} & {problem.question for problem in test}
    assert len({problem.id for problem in pool + test}) == len(pool) + len(test)


@pytest.mark.parametrize("kind", TASKS)
def test_a_reference_never_shows_in_a_question_but_as_one_of_several_choices(kind):
    task = icl_task(kind, **TASKS[kind])
    for problem in task.load("test"):
        if kind == "gpqa":
            assert all(f"({mark}) " in problem.question for mark in "ABCD")
        elif len(problem.reference.text) > 8:
            assert problem.reference.text not in problem.question


@pytest.mark.parametrize("kind", TASKS)
def test_an_answer_starts_on_a_line_of_its_own_and_its_stop_comes_in_the_divider(kind):
    """An answer's first token is then the same in a shot and in what a model writes; a model that goes on with a next shot is cut."""
    task = icl_task(kind, **TASKS[kind])
    assert task.layout.answer_label.endswith("\n")
    assert any(stop in f"{task.layout.divider}{task.layout.question_label}" for stop in task.stop)


@pytest.mark.parametrize("kind", TASKS)
def test_a_config_reads_back_from_its_own_dump(kind, tmp_path):
    cfg = build(Recipe, [("recipe", {"task": {"kind": kind, **TASKS[kind]}})])
    (tmp_path / "recipe.yaml").write_text(dump(cfg))
    assert load(Recipe, [tmp_path / "recipe.yaml"]) == cfg


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"kind": "gqpa"}, "task"),
        ({"kind": "gpqa", "choise_seed": 1}, "task.choise_seed: unknown key; did you mean 'choice_seed'"),
        ({"kind": "sentiment", "labels": "flip"}, "task.labels"),
        ({"kind": "verifier"}, "task.sources"),
        ({"kind": "bbh", "test_items": 0}, "task.test_items"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_it(task, said):
    with pytest.raises(ConfigError, match=said):
        build(Recipe, [("recipe.yaml", {"task": task})])
