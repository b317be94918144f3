"""The batched search against a slow one that walks each tree by itself, on random tables; and what every search must keep to."""

import math
from dataclasses import dataclass, field

import pytest
import torch

from posttrain.agents.kernel.envs.grids import goal_grid
from posttrain.agents.kernel.mcts import Budget, Found, Outcome, Root, breadth_first, gumbel_search, puct_search

BATCH, ACTIONS, STATES = 6, 4, 30


class Table:
    """A random model: where actions lead, what they pay, and what is thought of states."""

    def __init__(self, seed, players=1, illegal=0.0, ends=0.1, noise=1.0, gamma=0.9, actions=ACTIONS):
        draws = torch.Generator().manual_seed(seed)
        self.next_SA = torch.randint(STATES, (STATES, actions), generator=draws)
        self.reward_SA = torch.randn(STATES, actions, generator=draws, dtype=torch.float64)
        self.value_S = noise * torch.randn(STATES, generator=draws, dtype=torch.float64)
        self.logits_SA = torch.randn(STATES, actions, generator=draws, dtype=torch.float64)
        closed_SA = torch.rand(STATES, actions, generator=draws) < illegal
        closed_SA[:, 0] = False
        self.logits_SA[closed_SA] = -math.inf
        going_SA = (torch.rand(STATES, actions, generator=draws) >= ends).double()
        self.discount_SA = gamma * going_SA * (-1 if players == 2 else 1)

    def root(self, batch=BATCH):
        state_B = torch.arange(batch)
        return Root(self.logits_SA[state_B], self.value_S[state_B], state_B)

    def __call__(self, state_B, action_B):
        next_B = self.next_SA[state_B, action_B]
        reward_B, discount_B = self.reward_SA[state_B, action_B], self.discount_SA[state_B, action_B]
        return Outcome(reward_B, discount_B, self.logits_SA[next_B], self.value_S[next_B], next_B)

    def best(self, sweeps=400):
        """The value of every state under the best play."""
        value_S = torch.zeros(STATES, dtype=torch.float64)
        for _ in range(sweeps):
            q_SA = self.reward_SA + self.discount_SA * value_S[self.next_SA]
            value_S = q_SA.masked_fill(self.logits_SA == -math.inf, -math.inf).amax(1)
        return value_S


@dataclass
class Node:
    """One node of the slow search."""

    state: int
    logits: list[float]
    raw: float
    reward: float = 0.0
    discount: float = 0.0
    value: float = 0.0
    n: int = 1
    children: dict[int, "Node"] = field(default_factory=dict)
    visits: list[int] = field(default_factory=list)
    drawn: int = 0

    def __post_init__(self):
        self.value, self.visits = self.raw, [0] * len(self.logits)

    def q(self, a):
        return self.children[a].reward + self.children[a].discount * self.children[a].value

    def probs(self):
        top = max(self.logits)
        weights = [math.exp(x - top) for x in self.logits]
        return [w / sum(weights) for w in weights]


class Slow:
    """One tree, one visit at a time, by recursion."""

    def __init__(self, table, state, logits, levels, uct_depth, draws, least_spread):
        self.least_spread = least_spread
        self.table, self.levels, self.uct_depth, self.draws = table, levels, uct_depth, draws
        self.root = Node(state, logits, table.value_S[state].item())
        self.gumbel, self.plan = None, None
        self.redraw(self.root, 0, 0)

    def redraw(self, node, i, depth):
        if self.draws is not None:
            left, total = self.draws[i][depth], 0.0
            for a, prob in enumerate(node.probs()):
                total += prob
                if total > left:
                    node.drawn = a
                    return

    def choose(self, node, depth):
        if depth >= self.uct_depth:
            return node.drawn
        if self.gumbel is not None:
            return self.halve(node) if depth == 0 else self.follow(node)
        known = [node.q(a) if node.visits[a] else node.value for a in range(len(node.logits))]
        low, high = min(*known, node.value), max(*known, node.value)
        scores = []
        for a, prob in enumerate(node.probs()):
            explore = prob * math.sqrt(node.n) / (1 + node.visits[a]) * (1.25 + math.log((node.n + 19652 + 1) / 19652))
            scores.append(explore + (node.visits[a] > 0) * (known[a] - low) / max(high - low, self.least_spread))
        return max(range(len(scores)), key=scores.__getitem__)

    def completed(self, node):
        probs, seen = node.probs(), [a for a, n in enumerate(node.visits) if n]
        weight = sum(probs[a] for a in seen)
        mean = sum(probs[a] * node.q(a) for a in seen) / weight if seen else 0.0
        guess = (node.raw + sum(node.visits) * mean) / (1 + sum(node.visits))
        filled = [node.q(a) if node.visits[a] else guess for a in range(len(probs))]
        low, high = min(filled), max(filled)
        return [(50 + max(node.visits)) * 0.1 * (x - low) / max(high - low, self.least_spread) for x in filled]

    def improved(self, node):
        return Node(0, [x + y for x, y in zip(node.logits, self.completed(node), strict=True)], 0.0).probs()

    def follow(self, node):
        scores = [prob - n / (1 + sum(node.visits)) for prob, n in zip(self.improved(node), node.visits, strict=True)]
        return max(range(len(scores)), key=scores.__getitem__)

    def halve(self, node, wanted=None):
        wanted = self.plan[sum(node.visits)] if wanted is None else wanted
        scores = [g + x + y for g, x, y in zip(self.gumbel, node.logits, self.completed(node), strict=True)]
        open_ = [a for a, n in enumerate(node.visits) if n == wanted and node.logits[a] > -math.inf]
        return max(open_, key=scores.__getitem__)

    def child(self, node, a):
        s, table = node.state, self.table
        after = table.next_SA[s, a].item()
        made = Node(after, table.logits_SA[after].tolist(), table.value_S[after].item())
        made.reward, made.discount = table.reward_SA[s, a].item(), table.discount_SA[s, a].item()
        return made

    def visit(self, node, i, depth=0):
        """One simulation below `node`; the return of it."""
        a = self.choose(node, depth)
        if a not in node.children:
            node.children[a] = self.child(node, a)
            got = node.children[a].raw
            self.redraw(node.children[a], i, depth + 1)
        elif depth + 1 == self.levels:
            got = node.children[a].raw
        else:
            got = self.visit(node.children[a], i, depth + 1)
        got = node.children[a].reward + node.children[a].discount * got
        node.value = (node.value * node.n + got) / (node.n + 1)
        node.n += 1
        node.visits[a] += 1
        self.redraw(node, i, depth)
        return got

    def found(self, policy, action):
        q = [self.root.q(a) if n else 0.0 for a, n in enumerate(self.root.visits)]
        return self.root.visits, q, self.root.value, policy, action


def slowly(table, root, budget, kind, gumbel=None, considered=16, seed=0, legal=None):
    """The same search, tree by tree, with the same draws in the same order."""
    levels = min(budget.depth or budget.simulations, budget.simulations)
    uct_depth = levels if budget.uct_depth is None else budget.uct_depth
    rows, draws = [], None
    if uct_depth < levels:
        generator = torch.Generator().manual_seed(seed)
        first = torch.rand(1, len(root.value), generator=generator, dtype=torch.float64)
        drawn = [
            torch.rand(min(i + 1, levels) + 1, len(root.value), generator=generator, dtype=torch.float64) for i in range(budget.simulations)
        ]
        draws = [first, *drawn]
    for b in range(len(root.value)):
        logits = root.prior_logits[b].tolist()
        if legal is not None:
            logits = [x if ok else -math.inf for x, ok in zip(logits, legal[b].tolist(), strict=True)]
        slow = Slow(
            table,
            root.state[b].item(),
            logits,
            levels,
            uct_depth,
            None if draws is None else [x[:, b].tolist() for x in draws],
            budget.least_spread,
        )
        if kind == "gumbel":
            slow.gumbel = gumbel[b].tolist()
            slow.plan = halving(min(considered, sum(x > -math.inf for x in logits)), budget.simulations)
        for i in range(budget.simulations):
            slow.visit(slow.root, i + 1)
        visits = slow.root.visits
        if kind == "gumbel":
            rows.append(slow.found(slow.improved(slow.root), slow.halve(slow.root, max(visits))))
        else:
            rows.append(slow.found([n / sum(visits) for n in visits], visits.index(max(visits))))
    return collated(rows)


def collated(rows):
    visits, q, value, policy, action = zip(*rows, strict=True)
    wide = {"dtype": torch.float64}
    return Found(*(torch.tensor(x, **wide) for x in (visits, q, value, policy)), torch.tensor(action))


def halving(m, simulations):
    """How often the action of each simulation was visited before: rounds of equal visits for the best half of the half before."""
    plan, visits, left = [], [0] * m, m
    while len(plan) < simulations:
        if m == 1:
            plan.append(len(plan))
            continue
        for _ in range(max(1, int(simulations / (math.ceil(math.log2(m)) * left)))):
            for i in range(left):
                plan.append(visits[i])
                visits[i] += 1
        left = max(2, left // 2)
    return plan[:simulations]


def slowly_breadth_first(table, root, budget):
    """A queue of nodes; values by recursion afterwards."""
    rows = []
    for b in range(len(root.value)):
        slow = Slow(table, root.state[b].item(), root.prior_logits[b].tolist(), budget.depth or 99, 99, None, budget.least_spread)
        done, levels = 0, budget.depth or 99
        while done < budget.simulations:
            queue = [(slow.root, 0)]
            while queue and done < budget.simulations:
                node, depth = queue.pop(0)
                order = sorted(range(len(node.logits)), key=lambda a, x=node.logits: -x[a])
                for a in (a for a in order if node.logits[a] > -math.inf):
                    if done == budget.simulations:
                        break
                    if a not in node.children:
                        node.children[a] = slow.child(node, a)
                    node.children[a].n += 1
                    if depth + 1 < levels:
                        queue.append((node.children[a], depth + 1))
                    done += 1

        def backed_up(node):
            node.visits = [backed_up(node.children[a]) if a in node.children else 0 for a in range(len(node.logits))]
            qs = [node.q(a) for a in node.children]
            if len(qs) == sum(x > -math.inf for x in node.logits):
                node.value = max(qs)
            return node.n - 1 + sum(node.visits)

        backed_up(slow.root)
        best = max(slow.root.children, key=slow.root.q)
        rows.append(slow.found(slow.improved(slow.root), best))
    return collated(rows)


def agree(found, expected):
    assert torch.equal(found.visits, expected.visits)
    assert torch.equal(found.action, expected.action)
    for name in ("q", "value", "policy"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-9)


def drawn_gumbel(seed, like):
    return -torch.empty_like(like).exponential_(generator=torch.Generator().manual_seed(seed)).log()


CASES = [
    Budget(simulations=1),
    Budget(simulations=30),
    Budget(simulations=30, depth=1),
    Budget(simulations=30, depth=2),
    Budget(simulations=30, depth=4),
    Budget(simulations=30, least_spread=2.0),
]


@pytest.mark.parametrize("budget", CASES, ids=str)
@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("illegal", [0.0, 0.5])
def test_puct_is_the_slow_search(budget, players, illegal):
    for seed in range(4):
        table = Table(seed, players, illegal)
        agree(puct_search(table, table.root(), budget), slowly(table, table.root(), budget, "puct"))


@pytest.mark.parametrize("budget", CASES, ids=str)
@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize(("illegal", "considered"), [(0.0, 16), (0.5, 16), (0.5, 3), (0.0, 1)])
def test_gumbel_is_the_slow_search(budget, players, illegal, considered):
    for seed in range(4):
        table = Table(seed, players, illegal)
        root = table.root()
        found = gumbel_search(table, root, budget, considered=considered, generator=torch.Generator().manual_seed(seed))
        agree(found, slowly(table, root, budget, "gumbel", drawn_gumbel(seed, root.prior_logits), considered))


@pytest.mark.parametrize("uct_depth", [0, 1, 2])
@pytest.mark.parametrize("depth", [None, 3])
def test_rollouts_are_the_slow_search(uct_depth, depth):
    budget = Budget(simulations=30, depth=depth, uct_depth=uct_depth)
    for seed in range(4):
        table = Table(seed, illegal=0.3)
        found = puct_search(table, table.root(), budget, generator=torch.Generator().manual_seed(seed))
        agree(found, slowly(table, table.root(), budget, "puct", seed=seed))


@pytest.mark.parametrize("budget", CASES, ids=str)
@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("illegal", [0.0, 0.5])
def test_breadth_first_is_the_slow_search(budget, players, illegal):
    for seed in range(4):
        table = Table(seed, players, illegal)
        agree(breadth_first(table, table.root(), budget), slowly_breadth_first(table, table.root(), budget))


def every_search(table, root, budget, legal=None):
    draws = torch.Generator().manual_seed(0)
    yield puct_search(table, root, budget, legal, noise=0.25, generator=draws)
    yield gumbel_search(table, root, budget, legal, generator=draws)
    yield breadth_first(table, root, budget, legal)
    rollouts = Budget(simulations=budget.simulations, depth=budget.depth, uct_depth=1)
    yield puct_search(table, root, rollouts, legal, generator=draws)


@pytest.mark.parametrize("budget", CASES, ids=str)
def test_visits_sum_to_the_simulations_and_no_illegal_action_is_visited(budget):
    table, legal = Table(0), torch.rand(BATCH, ACTIONS, generator=torch.Generator().manual_seed(1)) < 0.5
    legal[:, 2] = True
    for found in every_search(table, table.root(), budget, legal):
        assert (found.visits.sum(-1) == budget.simulations).all()
        assert (found.visits[~legal] == 0).all()
        assert (found.policy[~legal] == 0).all()
        torch.testing.assert_close(found.policy.sum(-1), torch.ones(BATCH, dtype=torch.float64))
        assert legal.gather(1, found.action[:, None]).all()


def test_a_mask_of_the_root_is_its_priors_minus_infinity():
    table, legal = Table(0), torch.ones(BATCH, ACTIONS, dtype=torch.bool)
    legal[:, 1] = False
    budget = Budget(simulations=20)
    agree(puct_search(table, table.root(), budget, legal), slowly(table, table.root(), budget, "puct", legal=legal))
    with pytest.raises(ValueError, match=r"legal: found shape \(6, 3\), expected that of the prior, \(6, 4\)"):
        puct_search(table, table.root(), budget, legal[:, :3])


@pytest.mark.parametrize("players", [1, 2])
def test_the_value_of_the_root_goes_to_the_best_plays(players):
    """The model's values are 0 and say nothing; what is left is the discount at the depth that is searched."""
    table = Table(3, players, noise=0.0, gamma=0.5)
    best_B = table.best()[:BATCH]
    errors = []
    for simulations in (10, 100, 2000):
        found = puct_search(table, table.root(), Budget(simulations=simulations, depth=10))
        errors.append((found.q.masked_fill(found.visits == 0, -math.inf).amax(-1) - best_B).abs().mean().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05 * best_B.abs().mean()


def test_drawing_everywhere_visits_as_the_prior_says():
    """uct_depth 0: the first actions are draws from the root's prior."""
    table = Table(0)
    root = Root(*(x[:1].expand(400, *x.shape[1:]) for x in table.root()))
    found = puct_search(table, root, Budget(simulations=50, uct_depth=0), generator=torch.Generator().manual_seed(0))
    prior = root.prior_logits[0].softmax(-1)
    error = (prior * (1 - prior) / (400 * 50)).sqrt()
    assert ((found.policy.mean(0) - prior).abs() < 4 * error).all()


def test_the_noise_of_the_root_is_a_share_of_its_prior():
    """One simulation visits the likeliest action of prior and noise: without noise always the prior's, with noise alone often another."""
    table = Table(0)
    root = Root(*(x[:1].expand(1000, *x.shape[1:]) for x in table.root()))
    first = root.prior_logits[0].argmax()
    shares = []
    for noise in (0.0, 0.5, 1.0):
        found = puct_search(table, root, Budget(simulations=1), noise=noise, generator=torch.Generator().manual_seed(0))
        shares.append((found.action == first).double().mean().item())
    assert shares[0] == 1.0
    assert 0.25 - 4 * 0.014 < shares[2] < 0.25 + 4 * 0.014  # four actions are alike
    assert shares[2] < shares[1] < 1.0


def test_a_trees_search_does_not_depend_on_its_neighbours():
    table = Table(0)
    whole = puct_search(table, table.root(), Budget(simulations=25))
    for b in range(BATCH):
        alone = puct_search(table, Root(*(x[b : b + 1] for x in table.root())), Budget(simulations=25))
        agree(Found(*(x[b : b + 1] for x in whole)), alone)


def test_a_search_of_the_true_simulator_finds_a_goal_within_its_depth():
    env = goal_grid(3, 20, num_envs=64)
    env.reset(torch.Generator().manual_seed(0))

    def simulator(state_BF, action_B):
        after_BF, reward_B, ended_B = env.transition(state_BF, action_B)
        return Outcome(reward_B, 0.9 * (~ended_B).float(), torch.zeros(len(reward_B), 4), torch.zeros_like(reward_B), after_BF)

    root = Root(torch.zeros(64, 4), torch.zeros(64), env.state_BF)
    for found in (
        puct_search(simulator, root, Budget(simulations=500, depth=5)),
        gumbel_search(simulator, root, Budget(simulations=500, depth=5), scale=0.0),
        breadth_first(simulator, root, Budget(simulations=500, depth=5)),
    ):
        after_BF, _, _ = env.transition(env.state_BF, found.action)

        def distance(state_BF):
            agent_B, goal_B = state_BF[:, 2], state_BF[:, 4]
            return (agent_B // 3 - goal_B // 3).abs() + (agent_B % 3 - goal_B % 3).abs()

        assert (distance(after_BF) == distance(env.state_BF) - 1).all()


@pytest.mark.parametrize("wrong", [{"simulations": 0}, {"depth": 0}, {"uct_depth": -1}])
def test_an_impossible_budget_is_refused(wrong):
    with pytest.raises(ValueError, match=r"found .*, expected at least"):
        Budget(**wrong)
