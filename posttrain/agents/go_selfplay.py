"""Go by self-play: policy and value learnt from games against itself, found by Gumbel search on the rules (AlphaZero, arXiv 1712.01815).

A network reads a position, seen by the player to move, and gives a policy over moves and the expected outcome for that player. In every
position of a game a search of a few simulations makes a better policy pi from it (kernel/mcts.py), by sequential halving as in Gumbel
MuZero, for which a handful of simulations is enough; the move is the search's choice, noise and all. At the end of the game every position
is taught

    loss = CE(pi, p) + (z - v)^2                z: 1 if the player to move there won, -1 if not

turned or mirrored at random, as the rules do not know which way is up. The search steps the true rules of the game: there is no learned
model. Batches of games are played side by side from the empty board to their ends. Left out: resignation, a pool of earlier players,
and any knowledge of Go but its rules. What it reaches: recipes/go_selfplay.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from posttrain.agents.environments import check_device
from posttrain.agents.kernel import checkpoint
from posttrain.agents.kernel.envs.go import BLACK, Position, Rules, area, legal_moves, observe, packed, play, put, some, unpacked
from posttrain.agents.kernel.mcts import Budget, Outcome, Root, gumbel_search
from posttrain.agents.kernel.nets import Residual, descend, set_rate
from posttrain.agents.kernel.threads import one_thread
from posttrain.config import config
from posttrain.run import INTERRUPTED, RunFolder, StopSignal, seed_for, write_atomic


@config
class Config:
    """A run of self-play."""

    kind: Literal["go_selfplay"] = "go_selfplay"
    seed: NonNegativeInt = 0
    """Of every draw."""
    n: int = Field(default=9, ge=2)
    """Side of the board, points."""
    komi: float = 7.5
    """Points that White is given."""
    limit: PositiveInt = 120
    """Longest game, moves; then it is counted as it stands."""
    superko: bool = False
    """Whether a move may not make a board that was there before, which takes several times as long; else only ko is forbidden."""
    channels: PositiveInt = 32
    blocks: PositiveInt = 2
    """Residual blocks of the network."""
    simulations: PositiveInt = 16
    """Of every search in self-play."""
    considered: PositiveInt = 8
    """Moves that a search looks at from the root."""
    games: PositiveInt = 32
    """Games side by side, from which is learnt after their end."""
    generations: PositiveInt = 16
    """Times that games are played and learnt from."""
    kept: PositiveInt = 4
    """Generations whose games are learnt from."""
    updates: PositiveInt = 60
    """Updates after each generation's games."""
    batch: PositiveInt = 256
    """Positions in an update."""
    learning_rate: PositiveFloat = 2e-3
    """Of AdamW, falling linearly to 0 at the end of the run."""
    clip_update: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    weight_decay: float = Field(default=1e-4, ge=0)
    eval_every: PositiveInt = 4
    """Generations between games against a player that moves at random."""
    eval_games: int = Field(default=64, gt=0, multiple_of=2)
    """Games of an evaluation during the run, half of them as Black."""
    final_games: int = Field(default=512, gt=0, multiple_of=2)
    """Games of the bare policy at the end."""
    search_games: int = Field(default=128, gt=0, multiple_of=2)
    """Games with search of each kind at the end."""
    device: str = "cpu"


class Network(nn.Module):
    """Policy logits [B, n * n + 1] and value [B] of observations [B, 4, n, n]."""

    def __init__(self, n: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, channels, 3, padding=1), *(Residual(channels) for _ in range(blocks)), nn.ReLU())
        self.points = nn.Conv2d(channels, 1, 1)
        self.passing = nn.Linear(channels, 1)
        self.value = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, 1), nn.Tanh())
        nn.init.zeros_(self.points.weight)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        x_BCHW = self.body(obs)
        mean_BC, most_BC = x_BCHW.mean((2, 3)), x_BCHW.amax((2, 3))
        logits = torch.cat([self.points(x_BCHW).flatten(1), self.passing(mean_BC)], 1)
        return logits, self.value(torch.cat([mean_BC, most_BC], 1))[:, 0]


class Game(NamedTuple):
    """Positions of games that are over, in no order."""

    obs: Tensor
    """[N, 4, n, n] bool"""
    policy: Tensor
    """The search's, [N, n * n + 1]"""
    outcome: Tensor
    """For the player to move, [N]"""


def loss_of(network: Network, part: Game) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its parts."""
    logits, value = network(part.obs.float())
    parts = {
        "policy": -(part.policy * logits.log_softmax(-1)).sum(-1).mean(),
        "value": (part.outcome - value).square().mean(),
    }
    return parts["policy"] + parts["value"], parts


def turned(part: Game, quarters: int, mirrored: bool) -> Game:
    """The same games on a board that was turned by quarters, then mirrored."""

    def moved(board: Tensor) -> Tensor:
        board = board.rot90(quarters, (-2, -1))
        return board.flip(-1) if mirrored else board

    n = part.obs.shape[-1]
    points, passing = part.policy[:, :-1].unflatten(1, (n, n)), part.policy[:, -1:]
    return Game(moved(part.obs), torch.cat([moved(points).flatten(1), passing], 1), part.outcome)


Player = Callable[[Position], Tensor]
"""Moves of positions, [B]."""

OPENING = 4  # moves at random before players that draw nothing


class Searcher:
    """A network that looks ahead by the rules."""

    def __init__(self, rules: Rules, network: Network, cfg: Config) -> None:
        self.rules, self.network, self.cfg = rules, network, cfg

    def root(self, position: Position) -> Root:
        logits, value = self.network(observe(self.rules, position))
        return Root(logits.masked_fill(~legal_moves(self.rules, position), -math.inf), value, packed(position))

    def step(self, state: Tensor, action: Tensor) -> Outcome:
        """The model of the search: a value is of the one who moves next, so it counts against the one who moved."""
        before = unpacked(self.rules, state)
        after, ended = play(self.rules, before, action)
        reward = torch.where(ended, outcome_for(self.rules, after, before.turn_B), 0.0)
        there = self.root(after)
        return Outcome(reward, -(~ended).float(), *there)

    @torch.no_grad()
    def look(self, position: Position, noise: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """The search's move and its better policy; `noise` 1 draws among moves as in self-play, 0 takes the best."""
        budget = Budget(simulations=self.cfg.simulations)
        considered = min(self.cfg.considered, self.rules.num_points + 1)
        found = gumbel_search(self.step, self.root(position), budget, None, considered, noise, draws)
        return found.action, found.policy

    @torch.no_grad()
    def first_thought(self, position: Position) -> Tensor:
        """The likeliest move of the bare policy."""
        return self.root(position).prior_logits.argmax(-1)


def outcome_for(rules: Rules, position: Position, player_B: Tensor) -> Tensor:
    """1, 0 or -1 for each player if the game were counted now, [B]."""
    return area(rules, position).sign() * player_B


def self_play(searcher: Searcher, cfg: Config, draws: torch.Generator) -> tuple[Game, float]:
    """A batch of games from the empty board to their ends, and how many moves they took on average."""
    rules, now, kept = searcher.rules, searcher.rules.start(cfg.games), []
    going_B = torch.ones(cfg.games, dtype=torch.bool, device=rules.device)
    result_B = torch.zeros(cfg.games, device=rules.device)
    which_B = torch.arange(cfg.games, device=rules.device)
    while bool(going_B.any()):
        here = some(now, going_B)  # games that are over cost nothing
        action, policy = searcher.look(here, 1.0, draws)
        kept.append((observe(rules, here).bool(), policy, here.turn_B, which_B[going_B]))
        after, ended = play(rules, here, action)
        put(now, going_B, after)
        result_B[which_B[going_B][ended]] = area(rules, some(after, ended)).sign()
        going_B = going_B.masked_scatter(going_B, ~ended)
    obs, policy, turn, which = (torch.cat(column) for column in zip(*kept, strict=True))
    return Game(obs, policy, result_B[which] * turn), len(obs) / cfg.games


def match(rules: Rules, player: Player, other: Player, games: int, opening: Player | None = None) -> float:
    """The share of games that `player` wins, a draw counting half; it is Black in the first half of them.

    Players that draw nothing would play the same game again and again: the first moves are then those of `opening`.
    """
    now = rules.start(games)
    if opening is not None:
        for _ in range(OPENING):
            now, _ = play(rules, now, opening(now))
    black_B = torch.arange(games, device=rules.device) < games // 2
    going_B, score_B = torch.ones_like(black_B), torch.zeros(games, device=rules.device)
    while bool(going_B.any()):
        mine_B = going_B & ((now.turn_B == BLACK) == black_B)
        for movers_B, chosen in ((mine_B, player), (going_B & ~mine_B, other)):
            if not bool(movers_B.any()):
                continue
            here = some(now, movers_B)
            after, ended = play(rules, here, chosen(here))
            put(now, movers_B, after)
            over = movers_B.nonzero()[:, 0][ended]
            sign = area(rules, some(after, ended)).sign()
            score_B[over] = torch.where(black_B[over], sign, -sign) / 2 + 0.5
            going_B[over] = False
    return score_B.mean().item()


def at_random(rules: Rules, draws: torch.Generator) -> Player:
    """Every legal move is as likely as every other, a pass among them."""
    return lambda position: torch.multinomial(legal_moves(rules, position).float(), 1, generator=draws)[:, 0]


def contests(searcher: Searcher, untrained: Searcher, cfg: Config) -> dict[str, float]:
    """Shares of games won at the end: bare policy and search against random moves, and, after a random opening, search without training."""
    rules, draws = searcher.rules, torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "evaluation", "end"))

    def searching(who: Searcher) -> Player:
        return lambda position: who.look(position, 0.0, draws)[0]

    random = at_random(rules, draws)
    return {
        "policy_vs_random": match(rules, searcher.first_thought, random, cfg.final_games),
        "search_vs_random": match(rules, searching(searcher), random, cfg.search_games),
        "untrained_search_vs_random": match(rules, searching(untrained), random, cfg.search_games),
        "search_vs_untrained_search": match(rules, searching(searcher), searching(untrained), cfg.search_games, random),
        "policy_vs_untrained_search": match(rules, searcher.first_thought, searching(untrained), cfg.search_games, random),
    }


def learn(network: Network, optimiser: torch.optim.Optimizer, games: list[Game], cfg: Config, draws: torch.Generator) -> dict[str, float]:
    """Updates on positions of the games kept, each on a board turned another way; the means of the loss's parts."""
    all_games, rows = Game(*(torch.cat(column) for column in zip(*games, strict=True))), []
    for _ in range(cfg.updates):
        index = torch.randint(len(all_games.outcome), (cfg.batch,), generator=draws, device=draws.device)
        way = int(torch.randint(8, (), generator=draws, device=draws.device))
        loss, parts = loss_of(network, turned(Game(*(x[index] for x in all_games)), way % 4, way >= 4))
        descend(optimiser, loss, cfg.clip_update)
        rows.append(parts)
    return {name: torch.stack([row[name].detach() for row in rows]).mean().item() for name in rows[0]}


@one_thread()
def main(cfg: Config, out: Path, resume: bool) -> int:
    """Play and learn, evaluate, write `result.json` and the weights; returns the exit code."""
    check_device(cfg.device)
    rules = Rules(cfg.n, cfg.komi, cfg.limit, cfg.superko, cfg.device)
    run, saved = RunFolder(out, cfg, resume=resume, free=("eval_games",)), out / "checkpoint.pt"
    draws = checkpoint.seeded(seed_for(cfg.seed), cfg.device)
    network = Network(cfg.n, cfg.channels, cfg.blocks).to(cfg.device)
    untrained = Searcher(rules, Network(cfg.n, cfg.channels, cfg.blocks).to(cfg.device), cfg)
    searcher, games, done, spent_s = Searcher(rules, network, cfg), list[Game](), 0, 0.0
    optimiser = torch.optim.AdamW(network.parameters(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
    parts: dict[str, Any] = {"network": network, "optimiser": optimiser, "draws": draws}
    if saved.exists():
        numbers = checkpoint.restore(saved, parts)
        games, done, spent_s = [Game(*(x.to(cfg.device) for x in game)) for game in numbers["games"]], numbers["done"], numbers["spent_s"]
    run.forget_after(done)
    with StopSignal() as stop:
        for number in range(done + 1, cfg.generations + 1):
            before_s = time.process_time()
            set_rate(optimiser, cfg.learning_rate * (1 - (number - 1) / cfg.generations))
            played, moves = self_play(searcher, cfg, draws)
            games = [*games, played][-cfg.kept :]
            means = learn(network, optimiser, games, cfg, draws)
            spent_s += time.process_time() - before_s
            if number % cfg.eval_every == 0:
                apart = torch.Generator(cfg.device).manual_seed(seed_for(cfg.seed, "evaluation", number))
                means["policy_vs_random"] = match(rules, searcher.first_thought, at_random(rules, apart), cfg.eval_games)
            run.log(number, {"positions": len(played.outcome), "moves": moves, **means, "train_cpu_s": spent_s})
            checkpoint.save(saved, parts, games=[tuple(game) for game in games], done=number, spent_s=spent_s)
            if stop.came:
                return INTERRUPTED
    result = {**contests(searcher, untrained, cfg), "train_cpu_s": spent_s}
    torch.save(network.state_dict(), out / "model.pt")
    write_atomic(out / "result.json", json.dumps(result, indent=1) + "\n")
    return 0
