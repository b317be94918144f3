"""The Logistics world: packages to bring to places by trucks within cities and airplanes between airports. Rules, texts and a validator.

A problem is read from its PDDL text alone, so the validator trusts nothing that the generator knew. Objects are named as the usual
generator names them: airplane a0, city c0, truck t0, location l0-1 (in city 0), package p0.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from posttrain.types import DataError

State: TypeAlias = dict[str, str]
"""Where each truck, airplane and package is: at a location or, a package, in a vehicle."""
Action: TypeAlias = tuple[str, ...]
"""A name with its arguments: ("drive-truck", "t0", "l0-0", "l0-1", "c0")."""

PARAMETERS: dict[str, tuple[str, ...]] = {
    "load-truck": ("package", "truck", "location"),
    "unload-truck": ("package", "truck", "location"),
    "load-airplane": ("package", "airplane", "airport"),
    "unload-airplane": ("package", "airplane", "airport"),
    "drive-truck": ("truck", "location", "location", "city"),
    "fly-airplane": ("airplane", "airport", "airport"),
}
TYPES = {"obj": "package", "truck": "truck", "airplane": "airplane", "city": "city", "location": "location", "airport": "airport"}
DOMAIN = """\
(define (domain logistics-strips)
 (:requirements :strips)
 (:predicates (OBJ ?o) (TRUCK ?t) (LOCATION ?l) (AIRPLANE ?a) (CITY ?c) (AIRPORT ?l) (at ?x ?l) (in ?o ?v) (in-city ?l ?c))
 (:action LOAD-TRUCK :parameters (?o ?t ?l)
  :precondition (and (OBJ ?o) (TRUCK ?t) (LOCATION ?l) (at ?t ?l) (at ?o ?l))
  :effect (and (not (at ?o ?l)) (in ?o ?t)))
 (:action LOAD-AIRPLANE :parameters (?o ?a ?l)
  :precondition (and (OBJ ?o) (AIRPLANE ?a) (AIRPORT ?l) (at ?o ?l) (at ?a ?l))
  :effect (and (not (at ?o ?l)) (in ?o ?a)))
 (:action UNLOAD-TRUCK :parameters (?o ?t ?l)
  :precondition (and (OBJ ?o) (TRUCK ?t) (LOCATION ?l) (at ?t ?l) (in ?o ?t))
  :effect (and (not (in ?o ?t)) (at ?o ?l)))
 (:action UNLOAD-AIRPLANE :parameters (?o ?a ?l)
  :precondition (and (OBJ ?o) (AIRPLANE ?a) (AIRPORT ?l) (in ?o ?a) (at ?a ?l))
  :effect (and (not (in ?o ?a)) (at ?o ?l)))
 (:action DRIVE-TRUCK :parameters (?t ?from ?to ?c)
  :precondition (and (TRUCK ?t) (LOCATION ?from) (LOCATION ?to) (CITY ?c) (at ?t ?from) (in-city ?from ?c) (in-city ?to ?c))
  :effect (and (not (at ?t ?from)) (at ?t ?to)))
 (:action FLY-AIRPLANE :parameters (?a ?from ?to)
  :precondition (and (AIRPLANE ?a) (AIRPORT ?from) (AIRPORT ?to) (at ?a ?from))
  :effect (and (not (at ?a ?from)) (at ?a ?to))))
"""
STEP = re.compile(r"\(([^()]*)\)")
SECTION = re.compile(r"\(:(init|goal)\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """One problem."""

    kinds: Mapping[str, str]
    """What each object is; a location with an airport is an "airport"."""
    cities: Mapping[str, str]
    """In which city each location lies."""
    ports: Mapping[str, str]
    """The one airport of each city."""
    start: State
    goal: Mapping[str, str]

    def of(self, kind: str) -> list[str]:
        return [name for name, what in self.kinds.items() if _is(what, kind)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """Whether a plan reaches the goal; if not, at which step it fails (0: only the end is wrong) and why."""

    reached: bool
    steps: int
    failed_at: int = 0
    why: str = ""


class NotAllowed(Exception):
    """An action that cannot be done; the message says why."""


def check_plan(world: World, text: str) -> Checked:
    """Execute the steps of a text one by one, then look at the goal. Every (...) in it is a step; other words are no part of the plan."""
    steps = read_plan(text)
    state = dict(world.start)
    for number, action in enumerate(steps, 1):
        try:
            apply(world, state, action)
        except NotAllowed as fault:
            return Checked(reached=False, steps=len(steps), failed_at=number, why=f"step {number}, ({' '.join(action)[:80]}): {fault}")
    for package, place in world.goal.items():
        if state[package] != place:
            where = f"{'at' if state[package] in world.cities else 'in'} {state[package]}"
            return Checked(reached=False, steps=len(steps), why=f"after {len(steps)} steps {package} is {where}, its goal is {place}")
    return Checked(reached=True, steps=len(steps))


def read_plan(text: str) -> list[Action]:
    """The actions of a text, in lower case, as PDDL does not tell case apart."""
    return [tuple(step.lower().split()) for step in STEP.findall(text)]


def written_plan(actions: list[Action]) -> str:
    return "\n".join(f"({' '.join(action)})" for action in actions)


def apply(world: World, state: State, action: Action) -> None:
    """Do `action`, changing `state`; raises `NotAllowed` with the first thing that forbids it, and then changes nothing."""
    name, *arguments = action or ("",)
    if name not in PARAMETERS:
        raise NotAllowed(f"there is no action {name[:40]!r}; the actions are {', '.join(PARAMETERS)}")
    expected = PARAMETERS[name]
    if len(arguments) != len(expected):
        raise NotAllowed(f"{name} takes {len(expected)} arguments ({', '.join(expected)}), found {len(arguments)}")
    for argument, kind in zip(arguments, expected):
        found = world.kinds.get(argument)
        if found is None:
            raise NotAllowed(f"there is no object {argument[:40]!r}")
        if not _is(found, kind):
            raise NotAllowed(f"{argument} is of kind {found}, {name} needs {kind} there")
    if name in ("drive-truck", "fly-airplane"):
        vehicle, origin, goal = arguments[:3]
        _needs(state, vehicle, origin)
        for place in (origin, goal) if name == "drive-truck" else ():
            if world.cities[place] != arguments[3]:
                raise NotAllowed(f"{place} is in {world.cities[place]}, not in {arguments[3]}")
        state[vehicle] = goal
        return
    package, vehicle, place = arguments
    _needs(state, vehicle, place)
    _needs(state, package, place if name.startswith("load") else vehicle)
    state[package] = vehicle if name.startswith("load") else place


def allowed(world: World, state: State) -> Iterator[Action]:
    """Every action that can be done in `state`."""
    for kind, go in (("truck", "drive-truck"), ("airplane", "fly-airplane")):
        for vehicle in world.of(kind):
            here = state[vehicle]
            by_road = kind == "truck"
            city = (world.cities[here],) if by_road else ()
            reach = [p for p in world.of("location") if world.cities[p] == world.cities[here]] if by_road else world.of("airport")
            yield from ((go, vehicle, here, place, *city) for place in reach if place != here)
            for package in world.of("package"):
                if state[package] == here:
                    yield (f"load-{kind}", package, vehicle, here)
                elif state[package] == vehicle:
                    yield (f"unload-{kind}", package, vehicle, here)


def written(world: World) -> str:
    """The problem as PDDL."""
    facts = [f"({predicate.upper()} {name})" for predicate, kind in TYPES.items() for name, what in world.kinds.items() if _is(what, kind)]
    facts += [f"(in-city {place} {city})" for place, city in world.cities.items()]
    facts += [f"(at {name} {place})" for name, place in world.start.items()]
    goals = " ".join(f"(at {package} {place})" for package, place in world.goal.items())
    counts = "-".join(f"{letter}{len(world.of(kind))}" for letter, kind in (("c", "city"), ("p", "package"), ("a", "airplane")))
    lines = [
        f"(define (problem logistics-{counts})",
        " (:domain logistics-strips)",
        f" (:objects {' '.join(world.kinds)})",
        " (:init",
        *(f"  {' '.join(facts[start : start + 6])}" for start in range(0, len(facts), 6)),
        " )",
        f" (:goal (and {goals})))",
    ]
    return "\n".join(lines)


def read_world(text: str, where: str = "problem") -> World:
    """The world of a PDDL problem of this domain; raises `DataError`."""
    parts = SECTION.split(text.lower())
    sections = dict(zip(parts[1::2], parts[2::2]))
    if sections.keys() != {"init", "goal"} or len(parts) != 5:
        raise DataError(f"{where}: expected one (:init ...) and one (:goal ...); found {parts[1::2]}")
    kinds: dict[str, str] = {}
    cities: dict[str, str] = {}
    start: State = {}
    for fact in read_plan(sections["init"]):
        match fact:
            case ("airport", name):
                kinds[name] = "airport"
            case (kind, name) if kind in TYPES:
                kinds.setdefault(name, TYPES[kind])
            case ("in-city", place, city):
                cities[place] = city
            case ("at" | "in", thing, place):
                start[thing] = place
            case _:
                raise DataError(f"{where}: no fact of the Logistics domain: ({' '.join(fact)[:60]})")
    goals = read_plan(sections["goal"])
    if odd := [fact for fact in goals if len(fact) != 3 or fact[0] != "at"]:
        raise DataError(f"{where}: a goal must be (at package location), found ({' '.join(odd[0])[:60]})")
    return make_world(kinds, cities, start, {package: place for _, package, place in goals}, where)


def make_world(kinds: Mapping[str, str], cities: Mapping[str, str], start: State, goal: Mapping[str, str], where: str = "problem") -> World:
    """A checked world; raises `DataError`."""
    ports = {cities.get(name, ""): name for name, what in kinds.items() if what == "airport"}
    world = World(kinds=kinds, cities=cities, ports=ports, start=start, goal=goal)
    _check(world, where)
    return world


def _check(world: World, where: str) -> None:
    """Everything is somewhere, every location in a city, every goal a package's; raises `DataError`."""
    on_ground, airports = set(world.cities), set(world.of("airport"))
    trucks, airplanes = set(world.of("truck")), set(world.of("airplane"))
    fit = dict.fromkeys(trucks, on_ground) | dict.fromkeys(airplanes, airports)
    fit |= dict.fromkeys(world.of("package"), on_ground | trucks | airplanes)
    faults = [f"{place} is in no city" for place in world.of("location") if world.kinds.get(world.cities.get(place, "")) != "city"]
    faults += [f"{city} has no airport or several" for city in world.of("city") if _airports(world, city) != 1]
    faults += [f"{name} is nowhere" for name in fit if name not in world.start]
    faults += [f"{name} is at or in {place}, no place for it" for name, place in world.start.items() if place not in fit.get(name, ())]
    faults += [f"the goal names {name}, no package" for name in world.goal if world.kinds.get(name) != "package"]
    faults += [f"the goal of {name} is {place}, no location" for name, place in world.goal.items() if place not in world.cities]
    faults += [] if world.goal else ["there is no goal"]
    if faults:
        raise DataError(f"{where}: {faults[0]}")


def _airports(world: World, city: str) -> int:
    return sum(world.cities.get(name) == city for name in world.of("airport"))


def _needs(state: State, thing: str, place: str) -> None:
    if state[thing] != place:
        raise NotAllowed(f"{thing} is not at or in {place}, it is at or in {state[thing]}")


def _is(what: str, kind: str) -> bool:
    """An airport is a location as well."""
    return what == kind or (what == "airport" and kind == "location")
