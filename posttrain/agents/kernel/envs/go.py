"""Go: the whole game for many boards at once, as functions of a `Position`. Read `play`, then `legal_moves`.

Area scoring with komi (Tromp-Taylor's count), suicide forbidden, ko by the last capture, positional superko by choice. A game ends by two
passes in a row or at the move limit.

No chain is ever searched for. Every stone carries the name of its chain; a chain is in atari, with a single liberty left, if the first of
the empty places that its stones touch is also the last. Neighbours are the same array read one place further (`_beside`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

BLACK, WHITE, EMPTY, EDGE = 1, -1, 0, 2


class Position(NamedTuple):
    """B boards of n x n points within an edge, P = (n + 2)^2 places row by row."""

    stone_BP: Tensor
    """int8: BLACK, WHITE, EMPTY or EDGE"""
    chain_BP: Tensor
    """The place of one stone of the chain that a stone belongs to; 0, a place on the edge, where there is none."""
    atari_BP: Tensor
    """Whether a stone's chain has a single liberty."""
    turn_B: Tensor
    """int8: BLACK or WHITE"""
    ko_B: Tensor
    """The place that may not be retaken at once; 0 where there is none."""
    passed_B: Tensor
    """Whether the last move was a pass."""
    moves_B: Tensor
    """Moves played."""
    key_B: Tensor
    """A sum of random numbers over the stones, which names the board; kept for superko only."""
    seen_BM: Tensor
    """Keys of all boards of the game so far for superko, the last one in the column `moves_B`; no column without superko."""


class Rules:
    """What does not change during a game, and the tables of places that `play` reads."""

    def __init__(
        self, n: int = 9, komi: float = 7.5, limit: int | None = None, superko: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        """`limit` is the longest game in moves, twice the points by default."""
        if n < 2:
            raise ValueError(f"a board has at least 2 x 2 points, got n = {n}")
        self.n, self.komi, self.superko, self.device = n, komi, superko, torch.device(device)
        self.limit = 2 * n * n if limit is None else limit
        self.num_points, self.num_places = n * n, (n + 2) ** 2
        rows = torch.arange(1, n + 1)
        self.place_N = (rows[:, None] * (n + 2) + rows).flatten().to(self.device)
        """The place of each point."""
        self.ways_4 = torch.tensor([-(n + 2), -1, 1, n + 2], device=self.device)
        """From a place to the four around it."""
        self.number_P = torch.arange(self.num_places, dtype=torch.int, device=self.device)
        draws = torch.Generator().manual_seed(0)
        self.keys_2P = torch.randint(-(2**62), 2**62, (2, self.num_places), generator=draws).to(self.device)
        """The random number of a black and a white stone on each place."""

    def start(self, num: int) -> Position:
        """Empty boards, black to move."""
        stone_BP = torch.full((num, self.num_places), EDGE, dtype=torch.int8, device=self.device)
        stone_BP[:, self.place_N] = EMPTY
        zero_B = torch.zeros(num, dtype=torch.long, device=self.device)
        seen_BM = torch.full((num, self.limit + 1 if self.superko else 0), -1, device=self.device)
        seen_BM[:, :1] = 0  # the key of the empty board
        return Position(
            stone_BP=stone_BP,
            chain_BP=torch.zeros_like(stone_BP, dtype=torch.long),
            atari_BP=torch.zeros_like(stone_BP, dtype=torch.bool),
            turn_B=torch.full_like(zero_B, BLACK, dtype=torch.int8),
            ko_B=zero_B.clone(),  # memory of their own, as games are written into in place
            passed_B=zero_B.bool(),
            moves_B=zero_B.clone(),
            key_B=zero_B.clone(),
            seen_BM=seen_BM,
        )


def some(position: Position, which: Tensor) -> Position:
    """Some of the boards, by a mask or by numbers."""
    return Position(*(x[which] for x in position))


def put(position: Position, which: Tensor, boards: Position) -> None:
    """Write boards into a position, in place."""
    for x, new in zip(position, boards, strict=True):
        x[which] = new


def packed(position: Position) -> Tensor:
    """A position as one row of integers, [B, F], for a search to keep."""
    return torch.cat([x.long().flatten(1) if x.dim() > 1 else x.long()[:, None] for x in position], 1)


def unpacked(rules: Rules, row_BF: Tensor) -> Position:
    """The position that `packed` made a row of."""
    places = rules.num_places
    sizes = [places, places, places, 1, 1, 1, 1, 1, row_BF.shape[1] - 3 * places - 5]
    stone_BP, chain_BP, atari_BP, turn_B1, *rest = row_BF.split(sizes, 1)
    ko_B, passed_B, moves_B, key_B = (x[:, 0] for x in rest[:4])
    return Position(
        stone_BP.to(torch.int8), chain_BP, atari_BP.bool(), turn_B1[:, 0].to(torch.int8), ko_B, passed_B.bool(), moves_B, key_B, rest[4]
    )


def play(rules: Rules, now: Position, action_B: Tensor) -> tuple[Position, Tensor]:
    """The position after a legal move, points row by row and n * n a pass, and whether the game is over, [B] bool.

    What an illegal move leads to is not defined: `legal_moves` says which they are.
    """
    passes_B = action_B == rules.num_points
    here_B1 = torch.where(passes_B, 0, rules.place_N[action_B.clamp(max=rules.num_points - 1)])[:, None]
    beside_B4 = torch.where(passes_B[:, None], 0, here_B1 + rules.ways_4)
    stone_B4, chain_B4 = now.stone_BP.gather(1, beside_B4), now.chain_BP.gather(1, beside_B4)
    turn_B1 = now.turn_B[:, None]

    takes_B4 = (stone_B4 == -turn_B1) & now.atari_BP.gather(1, beside_B4)  # their only liberty is here
    joins_B4 = stone_B4 == turn_B1
    fate_BP = torch.zeros_like(now.stone_BP)  # of each chain, under its name: 1 taken, 2 joined
    fate_BP.scatter_(1, torch.where(takes_B4, chain_B4, 0), 1).scatter_(1, torch.where(joins_B4, chain_B4, 0), 2)
    fate_BP[:, 0] = 0
    fate_BP = fate_BP.gather(1, now.chain_BP)
    taken_BP = fate_BP == 1
    placed_B1 = torch.where(passes_B[:, None], torch.full_like(turn_B1, EDGE), turn_B1)
    stone_BP = now.stone_BP.masked_fill(taken_BP, EMPTY).scatter(1, here_B1, placed_B1)
    chain_BP = torch.where(fate_BP == 2, here_B1, now.chain_BP.masked_fill(taken_BP, 0)).scatter(1, here_B1, here_B1)

    alone_B = ~(joins_B4 | (stone_B4 == EMPTY)).any(1)  # its one liberty is what it took
    ko_B = torch.where(alone_B & (taken_BP.sum(1) == 1), (takes_B4 * beside_B4).sum(1), 0)
    moves_B, key_B, seen_BM = now.moves_B + 1, now.key_B, now.seen_BM
    if rules.superko:
        own_BP, other_BP = _keys(rules, now)
        key_B = key_B + own_BP.gather(1, here_B1)[:, 0].masked_fill(passes_B, 0) - (taken_BP * other_BP).sum(1)
        seen_BM = seen_BM.scatter(1, moves_B.clamp(max=rules.limit)[:, None], key_B[:, None])
    atari_BP = _in_atari(rules, stone_BP, chain_BP)
    after = Position(stone_BP, chain_BP, atari_BP, -now.turn_B, ko_B, passes_B, moves_B, key_B, seen_BM)
    return after, (passes_B & now.passed_B) | (moves_B >= rules.limit)


def legal_moves(rules: Rules, now: Position) -> Tensor:
    """Which moves are legal, [B, n * n + 1] bool; a pass, the last one, always is.

    A stone may go to an empty point if then it has a liberty: beside it, through a chain of its own that had another one, or by taking.
    """
    empty_BP, own_BP = now.stone_BP == EMPTY, now.stone_BP == now.turn_B[:, None]
    up, left, right, down = _beside(rules, empty_BP | (own_BP ^ now.atari_BP))  # own chains out of atari, others in it
    legal_BN = ((up | left | right | down) & _inner(rules, empty_BP))[:, rules.place_N - (rules.n + 2)]
    legal_BN &= rules.place_N != now.ko_B[:, None]
    if rules.superko:
        legal_BN &= ~_repeats(rules, now)
    return torch.cat([legal_BN, torch.ones_like(legal_BN[:, :1])], 1)


def area(rules: Rules, now: Position) -> Tensor:
    """Black's points less White's less komi, [B]: stones, and empty points from which empty points lead to one colour only."""
    board_BHW = now.stone_BP[:, rules.place_N].unflatten(1, (rules.n, rules.n))
    empty_BHW = board_BHW == EMPTY
    black_BHW, white_BHW = _reached(board_BHW == BLACK, empty_BHW), _reached(board_BHW == WHITE, empty_BHW)
    return (black_BHW & ~white_BHW).flatten(1).sum(1) - (white_BHW & ~black_BHW).flatten(1).sum(1) - rules.komi


def observe(rules: Rules, now: Position) -> Tensor:
    """Planes for whose turn it is: own stones, the other's, the point barred by ko, and all ones for Black, [B, 4, n, n] float."""
    stone_BN = now.stone_BP[:, rules.place_N]
    turn_B1 = now.turn_B[:, None]
    black_BN = (turn_B1 == BLACK).expand_as(stone_BN)
    planes = [stone_BN == turn_B1, stone_BN == -turn_B1, rules.place_N == now.ko_B[:, None], black_BN]
    return torch.stack(planes, 1).float().unflatten(2, (rules.n, rules.n))


class Go:
    """Go as an environment of both players in turn: every step is a move of whose turn it is.

    The reward is that player's: 1 for the move that ends a game won, -1 for one that ends it lost, 0 for a draw and in between.
    """

    def __init__(self, rules: Rules, num_envs: int) -> None:
        self.rules, self.num_envs, self.device = rules, num_envs, rules.device
        self.num_actions = rules.num_points + 1
        self.obs_shape: tuple[int, ...] = (4, rules.n, rules.n)
        self.position = rules.start(num_envs)
        self.legal_BA = legal_moves(rules, self.position)
        """The legal moves now, [B, num_actions] bool."""
        self._fresh = rules.start(1)

    def reset(self, generator: torch.Generator) -> Tensor:
        self.position = self.rules.start(self.num_envs)
        return self._observed()

    def step(self, action_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Raises `ValueError` on an illegal move."""
        if not bool((legal_B := self.legal_BA.gather(1, action_B[:, None])[:, 0]).all()):
            board = int((~legal_B).nonzero()[0, 0])
            raise ValueError(f"board {board}: move {int(action_B[board])} is not legal: choose among those of legal_BA")
        player_B = self.position.turn_B
        self.position, ended_B = play(self.rules, self.position, action_B)
        reward_B = torch.zeros(self.num_envs, device=self.device)
        if bool(ended_B.any()):
            ended_N = ended_B.nonzero()[:, 0]
            reward_B[ended_N] = area(self.rules, some(self.position, ended_N)).sign() * player_B[ended_N]
            put(self.position, ended_N, self._fresh)
        return self._observed(), reward_B, ended_B, torch.zeros_like(ended_B)

    def state_dict(self) -> dict[str, Any]:
        return {name: x.clone() for name, x in self.position._asdict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = Position(**{name: x.to(self.device).clone() for name, x in state.items()})
        self.legal_BA = legal_moves(self.rules, self.position)

    def _observed(self) -> Tensor:
        self.legal_BA = legal_moves(self.rules, self.position)
        return observe(self.rules, self.position)


def _beside(rules: Rules, x_BP: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What stands above, left, right and below of every place that is in neither the first nor the last row, [B, P - 2 (n + 2)] each."""
    width, last = rules.n + 2, rules.num_places - rules.n - 2
    return x_BP[:, : last - width], x_BP[:, width - 1 : last - 1], x_BP[:, width + 1 : last + 1], x_BP[:, 2 * width :]


def _inner(rules: Rules, x_BP: Tensor) -> Tensor:
    """The places that `_beside` looks around."""
    return x_BP[:, rules.n + 2 : rules.num_places - rules.n - 2]


def _in_atari(rules: Rules, stone_BP: Tensor, chain_BP: Tensor) -> Tensor:
    """Whether a stone's chain has a single liberty, [B, P] bool; False where there is no stone."""
    empty_BP, none = stone_BP == EMPTY, rules.num_places
    chain_BI = _inner(rules, chain_BP)
    first_BI = _least(_beside(rules, torch.where(empty_BP, rules.number_P, none)))
    last_BI = -_least(_beside(rules, torch.where(empty_BP, -rules.number_P, 0)))
    first_BP = torch.full_like(stone_BP, none, dtype=torch.int).scatter_reduce_(1, chain_BI, first_BI, "amin")
    last_BP = torch.zeros_like(first_BP).scatter_reduce_(1, chain_BI, last_BI, "amax")
    return (first_BP == last_BP).gather(1, chain_BP) & (chain_BP > 0)


def _least(ways: Sequence[Tensor]) -> Tensor:
    up, left, right, down = ways
    return torch.minimum(torch.minimum(up, left), torch.minimum(right, down))


def _keys(rules: Rules, now: Position) -> tuple[Tensor, Tensor]:
    """The random number of a stone on each place for who is to move and for the other, [B, P] each."""
    black_P, white_P = rules.keys_2P
    black_B1 = (now.turn_B == BLACK)[:, None]
    return torch.where(black_B1, black_P, white_P), torch.where(black_B1, white_P, black_P)


def _repeats(rules: Rules, now: Position) -> Tensor:
    """Whether a stone on each point would make a board that was there before, [B, N] bool."""
    own_BP, other_BP = _keys(rules, now)
    takable_BP = (now.stone_BP == -now.turn_B[:, None]) & now.atari_BP
    chain_key_BP = torch.zeros_like(own_BP).scatter_add_(1, now.chain_BP, takable_BP * other_BP)
    beside_N4 = rules.place_N[:, None] + rules.ways_4
    chain_BN4 = (now.chain_BP * takable_BP)[:, beside_N4]
    lost_BN = torch.zeros_like(chain_BN4[..., 0])
    for i in range(4):
        twice_BN = (chain_BN4[..., :i] == chain_BN4[..., i : i + 1]).any(2)  # a chain that touches a point twice is taken once
        lost_BN += chain_key_BP.gather(1, chain_BN4[..., i]).masked_fill(twice_BN, 0)
    key_BN = now.key_B[:, None] + own_BP[:, rules.place_N] - lost_BN
    known_BM = torch.arange(now.seen_BM.shape[1], device=rules.device) <= now.moves_B[:, None]
    return ((key_BN[:, :, None] == now.seen_BM[:, None]) & known_BM[:, None]).any(2)


def _reached(stones_BHW: Tensor, empty_BHW: Tensor) -> Tensor:
    """The stones, and every empty point that a way over empty points joins to one of them."""
    reached_BHW = stones_BHW
    while True:
        grown_BHW = reached_BHW.clone()
        grown_BHW[:, 1:] |= reached_BHW[:, :-1]
        grown_BHW[:, :-1] |= reached_BHW[:, 1:]
        grown_BHW[:, :, 1:] |= reached_BHW[:, :, :-1]
        grown_BHW[:, :, :-1] |= reached_BHW[:, :, 1:]
        grown_BHW = reached_BHW | (grown_BHW & empty_BHW)
        if torch.equal(grown_BHW, reached_BHW):
            return reached_BHW
        reached_BHW = grown_BHW
