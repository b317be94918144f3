"""A shortest plan for a Logistics problem, by A* over all its states with a bound that never counts too much.

The bound adds what no plan can do without: for each package the loads and unloads that still lie before it, for the trucks the places
where one must come to pick up or bring something, for the airplanes the airports. Those are different actions, and each place costs
at least one drive or flight. Hence the first goal state taken from the queue is reached by a shortest plan.
"""

import heapq
from itertools import count

from posttrain.tasks.icl.logistics_world import Action, State, World, allowed, apply
from posttrain.types import DataError


def shortest_plan(world: World) -> list[Action]:
    """A plan with the fewest actions; the same one every time. Raises `DataError` where no plan reaches the goal."""
    tick = count()  # among equal bounds first in, first out
    start = tuple(world.start.items())
    best = {start: 0}
    came_from: dict[tuple, tuple[tuple, Action]] = {}
    queue = [(bound(world, world.start), next(tick), 0, start)]
    while queue:
        _, _, done, key = heapq.heappop(queue)
        if done > best[key]:
            continue
        state = dict(key)
        if all(state[package] == place for package, place in world.goal.items()):
            return _plan(came_from, key)
        for action in allowed(world, state):
            after = dict(state)
            apply(world, after, action)
            after_key = tuple(after.items())
            if done + 1 < best.get(after_key, done + 2):
                best[after_key] = done + 1
                came_from[after_key] = (key, action)
                heapq.heappush(queue, (done + 1 + bound(world, after), next(tick), done + 1, after_key))
    raise DataError("no plan reaches the goal")


def bound(world: World, state: State) -> int:
    """No plan from `state` to the goal has fewer actions."""
    handlings, road_stops, air_stops = 0, set(), set()
    for package, goal in world.goal.items():
        needed, by_road, by_air = _journey(world, state, package, goal)
        handlings += needed
        road_stops |= by_road
        air_stops |= by_air
    road_stops -= {state[truck] for truck in world.of("truck")}
    air_stops -= {state[airplane] for airplane in world.of("airplane")}
    return handlings + len(road_stops) + len(air_stops)


def _journey(world: World, state: State, package: str, goal: str) -> tuple[int, set[str], set[str]]:
    """What one package still needs: how many loads and unloads, where a truck must stop for it, and where an airplane must."""
    place = state[package]
    if place == goal:
        return 0, set(), set()
    carrier = world.kinds[place] if place in state else ""
    port = world.ports[world.cities[state[place] if carrier else place]]
    home_port = world.ports[world.cities[goal]]
    if carrier != "airplane" and port == home_port:  # by truck all the way
        return (1, {goal}, set()) if carrier else (2, {place, goal}, set())
    if carrier == "airplane":
        handlings, by_road, by_air = 1, set(), {home_port}
    elif carrier == "truck":
        handlings, by_road, by_air = 3, {port}, {port, home_port}
    else:
        handlings, by_road, by_air = (2, set(), {port, home_port}) if place == port else (4, {place, port}, {port, home_port})
    if goal != home_port:
        handlings, by_road = handlings + 2, by_road | {home_port, goal}
    return handlings, by_road, by_air


def _plan(came_from: dict[tuple, tuple[tuple, Action]], key: tuple) -> list[Action]:
    steps = []
    while key in came_from:
        key, action = came_from[key]
        steps.append(action)
    return steps[::-1]
