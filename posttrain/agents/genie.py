"""Genie (arXiv 2402.15391): a world to play in, learnt from videos that say nothing of the actions taken in them.

Three models of space-time blocks (`kernel.video`), trained one after the other on clips x_1 ... x_T; the first two are frozen afterwards:

    tokenizer   z_t = nearest codes of e(x_1..x_t)      x^_t = d(z_1..z_t)                  |x^ - x|^2 + codebook and commitment
    actions     a_t = nearest code of e(x_1..x_{t+1})   x^_{t+1} = x_t + d(x_1..x_t, a_t)   w |x^ - x|^2 + the same + usage
    dynamics    p(z_{t+1} | z_1..z_t, a_1..a_t)         cross-entropy of masked tokens, at a rate drawn from [1/2, 1] for each clip

The second's decoder has nothing but a_t to tell which of the possible next pictures came, so a_t becomes what was done; it is thrown away
later, when somebody who plays picks a_t. Left to itself it collapses: one code, or codes that say nothing of the action. Three things hold
that up: pixels that change weigh more (w), codes that nobody chooses are put where the error is, and a term that falls to 0 during
training wants each choice sure and all of them even. Left out: training actions and dynamics together. Expected: latent
actions that hold more than half of what the frames tell of the true ones, and pictures that obey them (recipes/genie). Read `genie_models`
for the networks, `genie_films` for the data.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from posttrain.agents.environments import check_device
from posttrain.agents.genie_films import Films, FilmsConfig, WorldConfig, both
from posttrain.agents.genie_models import ActionsConfig, DynamicsConfig, Genie, TokenizerConfig
from posttrain.agents.kernel import checkpoint, films
from posttrain.agents.kernel.nets import descend
from posttrain.agents.kernel.threads import one_thread
from posttrain.agents.kernel.video import perplexity, psnr, shared_bits
from posttrain.config import ConfigError, config, load
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic


@config
class Config:
    """A run of Genie."""

    kind: Literal["genie"] = "genie"
    seed: NonNegativeInt = 0
    """Of every draw."""
    films: FilmsConfig = WorldConfig()
    frames: int = Field(default=5, ge=3)
    """Of a clip, and as many as a model knows at once; 16 in the paper."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    actions: ActionsConfig = ActionsConfig()
    dynamics: DynamicsConfig = DynamicsConfig()
    begin_with: Path | None = None
    """A finished run whose tokenizer and latent actions are taken as they are: the dynamics alone is trained."""
    held_out: PositiveInt = 512
    """Clips that are measured on and never trained on; of a folder's, at most a fifth."""
    log_every: PositiveInt = 100
    """Steps between rows of metrics."""
    checkpoint_every: PositiveInt = 200
    """Steps between checkpoints."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, part in (("tokenizer", self.tokenizer), ("actions", self.actions), ("dynamics", self.dynamics)):
            if part.width % part.heads:
                raise ValueError(f"{name}.width: found {part.width}, expected a multiple of heads = {part.heads}")


class Stage(NamedTuple):
    """One of the three models in training."""

    name: Literal["tokenizer", "actions", "dynamics"]
    net: nn.Module
    cfg: TokenizerConfig | ActionsConfig | DynamicsConfig
    optimiser: torch.optim.Optimizer
    loss: Callable[[Tensor, float], tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor] | None]]
    """Of some clips, by their numbers, and of how much of the training is over."""

    def learn(self, done: int, num_clips: int, draws: torch.Generator) -> dict[str, Tensor]:
        """Step number `done` + 1."""
        progress = done / self.cfg.steps
        index_B = torch.randint(num_clips, (self.cfg.batch,), generator=draws, device=draws.device)
        loss, parts, served = self.loss(index_B, progress)
        descend(self.optimiser, loss, 1.0, self.cfg.learning_rate * min(1, (done + 1) / 50) * max(0.02, 1 - progress))
        every = self.cfg.revive_every if isinstance(self.cfg, ActionsConfig) else 15
        if served and every and done % every == 0 and progress < 0.8:  # a code that is moved last has no time to be learnt
            self.net.book.revive(served[0].detach(), served[1].detach(), draws)  # type: ignore[union-attr, operator]
        return {f"{self.name}/{name}": x.detach() for name, x in parts.items()}


def stages(cfg: Config, genie: Genie, shown: Films, draws: torch.Generator) -> list[Stage]:
    made: dict[str, tuple[Tensor, Tensor]] = {}

    def dynamics_loss(index_B: Tensor, _: float) -> Any:
        if not made:  # only now are the models trained that say what these are
            made["all"] = labelled(genie, shown)
        tokens_NTS, action_NT = made["all"]
        return genie.dynamics.loss(tokens_NTS[index_B], action_NT[index_B], draws)

    losses: dict[str, Any] = {
        "tokenizer": lambda index_B, _: genie.tokenizer.loss(shown.batch(index_B)),
        "actions": lambda index_B, progress: genie.actions.loss(shown.batch(index_B), progress),
        "dynamics": dynamics_loss,
    }
    nets = {name: getattr(genie, name) for name in losses}
    each = {name: torch.optim.AdamW(net.parameters(), weight_decay=0.0) for name, net in nets.items()}
    return [Stage(name, nets[name], getattr(cfg, name), each[name], losses[name]) for name in losses]  # type: ignore[arg-type]


@torch.no_grad()
def labelled(genie: Genie, of: Films, part: int = 256) -> tuple[Tensor, Tensor]:
    """Tokens and latent actions of all clips, [N, T, S], [N, T-1]."""
    genie.eval()
    parts = [of.batch(index) for index in torch.arange(len(of.clip), device=of.clip.device).split(part)]
    found = [(genie.tokenizer.quantised(x).chosen, genie.actions.quantised(x).chosen) for x in parts]
    genie.train()
    return torch.cat([tokens for tokens, _ in found]), torch.cat([action for _, action in found])


@torch.no_grad()
def scores(genie: Genie, cfg: Config, held: Films, draws: torch.Generator) -> dict[str, Any]:
    """What the three models are worth on clips that they were not trained on.

    delta is PSNR(x_t, x^_t) - PSNR(x_t, x'_t), t steps after the first frame: x^ is dreamt with the clip's own latent actions, x' with
    those of another clip.
    """
    tokens_NTS, action_NT = labelled(genie, held)
    genie.eval()
    x = held.batch(torch.arange(len(held.clip), device=held.clip.device))
    again = genie.tokenizer.shown(genie.tokenizer.book.look_up(tokens_NTS)).clamp(0, 1)
    other_NT = action_NT[torch.randperm(len(action_NT), generator=draws, device=draws.device)]
    own_NT, others_NT, copy_NT = (
        psnr(y, x[:, 1:]) for y in (genie.dream_on(x[:, 0], action_NT, draws), genie.dream_on(x[:, 0], other_NT, draws), x[:, :1])
    )
    hidden_NTS = tokens_NTS.clone()
    hidden_NTS[:, -1] = genie.dynamics.mask
    logits = genie.dynamics(hidden_NTS, action_NT)[:, -1]
    found: dict[str, Any] = {
        "tokenizer": {"psnr": psnr(again, x).mean().item(), "codes": perplexity(tokens_NTS, cfg.tokenizer.codes)},
        "actions": {"codes": perplexity(action_NT, cfg.actions.codes)},
        "dynamics": {"loss": cross_entropy(logits.flatten(0, 1), tokens_NTS[:, -1].flatten()).item()},
        "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in genie.named_children()},
    }
    for t in sorted({1, min(4, cfg.frames - 1)}):
        own, others, copy = (psnr_NT[:, t - 1].mean().item() for psnr_NT in (own_NT, others_NT, copy_NT))
        found["dynamics"][f"step{t}"] = {"psnr": own, "others": others, "delta": own - others, "copy": copy}
    if held.action is not None:
        bits = shared_bits(action_NT.flatten(), held.action.flatten())
        found["actions"] |= {"bits": bits} | ({"ceiling": held.ceiling, "share": bits / held.ceiling} if held.ceiling else {})
    return found


def frames_per_cpu_second(genie: Genie, first_CHW: Tensor, draws: torch.Generator, steps: int = 60) -> float:
    """Of play, a picture at a time."""
    genie.eval()
    action_1T = torch.randint(genie.actions.cfg.codes, (1, steps), generator=draws, device=draws.device)
    before_s = time.process_time()
    genie.dream_on(first_CHW[None], action_1T, draws)
    return steps / (time.process_time() - before_s)


def load_run(folder: Path, device: str = "cpu") -> tuple[Config, Genie]:
    """A finished run's recipe and models, not to be trained; raises `ConfigError` if it is none."""
    weights = folder / "genie.pt"
    if not weights.is_file():
        raise ConfigError(f"{folder}: holds no genie.pt, expected a finished run of kind genie")
    cfg, saved = load(Config, [folder / "config.yaml"]), torch.load(weights, map_location=device, weights_only=True)
    genie = Genie(cfg.tokenizer, cfg.actions, cfg.dynamics, cfg.frames, tuple(saved["shape"])).to(device)
    genie.load_state_dict(saved["models"])
    return cfg, genie.eval().requires_grad_(False)


def begun_with(cfg: Config, genie: Genie) -> int:
    """Take tokenizer and actions from another run, where the recipe says so; how many steps of this one that spares."""
    if cfg.begin_with is None:
        return 0
    other_cfg, other = load_run(cfg.begin_with, cfg.device)
    for name in ("tokenizer", "actions", "frames"):
        if getattr(other_cfg, name) != getattr(cfg, name) or other.shape != genie.shape:
            raise ConfigError(f"begin_with: {cfg.begin_with}: its {name} differ from this recipe's, expected the same")
    genie.tokenizer.load_state_dict(other.tokenizer.state_dict())
    genie.actions.load_state_dict(other.actions.state_dict())
    return cfg.tokenizer.steps + cfg.actions.steps


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Train, measure, write `result.json`, the weights and some first pictures to play from; returns the exit code."""
    check_device(cfg.device)
    shown, held = both(cfg.films, cfg.frames, cfg.held_out, cfg.seed, cfg.device)
    shape = checked_shape(cfg, shown.clip)
    draws = checkpoint.seeded(seed_for(cfg.seed, "genie"), cfg.device)
    genie = Genie(cfg.tokenizer, cfg.actions, cfg.dynamics, cfg.frames, shape).to(cfg.device)
    done, spent_s = begun_with(cfg, genie), 0.0
    run, saved = RunFolder(out, cfg, resume=resume, free=("checkpoint_every",)), out / "checkpoint.pt"
    todo = stages(cfg, genie, shown, draws)
    parts = {"genie": genie, "draws": draws} | {stage.name: stage.optimiser for stage in todo}
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        done, spent_s = numbers["done"], numbers["spent_s"]
    run.forget_after(done)
    ends = [sum(stage.cfg.steps for stage in todo[: i + 1]) for i in range(len(todo))]
    with StopSignal() as stop:
        for number in range(done + 1, ends[-1] + 1):
            before_s = time.process_time()
            i = next(i for i, end in enumerate(ends) if number <= end)
            row = todo[i].learn(number - 1 - (ends[i] - todo[i].cfg.steps), len(shown.clip), draws)
            spent_s += time.process_time() - before_s
            if number % cfg.log_every == 0 or number in ends:
                run.log(number, {name: x.item() for name, x in row.items()} | {"train_cpu_s": spent_s})
            if number % cfg.checkpoint_every == 0 or number in ends or stop.came:
                checkpoint.save(saved, parts, done=number, spent_s=spent_s)
            if stop.came:
                return INTERRUPTED
    torch.save({"models": genie.state_dict(), "shape": list(shape)}, out / "genie.pt")
    for i, clip in enumerate(held.clip[:8]):
        films.write_picture(out / "pictures" / f"{i}.png", clip[0])
    measuring = torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "scores"))
    result = scores(genie, cfg, held, measuring)
    result |= {"frames_per_cpu_s": frames_per_cpu_second(genie, held.batch(torch.tensor([0]))[0, 0], measuring), "train_cpu_s": spent_s}
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0


def checked_shape(cfg: Config, clip_NTCHW: Tensor) -> tuple[int, int, int]:
    """That of a picture; raises `ConfigError` where it cannot be cut into patches."""
    channels, height, width = clip_NTCHW.shape[2:]
    for name, patch in (("tokenizer", cfg.tokenizer.patch), ("actions", cfg.actions.patch)):
        if height % patch or width % patch:
            raise ConfigError(f"{name}.patch: found {patch}, expected a divisor of the pictures' {height} x {width} pixels")
    return channels, height, width
