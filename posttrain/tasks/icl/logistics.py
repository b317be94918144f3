"""Planning: generated problems of the Logistics domain in PDDL, with a shortest plan each; a right answer is any plan that works.

    (load-truck p0 t0 l0-1)            p0 into truck t0 at location l0-1
    (drive-truck t0 l0-1 l0-0 c0)      to the airport of city c0
    ...

Reading order: `logistics_world.py` (rules, texts, validator), `logistics_search.py` (shortest plans), this file (problems and score).
A hash of the problem's text decides its split, so no problem stands in both.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from posttrain.config import config
from posttrain.prompting.shots import InContextTask, Layout
from posttrain.tasks.icl.draw import draw
from posttrain.tasks.icl.logistics_search import shortest_plan
from posttrain.tasks.icl.logistics_world import DOMAIN, Checked, World, check_plan, make_world, read_plan, read_world, written, written_plan
from posttrain.types import DataError, FinalAnswer, Problem

BUCKETS = {"pool": range(5, 16), "test": range(0, 5)}  # of 16, so that 1,300 and 600 problems are found about equally fast
REPEATS = 10_000  # problems drawn in a row that are not new, before giving up
LAYOUT = Layout(
    question_label="Problem:\n",
    answer_label="\nPlan:\n",
    divider="\n\n",
    preamble=f"{DOMAIN}\nProblems of this domain follow, each with a plan that solves it.\n\n",
    announce=f"{DOMAIN}\nYou will be given problems of this domain like these:",
    instruction="Write a plan that solves the problem: one action a line, each in parentheses, and nothing else.",
)


@config
class LogisticsInContext:
    """Plan how packages get to their places, behind solved problems."""

    kind: Literal["logistics"] = "logistics"
    cities: tuple[int, int] = (2, 3)
    """Fewest and most cities; each has one truck. There is one airplane."""
    places: tuple[int, int] = (2, 3)
    """Fewest and most locations in a city, its airport among them."""
    packages: tuple[int, int] = (1, 2)
    """Fewest and most packages; each starts elsewhere than where it has to go."""
    pool_size: int = Field(default=1300, ge=1)
    test_size: int = Field(default=600, ge=1)
    data_seed: int = 0
    """Seed of the problems themselves."""

    def __post_init__(self) -> None:
        for name, least in (("cities", 1), ("places", 1), ("packages", 1)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ValueError(f"{name} must be [fewest, most] with {least} <= fewest <= most, got [{low}, {high}]")
        if self.cities[0] * self.places[0] < 2:
            raise ValueError("a package needs two places: raise the fewest cities or the fewest places above 1")


def make_icl(cfg: LogisticsInContext) -> InContextTask:
    return InContextTask(
        name="logistics",
        load=lambda split: load(cfg, split),
        layout=LAYOUT,
        score=score,
        metric="success",
        figures=figures,
        max_tokens=512,
        stop=("\n\n", "\nProblem:"),
    )


def load(cfg: LogisticsInContext, split: str) -> list[Problem]:
    """The split's problems, the same for the same config, each with a shortest plan as its solution."""
    if split not in BUCKETS:
        raise DataError(f"logistics: no split {split!r}; expected pool or test")
    size = cfg.pool_size if split == "pool" else cfg.test_size
    found: dict[str, World] = {}
    repeats = 0
    for world in generate(cfg, random.Random(f"{cfg.data_seed}/{split}")):
        text = written(world)
        new = text not in found and draw(text) % 16 in BUCKETS[split]
        repeats = 0 if new else repeats + 1
        if new:
            found[text] = world
        if len(found) == size:
            return [_problem(text, world) for text, world in found.items()]
        if repeats > REPEATS:
            break
    raise DataError(f"logistics: only {len(found)} different problems of {size} asked for in {split}; raise cities, places or packages")


def generate(cfg: LogisticsInContext, rng: random.Random) -> Iterator[World]:
    """Endless problems; repeats are possible."""
    while True:
        cities = {f"l{city}-{place}": f"c{city}" for city in range(rng.randint(*cfg.cities)) for place in range(rng.randint(*cfg.places))}
        names = list(dict.fromkeys(cities.values()))
        kinds = {"a0": "airplane"} | {city: "city" for city in names} | {f"t{city[1:]}": "truck" for city in names}
        kinds |= {place: "airport" if place.endswith("-0") else "location" for place in cities}
        start = {"a0": rng.choice([place for place in cities if place.endswith("-0")])}
        start |= {f"t{city[1:]}": rng.choice([place for place, lies in cities.items() if lies == city]) for city in names}
        goal = {}
        for number in range(rng.randint(*cfg.packages)):
            kinds[f"p{number}"] = "package"
            start[f"p{number}"], goal[f"p{number}"] = rng.sample(list(cities), 2)
        yield make_world(kinds, cities, start, goal)


def score(pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
    """1.0 for a plan that reaches the goal, however long."""
    return [float(check(problem, text).reached) for problem, text in pairs]


def check(problem: Problem, text: str) -> Checked:
    """Execute the plan in `text` in the world that the question describes."""
    return check_plan(read_world(problem.question, problem.id), text)


def figures(pairs: Sequence[tuple[Problem, str]]) -> dict[str, float]:
    """The share of items with a shortest plan, and of the right plans' steps those that a shortest plan would not have needed."""
    checked = [(problem, check(problem, text)) for problem, text in pairs]
    right = [(result.steps, shortest_length(problem)) for problem, result in checked if result.reached]
    named = {"shortest plan": sum(steps == least for steps, least in right) / len(checked)}
    if right:
        named["needless steps"] = 1 - sum(least for _, least in right) / sum(steps for steps, _ in right)
    return named


def shortest_length(problem: Problem) -> int:
    return len(read_plan(problem.final_answer))


def _problem(text: str, world: World) -> Problem:
    plan = shortest_plan(world)
    return Problem(
        id=f"logistics-{draw(text):016x}",
        question=text,
        reference=FinalAnswer(text=written_plan(plan)),
        level=str(len(plan)),
        subject=f"{len(world.ports)} cities, {len(world.goal)} packages",
        solution=written_plan(plan),
    )
