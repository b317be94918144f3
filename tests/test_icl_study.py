"""A study of learning in context goes from recipes to pooled curves by one call, and a second call does nothing again."""

from pathlib import Path

import pytest
import yaml

from posttrain.config import ConfigError, build, read_yaml
from posttrain.evaluation.icl.run import Suite
from posttrain.icl_study import Config, main, pooled

ROOT = Path(__file__).parents[1]
MODEL = {
    "kind": "icl_pretrain",
    "model": {"hidden_size": 16, "layers": 1, "heads": 2, "mlp_size": 16, "context": 256},
    "families": {"linear": {"kind": "linear", "dimensions": [3]}},
    "steps": 20,
    "tokens": 64,
    "lengths": {"longest": 64, "grow_steps": 10},
}
SUITE = {
    "kind": "icl",
    "task": {"kind": "linear", "dimensions": 3, "largest": 8, "signed": True, "named": True, "per_class": 16, "test_per_class": 5},
    "shots": [1, 8],
    "seeds": [0, 1],
    "rules": {"near": None},
}


def study(folder: Path, **changed) -> Config:
    for name, tree in (("model", MODEL), ("suite", SUITE)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    curves = {"planes": {"model": "small", "suite": str(folder / "suite.yaml")}}
    tree = {"kind": "icl_study", "models": {"small": str(folder / "model.yaml")}, "curves": curves, "seeds": [0, 1]}
    return build(Config, [("study.yaml", tree | changed)])


def test_models_of_all_seeds_are_trained_and_their_curves_pooled(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(study(tmp_path), out, resume=False) == 0
    points = pooled([out / f"seed{seed}" / "planes" for seed in (0, 1)]).points
    assert [(point.shots, point.items) for point in points if not point.baseline] == [(1, 20), (8, 20)]  # ten items of two planes
    assert all(len(point.seeds) == 4 for point in points)  # two models, two planes each
    assert {point.arm for point in points if point.baseline} == {"k-nearest neighbours (k=5)", "logistic regression"}
    assert (out / "planes.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "table.txt").read_text() in capsys.readouterr().out
    before = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in (".jsonl", ".safetensors", ".txt")}
    assert main(study(tmp_path), out, resume=True) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_a_curve_of_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"curves.planes: names model 'smal', expected one of models; did you mean 'small'"):
        study(tmp_path, curves={"planes": {"model": "smal", "suite": "suite.yaml"}})


def test_a_recipe_of_another_kind_is_refused_before_anything_runs(tmp_path):
    cfg = study(tmp_path)
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"kind": "score"}))
    with pytest.raises(ConfigError, match="found kind 'score', expected one of icl_pretrain, sft"):
        main(cfg, tmp_path / "out", resume=False)
    assert not (tmp_path / "out").exists()


def test_the_study_in_the_repository_resolves_and_its_suites_ask_what_its_models_can_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    cfg = build(Config, [read_yaml("recipes/manyshot_tiny/study.yaml")])
    for drawn in cfg.curves.values():
        suite = build(Suite, [read_yaml(drawn.suite)])
        family = next(iter(read_yaml(cfg.models[drawn.model])[1]["families"].values()))
        assert {arm.task.kind for arm in suite.arms.values() if arm.task} | {suite.task.kind} == {family["kind"]}
