"""Genie's three models (arXiv 2402.15391), their losses, and how they dream together. The idea and the equations: `genie`."""

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from posttrain.agents.kernel.video import Codebook, Quantised, SpaceTimeTransformer, fill, patches, pictures
from posttrain.config import config


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
    steps: PositiveInt = 900
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
    steps: PositiveInt = 1000
    batch: PositiveInt = 16
    """Clips."""
    learning_rate: PositiveFloat = 3e-3
    fill_steps: PositiveInt = 4
    """In which a picture's tokens are drawn; 25 in the paper."""
    temperature: PositiveFloat = 0.5
    """Of their draws; 2 in the paper."""


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

    def __init__(
        self, tokenizer: TokenizerConfig, actions: ActionsConfig, dynamics: DynamicsConfig, frames: int, shape: tuple[int, int, int]
    ) -> None:
        """`shape` is that of a picture, [C, H, W]."""
        super().__init__()
        self.shape, self.frames = shape, frames
        grid = (shape[1] // tokenizer.patch, shape[2] // tokenizer.patch)
        self.tokenizer = Tokenizer(tokenizer, frames, shape)
        self.actions = LatentActions(actions, frames, shape)
        self.dynamics = Dynamics(dynamics, frames, grid, tokenizer.codes, actions.codes)

    @torch.no_grad()
    def dream(self, seen_BTCHW: Tensor, action_BT: Tensor, draws: torch.Generator) -> Tensor:
        """The picture after some, [B, C, H, W]; `action_BT` led from each of them to the next, its last to the new one.

        Of more pictures than the models know at once, the last ones count.
        """
        known, cfg = min(seen_BTCHW.shape[1], self.frames - 1), self.dynamics.cfg
        past_BTS, done_BT = self.tokenizer.quantised(seen_BTCHW[:, -known:]).chosen, action_BT[:, -known:]

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
