"""Go against a slow twin that searches chains stone by stone, on games played at random, and in positions known by their names."""

import pytest
import torch

from posttrain.agents.kernel.envs.go import BLACK, EMPTY, WHITE, Go, Position, Rules, area, legal_moves, observe, play


class SlowGo:
    """The rules of Go on one board, as a beginner would write them: a dictionary of stones."""

    def __init__(self, n: int, superko: bool) -> None:
        self.n, self.superko = n, superko
        self.stones: dict[tuple[int, int], int] = {}
        self.turn, self.ko, self.passes = BLACK, None, 0
        self.seen = [{}]

    def around(self, point):
        r, c = point
        return [(i, j) for i, j in ((r - 1, c), (r, c - 1), (r, c + 1), (r + 1, c)) if 0 <= i < self.n and 0 <= j < self.n]

    def chain(self, stones, point):
        found, todo = {point}, [point]
        while todo:
            for other in self.around(todo.pop()):
                if stones.get(other) == stones[point] and other not in found:
                    found.add(other)
                    todo.append(other)
        return found

    def liberties(self, stones, chain):
        return {other for point in chain for other in self.around(point) if other not in stones}

    def after(self, point):
        """Stones and the taken ones after a stone on an empty point, or None if it is suicide."""
        stones = self.stones | {point: self.turn}
        taken = set()
        for other in self.around(point):
            if stones.get(other) == -self.turn and not self.liberties(stones, chain := self.chain(stones, other)):
                taken |= chain
        stones = {place: colour for place, colour in stones.items() if place not in taken}
        return (stones, taken) if self.liberties(stones, self.chain(stones, point)) else None

    def legal(self, move):
        if move == self.n**2:
            return True
        point = divmod(move, self.n)
        if point in self.stones or point == self.ko or (made := self.after(point)) is None:
            return False
        return not (self.superko and made[0] in self.seen)

    def play(self, move):
        self.ko = None
        if move == self.n**2:
            self.passes += 1
        else:
            point = divmod(move, self.n)
            self.stones, taken = self.after(point)
            chain = self.chain(self.stones, point)
            if len(taken) == 1 and len(chain) == 1 and self.liberties(self.stones, chain) == taken:
                (self.ko,) = taken
            self.passes = 0
        self.seen.append(self.stones)
        self.turn = -self.turn

    def area(self, komi):
        points = {(r, c) for r in range(self.n) for c in range(self.n)}
        total = sum(self.stones.values())
        empty = points - self.stones.keys()
        while empty:
            region, todo = set(), [empty.pop()]
            borders = set()
            while todo:
                point = todo.pop()
                region.add(point)
                for other in self.around(point):
                    if other in self.stones:
                        borders.add(self.stones[other])
                    elif other in empty:
                        empty.discard(other)
                        todo.append(other)
            if len(borders) == 1:
                total += borders.pop() * len(region)
        return total - komi


def board_of(rules: Rules, position: Position, i: int) -> dict[tuple[int, int], int]:
    flat = position.stone_BP[i, rules.place_N].tolist()
    return {divmod(k, rules.n): colour for k, colour in enumerate(flat) if colour != EMPTY}


def played(n: int, moves: str, superko: bool = False) -> tuple[Rules, Position]:
    """The position after moves written "rc", row and column from 0, or "--" for a pass."""
    rules = Rules(n, superko=superko)
    position = rules.start(1)
    for word in moves.split():
        move = n * n if word == "--" else int(word[0]) * n + int(word[1])
        assert legal_moves(rules, position)[0, move], f"{word} is not legal"
        position, _ = play(rules, position, torch.tensor([move]))
    return rules, position


def legal_at(rules: Rules, position: Position, word: str) -> bool:
    return bool(legal_moves(rules, position)[0, int(word[0]) * rules.n + int(word[1])])


@pytest.mark.parametrize(("n", "superko"), [(2, True), (3, False), (3, True), (4, True), (5, False), (9, False)])
def test_random_games_are_the_slow_twins_move_by_move(n, superko):
    rules = Rules(n, superko=superko, limit=60 if n < 9 else 160)
    num = 8
    position, slow = rules.start(num), [SlowGo(n, superko) for _ in range(num)]
    draws = torch.Generator().manual_seed(n)
    taken = repeats = 0
    for _ in range(rules.limit):
        legal_BA = legal_moves(rules, position)
        for i, game in enumerate(slow):
            assert legal_BA[i].tolist() == [game.legal(move) for move in range(n * n + 1)]
        weight_BA = legal_BA.float()
        weight_BA[:, -1] *= 0.02  # seldom a pass, so that boards fill and chains are taken
        move_B = torch.multinomial(weight_BA, 1, generator=draws)[:, 0]
        stones = [len(game.stones) for game in slow]
        position, _ = play(rules, position, move_B)
        for i, game in enumerate(slow):
            game.play(int(move_B[i]))
            assert board_of(rules, position, i) == game.stones
            taken += stones[i] >= len(game.stones) > 0
            repeats += game.stones in game.seen[:-1]
        assert area(rules, position).tolist() == [game.area(rules.komi) for game in slow]
    assert taken > 10  # what is hard has happened
    assert (repeats > 0) or superko or n == 9


def test_ko_may_not_be_retaken_at_once_but_after_a_move_elsewhere():
    rules, position = played(5, "01 02 10 13 21 22 12 11")  # White takes the stone at 12 from 11
    assert board_of(rules, position, 0).get((1, 2)) is None
    assert not legal_at(rules, position, "12")
    assert observe(rules, position)[0, 2].nonzero().tolist() == [[1, 2]]
    rules, position = played(5, "01 02 10 13 21 22 12 11 44 43")
    assert legal_at(rules, position, "12")


def test_a_stone_that_takes_two_is_not_ko():
    rules, position = played(4, "00 10 01 11 33 02")  # White takes both corner stones
    assert sorted(board_of(rules, position, 0)) == [(0, 2), (1, 0), (1, 1), (3, 3)]
    assert legal_at(rules, position, "00")
    assert legal_at(rules, position, "01")


def test_suicide_is_forbidden_but_for_a_stone_that_takes():
    assert not legal_at(*played(3, "01 02 10"), "00")  # White, between two black stones
    rules, position = played(3, "01 02 10 11 22")  # now the stone at 01 has no other liberty than 00
    assert legal_at(rules, position, "00")
    after, _ = play(rules, position, torch.tensor([0]))
    assert board_of(rules, after, 0) == {(0, 0): WHITE, (0, 2): WHITE, (1, 1): WHITE, (1, 0): BLACK, (2, 2): BLACK}


def test_superko_forbids_what_simple_ko_does_not_see():
    moves = "00 11 01 10 00 01"  # Black may now take three stones at 00, which leaves the board as it was after the first move
    rules, position = played(2, moves)
    assert legal_at(rules, position, "00")
    after, _ = play(rules, position, torch.tensor([0]))
    assert board_of(rules, after, 0) == {(0, 0): BLACK}
    assert not legal_at(*played(2, moves, superko=True), "00")


def test_area_counts_stones_and_what_only_one_colour_reaches():
    rules, position = played(5, "02 03 12 13 22 23 32 33 42 43")  # two walls: Black holds three columns, White two
    assert area(rules, position).tolist() == [15 - 10 - 7.5]
    empty = Rules(5, komi=0)
    assert area(empty, empty.start(1)).tolist() == [0]  # nobody reaches anything


def test_the_winner_of_the_last_move_is_paid_and_the_board_starts_anew():
    env = Go(Rules(3, komi=0.5), 2)
    env.reset(torch.Generator())
    env.step(torch.tensor([4, 9]))  # one Black in the middle, one passes
    obs, reward, terminated, truncated = env.step(torch.tensor([9, 9]))
    assert terminated.tolist() == [False, True]
    assert reward.tolist() == [0.0, 1.0]  # White, who passed last, wins the empty board by komi
    assert obs[1].sum() == 9  # an empty board of which Black is to move
    _, reward, terminated, truncated = env.step(torch.tensor([9, 4]))
    assert terminated.tolist() == [True, False]
    assert reward.tolist() == [1.0, 0.0]  # Black passed last and holds the board
    assert not truncated.any()


def test_an_illegal_move_is_refused_by_name():
    env = Go(Rules(3), 2)
    env.reset(torch.Generator())
    env.step(torch.tensor([4, 0]))
    with pytest.raises(ValueError, match="board 1: move 0 is not legal"):
        env.step(torch.tensor([0, 0]))


def test_a_game_ends_at_the_move_limit():
    rules = Rules(3, limit=2)
    position, over = play(rules, rules.start(1), torch.tensor([0]))
    assert not over.any()
    assert play(rules, position, torch.tensor([1]))[1].all()


def test_a_restored_game_goes_on_as_the_saved_one():
    draws = torch.Generator().manual_seed(0)
    env = Go(Rules(5, superko=True), 4)
    env.reset(draws)
    for _ in range(30):
        env.step(torch.multinomial(env.legal_BA.float(), 1, generator=draws)[:, 0])
    other = Go(Rules(5, superko=True), 4)
    other.load_state_dict(env.state_dict())
    for _ in range(60):
        move_B = torch.multinomial(env.legal_BA.float(), 1, generator=draws)[:, 0]
        for a, b in zip(env.step(move_B), other.step(move_B), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(env.legal_BA, other.legal_BA)
