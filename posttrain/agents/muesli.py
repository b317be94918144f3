"""Muesli (arXiv 2104.06159): policy optimisation with a learned model that is only ever looked one step into.

An agent of three functions, s_0 = h(o), (r, s') = g(s, a), (pi, v) = f(s), with parameters theta, and a moving average theta' of them
whose policy pi' acts and which makes every target. Targets and loss are in `kernel/cmpo.py`: read that first. Here is the rest of an agent
whose actions are one step long: experience by pi', replay, updates, and the likeliest action to evaluate.

Left out: the recurrent core and the LSTM that steps the model (ours is a residual MLP), the sampled form of the regulariser (actions here
are few enough to sum over), the leave-one-out correction of the policy gradient, and bootstrapping past a time limit, whose step teaches no
value at all. Expected: greedy success of at least .95 on GoalGrid(5) after 60k steps and .97 on GoalGrid(8) after 200k
(recipes/muesli_grid).
"""

import json
import time
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from posttrain.agents.environments import EnvConfig, GoalGridConfig, MazeConfig, WallsConfig, check_device, make_env
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.cmpo import Learner, Sequences
from posttrain.agents.kernel.envs.vector import VectorEnv
from posttrain.agents.kernel.nets import WorldModel, save_model
from posttrain.agents.kernel.replay import Replay
from posttrain.agents.kernel.rollout import returns_of
from posttrain.agents.kernel.threads import one_thread
from posttrain.agents.kernel.transforms import Support
from posttrain.agents.muesli_update import LossConfig, Reading, improve
from posttrain.config import config
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic


@config
class Config:
    """A run of Muesli."""

    kind: Literal["muesli"] = "muesli"
    seed: NonNegativeInt = 0
    """Of every draw, and of the layouts of an environment that has some."""
    member: NonNegativeInt = 0
    """Members of an ensemble differ in this: other draws and first weights, the same layouts."""
    env: EnvConfig = Field(default=GoalGridConfig(), discriminator="kind")
    env_steps: PositiveInt = 60_000
    """Steps of experience in all; a rollout that would go beyond is not begun."""
    num_envs: PositiveInt = 64
    rollout: PositiveInt = 16
    """Steps of each environment between learning phases, and the length of the sequences learnt from."""
    replay_steps: PositiveInt = 100_000
    """Steps of experience kept."""
    even: float = Field(default=0.0, ge=0, lt=1)
    """Share of actions drawn evenly instead of from pi', so that the model is also taught what pi' does not do; 0 in the paper."""
    batch: PositiveInt = 64
    """Sequences in an update."""
    online: float = Field(default=0.25, ge=0, le=1)
    """Share of the batch from the newest rollout; the paper replays 75%, 95% at large scale."""
    updates: PositiveInt = 4
    """Updates after each rollout."""
    width: PositiveInt = 128
    """Numbers in a model state."""
    hidden: PositiveInt = 128
    support: tuple[float, float, PositiveInt] = (-2.0, 2.0, 41)
    """Lowest and highest atom on the squashed scale of values and rewards, and how many there are; (-300, 300, 601) on Atari."""
    learning_rate: PositiveFloat = 2e-3
    """Of AdamW, falling linearly to 0 at the end of the run, which therefore ends with its last weights, not with chosen ones."""
    clip_update: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    target_rate: float = Field(default=0.05, gt=0, le=1)
    """How far theta' moves to theta after an update; 0.1 in the paper."""
    loss: LossConfig = LossConfig()
    log_every: PositiveInt = 8
    """Rollouts between rows of metrics, each with an evaluation."""
    checkpoint_every: PositiveInt = 32
    """Rollouts between checkpoints."""
    eval_episodes: PositiveInt = 512
    """Greedy episodes of an evaluation during the run."""
    final_episodes: PositiveInt = 4096
    """Greedy episodes of the evaluation at the end, drawn apart from those during the run."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        low, high, num_atoms = self.support
        Support(low=low, high=high, num_atoms=num_atoms)  # raises where it is none
        if self.rollout <= self.loss.unroll:
            raise ValueError(f"rollout: found {self.rollout} steps, expected more than the {self.loss.unroll} of loss.unroll")
        if self.replay_steps <= self.num_envs * self.rollout:
            raise ValueError(
                f"replay_steps: found {self.replay_steps}, expected more than num_envs * rollout = {self.num_envs * self.rollout}"
            )
        if self.env_steps < 2 * self.num_envs * self.rollout:
            raise ValueError(f"env_steps: found {self.env_steps}, expected two rollouts at least, {2 * self.num_envs * self.rollout} steps")


def represent(model: WorldModel, obs: Tensor) -> Tensor:
    """The states of observations, [T, N, *obs_shape] -> [T, N, D]."""
    return model.represent(obs.flatten(0, 1)).unflatten(0, obs.shape[:2])


def update(learner: Learner[WorldModel], obs: Tensor, batch: Sequences, progress: float, cfg: LossConfig) -> dict[str, Tensor]:
    """One step of learning from T + 1 observations and what was done there; `progress` from 0 to 1 is how much of the run is over."""
    average, model = (Reading(net, represent(net, seen)) for net, seen in ((learner.average, obs), (learner.model, obs[:-1])))
    return improve(learner, average, model, batch, cfg.gamma, cfg, progress)


@torch.no_grad()
def act(average: WorldModel, obs: Tensor, even: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Actions drawn from mu = (1 - even) pi' + even / A, with their log-probabilities, each [B]."""
    probs = average.predict(average.represent(obs)).policy_logits.softmax(-1)
    probs = (1 - even) * probs + even / average.num_actions
    action = torch.multinomial(probs, 1, generator=draws)
    return action[:, 0], probs.gather(-1, action)[:, 0].log()


def greedy(average: WorldModel, obs: Tensor) -> Tensor:
    """The likeliest action of pi', [B]: no look ahead."""
    return average.predict(average.represent(obs)).policy_logits.argmax(-1)


def make_learner(cfg: Config, env: VectorEnv) -> Learner[WorldModel]:
    low, high, num_atoms = cfg.support
    support = Support(low=low, high=high, num_atoms=num_atoms)
    return Learner(
        WorldModel(env.obs_shape, env.num_actions, support, cfg.width, cfg.hidden).to(cfg.device),
        learning_rate=cfg.learning_rate,
        clip_update=cfg.clip_update,
        target_rate=cfg.target_rate,
        variance_decay=cfg.loss.variance_decay,
    )


def collect(env: VectorEnv, obs: Tensor, average: WorldModel, replay: Replay, cfg: Config, draws: torch.Generator) -> Tensor:
    """A rollout into `replay`; returns the observations after it."""
    for _ in range(cfg.rollout):
        action, logp = act(average, obs, cfg.even, draws)
        next_obs, reward, terminated, truncated = env.step(action)
        replay.append(obs=obs, action=action, reward=reward, terminated=terminated, truncated=truncated, logp=logp)
        obs = next_obs
    return obs


def draw(replay: Replay, cfg: Config, draws: torch.Generator) -> tuple[Tensor, Sequences]:
    """A batch of sequences, a share of them from the newest rollout: observations and what was done there."""
    batch = replay.sample_mixed(cfg.batch, cfg.rollout + 1, cfg.online, draws)
    return batch.pop("obs"), Sequences(**batch, discount=torch.full_like(batch["reward"], cfg.loss.gamma))


def evaluate(average: WorldModel, cfg: Config, episodes: int, when: int | str, held_out: bool = False) -> float:
    """Mean return of greedy episodes, the success rate where reaching the goal is all that pays; their starts depend on `when`."""
    env = make_env(cfg.env, episodes, cfg.device, layout_seed=cfg.seed, held_out=held_out)
    starts = torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, cfg.member, "evaluation", when))
    return returns_of(env, lambda obs: greedy(average, obs), starts).mean().item()


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, evaluate, write `result.json` and the weights of theta'; returns the exit code."""
    check_device(cfg.device)
    env = make_env(cfg.env, cfg.num_envs, cfg.device, layout_seed=cfg.seed)
    run, saved = RunFolder(out, cfg, resume=resume, free=("checkpoint_every",)), out / "checkpoint.pt"
    draws = checkpoint.seeded(seed_for(cfg.seed, cfg.member), cfg.device)
    replay = Replay(cfg.replay_steps // cfg.num_envs, cfg.num_envs, cfg.device)
    learner = make_learner(cfg, env)
    obs, done = env.reset(torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, cfg.member, "env"))), 0
    parts = {"learner": learner, "env": env, "replay": replay, "draws": draws}
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        obs, done = numbers["obs"].to(cfg.device), numbers["done"]
    run.forget_after(done)
    steps_each, before_s = cfg.num_envs * cfg.rollout, time.process_time()
    rollouts = cfg.env_steps // steps_each
    with StopSignal() as stop:
        for number in range(done + 1, rollouts + 1):
            obs = collect(env, obs, learner.average, replay, cfg, draws)
            rows = []
            if len(replay) > cfg.rollout:
                rows = [update(learner, *draw(replay, cfg, draws), (number - 1) / rollouts, cfg.loss) for _ in range(cfg.updates)]
            if rows and (number % cfg.log_every == 0 or number == rollouts):
                means = {name: torch.stack([row[name] for row in rows]).mean().item() for name in rows[0]}
                cpu_s = time.process_time() - before_s
                score = evaluate(learner.average, cfg, cfg.eval_episodes, when=number)
                run.log(number, {"env_steps": number * steps_each, "score": score, **means, "cpu_s": cpu_s})
            if number % cfg.checkpoint_every == 0 or number == rollouts or stop.came:
                checkpoint.save(saved, parts, obs=obs, done=number)
            if stop.came:
                return INTERRUPTED
    result = {"env_steps": rollouts * steps_each, "score": evaluate(learner.average, cfg, cfg.final_episodes, when="end")}
    if isinstance(cfg.env, MazeConfig | WallsConfig):
        result["score_held_out"] = evaluate(learner.average, cfg, cfg.final_episodes, when="end", held_out=True)
    save_model(out / "model.pt", learner.average)
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0
