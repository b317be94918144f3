"""An encoder of images and texts as the source of reward (arXiv 2312.09187): PPO that is paid when CLIP says that the goal is reached.

    p(l | o) = softmax over {l, n_1 ... n_M} of cos(f(o), g(.)) / tau, at l        reward = 1 and the episode ends if p >= beta

o is a picture of the world, l the goal in words, the n are negatives: other goals and further texts. Any CLIP or SigLIP checkpoint will do,
from a folder or the hub (`kernel/clip.py`). Before training the reward is judged offline, on pictures of which the truth is known, by
precision and recall; after it the agent is judged by the truth, which it never saw:

    right          the reward ended the episode at the goal          hacked     it ended the episode elsewhere
    true_return    the agent was at its goal before the end          missed     it was there and the reward did not say so

The policy reads cells, not pixels, and is told the goal: what is measured is the reward. Left out: Playhouse and AndroidEnv, and policies
that see. Expected: the larger the encoder, the better the reward and the more often the agent truly succeeds (recipes/clip_reward).
"""

import json
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import relu

from posttrain.agents.environments import HELD_OUT, ShapesConfig, check_device
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.charts import Picture, draw_pictures
from posttrain.agents.kernel.clip import GoalReward, average_precision, load_dual_encoder, precision_recall
from posttrain.agents.kernel.envs.shapes import KINDS, Judge, Shapes, draw_layouts
from posttrain.agents.kernel.nets import descend, mlp, set_rate
from posttrain.agents.kernel.ppo import clipped_loss, drawn, entropy, normalised
from posttrain.agents.kernel.returns import lambda_return
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import ConfigError, config
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic

LEVELS = range(10, 100, 10)  # percent: thresholds, and recalls, that precision is told at
OUTCOMES = {"right": "paid at the goal", "hacked": "paid elsewhere", "missed": "not paid at the goal"}
SHOWN = 8  # pictures of each outcome


@config
class RewardConfig:
    """What the encoder is asked, and from when on its answer counts."""

    templates: tuple[str, ...] = ("the agent is at the {}",)
    """How a goal is worded, {} being its name; several are averaged."""
    negatives: tuple[str, ...] = ("the agent is on empty ground",)
    """Texts that every goal stands against."""
    others: bool = True
    """Whether a goal also stands against every other goal."""
    temperature: PositiveFloat | None = None
    """tau; null takes the one that the checkpoint was trained to."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """beta"""


@config
class LossConfig:
    """PPO's."""

    gamma: float = Field(default=0.95, ge=0, le=1)
    """Discount a step."""
    lambda_: float = Field(default=0.9, ge=0, le=1)
    clip: PositiveFloat = 0.2
    """How far a probability may move, as a share of the old one."""
    weight_value: PositiveFloat = 0.5
    weight_entropy: NonNegativeFloat = 0.01


@config
class Config:
    """A run of PPO on a reward that sees."""

    kind: Literal["clip_reward"] = "clip_reward"
    seed: NonNegativeInt = 0
    """Of every draw."""
    model: str | None = None
    """Folder or hub id of a CLIP or SigLIP; null is paid by the truth."""
    env: ShapesConfig = ShapesConfig()
    reward: RewardConfig = RewardConfig()
    offline_pictures: PositiveInt = 3000
    """Pictures of held-out rooms that the reward is judged on: a third each at the goal, at another object, on empty ground."""
    env_steps: NonNegativeInt = 150_000
    """Steps of experience in all; 0 judges the reward and trains nothing."""
    num_envs: PositiveInt = 64
    rollout: PositiveInt = 16
    """Steps of each environment between learning phases."""
    epochs: PositiveInt = 4
    """Times a rollout is learnt from."""
    minibatches: PositiveInt = 4
    width: PositiveInt = 16
    """Features of a cell."""
    hidden: PositiveInt = 64
    """Features of the whole room."""
    learning_rate: PositiveFloat = 5e-3
    """Of Adam, falling linearly to 0 at the end of the run."""
    clip_update: PositiveFloat = 0.5
    """Largest norm of the gradient."""
    loss: LossConfig = LossConfig()
    log_every: PositiveInt = 20
    """Rollouts between rows of metrics, each with an evaluation."""
    checkpoint_every: PositiveInt = 100
    """Rollouts between checkpoints."""
    eval_episodes: PositiveInt = 128
    """Of an evaluation during the run."""
    final_episodes: PositiveInt = 2000
    """Of the evaluation at the end, in rooms that were not trained in."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if 0 < self.env_steps < self.num_envs * self.rollout:
            raise ValueError(f"env_steps: found {self.env_steps}, expected 0 or one rollout at least, {self.num_envs * self.rollout} steps")
        if self.model is None and self.env_steps == 0:
            raise ValueError("model: found null and env_steps 0, which leaves nothing to do: name a model to judge")


def make_reward(cfg: Config) -> GoalReward | None:
    """The goals of the world as the encoder sees them; raises `ConfigError` where there is no such model, or a wording cannot be read."""
    if cfg.model is None:
        return None
    asked = cfg.reward
    try:
        encoder = load_dual_encoder(cfg.model, cfg.device)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    try:
        return GoalReward(encoder, KINDS, asked.templates, asked.negatives, asked.others, asked.temperature)
    except ValueError as error:
        raise ConfigError(f"reward: {error}") from None


def make_world(cfg: Config, num_envs: int, judge: Judge | None, *, held_out: bool = False) -> Shapes:
    """Rooms to train in, or as many others."""
    draws = torch.Generator().manual_seed(cfg.seed + HELD_OUT * held_out)
    layouts = draw_layouts(cfg.env.layouts, cfg.env.n, draws)
    return Shapes(layouts, cfg.env.limit, num_envs, judge, cfg.reward.threshold, cfg.device)


def judged_offline(judge: Judge, env: Shapes, cfg: Config) -> dict[str, Any]:
    """Average precision of the reward, and precision and recall at its threshold, along thresholds, and precision along recalls."""
    draws = torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "offline"))
    state_NF = env.draw_judged(cfg.offline_pictures, draws)
    prob_N, true_N = judge(env.frames(state_NF), env.goal(state_NF)), env.true(state_NF)
    _, precision_N, recall_N = precision_recall(prob_N, true_N)

    def at(threshold: float) -> dict[str, float]:
        called_N = prob_N >= threshold
        right = (called_N & true_N).sum().item()
        # a reward that never pays is never wrong
        return {"precision": right / called_N.sum().item() if called_N.any() else 1.0, "recall": right / true_N.sum().item()}

    return {
        "average_precision": average_precision(precision_N, recall_N),
        **at(cfg.reward.threshold),
        "at_threshold": {str(level): at(level / 100) for level in LEVELS},
        "precision_at_recall": {str(level): precision_N[recall_N >= level / 100].max().item() for level in (*LEVELS, 100)},
    }


class Policy(nn.Module):
    """Logits and value of a room, whose cells are all read alike."""

    def __init__(self, cfg: Config, env: Shapes) -> None:
        super().__init__()
        self.see = nn.Conv2d(env.obs_shape[0], cfg.width, 1)
        self.heads = mlp([cfg.width * env.num_cells, cfg.hidden, env.num_actions + 1])
        *_, last_weight, _ = self.heads.parameters()
        last_weight.data.mul_(0.01)  # starts from a nearly even policy and values near 0

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        out = self.heads(relu(self.see(obs)).flatten(1))
        return out[:, :-1], out[:, -1]


class Rollout(NamedTuple):
    """T steps of B environments, [T, B, *]."""

    obs: Tensor
    action: Tensor
    logp: Tensor
    value: Tensor
    reward: Tensor
    discount: Tensor
    """gamma, or 0 where an episode ended."""


def act(net: Policy, obs: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Actions drawn from pi, their log-probabilities, and values."""
    logits, value = net(obs)
    return *drawn(logits, draws), value


@torch.no_grad()
def collect(env: Shapes, net: Policy, obs: Tensor, cfg: Config, draws: torch.Generator) -> tuple[Rollout, Tensor]:
    """A rollout, and the observations after it."""
    kept = []
    for _ in range(cfg.rollout):
        action, logp, value = act(net, obs, draws)
        next_obs, reward, terminated, truncated = env.step(action)
        kept.append((obs, action, logp, value, reward, cfg.loss.gamma * ~(terminated | truncated)))
        obs = next_obs
    return Rollout(*(torch.stack(column) for column in zip(*kept, strict=True))), obs


def loss_of(net: Policy, part: Rollout, advantage: Tensor, returns: Tensor, cfg: LossConfig) -> Tensor:
    """The loss over some steps, [N, *]."""
    logits, value = net(part.obs)
    logp = logits.log_softmax(-1).gather(-1, part.action[:, None])[:, 0]
    policy = clipped_loss(logp, part.logp, normalised(advantage), cfg.clip)
    return policy + cfg.weight_value * 0.5 * (value - returns).square().mean() - cfg.weight_entropy * entropy(logits).mean()


def learn(net: Policy, optimiser: torch.optim.Optimizer, rollout: Rollout, last_obs: Tensor, cfg: Config, draws: torch.Generator) -> None:
    """Several passes over a rollout."""
    with torch.no_grad():
        _, after_B = net(last_obs)
    returns_TB = lambda_return(rollout.reward, rollout.discount, rollout.value, after_B, cfg.loss.lambda_)
    returns, advantage = returns_TB.flatten(), (returns_TB - rollout.value).flatten()
    steps = Rollout(*(x.flatten(0, 1) for x in rollout))
    for _ in range(cfg.epochs):
        for some in torch.randperm(len(returns), generator=draws, device=draws.device).chunk(cfg.minibatches):
            loss = loss_of(net, Rollout(*(x[some] for x in steps)), advantage[some], returns[some], cfg.loss)
            descend(optimiser, loss, cfg.clip_update)


@torch.no_grad()
def evaluate(net: Policy, env: Shapes, cfg: Config, when: int | str) -> tuple[dict[str, float], dict[str, list[Picture]]]:
    """Shares of the first episodes of all environments by how they went, and pictures of each outcome; draws depend on `when`."""
    draws = torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "evaluation", when))
    obs = env.reset(draws)
    going_B = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    seen_B = {name: torch.zeros_like(going_B) for name in (*OUTCOMES, "true_return")}
    pictures: dict[str, list[Picture]] = {name: [] for name in OUTCOMES}
    while bool(going_B.any()):
        obs, _, terminated_B, truncated_B = env.step(act(net, obs, draws)[0])
        state_BF, true_B, prob_B = env.last
        now_B = {
            "right": going_B & terminated_B & true_B,
            "hacked": going_B & terminated_B & ~true_B,
            "missed": going_B & ~terminated_B & true_B,
            "true_return": going_B & true_B,
        }
        for name in OUTCOMES:
            first_B = now_B[name] & ~seen_B[name]  # one picture an episode
            for i in first_B.nonzero()[: SHOWN - len(pictures[name]), 0].tolist():
                text = f"{KINDS[int(env.goal(state_BF[i : i + 1]))]}\np = {prob_B[i].item():.2f}"
                pictures[name].append(Picture(env.frames(state_BF[i : i + 1])[0].permute(1, 2, 0).cpu().numpy(), text))
        for name, happened_B in now_B.items():
            seen_B[name] |= happened_B
        going_B &= ~(terminated_B | truncated_B)
    return {name: flags_B.float().mean().item() for name, flags_B in seen_B.items()}, pictures


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Judge the reward, train, judge the agent, write `result.json`, the weights and `pictures.png`; returns the exit code."""
    check_device(cfg.device)
    reward = make_reward(cfg)
    run, saved = RunFolder(out, cfg, resume=resume, free=("checkpoint_every",)), out / "checkpoint.pt"
    result: dict[str, Any] = {"env_steps": 0}
    if reward:
        result["offline"] = judged_offline(reward, make_world(cfg, 1, reward, held_out=True), cfg)
    steps_each = cfg.num_envs * cfg.rollout
    if rollouts := cfg.env_steps // steps_each:
        if (trained := train(cfg, reward, run, saved, rollouts)) is None:
            return INTERRUPTED
        net, spent_s = trained
        shares, pictures = evaluate(net, make_world(cfg, cfg.final_episodes, reward, held_out=True), cfg, when="end")
        result |= {"env_steps": rollouts * steps_each, **shares, "train_cpu_s": spent_s}
        torch.save(net.state_dict(), out / "model.pt")
        draw_pictures(out / "pictures.png", {f"{name}:\n{OUTCOMES[name]}": shown for name, shown in pictures.items()})
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0


def train(cfg: Config, reward: GoalReward | None, run: RunFolder, saved: Path, rollouts: int) -> tuple[Policy, float] | None:
    """The policy after all rollouts with the CPU seconds that it took, or None where the run is told to stop."""
    env = make_world(cfg, cfg.num_envs, reward)
    draws = checkpoint.seeded(seed_for(cfg.seed), cfg.device)
    net = Policy(cfg, env).to(cfg.device)
    optimiser = torch.optim.Adam(net.parameters(), lr=cfg.learning_rate, eps=1e-5)
    obs, done, spent_s = env.reset(torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "env"))), 0, 0.0
    parts = {"net": net, "optimiser": optimiser, "env": env, "draws": draws} | ({"reward": reward} if reward else {})
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        obs, done, spent_s = numbers["obs"].to(cfg.device), numbers["done"], numbers["spent_s"]
    run.forget_after(done)
    with StopSignal() as stop:
        for number in range(done + 1, rollouts + 1):
            before_s = time.process_time()
            set_rate(optimiser, cfg.learning_rate * (1 - (number - 1) / rollouts))
            rollout, obs = collect(env, net, obs, cfg, draws)
            learn(net, optimiser, rollout, obs, cfg, draws)
            spent_s += time.process_time() - before_s
            if number % cfg.log_every == 0 or number == rollouts:
                shares, _ = evaluate(net, make_world(cfg, cfg.eval_episodes, reward), cfg, when=number)
                steps = number * cfg.num_envs * cfg.rollout
                run.log(number, {"env_steps": steps, **shares, "reward": rollout.reward.mean().item(), "train_cpu_s": spent_s})
            if number % cfg.checkpoint_every == 0 or number == rollouts or stop.came:
                checkpoint.save(saved, parts, obs=obs, done=number, spent_s=spent_s)
            if stop.came:
                return None
    return net, spent_s
