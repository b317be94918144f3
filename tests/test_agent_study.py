"""A study of agents goes from recipes to a table and a picture by one call, and a second call does nothing again."""

import json
from pathlib import Path

import pytest
import yaml

from posttrain.agent_study import Config, _job, _picture, main, result_of, table
from posttrain.config import ConfigError, build

ROOT = Path(__file__).parents[1]
RECIPE = {"kind": "muesli", "env": {"kind": "goal_grid", "n": 3, "limit": 6}, "env_steps": 512, "num_envs": 8, "width": 8, "hidden": 8}
QUICK = {"eval_episodes": 8, "final_episodes": 32, "batch": 4, "replay_steps": 1000}
PANEL = {"title": "Success", "metrics": {"score": "success"}, "against": "slow"}


def study(folder: Path, **changed) -> Config:
    (folder / "agent.yaml").write_text(yaml.safe_dump(RECIPE))
    runs = {
        "fast": {"recipe": str(folder / "agent.yaml"), "label": "fast"},
        "slow": {"recipe": str(folder / "agent.yaml"), "changes": {"learning_rate": 1e-6}, "label": "slow"},
    }
    tree = {"kind": "agent_study", "title": "Two rates", "runs": runs, "seeds": [0, 1], "panels": [PANEL], "overrides": QUICK, "workers": 1}
    return build(Config, [("study.yaml", tree | changed)])


def test_runs_of_all_seeds_end_in_one_table_and_a_second_call_runs_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(study(tmp_path), out, resume=False) == 0
    text = (out / "table.md").read_text()
    scores = {(name, seed): result_of(out / f"seed{seed}" / name)["score"] for name in ("fast", "slow") for seed in (0, 1)}
    assert f"| fast | {scores['fast', 0]:.3f} | {scores['fast', 1]:.3f} | " in text
    assert yaml.safe_load((out / "seed1" / "slow" / "config.yaml").read_text())["learning_rate"] == 1e-6
    assert text in capsys.readouterr().out
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")}
    assert main(study(tmp_path, seeds=[0, 1, 2]), out, resume=True) == 0  # a third seed joins, the runs of the others stay
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "seed2" / "fast" / "result.json").exists()


def test_a_run_takes_the_model_of_an_earlier_one_of_its_seed(tmp_path):
    (tmp_path / "encoder.yaml").write_text(
        yaml.safe_dump({"kind": "clip_encoder", "n": 3, "width": 8, "layers": 1, "steps": 2, "batch": 8})
    )
    judged = {"kind": "clip_reward", "env": {"n": 3, "layouts": 9}, "env_steps": 0, "offline_pictures": 30}
    (tmp_path / "judged.yaml").write_text(yaml.safe_dump(judged))
    runs = {
        "encoder": {"recipe": str(tmp_path / "encoder.yaml"), "label": "encoder"},
        "reward": {"recipe": str(tmp_path / "judged.yaml"), "model": "encoder", "label": "reward"},
    }
    panel = {"title": "Reward", "metrics": {"offline.average_precision": "average precision"}, "runs": ["reward"]}
    assert main(study(tmp_path, runs=runs, panels=[panel], overrides={}), tmp_path / "out", resume=False) == 0
    for seed in (0, 1):
        recorded = yaml.safe_load((tmp_path / "out" / f"seed{seed}" / "reward" / "config.yaml").read_text())
        assert recorded["model"] == str(tmp_path / "out" / f"seed{seed}" / "encoder" / "model")
    for seed in (0, 1):  # what is finished is not waited for, by workers either
        (tmp_path / "out" / f"seed{seed}" / "reward" / "result.json").unlink()
    cfg = study(tmp_path, runs=runs, panels=[panel], overrides={}, workers=2)
    assert main(cfg, tmp_path / "out", resume=True) == 0
    assert _job(cfg, cfg.runs["reward"], tmp_path / "out" / "seed0" / "reward", 0).needs == {tmp_path / "out" / "seed0" / "encoder"}
    with pytest.raises(ConfigError, match=r"runs.reward: names 'encodr', expected an earlier run; did you mean 'encoder'"):
        study(tmp_path, runs=runs | {"reward": runs["reward"] | {"model": "encodr"}}, panels=[panel])


def test_the_table_sets_runs_beside_another_paired_by_seed(tmp_path):
    cfg = study(tmp_path)
    results = {"fast": [{"score": 0.9}, {"score": 0.8}], "slow": [{"score": 0.6}, {"score": 0.4}]}
    fast, slow = table(cfg, cfg.panels[0], results).splitlines()[-2:]
    # differences .3 and .4: mean .35, standard error .05, Student's t of one degree of freedom 12.706
    assert fast.startswith("| fast | 0.900 | 0.800 | 0.850 [0.215, 1.485] | 0.350 [-0.285, 0.985] |")
    assert fast.endswith("| – |")  # slow's own interval, .5 -+ 1.27, reaches below 0: no ratio to it is known
    assert slow == "| slow | 0.600 | 0.400 | 0.500 [-0.771, 1.771] |  |  |"
    results["slow"] = [{"score": 0.45}, {"score": 0.4}]
    assert "| 2.00 [2.00, 2.00] |" in table(cfg, cfg.panels[0], results)


def test_a_ratio_of_two_numbers_is_taken_seed_by_seed(tmp_path):
    cfg = study(tmp_path, panels=[{"title": "Gain", "metrics": {"by.8 / by.1": "gain"}, "runs": ["fast"]}])
    results = {"fast": [{"by.1": 0.5, "by.8": 1.0}, {"by.1": 0.2, "by.8": 0.3}]}
    # 2 and 1.5: not the ratio of the means, 1.857; standard error .25
    assert table(cfg, cfg.panels[0], results).splitlines()[-1] == "| fast | 2.000 | 1.500 | 1.750 [-1.427, 4.927] |"


def test_a_curve_is_a_line_for_each_run_and_bars_are_groups_of_them(tmp_path):
    panel = {"title": "By episode", "metrics": {"1": "first", "2": "second"}}
    results = {"fast": [{"1": 0.1, "2": 0.3}], "slow": [{"1": 0.2, "2": 0.4}]}
    cfg = study(tmp_path, panels=[panel | {"curve": True}, panel])
    curve, bars = (_picture(cfg, each, results) for each in cfg.panels)
    assert (curve.places, curve.lines, curve.bars, curve.ordered) == (
        ["first", "second"], {"fast": [[0.1], [0.3]], "slow": [[0.2], [0.4]]}, False, True,
    )  # fmt: skip
    assert (bars.places, bars.lines, bars.bars) == (["fast", "slow"], {"first": [[0.1], [0.2]], "second": [[0.3], [0.4]]}, True)


def test_what_a_panel_cannot_show_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"panels.0: names run 'slov', expected one of runs; did you mean 'slow'"):
        study(tmp_path, panels=[PANEL | {"against": "slov"}])
    cfg = study(tmp_path, panels=[PANEL | {"metrics": {"scores": "success"}}])
    with pytest.raises(ConfigError, match="names the number 'scores', but run 'slow' has score; did you mean 'score'"):
        table(cfg, cfg.panels[0], {"fast": [{"score": 1.0}], "slow": [{"score": 1.0}]})


def test_a_recipe_that_is_no_agents_is_refused_before_anything_runs(tmp_path):
    cfg = study(tmp_path)
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump({"kind": "muesly"}))
    with pytest.raises(ConfigError, match="found kind 'muesly', expected an agent's; did you mean 'muesli'"):
        main(cfg, tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_recipe_in_the_place_of_one_is_not_taken_for_it(tmp_path):
    out = tmp_path / "out"
    assert main(study(tmp_path, seeds=[0]), out, resume=False) == 0
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(RECIPE | {"width": 16}))
    changed = build(Config, [("study.yaml", yaml.safe_load((out / "config.yaml").read_text()))])
    with pytest.raises(ConfigError, match="the recipe differs from the recorded one in: width"):
        main(changed, out, resume=True)
    assert json.loads((out / "seed0" / "fast" / "result.json").read_text())
