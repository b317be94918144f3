"""Genie (arXiv 2402.15391): a world to play in, learnt from videos that say nothing of the actions taken in them.

Three models of space-time blocks (`kernel.video`), trained one after the other on clips x_1 ... x_T; the first two are frozen afterwards:

    tokenizer   z_t = nearest codes of e(x_1..x_t)      x^_t = d(z_1..z_t)                  |x^ - x|^2 + codebook and commitment
    actions     a_t = nearest code of e(x_1..x_{t+1})   x^_{t+1} = x_t + d(x_1..x_t, a_t)   w |x^ - x|^2 + the same + usage
    dynamics    p(z_{t+1} | z_1..z_t, a_1..a_t)         cross-entropy of masked tokens, at a rate drawn from [1/2, 1] for each clip

The second's decoder has nothing but a_t to tell which of the possible next pictures came, so a_t becomes what was done; it is thrown away
later, when somebody who plays picks a_t. Left to itself it collapses: one code, or codes that say nothing of the action. Three things hold
that up: pixels that change weigh more (w), codes that nobody chooses are put where the error is, and a term that falls to 0 during
training wants each choice sure and all of them even. Left out: training actions and dynamics together, and the FVD. Expected: latent actions
that hold more than half of what the frames tell of the true ones, and pictures that obey them (recipes/genie).
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from posttrain.agents.environments import EnvConfig, SpritesConfig, check_device, make_env
from posttrain.agents.kernel import checkpoint, films
from posttrain.agents.kernel.envs.worlds import Filmed, ceiling_bits
from posttrain.agents.kernel.threads import one_thread
from posttrain.agents.kernel.video import Codebook, Quantised, SpaceTimeTransformer, fill, patches, perplexity, pictures, psnr, shared_bits
from posttrain.config import ConfigError, config, load
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic


@config
class WorldConfig:
    """Clips filmed in an environment while actions are drawn evenly; what they were is kept for measuring alone."""

    kind: Literal["world"] = "world"
    env: EnvConfig = Field(default=SpritesConfig(), discriminator="kind")
    clips: PositiveInt = 3000
    """To train on; a clip begins with an episode and has to fit into it."""


@config
class FolderConfig:
    """Clips cut from videos, GIFs and folders of pictures."""

    kind: Literal["folder"] = "folder"
    path: Path
    """Files and folders in it are one film each."""
    height: PositiveInt = 64
    """Pixels; a picture is scaled until it covers height and width, then its middle is taken."""
    width: PositiveInt = 64
    every: PositiveInt = 1
    """Take each so many-th picture, the paper's 10 a second."""


FilmsConfig: TypeAlias = Annotated[WorldConfig | FolderConfig, Field(discriminator="kind")]


@config
class TokenizerConfig:
    """The model that makes pictures tokens."""

    patch: PositiveInt = 4
    """Side of a token, pixels."""
    codes: PositiveInt = 128
    dim: PositiveInt = 16
    """Numbers of a code."""
    width: PositiveInt = 48
    layers: PositiveInt = 1
    """Of the encoder, and of the decoder."""
    heads: PositiveInt = 2
    steps: PositiveInt = 800
    batch: PositiveInt = 16
    """Clips."""
    learning_rate: PositiveFloat = 3e-3


@config
class ActionsConfig:
    """The latent action model."""

    patch: PositiveInt = 2
    """Side of a token, pixels; where things move by less, the same move looks otherwise from place to place."""
    codes: PositiveInt = 8
    dim: PositiveInt = 8
    width: PositiveInt = 32
    encoder_layers: PositiveInt = 1
    decoder_layers: PositiveInt = 2
    heads: PositiveInt = 2
    weight_change: NonNegativeFloat = 30.0
    """How much more a pixel weighs that differs from the one before."""
    revive_every: NonNegativeInt = 15
    """Steps between looks for codes that nobody chooses; 0 for none."""
    weight_usage: NonNegativeFloat = 1.0
    """At first; it falls linearly to 0."""
    steps: PositiveInt = 1000
    batch: PositiveInt = 8
    """Clips."""
    learning_rate: PositiveFloat = 2e-3


@config
class DynamicsConfig:
    """The model that goes from tokens and an action to the next tokens."""

    width: PositiveInt = 64
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    mask_from: float = Field(default=0.5, ge=0, lt=1)
    """Least share of a clip's tokens that is masked."""
    controlled: bool = True
    """Whether it is told the actions."""
    steps: PositiveInt = 1500
    batch: PositiveInt = 16
    """Clips."""
    learning_rate: PositiveFloat = 3e-3
    fill_steps: PositiveInt = 4
    """In which a picture's tokens are drawn; 25 in the paper."""
    temperature: PositiveFloat = 0.5
    """Of their draws; 2 in the paper."""


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


class Tokenizer(nn.Module):
    """A VQ-VAE of clips, causal: a frame's tokens know the frames before, not those behind."""

    def __init__(self, cfg: TokenizerConfig, frames: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        self.patch, numbers, grid = cfg.patch, channels * cfg.patch**2, (self.height // cfg.patch, self.width // cfg.patch)
        self.encode = SpaceTimeTransformer(numbers, cfg.dim, cfg.width, cfg.layers, cfg.heads, frames, grid)
        self.book = Codebook(cfg.codes, cfg.dim)
        self.decode = SpaceTimeTransformer(cfg.dim, numbers, cfg.width, cfg.layers, cfg.heads, frames, grid)

    def quantised(self, x: Tensor) -> Quantised:
        return self.book(self.encode(patches(x, self.patch)))

    def shown(self, code: Tensor) -> Tensor:
        """The pictures of codes [B, T, S, D]."""
        return pictures(self.decode(code), self.patch, self.height, self.width)

    def loss(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor]]:
        """The loss, its parts, and what `Codebook.revive` needs."""
        found = self.quantised(x)
        error = (self.decode(found.code) - patches(x, self.patch)).square().mean(-1)
        return 20 * error.mean() + found.loss, {"error": error.mean(), "codebook": found.loss}, (found.vector, error)


class LatentActions(nn.Module):
    """What was done between two frames, as one of few codes."""

    def __init__(self, cfg: ActionsConfig, frames: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.cfg, (channels, self.height, self.width) = cfg, shape
        numbers, grid = channels * cfg.patch**2, (self.height // cfg.patch, self.width // cfg.patch)
        self.encode = SpaceTimeTransformer(2 * numbers, cfg.width, cfg.width, cfg.encoder_layers, cfg.heads, frames, grid)
        self.narrow, self.book, self.widen = nn.Linear(cfg.width, cfg.dim), Codebook(cfg.codes, cfg.dim), nn.Linear(cfg.dim, cfg.width)
        self.decode = SpaceTimeTransformer(2 * numbers, numbers, cfg.width, cfg.decoder_layers, cfg.heads, frames - 1, grid)
        nn.init.zeros_(self.decode.leave.weight)  # starts with a copy of the frame before
        nn.init.zeros_(self.decode.leave.bias)

    def quantised(self, x: Tensor) -> Quantised:
        """Of each frame but the first, [B, T] frames -> [B, T-1]."""
        return self.book(self.narrow(self.encode(self._seen(x)).mean(2)[:, 1:]))

    def loss(self, x: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor]]:
        """The loss, its parts, and what `Codebook.revive` needs; `progress` from 0 to 1 is how much of the training is over.

        The first step of a clip has one frame before it, which does not show where things were going, so it is not learnt from.
        """
        found, before, after = self.quantised(x), x[:, :-1], x[:, 1:]
        change = self.decode(self._seen(before), self.widen(found.code)[:, :, None])
        guess = before + pictures(change, self.cfg.patch, self.height, self.width)
        weight = 1 + self.cfg.weight_change * ((after - before).abs().amax(2, keepdim=True) > 0.05)
        error = ((weight * (guess - after).square()).mean((2, 3, 4)) / weight.mean())[:, 1:]
        usage = self.book.usage_loss(found.vector, temperature=0.5)
        parts = {"error": error.mean(), "codebook": found.loss, "usage": usage}
        total = 120 * error.mean() + found.loss + self.cfg.weight_usage * (1 - progress) * usage
        return total, parts, (found.vector[:, 1:], error)

    def _seen(self, x: Tensor) -> Tensor:
        """Patches of the frames, and of how each differs from the one before."""
        change = pad(x[:, 1:] - x[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        return patches(torch.cat([x, change], 2), self.cfg.patch)


class Dynamics(nn.Module):
    """Logits of every token, from those that are not masked and what was done before each frame."""

    def __init__(self, cfg: DynamicsConfig, frames: int, grid: tuple[int, int], tokens: int, actions: int) -> None:
        super().__init__()
        self.cfg, self.mask = cfg, tokens
        self.token, self.action = nn.Embedding(tokens + 1, cfg.width), nn.Embedding(actions, cfg.width)
        self.body = SpaceTimeTransformer(cfg.width, tokens, cfg.width, cfg.layers, cfg.heads, frames, grid)

    def forward(self, token_BTS: Tensor, action_BT: Tensor) -> Tensor:
        """[B, T, S], [B, T-1] -> [B, T, S, K]."""
        done = pad(self.action(action_BT), (0, 0, 1, 0))[:, :, None] * self.cfg.controlled
        return self.body(self.token(token_BTS), done)

    def loss(self, token_BTS: Tensor, action_BT: Tensor, draws: torch.Generator) -> tuple[Tensor, dict[str, Tensor], None]:
        low = self.cfg.mask_from
        rate_B11 = low + (1 - low) * torch.rand(len(token_BTS), 1, 1, generator=draws, device=draws.device)
        masked_BTS = torch.rand(token_BTS.shape, generator=draws, device=draws.device) < rate_B11
        masked_BTS[:, 0] = False
        logits = self(token_BTS.masked_fill(masked_BTS, self.mask), action_BT)[masked_BTS]
        loss = cross_entropy(logits, token_BTS[masked_BTS])
        return loss, {"loss": loss, "accuracy": (logits.argmax(-1) == token_BTS[masked_BTS]).float().mean()}, None


class Genie(nn.Module):
    """The three models."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape, self.frames = shape, cfg.frames
        grid = (shape[1] // cfg.tokenizer.patch, shape[2] // cfg.tokenizer.patch)
        self.tokenizer = Tokenizer(cfg.tokenizer, cfg.frames, shape)
        self.actions = LatentActions(cfg.actions, cfg.frames, shape)
        self.dynamics = Dynamics(cfg.dynamics, cfg.frames, grid, cfg.tokenizer.codes, cfg.actions.codes)

    @torch.no_grad()
    def dream(self, seen_BTCHW: Tensor, action_BT: Tensor, draws: torch.Generator) -> Tensor:
        """The picture after some, [B, C, H, W]; `action_BT` led from each of them to the next, its last to the new one.

        Of more pictures than the models know at once, the last ones count.
        """
        known, cfg = min(seen_BTCHW.shape[1], self.frames - 1), self.dynamics.cfg
        past_BTS, done_BT = self.tokenizer.quantised(seen_BTCHW[:, -known:]).index, action_BT[:, -known:]

        def logits_of(token_BS: Tensor, masked_BS: Tensor) -> Tensor:
            token_BS = token_BS.masked_fill(masked_BS, self.dynamics.mask)
            return self.dynamics(torch.cat([past_BTS, token_BS[:, None]], 1), done_BT)[:, -1]

        next_BS = fill(logits_of, len(past_BTS), past_BTS.shape[2], cfg.fill_steps, cfg.temperature, draws)
        all_BTS = torch.cat([past_BTS, next_BS[:, None]], 1)
        return self.tokenizer.shown(self.tokenizer.book.look_up(all_BTS))[:, -1].clamp(0, 1)

    def dream_on(self, first_BCHW: Tensor, action_BT: Tensor, draws: torch.Generator) -> Tensor:
        """Pictures of several steps from one picture on, [B, T, C, H, W]."""
        seen = first_BCHW[:, None]
        for t in range(action_BT.shape[1]):
            seen = torch.cat([seen, self.dream(seen, action_BT[:, : t + 1], draws)[:, None]], 1)
        return seen[:, 1:]


class Films(NamedTuple):
    """Clips, and where they were filmed here, what was done in them."""

    clip: Tensor
    """[N, T, C, H, W] bytes"""
    action: Tensor | None = None
    """[N, T-1]"""
    ceiling: float | None = None
    """What a frame tells of the action before it at most, in bits."""

    def batch(self, index: Tensor) -> Tensor:
        return self.clip[index].float() / 255


def filmed(cfg: WorldConfig, clips: int, frames: int, seed: int, device: str, held_out: bool = False) -> Films:
    """Clips of evenly drawn actions; held-out ones are of layouts that the others do not show."""
    env = make_env(cfg.env, clips, device, layout_seed=seed, held_out=held_out)
    if len(env.obs_shape) != 3:
        raise ConfigError(f"films.env: {cfg.env.kind}: shows {env.obs_shape}, expected pictures such as those of sprites and platformer")
    draws = torch.Generator(device).manual_seed(seed_for(seed, "films", held_out))
    frame, done, outcomes = [env.reset(draws)], [], []
    for _ in range(frames - 1):
        outcomes += [env.outcomes()] if isinstance(env, Filmed) else []
        done.append(torch.randint(env.num_actions, (clips,), generator=draws, device=device))
        obs, _, terminated, truncated = env.step(done[-1])
        if bool((terminated | truncated).any()):
            raise ConfigError(f"films.env: {cfg.env.kind}: an episode ended within a clip of {frames} frames, expected longer ones")
        frame.append(obs)
    action_NT = torch.stack(done, 1)
    ceiling = ceiling_bits(torch.stack(outcomes, 1).flatten(0, 1), action_NT.flatten()) if outcomes else None
    return Films((torch.stack(frame, 1) * 255).round().byte(), action_NT, ceiling)


def all_films(cfg: Config) -> tuple[Films, Films]:
    """Those to train on and those held out."""
    if isinstance(cfg.films, WorldConfig):
        made = [filmed(cfg.films, num, cfg.frames, cfg.seed, cfg.device, num != cfg.films.clips) for num in (cfg.films.clips, cfg.held_out)]
        return made[0], made[1]
    try:
        clip = films.read_clips(cfg.films.path, cfg.frames, cfg.films.height, cfg.films.width, cfg.films.every).to(cfg.device)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"films.path: {error}") from None
    held = min(cfg.held_out, len(clip) // 5)
    if not held:
        raise ConfigError(f"films.path: {cfg.films.path}: found {len(clip)} clips of {cfg.frames} frames, expected five at least")
    return Films(clip[:-held]), Films(clip[-held:])  # whole films are held out, but for the one that is cut


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
        for group in self.optimiser.param_groups:
            group["lr"] = self.cfg.learning_rate * min(1, (done + 1) / 50) * max(0.02, 1 - progress)
        index_B = torch.randint(num_clips, (self.cfg.batch,), generator=draws, device=draws.device)
        loss, parts, served = self.loss(index_B, progress)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
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
    found = [(genie.tokenizer.quantised(x).index, genie.actions.quantised(x).index) for x in parts]
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
    logits = genie.dynamics(tokens_NTS.index_fill(1, torch.tensor([cfg.frames - 1]), genie.dynamics.mask), action_NT)[:, -1]
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
    genie = Genie(cfg, tuple(saved["shape"])).to(device)
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
    shown, held = all_films(cfg)
    check_shape(cfg, shape := tuple(shown.clip.shape[2:]))
    draws = checkpoint.seeded(seed_for(cfg.seed, "genie"), cfg.device)
    genie = Genie(cfg, shape).to(cfg.device)
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


def check_shape(cfg: Config, shape: tuple[int, ...]) -> None:
    """Raises `ConfigError` where pictures cannot be cut into patches."""
    for name, patch in (("tokenizer", cfg.tokenizer.patch), ("actions", cfg.actions.patch)):
        if shape[1] % patch or shape[2] % patch:
            raise ConfigError(f"{name}.patch: found {patch}, expected a divisor of the pictures' {shape[1]} x {shape[2]} pixels")
