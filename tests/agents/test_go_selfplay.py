"""Self-play at Go: what its search, its games and its loss are, and that it learns."""

import json
import math

import pytest
import torch

from posttrain.agents import go_selfplay
from posttrain.agents.go_selfplay import Config, Game, Network, Searcher, at_random, loss_of, main, match, outcome_for, self_play, turned
from posttrain.agents.kernel.envs.go import WHITE, Position, Rules, legal_moves, packed, play, unpacked
from posttrain.config import ConfigError
from tests.agents.resumed import assert_resumes

SMALL = {"n": 3, "komi": 0.5, "limit": 20, "channels": 8, "blocks": 1, "games": 16, "simulations": 8, "considered": 4}


def searcher_for(cfg: Config) -> Searcher:
    torch.manual_seed(0)
    return Searcher(Rules(cfg.n, cfg.komi, cfg.limit, cfg.superko), Network(cfg.n, cfg.channels, cfg.blocks), cfg)


def after(rules: Rules, *moves: int) -> Position:
    position = rules.start(1)
    for move in moves:
        position, _ = play(rules, position, torch.tensor([move]))
    return position


@pytest.mark.parametrize("superko", [False, True])
def test_a_packed_position_comes_back_whole(superko):
    rules, draws = Rules(5, superko=superko), torch.Generator().manual_seed(0)
    position = rules.start(4)
    for _ in range(30):
        position, _ = play(rules, position, torch.multinomial(legal_moves(rules, position).float(), 1, generator=draws)[:, 0])
    for kept, back in zip(position, unpacked(rules, packed(position)), strict=True):
        assert kept.dtype == back.dtype
        assert torch.equal(kept, back)


def test_the_searchs_model_pays_the_one_who_moves_and_turns_the_value_round():
    cfg = Config(**SMALL)
    searcher = searcher_for(cfg)
    held = after(searcher.rules, 4, 9)  # Black in the middle, White passed: a second pass ends the game, won by Black
    outcome = searcher.step(packed(held), torch.tensor([9]))
    assert (outcome.reward.item(), outcome.discount.item()) == (1.0, 0.0)
    going = searcher.step(packed(held), torch.tensor([0]))
    assert (going.reward.item(), going.discount.item()) == (0.0, -1.0)
    assert going.prior_logits.isneginf().tolist() == (~legal_moves(searcher.rules, after(searcher.rules, 4, 9, 0))).tolist()
    assert outcome_for(searcher.rules, held, torch.tensor([WHITE])).item() == -1.0


def test_search_finds_the_pass_that_wins_whatever_the_network_thinks():
    cfg = Config(**SMALL | {"considered": 10, "simulations": 40})
    searcher = searcher_for(cfg)
    move, policy = searcher.look(after(searcher.rules, 4, 9), 0.0, torch.Generator().manual_seed(0))
    assert move.item() == 9
    assert policy.argmax().item() == 9


def test_games_end_and_every_position_is_taught_how_it_ended_for_who_moved():
    cfg = Config(**SMALL)
    searcher = searcher_for(cfg)
    games, moves = self_play(searcher, cfg, torch.Generator().manual_seed(0))
    assert len(games.obs) == len(games.policy) == len(games.outcome) == round(moves * cfg.games)
    assert torch.allclose(games.policy.sum(1), torch.ones(len(games.policy)))
    black = games.obs[:, 3, 0, 0]
    first = games.obs[: cfg.games]
    assert not first[:, :2].any()  # every game begins with an empty board
    assert black[: cfg.games].all()
    # by komi no game is drawn, and Black's positions are taught the opposite of White's in the same game
    assert set(games.outcome.tolist()) == {-1.0, 1.0}
    second = games.outcome[cfg.games : 2 * cfg.games]
    assert torch.equal(games.outcome[: cfg.games], -second)
    occupied = games.obs[:, 0] | games.obs[:, 1]
    assert games.policy[:, :-1][occupied.flatten(1)].max() == 0  # nothing is taught on a stone


def test_turning_the_board_turns_the_policy_with_it():
    obs, policy = torch.zeros(1, 4, 3, 3, dtype=torch.bool), torch.zeros(1, 10)
    obs[0, 0, 0, 1], policy[0, 1], policy[0, 9] = True, 0.75, 0.25  # a stone at the top, a move there
    for way in range(8):
        game = turned(Game(obs, policy, torch.ones(1)), way % 4, way >= 4)
        assert torch.equal(game.obs[0, 0].float() * 0.75, game.policy[0, :9].view(3, 3))
        assert game.policy[0, 9] == 0.25
    left = turned(Game(obs, policy, torch.ones(1)), 1, False)
    assert left.obs[0, 0].nonzero().tolist() == [[1, 0]]
    assert turned(left, 0, True).obs[0, 0].nonzero().tolist() == [[1, 2]]


def test_the_loss_by_hand():
    network = Network(3, 8, 1)
    game = Game(torch.zeros(2, 4, 3, 3, dtype=torch.bool), torch.eye(10)[:2], torch.tensor([1.0, -1.0]))
    with torch.no_grad():
        logits, value = network(game.obs.float())
        loss, parts = loss_of(network, game)
    logp = logits.log_softmax(-1)
    assert parts["policy"].item() == pytest.approx(-(logp[0, 0] + logp[1, 1]).item() / 2)
    assert parts["value"].item() == pytest.approx(((1 - value[0]) ** 2 + (-1 - value[1]) ** 2).item() / 2)
    assert loss.item() == pytest.approx((parts["policy"] + parts["value"]).item())


def test_a_match_is_fair_to_both_colours():
    rules, draws = Rules(3, komi=0.5), torch.Generator().manual_seed(0)
    passes = lambda position: torch.full_like(position.moves_B, 9)  # noqa: E731
    assert match(rules, passes, passes, 10) == 0.5  # White wins by komi: each side once
    even = match(rules, at_random(rules, draws), at_random(rules, draws), 2000)
    assert abs(even - 0.5) < 4 * math.sqrt(0.25 / 2000)
    firsts = lambda position: legal_moves(rules, position).int().argmax(1)  # noqa: E731
    assert match(rules, firsts, firsts, 64) == 0.5  # one game, played 64 times
    seen = []
    match(rules, lambda position: seen.append(packed(position)) or firsts(position), firsts, 64, at_random(rules, draws))
    assert len(seen[0].unique(dim=0)) > 16  # after a random opening they are many
    middle = lambda position: torch.where(legal_moves(rules, position)[:, 4], 4, 9)  # noqa: E731
    assert match(rules, middle, passes, 10) == 1.0  # as White too: Black passed first


def test_self_play_learns_to_beat_random_moves(tmp_path):
    cfg = Config(**SMALL, generations=12, updates=40, batch=64, eval_every=12, eval_games=16, final_games=256)
    assert main(cfg, tmp_path / "run", resume=False) == 0
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["policy_vs_random"] > 0.85  # .98 as it is written; an untrained network's is a coin's at best
    assert found["search_vs_untrained_search"] > 0.8


def test_a_run_that_was_killed_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    cfg = Config(**SMALL, generations=4, kept=2, updates=4, batch=16, eval_every=2, eval_games=4, final_games=8, search_games=4)
    assert len(assert_resumes(go_selfplay, cfg, tmp_path, monkeypatch, ends_in="learn", call=3)) == 4


def test_a_gpu_that_is_not_there_is_said_before_the_folder_is_taken(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="there is no GPU"):
        main(Config(device="cuda"), tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()
