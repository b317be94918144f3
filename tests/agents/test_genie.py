"""Genie: latent actions are learnt and obeyed, nothing is seen too early, a resumed run is the same run, odd films are one line."""

import json
from collections import Counter

import pytest
import torch
from PIL import Image

from posttrain.agents import genie
from posttrain.agents.environments import CatchConfig, PlatformerConfig, SpritesConfig
from posttrain.agents.genie import Config, load_run, scores
from posttrain.agents.genie_films import Films, WorldConfig, filmed
from posttrain.agents.genie_models import ActionsConfig, Dynamics, DynamicsConfig, Genie, LatentActions, TokenizerConfig
from posttrain.config import ConfigError, build
from tests.agents.resumed import assert_resumes

TINY = {
    "tokenizer": TokenizerConfig(codes=16, dim=4, width=8, heads=1, steps=6, batch=3),
    "actions": ActionsConfig(codes=4, dim=3, width=8, heads=1, encoder_layers=1, decoder_layers=1, steps=6, batch=3),
    "dynamics": DynamicsConfig(width=8, heads=1, layers=1, steps=6, batch=3, fill_steps=2),
}
SHAPE = (3, 8, 8)


def tiny_genie(seed=0, **changes):
    torch.manual_seed(seed)
    parts = TINY | changes
    return Genie(parts["tokenizer"], parts["actions"], parts["dynamics"], 4, SHAPE).eval()


def tiny_config(**changes):
    return Config(films=WorldConfig(env=SpritesConfig(layouts=5), clips=20), frames=4, held_out=8, log_every=2, **(TINY | changes))


def bars(num, frames, seed=0):
    """Films of a white bar that goes left, right or nowhere by two pixels, around the edge."""
    draws = torch.Generator().manual_seed(seed)
    done_NT = torch.randint(3, (num, frames - 1), generator=draws)
    start_N1 = torch.randint(4, (num, 1), generator=draws)
    place_NT = torch.cat([start_N1, start_N1 + (done_NT - 1).cumsum(1)], 1) % 4
    row_NT8 = (place_NT[..., None] == torch.arange(8) // 2).byte() * 255
    return Films(row_NT8[:, :, None, None].expand(-1, -1, 3, 8, -1).contiguous(), done_NT, 1.585)


def test_it_finds_the_three_moves_of_a_bar_and_obeys_them(tmp_path, monkeypatch):
    monkeypatch.setattr(genie, "both", lambda *_: (bars(600, 4), bars(100, 4, seed=1)))
    cfg = Config(
        frames=4, log_every=100,
        tokenizer=TokenizerConfig(codes=16, dim=8, width=16, steps=150, batch=16, learning_rate=5e-3),
        actions=ActionsConfig(codes=6, width=24, decoder_layers=1, steps=300, batch=16, learning_rate=4e-3),
        dynamics=DynamicsConfig(width=32, layers=1, steps=250, batch=16, learning_rate=5e-3),
    )  # fmt: skip
    assert genie.main(cfg, tmp_path / "run", False) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["tokenizer"]["psnr"] > 20
    assert result["actions"]["share"] > 0.6
    assert result["dynamics"]["step1"]["delta"] > 1


def test_a_latent_action_is_named_by_the_frames_up_to_it_and_its_own():
    net, x = tiny_genie().actions, torch.rand(2, 4, *SHAPE)
    vector, other = net.quantised(x).vector, x.clone()
    other[:, 2] = torch.rand(2, *SHAPE)
    moved = (net.quantised(other).vector - vector).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [False, True, True]


def test_the_decoder_of_actions_sees_the_next_frame_by_the_action_alone():
    torch.manual_seed(0)
    net = LatentActions(TINY["actions"], 4, SHAPE)
    torch.nn.init.normal_(net.decode.leave.weight)
    x, seen = torch.rand(2, 4, *SHAPE), []
    real = net.decode.forward
    net.decode.forward = lambda before, added: seen.append((before, added)) or real(before, added)
    other = x.clone()
    other[:, -1] = torch.rand(2, *SHAPE)
    net.loss(x, 0.0), net.loss(other, 0.0)
    assert torch.equal(seen[0][0], seen[1][0])
    codes = net.widen(net.book.look_up(torch.arange(4)))
    for _, added in seen:
        assert (added.view(-1, 1, 8) - codes).abs().amax(-1).amin(-1).max() < 1e-5  # one of four vectors, nothing finer


def test_where_a_pixel_changes_the_error_weighs_more():
    net, x = LatentActions(TINY["actions"], 3, SHAPE), torch.zeros(1, 3, *SHAPE)
    x[:, 2, :, 0, 0] = 0.5  # 1 pixel of 64 changes at the second step; the first guess is a copy of the frame before
    _, parts, (_, error) = net.loss(x, 0.0)
    weight_mean = (2 * 64 + 30) / (2 * 64)  # over both steps
    assert error.shape == (1, 1)
    assert error.item() == pytest.approx(31 * 0.25 / 64 / weight_mean, abs=1e-5)
    assert parts["error"].item() == pytest.approx(error.item())


def test_dynamics_masks_at_least_its_share_and_never_the_first_frame():
    class Echo(Dynamics):
        def forward(self, token_BTS, action_BT):
            self.seen = token_BTS
            return super().forward(token_BTS, action_BT)

    torch.manual_seed(0)
    net = Echo(DynamicsConfig(width=8, heads=1, layers=1), 4, (8, 8), 16, 4)
    token_BTS = torch.randint(16, (200, 4, 64))
    net.loss(token_BTS, torch.zeros(200, 3, dtype=torch.long), torch.Generator().manual_seed(0))
    masked = net.seen == 16
    assert not masked[:, 0].any()
    share_B = masked[:, 1:].float().mean((1, 2))
    assert share_B.min() > 0.4
    assert share_B.mean().item() == pytest.approx(0.75, abs=0.03)
    assert share_B.std().item() == pytest.approx(0.5 / 12**0.5, abs=0.03)  # even from .5 to 1


def test_an_action_changes_frames_from_its_own_on_and_none_where_it_is_not_told():
    action = torch.tensor([[0, 1, 2]])
    for controlled in (True, False):
        net = tiny_genie(dynamics=DynamicsConfig(width=8, heads=1, layers=1, controlled=controlled)).dynamics
        token_BTS = torch.randint(16, (1, 4, 4))
        moved = (net(token_BTS, action) - net(token_BTS, torch.tensor([[0, 3, 2]]))).abs().amax((0, 2, 3)) > 1e-6
        assert moved.tolist() == ([False, False, True, True] if controlled else [False] * 4)


def test_of_more_frames_than_are_known_at_once_the_last_ones_count():
    net, x, done = tiny_genie(), torch.rand(2, 7, *SHAPE), torch.randint(4, (2, 7))
    long, short = (net.dream(seen, action, torch.Generator().manual_seed(0)) for seen, action in ((x, done), (x[:, -3:], done[:, -3:])))
    assert torch.equal(long, short)
    assert long.shape == (2, *SHAPE)


def test_without_actions_nobody_is_obeyed():
    net = tiny_genie(dynamics=DynamicsConfig(width=8, heads=1, layers=1, controlled=False, temperature=1e-3))
    x, draws = torch.rand(4, *SHAPE), [torch.Generator().manual_seed(0) for _ in range(2)]
    dreamt = [net.dream_on(x, torch.full((4, 3), action), each) for action, each in zip((0, 3), draws, strict=True)]
    assert torch.equal(*dreamt)


def test_scores_of_a_model_that_knows_everything():
    """The oracle reads the clip itself: its latent action is the true one, and it dreams what comes."""
    held = bars(50, 4)

    class Oracle(Genie):
        def dream_on(self, first, action_BT, draws):
            own = (action_BT == held.action).all(1)
            return torch.where(own[:, None, None, None, None], held.batch(torch.arange(50))[:, 1:], first[:, None])

    cfg = tiny_config()
    oracle = Oracle(cfg.tokenizer, cfg.actions, cfg.dynamics, 4, SHAPE)
    genie_labelled = genie.labelled
    try:
        genie.labelled = lambda net, of: (torch.zeros(50, 4, 4, dtype=torch.long), held.action)
        found = scores(oracle, cfg, held, torch.Generator().manual_seed(0))
    finally:
        genie.labelled = genie_labelled
    assert found["actions"]["share"] == pytest.approx(1.0, abs=0.05)
    assert found["dynamics"]["step1"]["psnr"] == pytest.approx(60.0)
    assert found["dynamics"]["step1"]["delta"] > 10
    assert found["dynamics"]["step1"]["copy"] < 60


def test_held_out_films_are_of_other_walls_and_the_same_seed_gives_the_same_films():
    cfg = WorldConfig(env=SpritesConfig(layouts=5))
    one, again, held = (filmed(cfg, 50, 4, 3, "cpu", held_out) for held_out in (False, False, True))
    assert torch.equal(one.clip, again.clip)
    stone = (held.clip[:, 0] == torch.tensor([96, 100, 120], dtype=torch.uint8)[:, None, None]).all(1)
    known = (one.clip[:, 0] == torch.tensor([96, 100, 120], dtype=torch.uint8)[:, None, None]).all(1)
    assert not (stone.flatten(1)[:, None] == known.flatten(1)).all(2).any(1).all()
    assert one.action.shape == (50, 3)


def test_a_film_shows_what_its_actions_do():
    one = filmed(WorldConfig(env=SpritesConfig(layouts=5)), 200, 4, 3, "cpu")
    blue_NTHW = (one.clip == torch.tensor([86, 156, 255], dtype=torch.uint8)[:, None, None]).all(2)  # the agent's body
    corner_NT2 = torch.stack([blue_NTHW.any(3).int().argmax(2), blue_NTHW.any(2).int().argmax(2)], 2)
    moved_NT2 = corner_NT2[:, 1:] - corner_NT2[:, :-1]
    for action, way in enumerate([(-2, 0), (0, 2), (2, 0), (0, -2)]):  # up, right, down, left; walls and the ball are in the way of some
        moves = Counter(tuple(move) for move in moved_NT2[one.action == action].tolist() if any(move))
        assert moves.most_common(1)[0][0] == way
    assert not moved_NT2[one.action == 4].any(-1).float().mean() > 0.3  # waiting: only where the ball hides the corner


def test_a_resumed_run_is_the_same_run(tmp_path, monkeypatch):
    cfg = tiny_config(checkpoint_every=4)
    monkeypatch.setattr(genie, "frames_per_cpu_second", lambda *_: 0.0)
    real = genie.Stage.learn
    monkeypatch.setattr(genie, "step_of", lambda *args: real(*args), raising=False)
    monkeypatch.setattr(genie.Stage, "learn", lambda *args: genie.step_of(*args))
    for call in (3, 9, 16):  # in each of the three stages
        folder = tmp_path / str(call)
        patched = monkeypatch
        with patched.context() as inner:
            assert len(assert_resumes(genie, cfg, folder, inner, ends_in="step_of", call=call)) == 9


def test_the_dynamics_alone_is_trained_on_another_runs_tokens_and_actions(tmp_path):
    cfg = tiny_config()
    assert genie.main(cfg, tmp_path / "whole", False) == 0
    blind = tiny_config(begin_with=tmp_path / "whole", dynamics=DynamicsConfig(width=16, heads=1, steps=4, batch=3, controlled=False))
    assert genie.main(blind, tmp_path / "blind", False) == 0
    (_, whole), (_, other) = load_run(tmp_path / "whole"), load_run(tmp_path / "blind")
    for name in ("tokenizer", "actions"):
        for x, y in zip(getattr(whole, name).parameters(), getattr(other, name).parameters(), strict=True):
            assert torch.equal(x, y)
    steps = [json.loads(line)["step"] for line in (tmp_path / "blind" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [14, 16]
    assert json.loads((tmp_path / "blind" / "result.json").read_text())["parameters"]["dynamics"] > 1000
    with pytest.raises(ConfigError, match=r"begin_with: .*whole: its actions differ from this recipe's, expected the same"):
        genie.main(tiny_config(begin_with=tmp_path / "whole", actions=ActionsConfig(codes=5)), tmp_path / "third", False)
    with pytest.raises(ConfigError, match=r"nowhere: holds no genie\.pt"):
        genie.main(tiny_config(begin_with=tmp_path / "nowhere"), tmp_path / "fourth", False)


def test_a_folder_of_gifs_can_be_learnt_from(tmp_path):
    for i in range(8):
        images = [Image.new("RGB", (20, 10), (20 * t, 10 * i, 100)) for t in range(4)]
        images[0].save(tmp_path / f"{i}.gif", save_all=True, append_images=images[1:])
    films = {"kind": "folder", "path": str(tmp_path), "height": 8, "width": 16}
    cfg = build(Config, [("r", {"kind": "genie", "films": films, "frames": 4})])
    cfg = Config(films=cfg.films, frames=4, held_out=2, **TINY)
    assert genie.main(cfg, tmp_path.parent / "gifs", False) == 0
    result = json.loads((tmp_path.parent / "gifs" / "result.json").read_text())
    assert "bits" not in result["actions"]  # nobody knows what was done
    assert Image.open(tmp_path.parent / "gifs" / "pictures" / "0.png").size == (16, 8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"films": WorldConfig(env=CatchConfig())}, r"films.env: catch: shows \(50,\), expected pictures"),
        ({"films": WorldConfig(env=PlatformerConfig(limit=3))}, "an episode ended within a clip of 5 frames, expected longer ones"),
        ({"tokenizer": TokenizerConfig(patch=5)}, "tokenizer.patch: found 5, expected a divisor of the pictures' 16 x 16 pixels"),
        ({"device": "cuda"}, "device: found cuda, .*no GPU"),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_folder_is_taken(changes, said, tmp_path):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=said):
        genie.main(Config(**changes), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"tokenizer": {"heads": 5}}, "tokenizer.width: found 48, expected a multiple of heads = 5"),
        ({"frames": 2}, "frames: .*greater than or equal to 3"),
        ({"films": {"kind": "tape"}}, "films.kind: found 'tape', expected one of world, folder"),
    ],
)
def test_a_wrong_recipe_is_one_line(tree, said):
    with pytest.raises(ConfigError, match=said):
        build(Config, [("r", {"kind": "genie"} | tree)])


def test_films_that_are_none_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"films.path: .*nothing: no such folder"):
        genie.main(
            build(Config, [("r", {"kind": "genie", "films": {"kind": "folder", "path": str(tmp_path / "nothing")}})]),
            tmp_path / "run",
            False,
        )
