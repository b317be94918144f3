"""Our 9x9 Go beside PettingZoo's: the same moves give the same legal moves, boards and winners; and moves a CPU second.

    make bench-go

Random games, passes among the moves. Both in one process and one thread, in turns; ours plays 1,024 boards side by side, theirs one.
"""

import argparse
import os
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from pettingzoo.classic import go_v5

from posttrain.agents.kernel.envs.go import Go, Rules
from posttrain.run import commit, write_atomic

N, KOMI, BOARDS = 9, 7.5, 1024


def agree(games: int, draws: np.random.Generator) -> tuple[int, int]:
    """Play games on both, comparing after each move; raises `AssertionError` where they differ. Returns moves and stones taken."""
    theirs, moves, taken = go_v5.env(board_size=N, komi=KOMI), 0, 0
    for _ in range(games):
        ours = Go(Rules(N, KOMI, limit=5_000), 1)  # theirs knows no limit
        ours.reset(torch.Generator())
        theirs.reset()
        stones, over = 0, False
        while not over:
            seen = theirs.last()[0]
            legal = ours.legal_BA[0].numpy()
            assert (legal == seen["action_mask"].astype(bool)).all(), "legal moves differ"
            board = ours.position.stone_BP[0, ours.rules.place_N].view(N, N).numpy() * int(ours.position.turn_B[0])
            assert ((board == -1) == seen["observation"][..., 0]).all(), "the other's stones differ"  # theirs shows who moved last first
            assert ((board == 1) == seen["observation"][..., 1]).all(), "own stones differ"
            taken += max(0, stones - int((board != 0).sum()))
            stones = int((board != 0).sum())
            move = int(draws.choice(np.flatnonzero(legal)))
            mover = theirs.agent_selection
            _, reward, ended, _ = ours.step(torch.tensor([move]))
            theirs.step(move)
            over = bool(ended[0])
            assert over == all(theirs.terminations.values()), "one ends before the other"
            moves += 1
        assert float(reward[0]) == theirs.rewards[mover], "winners differ"
    return moves, taken


def our_speed(steps: int, draws: torch.Generator) -> float:
    """Moves a CPU second of BOARDS games, legal moves and observations among the work."""
    env = Go(Rules(N, KOMI), BOARDS)
    env.reset(draws)
    began = time.process_time()
    for _ in range(steps):
        noise_BA = torch.rand(BOARDS, env.num_actions, generator=draws)
        env.step((noise_BA * env.legal_BA).argmax(1))
    return steps * BOARDS / (time.process_time() - began)


def their_speed(moves: int, draws: np.random.Generator) -> float:
    env = go_v5.env(board_size=N, komi=KOMI)
    env.reset()
    began = time.process_time()
    for _ in range(moves):
        seen, _, ended, _, _ = env.last()
        if ended:
            env.reset()
            continue
        env.step(int(draws.choice(np.flatnonzero(seen["action_mask"]))))
    return moves / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=100, help="games compared move by move")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of timings")
    own = parser.parse_args()
    torch.set_num_threads(1)
    moves, taken = agree(own.games, np.random.default_rng(0))
    draws, numbers = torch.Generator().manual_seed(0), np.random.default_rng(1)
    our_speed(20, draws)
    pairs = [(our_speed(150, draws), their_speed(4000, numbers)) for _ in range(own.repeats)]
    ratios = [ours / theirs for ours, theirs in pairs]
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    text = f"""# 9x9 Go beside PettingZoo

`make bench-go`, commit {commit()}, {os.cpu_count()} cores, one thread, n = {own.repeats} pairs of neighbouring timings.

- The same game: {own.games} random games, {moves:,} moves, {taken:,} stones taken: legal moves, boards, ends and winners are the same.
- Moves a CPU second, random games: ours {ours:,.0f} on {BOARDS:,} boards side by side, PettingZoo's {theirs:,.0f} on one (medians).
- Ratio {median(ratios):.0f} (from {min(ratios):.0f} to {max(ratios):.0f}).
"""
    write_atomic(Path("evals/results/go.md"), text)
    print(text)


if __name__ == "__main__":
    main()
