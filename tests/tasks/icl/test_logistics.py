import random
from collections import deque
from dataclasses import replace

import pytest

from posttrain.config import ConfigError
from posttrain.tasks.icl.logistics import LogisticsInContext, check, generate, shortest_length
from posttrain.tasks.icl.logistics_search import bound, shortest_plan
from posttrain.tasks.icl.logistics_world import NotAllowed, allowed, apply, check_plan, read_world, written, written_plan
from posttrain.types import DataError
from tests.tasks.icl.fixtures import HOSTILE, icl_task

PROBLEM = """\
(define (problem by-hand)
 (:domain logistics-strips)
 (:objects a0 c0 c1 t0 t1 l0-0 l0-1 l1-0 p0)
 (:init (AIRPLANE a0) (CITY c0) (CITY c1) (TRUCK t0) (TRUCK t1) (OBJ p0)
  (LOCATION l0-0) (LOCATION l0-1) (LOCATION l1-0) (AIRPORT l0-0) (AIRPORT l1-0)
  (in-city l0-0 c0) (in-city l0-1 c0) (in-city l1-0 c1)
  (at a0 l1-0) (at t0 l0-0) (at t1 l1-0) (at p0 l0-1))
 (:goal (and (at p0 l1-0))))
"""
PLAN = [
    "(fly-airplane a0 l1-0 l0-0)",
    "(drive-truck t0 l0-0 l0-1 c0)",
    "(load-truck p0 t0 l0-1)",
    "(drive-truck t0 l0-1 l0-0 c0)",
    "(unload-truck p0 t0 l0-0)",
    "(load-airplane p0 a0 l0-0)",
    "(fly-airplane a0 l0-0 l1-0)",
    "(unload-airplane p0 a0 l1-0)",
]
SMALL = {"pool_size": 30, "test_size": 12}


def checked(*steps: str):
    return check_plan(read_world(PROBLEM), "\n".join(steps))


def test_a_plan_that_works_reaches_the_goal_whatever_case_and_words_around_it():
    assert checked(*PLAN).reached
    assert checked("Here is my plan:", *[f"{n}. {step.upper()}" for n, step in enumerate(PLAN, 1)], "done.").reached


def test_a_longer_plan_is_right_as_well():
    detour = checked(*PLAN, "(drive-truck t0 l0-0 l0-1 c0)")
    assert (detour.reached, detour.steps) == (True, 9)


@pytest.mark.parametrize(
    ("step", "instead", "why"),
    [
        (
            1,
            "(fly-airplane a0 l1-0 l0-1)",
            "step 1, (fly-airplane a0 l1-0 l0-1): l0-1 is of kind location, fly-airplane needs airport there",
        ),
        (1, "(fly-airplane a0 l0-0 l1-0)", "a0 is not at or in l0-0, it is at or in l1-0"),
        (2, "(drive-truck t0 l0-0 l1-0 c0)", "l1-0 is in c1, not in c0"),
        (2, "(drive-truck t0 l0-0 l0-1 c1)", "l0-0 is in c0, not in c1"),
        (2, "(drive-truck t0 l0-0 l0-1)", "drive-truck takes 4 arguments (truck, location, location, city), found 3"),
        (2, "(drive-truck t2 l0-0 l0-1 c0)", "there is no object 't2'"),
        (3, "(load-truck p0 t0 l0-0)", "t0 is not at or in l0-0, it is at or in l0-1"),
        (3, "(load-truck t0 p0 l0-1)", "t0 is of kind truck, load-truck needs package there"),
        (3, "(pick-up p0 t0 l0-1)", "there is no action 'pick-up'"),
        (3, "()", "there is no action ''"),
        (5, "(unload-airplane p0 a0 l0-0)", "p0 is not at or in a0, it is at or in t0"),
        (6, "(load-truck p0 t1 l0-0)", "t1 is not at or in l0-0, it is at or in l1-0"),
    ],
)
def test_a_wrong_step_is_named_with_what_forbids_it(step, instead, why):
    result = checked(*PLAN[: step - 1], instead, *PLAN[step:])
    assert (result.reached, result.failed_at) == (False, step)
    assert why in result.why


def test_a_plan_that_stops_early_says_where_the_package_is():
    result = checked(*PLAN[:-1])
    assert (result.reached, result.failed_at, result.why) == (False, 0, "after 7 steps p0 is in a0, its goal is l1-0")
    assert checked().why == "after 0 steps p0 is at l0-1, its goal is l1-0"


def test_a_step_that_is_not_allowed_changes_nothing():
    world = read_world(PROBLEM)
    state = dict(world.start)
    with pytest.raises(NotAllowed):
        apply(world, state, ("drive-truck", "t0", "l0-0", "l1-0", "c0"))
    assert state == world.start


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_model_writes_is_a_plan_that_fails(text):
    assert not check_plan(read_world(PROBLEM), text).reached


def test_a_shortest_plan_is_found_for_the_problem_by_hand():
    world = read_world(PROBLEM)
    assert len(shortest_plan(world)) == len(PLAN)
    assert check_plan(world, written_plan(shortest_plan(world))).reached


def distances_to_goal(world) -> dict[tuple, int]:
    """How far every state is from a goal state, by plain breadth-first search backwards over all states."""
    start = tuple(world.start.items())
    backwards: dict[tuple, list[tuple]] = {start: []}
    queue = deque([start])
    while queue:
        key = queue.popleft()
        for action in allowed(world, dict(key)):
            after = dict(key)
            apply(world, after, action)
            after_key = tuple(after.items())
            if after_key not in backwards:
                backwards[after_key] = []
                queue.append(after_key)
            backwards[after_key].append(key)
    far = {key: 0 for key in backwards if all(dict(key)[package] == place for package, place in world.goal.items())}
    queue = deque(far)
    while queue:
        key = queue.popleft()
        for before in backwards[key]:
            if before not in far:
                far[before] = far[key] + 1
                queue.append(before)
    return far


@pytest.mark.parametrize(
    "fields",
    [
        {"cities": (2, 2), "places": (1, 3), "packages": (1, 1)},
        {"cities": (2, 3), "places": (1, 2), "packages": (1, 2)},
        {"cities": (1, 1), "places": (3, 4), "packages": (2, 2)},
    ],
)
def test_plans_are_shortest_and_the_bound_never_counts_too_much_in_any_state(fields):
    worlds = generate(LogisticsInContext(**fields), random.Random("bfs"))
    for world, _ in zip(worlds, range(5)):
        far = distances_to_goal(world)
        assert len(shortest_plan(world)) == far[tuple(world.start.items())]
        assert all(bound(world, dict(key)) <= steps for key, steps in far.items())


def test_the_actions_allowed_are_exactly_those_that_can_be_done():
    world = read_world(PROBLEM)
    names = ["load-truck", "unload-truck", "load-airplane", "unload-airplane", "drive-truck", "fly-airplane"]
    objects = list(world.kinds)
    rng = random.Random(0)
    for _ in range(3000):
        action = (rng.choice(names), *rng.choices(objects, k=rng.randint(2, 4)))
        try:
            apply(world, dict(world.start), action)
        except NotAllowed:
            continue
        assert action in set(allowed(world, world.start)) or action[2] == action[3]  # staying is allowed in PDDL, and useless
    for action in allowed(world, world.start):
        apply(world, dict(world.start), action)


def test_problems_are_the_same_each_time_disjoint_and_solved_by_their_own_solution():
    task = icl_task("logistics", **SMALL)
    pool, test = task.load("pool"), task.load("test")
    assert (len(pool), len(test)) == (30, 12)
    assert pool == icl_task("logistics", **SMALL).load("pool")
    assert pool[:10] == icl_task("logistics", pool_size=10, test_size=12).load("pool")
    assert not {problem.question for problem in pool} & {problem.question for problem in test}
    assert task.score([(problem, problem.solution) for problem in pool]) == [1.0] * 30
    assert all(len(problem.solution.splitlines()) == int(problem.level) == shortest_length(problem) for problem in pool)


def test_sizes_stay_within_what_was_asked():
    cfg = LogisticsInContext(cities=(2, 3), places=(1, 2), packages=(1, 2))
    for world, _ in zip(generate(cfg, random.Random(0)), range(50)):
        assert len(world.of("city")) in (2, 3)
        assert len(world.goal) in (1, 2)
        assert len(world.of("truck")) == len(world.of("city")) == len(world.ports)
        assert len(world.of("airplane")) == 1
        assert all(world.start[package] != place for package, place in world.goal.items())
        assert read_world(written(world)) == world


def test_success_and_shortness_are_two_figures():
    task = icl_task("logistics", **SMALL)
    problem = replace(task.load("test")[0], question=PROBLEM)
    problem = replace(problem, reference=replace(problem.reference, text="\n".join(PLAN)))
    there_and_back = ["(drive-truck t0 l0-0 l0-1 c0)", "(drive-truck t0 l0-1 l0-0 c0)"]
    pairs = [(problem, "\n".join(PLAN)), (problem, "\n".join(there_and_back + PLAN)), (problem, "")]
    assert task.score(pairs) == [1.0, 1.0, 0.0]
    assert task.figures(pairs) == pytest.approx({"shortest plan": 1 / 3, "needless steps": 2 / 18})
    assert task.figures([(problem, "")]) == {"shortest plan": 0.0}
    assert check(problem, "").why == "after 0 steps p0 is at l0-1, its goal is l1-0"


@pytest.mark.parametrize(
    ("found", "instead", "said"),
    [
        ("(in-city l0-1 c0)", "", "l0-1 is in no city"),
        ("(at t0 l0-0)", "", "t0 is nowhere"),
        ("(at a0 l1-0)", "(at a0 l0-1)", "a0 is at or in l0-1, no place for it"),
        ("(at p0 l0-1))", "(at p0 moon))", "p0 is at or in moon, no place for it"),
        ("(AIRPORT l1-0)", "", "c1 has no airport or several"),
        ("(at p0 l1-0)", "(at t0 l1-0)", "the goal names t0, no package"),
        ("(at p0 l1-0)", "(in p0 a0)", "a goal must be (at package location), found (in p0 a0)"),
        ("(:goal (and (at p0 l1-0))))", "", "expected one (:init ...) and one (:goal ...)"),
        ("(OBJ p0)", "(SHIP p0)", "no fact of the Logistics domain: (ship p0)"),
    ],
)
def test_a_problem_that_makes_no_sense_is_an_error_that_says_what(found, instead, said):
    assert found in PROBLEM
    with pytest.raises(DataError) as error:
        read_world(PROBLEM.replace(found, instead), "rows.jsonl:3")
    assert str(error.value).startswith("rows.jsonl:3: ")
    assert said in str(error.value)


def test_asking_for_more_problems_than_there_are_is_an_error_with_both_numbers():
    with pytest.raises(DataError, match=r"only \d+ different problems of 500 asked for in pool"):
        icl_task("logistics", cities=[1, 1], places=[2, 2], packages=[1, 1], pool_size=500).load("pool")


@pytest.mark.parametrize("fields", [{"cities": [3, 2]}, {"packages": [0, 1]}, {"cities": [1, 1], "places": [1, 1]}])
def test_sizes_that_cannot_be_are_refused(fields):
    with pytest.raises(ConfigError, match="task"):
        icl_task("logistics", **fields)
