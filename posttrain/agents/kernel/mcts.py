"""Search in many trees at once: a tree for each state of a batch, all of them grown together by tensor operations on any device.

    puct_search      MuZero's (arXiv 1911.08265): descend by value and prior, open one new node, average values on the way back
    gumbel_search    Gumbel MuZero's (openreview bERaNdoegnO): sequential halving at the root, visits that follow a better policy below
    breadth_first    every action of every node, level by level; a node is worth its best action

The model is two things: a `Root`, and a function (state, action) -> `Outcome`. It may be learned or a true simulator. A discount says what
the next state's value is worth here: gamma, 0 after an end, and negative where the other player moves next. An action whose prior logit is
-inf is illegal and never taken, at the root and below it.

How the trees grow. Node j of tree b is row j B + b of flat tables. A node remembers which action it will take next, and to which row
that leads; both are found anew only when a visit has changed its statistics. So a descent is one look-up for each level, and everything
else of a simulation happens on all nodes of all paths at once. No step waits for a number to come back from the device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

C1, C2 = 1.25, 19652  # of pUCT, MuZero's
VALUE, RAW, REWARD, DISCOUNT = 0, 1, 2, 3  # columns of `Trees.nodes`


class Root(NamedTuple):
    """What the model says of B states to search from."""

    prior_logits: Tensor
    """[B, A]"""
    value: Tensor
    """[B]"""
    state: Tensor
    """[B, ...]"""


class Outcome(NamedTuple):
    """What the model says of B actions: what they pay, and of the states they lead to."""

    reward: Tensor
    """[B]"""
    discount: Tensor
    """[B]"""
    prior_logits: Tensor
    """[B, A]"""
    value: Tensor
    """[B], of the one who moves there"""
    state: Tensor
    """[B, ...]"""


Model: TypeAlias = Callable[[Tensor, Tensor], Outcome]


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How much is searched, and how far ahead."""

    simulations: int = 16
    depth: int | None = None
    """Most actions from the root to a leaf; a leaf at that depth is evaluated again when it is visited again."""
    uct_depth: int | None = None
    """From this depth on actions are drawn from the prior: Monte-Carlo rollouts. 0 draws them everywhere."""
    least_spread: float = 1e-8
    """Values are normalised by their spread, or by this where they spread less. MuZero has no such floor; without one the noise of values
    that are all but equal weighs as much as a goal in sight (EfficientZero's remedy, arXiv 2111.00210)."""
    compiled: bool = False
    """Compile a simulation with torch.compile: minutes the first time, worth it for many searches of one shape."""

    def __post_init__(self) -> None:
        for name, least in (("simulations", 1), ("depth", 1), ("uct_depth", 0)):
            if (found := getattr(self, name)) is not None and found < least:
                raise ValueError(f"{name}: found {found}, expected at least {least}")
        if self.least_spread <= 0:
            raise ValueError(f"least_spread: found {self.least_spread}, expected more than 0")


class Found(NamedTuple):
    """What a search says of its roots."""

    visits: Tensor
    """Of each action, [B, A]; they sum to the number of simulations."""
    q: Tensor
    """Value of each action, [B, A]; 0 where it was not visited."""
    value: Tensor
    """[B]"""
    policy: Tensor
    """A better policy than the prior, [B, A]: the share of visits; of Gumbel's and breadth-first search softmax(logits + completed q)."""
    action: Tensor
    """The best action, [B]: the most visited, of Gumbel the winner of the last round, breadth-first the one of highest q."""


class Trees:
    """The flat tables of B trees with room for a node of each simulation below each root; the last row is nowhere."""

    def __init__(self, root: Root, prior_BA: Tensor, budget: Budget) -> None:
        self.least_spread = budget.least_spread
        (self.batch, self.num_actions), device = prior_BA.shape, prior_BA.device
        rows = (budget.simulations + 1) * self.batch + 1
        self.nowhere = rows - 1
        self.roots_B = torch.arange(self.batch, device=device)
        self.fresh_B = self.roots_B.clone()
        """Rows of the newest nodes."""
        self.edges = prior_BA.new_zeros(rows, 3, self.num_actions)
        """Prior, visits and q of each action."""
        self.nodes = prior_BA.new_zeros(4, rows)
        """Value averaged over visits, the model's value, and reward and discount on the way in."""
        self.child = torch.full((rows, self.num_actions), self.nowhere, device=device)
        self.action = torch.zeros(rows, dtype=torch.long, device=device)
        self.next = torch.full((rows,), self.nowhere, device=device)
        self.states = torch.empty(rows - 1, *root.state.shape[1:], dtype=root.state.dtype, device=device)
        self.edges[: self.batch, 0] = prior_BA
        self.nodes[VALUE, : self.batch] = self.nodes[RAW, : self.batch] = root.value
        self.states[: self.batch] = root.state

    def open(self, model: Model, parent_B: Tensor, action_B: Tensor, logged: bool) -> None:
        """Evaluate an action of a node of each tree into the newest rows. `logged`: the prior is kept as its log."""
        outcome = model(self.states.index_select(0, parent_B), action_B)
        prior_BA = outcome.prior_logits.log_softmax(-1) if logged else outcome.prior_logits.softmax(-1)
        self.edges[:, 0].index_copy_(0, self.fresh_B, prior_BA)
        self.nodes.index_copy_(1, self.fresh_B, torch.stack([outcome.value, outcome.value, outcome.reward, outcome.discount]))
        self.states.index_copy_(0, self.fresh_B, outcome.state)


Rule: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""Priors, visits, q of N nodes, [N, A] each, their values and the model's, [N], the least spread -> the score of each action, [N, A]."""


def puct_score(prior_NA: Tensor, visits_NA: Tensor, q_NA: Tensor, value_N: Tensor, _: Tensor, least_spread: float) -> Tensor:
    """Normalised q + prior sqrt(n) / (1 + visits) (c1 + log((n + c2 + 1) / c2)), n the visits of the node, its first one counted.

    Normalised by least and greatest among the node's value and its visited actions' q, as mctx does: MuZero's own code takes those of the
    whole tree. An action not visited counts as the least.
    """
    seen_NA = visits_NA > 0
    known_NA = torch.where(seen_NA, q_NA, value_N[:, None])
    low_N = torch.minimum(known_NA.amin(-1), value_N)
    spread_N = (torch.maximum(known_NA.amax(-1), value_N) - low_N).clamp(min=least_spread)
    n_N = visits_NA.sum(-1) + 1
    explore_N = n_N.sqrt() * (C1 + ((n_N + (C2 + 1)) / C2).log())
    return seen_NA * (q_NA - low_N[:, None]) / spread_N[:, None] + explore_N[:, None] * prior_NA / (visits_NA + 1)


def completed_q(
    logp_NA: Tensor,
    visits_NA: Tensor,
    q_NA: Tensor,
    raw_N: Tensor,
    least_spread: float,
    value_scale: float = 0.1,
    visit_offset: float = 50.0,
) -> Tensor:
    """(offset + most visits) scale q', q' the values normalised to [0, 1], with a guess for actions not visited (Gumbel MuZero, app. D).

    The guess is (raw + n q_pi) / (n + 1): the model's value, and the mean q of the n visits' actions under the prior.
    """
    prior_NA, seen_NA = logp_NA.exp().clamp(min=torch.finfo(logp_NA.dtype).tiny), visits_NA > 0
    weight_NA = prior_NA * seen_NA
    mean_N = (weight_NA * q_NA).sum(-1) / weight_NA.sum(-1).clamp(min=torch.finfo(logp_NA.dtype).tiny)
    n_N = visits_NA.sum(-1)
    guess_N = (raw_N + n_N * mean_N) / (n_N + 1)
    filled_NA = torch.where(seen_NA, q_NA, guess_N[:, None])
    low_N1 = filled_NA.amin(-1, keepdim=True)
    spread_N1 = (filled_NA.amax(-1, keepdim=True) - low_N1).clamp(min=least_spread)
    return (visit_offset + visits_NA.amax(-1, keepdim=True)) * value_scale * (filled_NA - low_N1) / spread_N1


def gumbel_score(logp_NA: Tensor, visits_NA: Tensor, q_NA: Tensor, _: Tensor, raw_N: Tensor, least_spread: float) -> Tensor:
    """pi' - visits / (1 + n): the visits come to follow pi' = softmax(logits + completed q) (Gumbel MuZero, sec. 5)."""
    improved_NA = logp_NA + completed_q(logp_NA, visits_NA, q_NA, raw_N, least_spread)
    weight_NA = (improved_NA - improved_NA.amax(-1, keepdim=True)).exp()  # the softmax by hand: torch's is slow over few actions
    return weight_NA / weight_NA.sum(-1, keepdim=True) - visits_NA / (1 + visits_NA.sum(-1, keepdim=True))


class Halving(NamedTuple):
    """Sequential halving at the root."""

    gumbel_BA: Tensor
    plan_BS: Tensor
    """How many visits the action of each simulation has had before."""
    least_spread: float

    def score(self, logp_BA: Tensor, visits_BA: Tensor, q_BA: Tensor, raw_B: Tensor, turn_B: Tensor) -> Tensor:
        """Gumbel + logits + completed q of the actions that have had as many visits as the plan says, -inf of the others."""
        return self.among(self.plan_BS.gather(1, turn_B[:, None]), logp_BA, visits_BA, q_BA, raw_B)

    def among(self, wanted_B1: Tensor, logp_BA: Tensor, visits_BA: Tensor, q_BA: Tensor, raw_B: Tensor) -> Tensor:
        logits_BA = logp_BA - logp_BA.amax(-1, keepdim=True)
        score_BA = (self.gumbel_BA + logits_BA + completed_q(logp_BA, visits_BA, q_BA, raw_B, self.least_spread)).clamp(min=-1e9)
        out_BA = (visits_BA != wanted_B1) | (logp_BA == -math.inf)
        return score_BA.masked_fill(out_BA, -math.inf)


def puct_search(
    model: Model,
    root: Root,
    budget: Budget,
    legal_BA: Tensor | None = None,
    noise: float = 0.0,
    alpha: float = 0.3,
    generator: torch.Generator | None = None,
) -> Found:
    """MuZero's search. A share `noise` of the root's prior is drawn from a Dirichlet distribution, of concentration `alpha`."""
    prior_BA = _legal_logits(root, legal_BA).softmax(-1)
    if noise:
        possible_BA = prior_BA > 0
        drawn_BA = torch._standard_gamma(torch.full_like(prior_BA, alpha), generator=generator) * possible_BA
        drawn_BA = drawn_BA / drawn_BA.sum(-1, keepdim=True).clamp(min=torch.finfo(prior_BA.dtype).tiny)
        prior_BA = (1 - noise) * prior_BA + noise * drawn_BA
    trees = Trees(root, prior_BA, budget)
    _grow(trees, model, budget, puct_score, None, generator)
    visits_BA, q_BA, value_B = _root_statistics(trees)
    policy_BA = visits_BA / budget.simulations
    return Found(visits_BA, q_BA, value_B, policy_BA, visits_BA.argmax(-1))


def gumbel_search(
    model: Model,
    root: Root,
    budget: Budget,
    legal_BA: Tensor | None = None,
    considered: int = 16,
    scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> Found:
    """Gumbel MuZero's search among at most `considered` actions; `scale` 0 takes the noise away, for evaluation."""
    logp_BA = _legal_logits(root, legal_BA).log_softmax(-1)
    exponential_BA = torch.empty_like(logp_BA).exponential_(generator=generator)
    plans = torch.tensor(_plans(considered, budget.simulations), device=logp_BA.device)
    num_B = (logp_BA > -math.inf).sum(-1).clamp(max=considered)
    halving = Halving(-scale * exponential_BA.log(), plans[num_B], budget.least_spread)
    trees = Trees(root, logp_BA, budget)
    _grow(trees, model, budget, gumbel_score, halving, generator)
    visits_BA, q_BA, value_B = _root_statistics(trees)
    last_BA = halving.among(visits_BA.amax(-1, keepdim=True), logp_BA, visits_BA, q_BA, root.value)
    policy_BA = (logp_BA + completed_q(logp_BA, visits_BA, q_BA, root.value, budget.least_spread)).softmax(-1)
    return Found(visits_BA, q_BA, value_B, policy_BA, last_BA.argmax(-1))


def breadth_first(model: Model, root: Root, budget: Budget, legal_BA: Tensor | None = None) -> Found:
    """Actions of one node after another, each node's by falling prior; at `budget.depth` it starts again from the root.

    A node is worth its best action once all its legal ones are known, and the model's value before.
    """
    logp_BA = _legal_logits(root, legal_BA).log_softmax(-1)
    trees = Trees(root, logp_BA, budget)
    num_rows, depth_limit = trees.nowhere + 1, budget.depth or budget.simulations
    depth = torch.zeros(num_rows, dtype=torch.long, device=logp_BA.device)
    node_B, rank_B = trees.roots_B, torch.zeros_like(trees.roots_B)
    edges, leaves = [], []
    for _ in range(budget.simulations):
        trees.fresh_B = trees.fresh_B + trees.batch
        logp_BA = trees.edges[node_B, 0]
        done_B = rank_B >= (logp_BA > -math.inf).sum(-1)
        node_B = torch.where(done_B, node_B + trees.batch, node_B)
        node_B = torch.where(depth[node_B] >= depth_limit, trees.roots_B, node_B)
        rank_B = torch.where(done_B, 0, rank_B)
        ranked_BA = trees.edges[node_B, 0].sort(dim=-1, descending=True, stable=True).indices
        action_B = ranked_BA.gather(1, rank_B[:, None])[:, 0]
        trees.open(model, node_B, action_B, logged=True)
        known_B = trees.child[node_B, action_B]
        leaf_B = torch.where(known_B == trees.nowhere, trees.fresh_B, known_B)
        trees.child[node_B, action_B] = leaf_B
        depth[trees.fresh_B] = depth[node_B] + 1
        edges.append((node_B, action_B))
        leaves.append(leaf_B)
        rank_B = rank_B + 1
    visits = torch.zeros_like(trees.nodes[VALUE])  # of simulations that end in or below a node
    for leaf_B in leaves:
        visits[leaf_B] += 1
    for (node_B, action_B), leaf_B, row in zip(reversed(edges), reversed(leaves), reversed(range(budget.simulations)), strict=True):
        first_B = leaf_B == row * trees.batch + trees.batch + trees.roots_B  # a second visit finds what the first one wrote
        value, _, reward, discount = trees.nodes[:, leaf_B]
        visits[node_B] += first_B * visits[leaf_B]
        trees.edges[node_B, 1, action_B] = visits[leaf_B]
        trees.edges[node_B, 2, action_B] = reward + discount * value
        logp_BA, seen_BA, q_BA = trees.edges[node_B].unbind(1)
        complete_B = ((seen_BA > 0) | (logp_BA == -math.inf)).all(-1)
        best_B = q_BA.masked_fill(seen_BA == 0, -math.inf).amax(-1)
        trees.nodes[VALUE, node_B] = torch.where(complete_B, best_B, trees.nodes[RAW, node_B])
    visits_BA, q_BA, value_B = _root_statistics(trees)
    logp_BA = trees.edges[: trees.batch, 0]
    policy_BA = (logp_BA + completed_q(logp_BA, visits_BA, q_BA, root.value, budget.least_spread)).softmax(-1)
    return Found(visits_BA, q_BA, value_B, policy_BA, q_BA.masked_fill(visits_BA == 0, -math.inf).argmax(-1))


def _grow(trees: Trees, model: Model, budget: Budget, rule: Rule, halving: Halving | None, generator: torch.Generator | None) -> None:
    """All simulations of `puct_search` or `gumbel_search`."""
    limit = min(budget.depth or budget.simulations, budget.simulations)
    uct_depth = limit if budget.uct_depth is None else min(budget.uct_depth, limit)
    step: Any = _compiled() if budget.compiled else simulate

    def uniform(levels: int) -> Tensor | None:
        if uct_depth == limit:
            return None
        shape = (levels + 1, trees.batch)
        return torch.rand(shape, generator=generator, dtype=trees.nodes.dtype, device=trees.nodes.device)

    roots = slice(trees.batch)
    _choose(
        trees,
        trees.roots_B[None],
        trees.edges[roots],
        trees.nodes[VALUE, roots],
        trees.nodes[RAW, roots],
        rule,
        halving,
        uniform(0),
        uct_depth,
    )
    for i in range(budget.simulations):
        levels = limit if budget.compiled else min(i + 1, limit)  # compiled code has one shape; the levels too many lead nowhere
        trees.fresh_B += trees.batch
        step(trees, model, levels, rule, halving, uniform(levels), uct_depth)


@cache
def _compiled() -> Any:
    return torch.compile(simulate, dynamic=False, fullgraph=True)


def simulate(
    trees: Trees, model: Model, levels: int, rule: Rule, halving: Halving | None, uniform_PB: Tensor | None, uct_depth: int
) -> None:
    """One simulation in every tree: descend, open a node, take its value back along the path, and choose anew on the path."""
    path = [trees.roots_B]
    for _ in range(levels):
        path.append(trees.next.index_select(0, path[-1]))
    path_PB = torch.stack(path)
    leaf_1B = (path_PB != trees.nowhere).sum(0, keepdim=True).clamp(max=levels)  # the place of the leaf on the path
    end_1B = path_PB.gather(0, leaf_1B)
    path_PB.scatter_(0, leaf_1B, torch.where(end_1B == trees.nowhere, trees.fresh_B, end_1B))  # an old node only at the depth limit
    parent_B = path_PB.gather(0, leaf_1B - 1)[0]
    action_B = trees.action.index_select(0, parent_B)
    trees.open(model, parent_B, action_B, logged=rule is gumbel_score)
    trees.child.view(-1).index_copy_(0, parent_B * trees.num_actions + action_B, path_PB.gather(0, leaf_1B)[0])

    flat_N = path_PB.flatten()
    value_PB, raw_PB, reward_PB, discount_PB = trees.nodes.index_select(1, flat_N).unflatten(1, path_PB.shape).unbind(0)
    place_P1 = torch.arange(levels + 1, device=flat_N.device)[:, None]
    start_PB = (place_P1 == leaf_1B) * value_PB
    returns = [start_PB[levels]]
    for d in reversed(range(levels)):  # beyond the leaf reward and discount are those of nowhere, 0
        returns.append(torch.addcmul(start_PB[d] + reward_PB[d + 1], discount_PB[d + 1], returns[-1]))
    return_PB = torch.stack(returns[::-1])

    edges_N3A = trees.edges.index_select(0, flat_N)
    visits_NA, q_NA = edges_N3A[:, 1], edges_N3A[:, 2]
    above_PB = place_P1 < leaf_1B
    n_PB = visits_NA.sum(-1).view(path_PB.shape) + 1
    value_PB = torch.where(above_PB, (value_PB * n_PB + return_PB) / (n_PB + 1), value_PB)
    taken_N1 = trees.action.index_select(0, flat_N)[:, None]
    after_PB = torch.cat([value_PB[1:], torch.zeros_like(value_PB[:1])])
    into_PB = torch.cat([reward_PB[1:], torch.zeros_like(value_PB[:1])]) + after_PB * torch.cat([discount_PB[1:], discount_PB[:1]])
    visits_NA.scatter_add_(1, taken_N1, above_PB.reshape(-1, 1).to(visits_NA.dtype))
    q_NA.scatter_(1, taken_N1, into_PB.reshape(-1, 1))
    trees.edges.index_copy_(0, flat_N, edges_N3A)
    trees.nodes[VALUE].index_copy_(0, flat_N, value_PB.flatten())
    _choose(trees, path_PB, edges_N3A, value_PB.flatten(), raw_PB.flatten(), rule, halving, uniform_PB, uct_depth)


def _choose(
    trees: Trees,
    path_PB: Tensor,
    edges_N3A: Tensor,
    value_N: Tensor,
    raw_N: Tensor,
    rule: Rule,
    halving: Halving | None,
    uniform_PB: Tensor | None,
    uct_depth: int,
) -> None:
    """Note the next action of every node on the paths, the root's at place 0, whose statistics are given."""
    flat_N = path_PB.flatten()
    prior_NA, visits_NA, q_NA = edges_N3A.unbind(1)
    action_N = rule(prior_NA, visits_NA, q_NA, value_N, raw_N, trees.least_spread).argmax(-1)
    if halving is not None:
        b = trees.batch
        turn_B = visits_NA[:b].sum(-1).long().clamp(max=halving.plan_BS.shape[1] - 1)
        action_N = torch.cat([halving.score(prior_NA[:b], visits_NA[:b], q_NA[:b], raw_N[:b], turn_B).argmax(-1), action_N[b:]])
    if uniform_PB is not None:
        drawn_PB = _drawn(prior_NA.exp() if rule is gumbel_score else prior_NA, uniform_PB.flatten()).view(path_PB.shape)
        action_N = torch.cat([action_N.view(path_PB.shape)[:uct_depth], drawn_PB[uct_depth:]]).flatten()
    next_N = trees.child.index_select(0, flat_N).gather(1, action_N[:, None])[:, 0]
    trees.action.index_copy_(0, flat_N, action_N)
    trees.next.index_copy_(0, flat_N, next_N)


def _drawn(prob_NA: Tensor, uniform_N: Tensor) -> Tensor:
    """An action by its probability, from a number in [0, 1)."""
    total_NA = prob_NA.cumsum(-1)
    return (total_NA <= uniform_N[:, None] * total_NA[:, -1:]).sum(-1).clamp(max=prob_NA.shape[-1] - 1)


def _legal_logits(root: Root, legal_BA: Tensor | None) -> Tensor:
    if legal_BA is None:
        return root.prior_logits
    if legal_BA.shape != root.prior_logits.shape:
        raise ValueError(f"legal: found shape {tuple(legal_BA.shape)}, expected that of the prior, {tuple(root.prior_logits.shape)}")
    return root.prior_logits.masked_fill(~legal_BA, -math.inf)


def _root_statistics(trees: Trees) -> tuple[Tensor, Tensor, Tensor]:
    """Visits and q of the roots' actions, [B, A] each, and the roots' values."""
    b = trees.batch
    return trees.edges[:b, 1].clone(), trees.edges[:b, 2].clone(), trees.nodes[VALUE, :b].clone()


@cache
def _plans(considered: int, simulations: int) -> list[list[int]]:
    """`_plan` of 0, 1, ... `considered` actions."""
    return [_plan(m, simulations) for m in range(considered + 1)]


def _plan(considered: int, simulations: int) -> list[int]:
    """Visits that the action of each simulation has had before, when `considered` actions are halved round by round."""
    if considered <= 1:
        return list(range(simulations))
    rounds = math.ceil(math.log2(considered))
    visits, plan, left = [0] * considered, list[int](), considered
    while len(plan) < simulations:
        for _ in range(max(1, simulations // (rounds * left))):
            plan += visits[:left]
            visits[:left] = [n + 1 for n in visits[:left]]
        left = max(2, left // 2)
    return plan[:simulations]
