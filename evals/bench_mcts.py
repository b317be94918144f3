"""Our search beside mctx's, on the same model: python evals/bench_mcts.py [--batches 1 64 256] [--simulations 16 50] [--repeats N]

One world model is made in torch and its weights are read by jax, so both search the same thing, on one thread. First whether both visit
alike, given no noise; then how fast they are, ours as it stands and compiled, mctx jitted, interleaved: a ratio is ours over mctx's of the
same repeat. Runs in an environment with both (`make bench-mcts`). Writes evals/results/mcts.md.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # read when jax is imported
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import torch
from torch import Tensor, nn

from posttrain.agents.kernel.mcts import Budget, Found, Outcome, Root, gumbel_search, puct_search
from posttrain.run import commit, write_atomic

ACTIONS, WIDTH, HIDDEN, GAMMA = 4, 64, 128, 0.97
CAP = {16: 4, 50: 5}  # simulations -> deepest path, the same for both
RESULT = Path(__file__).parent / "results" / "mcts.md"


class Net(nn.Module):
    """A residual dynamics MLP with reward, policy and value heads, each one number wide or one number an action."""

    def __init__(self) -> None:
        super().__init__()
        self.from_state, self.from_action = nn.Linear(WIDTH, HIDDEN), nn.Linear(ACTIONS, HIDDEN, bias=False)
        self.to_state, self.reward = nn.Linear(HIDDEN, WIDTH), nn.Linear(HIDDEN, 1)
        self.trunk, self.policy, self.value = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, ACTIONS), nn.Linear(HIDDEN, 1)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        features = (self.from_state(state) + self.from_action.weight.T.index_select(0, action)).relu()
        return (state + self.to_state(features)).tanh(), self.reward(features)[:, 0]

    def predict(self, state: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(state).relu()
        return 3 * self.policy(features), self.value(features)[:, 0]


def jax_net(net: Net) -> tuple[dict[str, Any], Callable[..., Any], Callable[..., Any]]:
    """The same in jax: parameters, `step` and `predict`."""
    params = {name: jnp.asarray(x.detach().numpy()) for name, x in net.state_dict().items()}

    def linear(p: dict[str, Any], name: str, x: Any) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def step(p: dict[str, Any], state: Any, action: Any) -> Any:
        features = jax.nn.relu(linear(p, "from_state", state) + p["from_action.weight"].T[action])
        return jnp.tanh(state + linear(p, "to_state", features)), linear(p, "reward", features)[:, 0]

    def predict(p: dict[str, Any], state: Any) -> Any:
        features = jax.nn.relu(linear(p, "trunk", state))
        return 3 * linear(p, "policy", features), linear(p, "value", features)[:, 0]

    return params, step, predict


def ours(net: Net, kind: str, simulations: int, compiled: bool) -> Callable[[Tensor], Found]:
    """A search of ours from states."""
    budget = Budget(simulations=simulations, depth=CAP[simulations], compiled=compiled)

    @torch.no_grad()
    def model(state: Tensor, action: Tensor) -> Outcome:
        after, reward = net.step(state, action)
        logits, value = net.predict(after)
        return Outcome(reward, torch.full_like(reward, GAMMA), logits, value, after)

    @torch.no_grad()
    def run(state: Tensor) -> Found:
        root = Root(*net.predict(state), state)
        return puct_search(model, root, budget) if kind == "puct" else gumbel_search(model, root, budget, scale=0.0)

    return run


def theirs(net: Net, kind: str, simulations: int) -> Callable[[Any], Any]:
    """The same search of mctx, jitted."""
    params, step, predict = jax_net(net)

    def recurrent(p: Any, _: Any, action: Any, state: Any) -> Any:
        after, reward = step(p, state, action)
        logits, value = predict(p, after)
        return mctx.RecurrentFnOutput(reward=reward, discount=jnp.full_like(reward, GAMMA), prior_logits=logits, value=value), after

    def run(p: Any, state: Any) -> Any:
        logits, value = predict(p, state)
        root, key = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state), jax.random.PRNGKey(0)
        common = {"num_simulations": simulations, "max_depth": CAP[simulations]}
        if kind == "puct":
            return mctx.muzero_policy(p, key, root, recurrent, dirichlet_fraction=0.0, **common).search_tree.summary()
        return mctx.gumbel_muzero_policy(p, key, root, recurrent, gumbel_scale=0.0, **common).search_tree.summary()

    jitted = jax.jit(run)
    return lambda state: jax.block_until_ready(jitted(params, state))


def agreement(seeds: int, batch: int) -> list[str]:
    """Rows: the share of states where both visit every action of the root equally often."""
    rows = []
    for kind in ("puct", "gumbel"):
        for simulations in CAP:
            same, value = [], []
            for seed in range(seeds):
                torch.manual_seed(seed)
                net, state = Net(), torch.randn(batch, WIDTH)
                found, other = ours(net, kind, simulations, False)(state), theirs(net, kind, simulations)(jnp.asarray(state.numpy()))
                alike = (found.visits.numpy() == np.asarray(other.visit_counts)).all(-1)
                same.append(alike.mean())
                value.append(np.abs(found.value.numpy() - np.asarray(other.value))[alike].max())
            rows.append(f"| {kind} | {simulations}, {CAP[simulations]} | {np.mean(same):.4f} of {seeds * batch} | {max(value):.1e} |")
    return rows


def clock(run: Callable[[], Any], times: int) -> float:
    before = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - before) / times


def speed(batches: list[int], budgets: list[int], repeats: int) -> list[str]:
    """Rows: simulations a CPU second of mctx, and ours over it: median and range over repeats."""
    rows = []
    torch.manual_seed(0)
    net = Net()
    for kind in ("puct", "gumbel"):
        for batch in batches:
            for simulations in budgets:
                torch._dynamo.reset()
                state = torch.randn(batch, WIDTH)
                array = jnp.asarray(state.numpy())
                eager, fast = ours(net, kind, simulations, False), ours(net, kind, simulations, True)
                other = theirs(net, kind, simulations)
                runs = [lambda f=other, x=array: f(x), lambda f=eager, x=state: f(x), lambda f=fast, x=state: f(x)]
                for run in runs:
                    run(), run(), run()  # compiled, and warm
                assert (eager(state).visits == fast(state).visits).double().mean() > 0.999
                times = np.array([[clock(run, 5) for run in runs] for _ in range(repeats)])
                ratios = times[:, :1] / times[:, 1:]
                cells = [f"{np.median(r):.2f} [{r.min():.2f}, {r.max():.2f}]" for r in ratios.T]
                rate = batch * simulations / np.median(times[:, 0]) / 1000
                rows.append(f"| {kind} | {batch} | {simulations}, {CAP[simulations]} | {rate:.0f} | {cells[0]} | {cells[1]} |")
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--simulations", type=int, nargs="+", default=list(CAP), choices=list(CAP))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=4, help="models on which visits are compared")
    options = parser.parse_args()
    torch.set_num_threads(1)
    same = agreement(options.seeds, 128)
    print("\n".join(same), flush=True)
    rows = speed(options.batches, options.simulations, options.repeats)
    text = f"""# Our search beside mctx's

`make bench-mcts`; commit {commit()}; torch {torch.__version__}, jax {jax.__version__}, mctx {mctx.__version__}; one CPU thread.
An MLP of {WIDTH} numbers a state and {HIDDEN} hidden units, {ACTIONS} actions, weights shared by both.

## The same visits, given no noise

pUCT beside `muzero_policy` with `dirichlet_fraction=0`, Gumbel beside `gumbel_muzero_policy` with `gumbel_scale=0`.

| search | simulations, depth cap | states visited alike | largest difference of the root's value there |
|---|---|---|---|
{chr(10).join(same)}

## Speed

Simulations a CPU second of mctx, and how many times as fast ours is: median and range of {options.repeats} repeats, in which
the three take turns. At batch 1 next to nothing is computed: what is left is the cost of calling.

| search | batch | simulations, depth cap | mctx, thousand a second | ours, eager, over mctx | ours, compiled, over mctx |
|---|---|---|---|---|---|
{chr(10).join(rows)}
"""
    write_atomic(RESULT, text)
    print(text)


if __name__ == "__main__":
    main()
