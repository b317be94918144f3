import json

import pytest

from posttrain.rollout.store import write_episodes
from posttrain.tasks.icl.verifier import BestOf, best_of
from posttrain.types import Completion, DataError, Episode, Turn, Verdict
from tests.tasks.icl.fixtures import HOSTILE, SHARED, icl_task, item, sources

FILES = sources("verifier_pool.jsonl", "verifier_test.jsonl")


def test_a_shot_is_a_solution_with_its_verdict():
    wrong, right = icl_task("verifier", sources=FILES).load("pool")[:2]
    assert wrong.question == "A pen costs 3 coins. What do 4 pens cost?\n\nSolution:\n4 + 3 = 7 coins."
    assert (wrong.solution, right.solution) == ("No", "Yes")


def test_test_items_are_so_many_candidates_to_every_problem():
    test = icl_task("verifier", sources=FILES, test_items=2).load("test")
    assert [problem.id for problem in test] == [f"test/{problem}#{nth}" for problem in (1, 2) for nth in (1, 2, 3, 4)]
    assert [problem.reference.text for problem in test] == ["No", "Yes", "No", "Yes", "No", "Yes", "No", "No"]


def test_a_problem_with_too_few_candidates_is_an_error_with_the_numbers():
    with pytest.raises(DataError, match=r"has 4 candidate solutions, task.candidates asks for 5"):
        icl_task("verifier", sources=FILES, candidates=5).load("test")


@pytest.mark.parametrize("verdict", ["yes", 1, None])
def test_a_verdict_that_is_neither_true_nor_false_is_an_error_with_its_line(tmp_path, verdict):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "q", "solution": "s", "correct": verdict}) + "\n")
    with pytest.raises(DataError, match=r"rows.jsonl:1: expected 'correct' or .* as true or false; found 'correct' as"):
        icl_task("verifier", sources={"pool": str(tmp_path / "rows.jsonl")}).load("pool")


def episode(*attempts: tuple[str, str]) -> Episode:
    completion = Completion(ids=(1,), logprobs=(0.0,), finish="stop")
    turns = [
        Turn(prompt_ids=(7, *[1] * nth), completion=completion, text=text, answer=None, verdict=Verdict(status=status))
        for nth, (text, status) in enumerate(attempts)
    ]
    return Episode(problem=item("2", question="1+1?"), turns=tuple(turns))


def test_a_stored_evaluation_is_a_file_of_candidates_its_first_attempts(tmp_path):
    path = tmp_path / "episodes.jsonl"
    write_episodes(path, [episode((" 2 ", "correct"), ("3", "wrong")), episode(("3", "no_answer")), episode(("4", "unscored"))])
    pool = icl_task("verifier", sources={"pool": str(path)}).load("pool")
    assert [(shot.question, shot.solution) for shot in pool] == [("1+1?\n\nSolution:\n2", "Yes"), ("1+1?\n\nSolution:\n3", "No")]
    write_episodes(path, [episode()])
    with pytest.raises(DataError, match=r"episodes.jsonl:1: not an episode: IndexError"):
        icl_task("verifier", sources={"pool": str(path)}).load("pool")


def test_the_first_word_is_the_verdict():
    score = icl_task("verifier", sources=FILES).score
    assert score([(item("Yes"), text) for text in (" Yes\n", "yes.", "Yes, it is", "No", "Yesterday", "")]) == [1, 1, 1, 0, 0, 0]
    assert set(score([(item("No"), text) for text in HOSTILE])) == {0.0}


def test_best_of_four_worked_by_hand():
    """Problem 1, 2 of 4 right: the likeliest is right. Problem 2, 1 of 4: two share the lead, one of them is right. Problem 3: none."""
    candidates = icl_task("verifier", sources=FILES).load("test")
    prob_yes = [0.1, 0.9, 0.2, 0.3, 0.7, 0.7, 0.1, 0.2, 0.1, 0.2, 0.3, 0.4]
    assert best_of(candidates, prob_yes) == BestOf(problems=3, pass_1=(0.5 + 0.25) / 3, picked=(1 + 0.5) / 3, pass_n=2 / 3)


def test_a_perfect_verifier_reaches_pass_at_n_and_one_that_knows_nothing_pass_at_1():
    candidates = icl_task("verifier", sources=FILES).load("test")
    perfect = best_of(candidates, [float(candidate.reference.text == "Yes") for candidate in candidates])
    nothing = best_of(candidates, [0.5] * len(candidates))
    assert perfect.picked == perfect.pass_n
    assert nothing.picked == nothing.pass_1


def test_figures_set_the_picks_beside_their_bounds_and_right_beside_wrong():
    task = icl_task("verifier", sources=FILES)
    weighed = [(problem, {"Yes": 0.8 if problem.solution == "Yes" else 0.3, "No": 0.5}) for problem in task.load("test")]
    named = task.weigh(weighed)
    assert named == pytest.approx({"pass@1": 0.25, "picked": 2 / 3, "pass@n": 2 / 3, "P(yes) if right": 0.8, "P(yes) if wrong": 0.3})


def test_published_solutions_of_four_models_are_candidates_as_they_come():
    path = SHARED / "gsm8k_model_outputs_dev.jsonl.gz"
    if not path.is_file():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    test = icl_task("verifier", sources={"pool": str(path), "test": str(path)}, test_items=None).load("test")
    oracle = best_of(test, [float(problem.reference.text == "Yes") for problem in test])
    assert (oracle.problems, oracle.pass_1) == (531, pytest.approx(788 / 2124))
    assert oracle.pass_1 < oracle.picked == oracle.pass_n < 1
