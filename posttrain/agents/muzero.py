"""MuZero (arXiv 1911.08265) with each use of its search set apart: what planning is good for (arXiv 2011.04021).

s_0 = h(o), (r, s') = g(s, a), (p, v) = f(s); a search over them makes a policy pi and a value nu. For a step t of experience, K model steps
s_k along the actions taken from it, and z_t = r_t + gamma r_{t+1} + ... + gamma^n nu_{t+n}:

    loss = sum_k w_k [CE(pi_{t+k}, p_k) + weight_value CE(z_{t+k}, v_k) + CE(r_{t+k-1}, r_k)],    w_0 = 1, w_k = 1 / K

after the end of an episode r and z are 0 and pi teaches nothing. The paper's interventions are fields:

    learn   the search that makes pi and nu          One-Step: learn.depth 1, act.kind prior     Learn: act.kind prior
    act     what takes actions in training           Data: learn.depth 1                         Learn+Data: as they stand
    test    what takes actions when asked at the end, any number of ways; search there is Learn+Data+Eval

with depth, simulations, Monte-Carlo rollouts (uct_depth) and breadth-first search in each place, and a true simulator at the end. The
model-free baseline (learn.kind q) has no g: it learns q(s, a) = z of the action taken, and its policy from all of q.

    loss = CE(z_t, q(s, a_t)) - sum_a p(a) (q(s, a) - sum_b p(b) q(s, b)) - entropy H(p)

Left out: an average of the weights (MuZero acts by its newest ones), and bootstrapping past a time limit, which counts as an
end. What it reaches: recipes/muzero_maze.
"""

import json
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from posttrain.agents.environments import EnvConfig, KeyGridConfig, MazeConfig, WallsConfig, check_device, make_env
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.envs.grids import Grid
from posttrain.agents.kernel.envs.vector import VectorEnv
from posttrain.agents.kernel.imagination import imagined, root_of, simulated
from posttrain.agents.kernel.mcts import Budget, Found, breadth_first, gumbel_search, puct_search
from posttrain.agents.kernel.nets import WorldModel, descend, mlp, save_model, torso, unroll
from posttrain.agents.kernel.replay import Replay
from posttrain.agents.kernel.returns import n_step_return
from posttrain.agents.kernel.rollout import returns_of
from posttrain.agents.kernel.threads import one_thread
from posttrain.agents.kernel.transforms import Support
from posttrain.config import ConfigError, config
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic


@config
class SearchConfig:
    """How an action is looked for."""

    kind: Literal["puct", "gumbel", "breadth_first", "prior"] = "puct"
    """`prior` does not look at all: the policy as it stands."""
    simulations: PositiveInt = 16
    depth: PositiveInt | None = None
    """Most model steps ahead."""
    uct_depth: NonNegativeInt | None = None
    """From this depth on actions are drawn from the policy: Monte-Carlo rollouts. For puct and gumbel."""
    least_spread: PositiveFloat = 0.5
    """Values are normalised by their spread, or by this where they spread less; 0.01 in EfficientZero, no floor in MuZero."""


@config
class QConfig:
    """No model and no search: a policy gradient with q of all actions."""

    kind: Literal["q"] = "q"
    entropy: NonNegativeFloat = 0.02
    """Weight of the policy's entropy."""


@config
class Asked(SearchConfig):
    """How actions are looked for when the final model is asked."""

    simulator: bool = False
    """Search the environment itself in place of the model, with the network's policy and value; gridworlds only."""
    drawn: bool = False
    """Draw the action from the policy that is found, in place of taking the best one."""


LearnConfig: TypeAlias = SearchConfig | QConfig


@config
class Config:
    """A run of MuZero."""

    kind: Literal["muzero"] = "muzero"
    seed: NonNegativeInt = 0
    """Of every draw, and of the layouts of an environment that has some."""
    env: EnvConfig = Field(default=KeyGridConfig(), discriminator="kind")
    env_steps: PositiveInt = 60_000
    """Steps of experience in all."""
    num_envs: PositiveInt = 256
    learn: LearnConfig = SearchConfig()
    act: SearchConfig = SearchConfig()
    test: dict[str, Asked] = Field(default={"policy": Asked(kind="prior"), "search": Asked()}, min_length=1)
    """Ways to act that the final model is asked by, by name; those during the run are the first of them."""
    noise: float = Field(default=0.25, ge=0, le=1)
    """Share of Dirichlet noise in the prior of a root, in training."""
    alpha: PositiveFloat = 0.3
    """Concentration of that noise."""
    temperature: tuple[PositiveFloat, ...] = Field(default=(1.0, 0.5, 0.25), min_length=1)
    """Of acting by visits in training, each for an equal part of the run."""
    gamma: float = Field(default=0.97, gt=0, lt=1)
    """Discount a step."""
    unroll: PositiveInt = 4
    """K; 5 in the papers."""
    n_step: PositiveInt = 5
    """n; 10 on Atari."""
    weight_value: PositiveFloat = 0.25
    replay_steps: PositiveInt = 10_000
    """Steps of experience kept."""
    priority: float = Field(default=0.0, ge=0, le=1)
    """Stretches are drawn in proportion to |nu - z| of their first step to this power, and weighted to make up for it; 0 draws evenly."""
    reanalyse: float = Field(default=0.0, ge=0, le=1)
    """Share of a batch whose pi and nu are searched anew by the newest weights."""
    batch: PositiveInt = 256
    """Stretches in an update."""
    updates: PositiveInt = 12
    """Updates after a step of all environments."""
    width: PositiveInt = 64
    """Numbers in a model state."""
    hidden: PositiveInt = 128
    support: tuple[float, float, PositiveInt] = (-1.0, 1.0, 21)
    """Lowest and highest atom on the squashed scale of values and rewards, and how many there are; (-300, 300, 601) on Atari."""
    learning_rate: PositiveFloat = 1e-2
    """Of AdamW, falling linearly to 0 at the end of the run, which therefore ends with its last weights, not with chosen ones."""
    weight_decay: NonNegativeFloat = 1e-4
    clip_update: PositiveFloat = 5.0
    """Largest norm of the gradient."""
    log_every: PositiveInt = 50
    """Steps of all environments between rows of metrics, each with an evaluation."""
    checkpoint_every: PositiveInt = 200
    """Steps of all environments between checkpoints."""
    eval_episodes: PositiveInt = 256
    """Of an evaluation during the run."""
    final_episodes: PositiveInt = 512
    """Of each test at the end, all from the same starts, which are drawn apart from those during the run."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        low, high, num_atoms = self.support
        Support(low=low, high=high, num_atoms=num_atoms)  # raises where it is none
        if self.learn.kind == "prior":
            raise ValueError("learn.kind: found prior, which teaches the policy itself; expected puct, gumbel, breadth_first or q")
        searches = [("act", self.act), *((f"test.{name}", search) for name, search in self.test.items())]
        for name, search in searches if self.learn.kind == "q" else ():
            if search.kind != "prior":
                raise ValueError(f"{name}.kind: found {search.kind}, expected prior: with learn.kind q there is no model to search")
        if self.env_steps < self.num_envs * self.length:
            raise ValueError(f"env_steps: found {self.env_steps}, expected one stretch at least, num_envs * {self.length}")
        if self.replay_steps < self.num_envs * self.length:
            raise ValueError(f"replay_steps: found {self.replay_steps}, expected one stretch at least, num_envs * {self.length}")

    @property
    def length(self) -> int:
        """Steps in a stretch of experience."""
        return self.unroll + self.n_step + 1


class Experience(NamedTuple):
    """N stretches of T steps, T = K + n + 1."""

    obs: Tensor
    """[T, N, *obs_shape]"""
    action: Tensor
    """[T, N]"""
    reward: Tensor
    ended: Tensor
    policy: Tensor
    """pi, [T, N, A]"""
    value: Tensor
    """nu, [T, N]"""


class QNetwork(nn.Module):
    """Policy and q of a state, no model: [N, *obs_shape] -> logits [N, A] and logits of q [N, A, num_atoms]."""

    def __init__(self, obs_shape: tuple[int, ...], num_actions: int, support: Support, width: int, hidden: int) -> None:
        super().__init__()
        self.support = support
        self.encode = torso(obs_shape, width)
        self.policy_head = mlp([width, hidden, num_actions])
        self.q_head = mlp([width, hidden, num_actions * support.num_atoms])

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encode(obs).relu()
        return self.policy_head(features), self.q_head(features).unflatten(-1, (-1, self.support.num_atoms))


Network: TypeAlias = WorldModel | QNetwork


def n_step_targets(batch: Experience, cfg: Config) -> Tensor:
    """z of the first K + 1 steps, [K+1, N]."""
    discount = cfg.gamma * (~batch.ended).float()
    return n_step_return(batch.reward[:-1], discount[:-1], batch.value[:-1], batch.value[-1], cfg.n_step)[: cfg.unroll + 1]


def muzero_loss(model: WorldModel, batch: Experience, z: Tensor, weight: Tensor, cfg: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its parts; `weight` of each stretch, [N]."""
    states, reward_logits = unroll(model, model.represent(batch.obs[0]), list(batch.action[: cfg.unroll]))
    policy_logits, value_logits = model.predict(states)
    going = (~batch.ended[: cfg.unroll]).float().cumprod(0)
    alive = torch.cat([torch.ones_like(going[:1]), going])  # whether the episode of step 0 is still going at step k
    share = weight * torch.tensor([1.0] + [1 / cfg.unroll] * cfg.unroll, device=z.device)[:, None]
    policy = -(batch.policy[: cfg.unroll + 1] * policy_logits.log_softmax(-1)).sum(-1)
    parts = {
        "policy": (share * alive * policy).sum(0).mean(),
        "value": (share * model.support.cross_entropy(value_logits, alive * z)).sum(0).mean(),
        "reward": (share[1:] * model.support.cross_entropy(reward_logits, alive[:-1] * batch.reward[: cfg.unroll])).sum(0).mean(),
    }
    return parts["policy"] + cfg.weight_value * parts["value"] + parts["reward"], parts


def q_loss(network: QNetwork, batch: Experience, z: Tensor, weight: Tensor, entropy: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The model-free loss and its parts, of the first step of each stretch."""
    logits, q_logits = network(batch.obs[0])
    q = network.support.mean(q_logits).detach()
    probs = logits.softmax(-1)
    taken = q_logits[torch.arange(len(q)), batch.action[0]]
    advantage = q - (probs.detach() * q).sum(-1, keepdim=True)
    spread = -(probs * logits.log_softmax(-1)).sum(-1)
    parts = {
        "policy": (weight * -(probs * advantage).sum(-1)).mean(),
        "value": (weight * network.support.cross_entropy(taken, z[0])).mean(),
        "entropy": spread.mean(),
    }
    return parts["policy"] + parts["value"] - entropy * (weight * spread).mean(), parts


class Planner:
    """A network, and how it looks ahead."""

    def __init__(self, network: Network, cfg: Config, draws: torch.Generator) -> None:
        self.network, self.cfg, self.draws = network, cfg, draws

    @torch.no_grad()
    def look(self, obs: Tensor, how: LearnConfig, noise: float = 0.0, env: Grid | None = None) -> Found:
        """What a search says of B observations; with `env` it searches that from the states it is in."""
        if isinstance(self.network, QNetwork):
            logits, q_logits = self.network(obs)
            q = self.network.support.mean(q_logits)
            return self._unsearched(logits, q, (logits.softmax(-1) * q).sum(-1))
        root = root_of(self.network, self.network.represent(obs))
        if how.kind == "prior" or isinstance(how, QConfig):
            return self._unsearched(root.prior_logits, torch.zeros_like(root.prior_logits), root.value)
        model = imagined(self.network, self.cfg.gamma)
        if env is not None:
            model, root = simulated(self.network, env, self.cfg.gamma), root._replace(state=env.state_BF)
        budget = Budget(simulations=how.simulations, depth=how.depth, uct_depth=how.uct_depth, least_spread=how.least_spread)
        if how.kind == "breadth_first":
            return breadth_first(model, root, budget)
        if how.kind == "gumbel":
            return gumbel_search(model, root, budget, scale=float(noise > 0), generator=self.draws)
        return puct_search(model, root, budget, noise=noise, alpha=self.cfg.alpha, generator=self.draws)

    @staticmethod
    def _unsearched(logits: Tensor, q: Tensor, value: Tensor) -> Found:
        return Found(torch.zeros_like(q), q, value, logits.softmax(-1), logits.argmax(-1))


def act(planner: Planner, obs: Tensor, progress: float) -> tuple[Tensor, Found]:
    """Actions in training, and what is learnt from the states they are taken in; `progress` from 0 to 1 is how much of the run is over."""
    cfg = planner.cfg
    taught = planner.look(obs, cfg.learn, cfg.noise)
    found = taught if cfg.act == cfg.learn else planner.look(obs, cfg.act, cfg.noise)
    if cfg.act.kind == "gumbel":
        return found.action, taught
    temperature = cfg.temperature[int(progress * len(cfg.temperature))] if cfg.act.kind != "prior" else 1.0
    weights = (found.policy / found.policy.amax(-1, keepdim=True)).pow(1 / temperature)
    return torch.multinomial(weights, 1, generator=planner.draws)[:, 0], taught


class Learner:
    """The network and its optimiser."""

    def __init__(self, cfg: Config, obs_shape: tuple[int, ...], num_actions: int) -> None:
        low, high, num_atoms = cfg.support
        support = Support(low=low, high=high, num_atoms=num_atoms)
        kind = QNetwork if cfg.learn.kind == "q" else WorldModel
        self.cfg = cfg
        self.network: Network = kind(obs_shape, num_actions, support, cfg.width, cfg.hidden).to(cfg.device)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay)

    def update(self, batch: Experience, weight: Tensor, progress: float) -> tuple[dict[str, Tensor], Tensor]:
        """One step of the optimiser; the parts of the loss, and |nu - z| of each stretch's first step, [N]."""
        z = n_step_targets(batch, self.cfg)
        if isinstance(self.network, QNetwork):
            assert isinstance(self.cfg.learn, QConfig)
            loss, parts = q_loss(self.network, batch, z, weight, self.cfg.learn.entropy)
        else:
            loss, parts = muzero_loss(self.network, batch, z, weight, self.cfg)
        descend(self.optimiser, loss, self.cfg.clip_update, self.cfg.learning_rate * (1 - progress))
        return {name: part.detach() for name, part in parts.items()} | {"loss": loss.detach()}, (batch.value[0] - z[0]).abs()

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])


def learn(learner: Learner, planner: Planner, replay: Replay, progress: float) -> dict[str, Tensor]:
    """Draw a batch, search a share of it anew, update, and set priorities."""
    cfg, draws = learner.cfg, planner.draws
    if cfg.priority:
        drawn = replay.sample_prioritised(cfg.batch, cfg.length, cfg.priority, draws)
        weight = 1 / (drawn.prob_N * len(replay) * cfg.num_envs)
        weight = weight / weight.max()
    else:
        drawn = replay.sample(cfg.batch, cfg.length, draws)
        weight = torch.ones(cfg.batch, device=cfg.device)
    batch = Experience(**drawn.fields)
    if renewed := round(cfg.reanalyse * cfg.batch):
        found = planner.look(batch.obs[:, :renewed].flatten(0, 1), cfg.learn)
        batch.policy[:, :renewed] = found.policy.unflatten(0, (cfg.length, renewed))
        batch.value[:, :renewed] = found.value.unflatten(0, (cfg.length, renewed))
    parts, error = learner.update(batch, weight, progress)
    if cfg.priority:
        replay.prioritise(drawn.slot_N, drawn.column_N, error + 1e-3)
    return parts


def evaluate(planner: Planner, how: Asked, env: VectorEnv, starts: int) -> float:
    """Mean return of episodes acted in that way; `starts` seeds where they begin."""
    simulated = env if how.simulator and isinstance(env, Grid) else None

    def action(obs: Tensor) -> Tensor:
        found = planner.look(obs, how, env=simulated)
        return torch.multinomial(found.policy, 1, generator=planner.draws)[:, 0] if how.drawn else found.action

    return returns_of(env, action, torch.Generator(env.device).manual_seed(starts)).mean().item()


def ask(network: Network, cfg: Config, held_out: bool = False) -> dict[str, float]:
    """The score of every way to act, from the same starts."""
    scores = {}
    for name, how in cfg.test.items():
        env = make_env(cfg.env, cfg.final_episodes, cfg.device, layout_seed=cfg.seed, held_out=held_out)
        planner = Planner(network, cfg, torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "test", name)))
        scores[name] = evaluate(planner, how, env, seed_for(cfg.seed, "evaluation", "end"))
    return scores


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, test, write `result.json` and the weights; returns the exit code."""
    check_device(cfg.device)
    env = make_env(cfg.env, cfg.num_envs, cfg.device, layout_seed=cfg.seed)
    for name, how in cfg.test.items():
        if how.simulator and not isinstance(env, Grid):
            raise ConfigError(f"test.{name}.simulator: found true, but {cfg.env.kind} cannot be stepped from any state; gridworlds can")
    run, saved = RunFolder(out, cfg, resume=resume, free=("checkpoint_every",)), out / "checkpoint.pt"
    draws = checkpoint.seeded(seed_for(cfg.seed), cfg.device)
    replay = Replay(cfg.replay_steps // cfg.num_envs, cfg.num_envs, cfg.device)
    learner = Learner(cfg, env.obs_shape, env.num_actions)
    planner = Planner(learner.network, cfg, draws)
    obs, done = env.reset(torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "env"))), 0
    parts = {"learner": learner, "env": env, "replay": replay, "draws": draws}
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        obs, done = numbers["obs"].to(cfg.device), numbers["done"]
    run.forget_after(done)
    steps, before_s = cfg.env_steps // cfg.num_envs, time.process_time()
    watch = make_env(cfg.env, cfg.eval_episodes, cfg.device, layout_seed=cfg.seed)
    with StopSignal() as stop:
        for number in range(done + 1, steps + 1):
            progress = (number - 1) / steps
            action, taught = act(planner, obs, progress)
            after, reward, terminated, truncated = env.step(action)
            ended = terminated | truncated
            replay.append(obs=obs, action=action, reward=reward, ended=ended, policy=taught.policy, value=taught.value)
            obs, rows = after, []
            if len(replay) >= cfg.length:
                rows = [learn(learner, planner, replay, progress) for _ in range(cfg.updates)]
            if rows and (number % cfg.log_every == 0 or number == steps):
                means = {name: torch.stack([row[name] for row in rows]).mean().item() for name in rows[0]}
                cpu_s = time.process_time() - before_s
                looks = Planner(learner.network, cfg, torch.Generator(cfg.device).manual_seed(number))
                score = evaluate(looks, next(iter(cfg.test.values())), watch, seed_for(cfg.seed, "evaluation", number))
                run.log(number, {"env_steps": number * cfg.num_envs, "score": score, **means, "cpu_s": cpu_s})
            if number % cfg.checkpoint_every == 0 or number == steps or stop.came:
                checkpoint.save(saved, parts, obs=obs, done=number)
            if stop.came:
                return INTERRUPTED
    result: dict[str, Any] = {"env_steps": steps * cfg.num_envs, "test": ask(learner.network, cfg)}
    if isinstance(cfg.env, MazeConfig | WallsConfig):
        result["held_out"] = ask(learner.network, cfg, held_out=True)
    if isinstance(learner.network, WorldModel):
        save_model(out / "model.pt", learner.network)
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0
